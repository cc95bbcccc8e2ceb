"""Days without a year: those that something announces are masked, fractions and scores stay."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.deidentify.text import clean_text


def clean(note: str) -> str:
    return clean_text(note, Person("P1", -1_000), DeidentifySettings())[0]


@settings(deadline=None)
@given(
    st.sampled_from(("on", "since", "until", "Seen", "CXR", "film of", "admitted on", "As of")),
    st.dates(date(2020, 1, 1), date(2020, 12, 31)),
    st.booleans(),
)
def test_no_announced_day_survives(cue: str, day: date, day_first: bool) -> None:
    written = f"{day.day}/{day.month}" if day_first else f"{day:%m/%d}"
    assert clean(f"{cue} {written}.") == f"{cue} [DATE]."


@settings(deadline=None)
@given(
    st.sampled_from(
        ("Chest pain {}.", "DNR per son {}", "({})", "Hgb 8.2 {}, stable", "hip fx {}")
    ),
    st.dates(date(2020, 1, 1), date(2020, 12, 31)).filter(lambda day: day.day > 12),
    st.booleans(),
)
def test_no_day_above_12_survives_beside_plain_words(note: str, day: date, day_first: bool) -> None:
    written = f"{day.day}/{day.month}" if day_first else f"{day:%m/%d}"
    if written == "24/7":  # round the clock
        return
    assert clean(note.format(written)) == note.format("[DATE]")


@settings(deadline=None)
@given(
    st.sampled_from(
        (
            *("GCS {}", "MMSE today was {}", "scored {}", "{} on the MoCA", "PHQ-9: {}"),
            *(
                "nodes ({})",
                "LN were positive in {}",
                "{} positive nodes",
                "{} cores",
                "{} biopsies",
            ),
            *("fraction {}", "image {}", "day {}", "every {}", "{} mm", "{} pills", "H/H today {}"),
        )
    ),
    st.integers(1, 12),
    st.integers(13, 31),
)
def test_no_score_or_count_is_taken_for_a_day(note: str, part: int, whole: int) -> None:
    assert clean(note.format(f"{part}/{whole}")) == note.format(f"{part}/{whole}")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("3/5 CXR better, 3/14 RN note", "[DATE] CXR better, [DATE] RN note"),
        ("Symptom onset 3/5. Stent 3/5", "Symptom onset [DATE]. Stent [DATE]"),
        ("Tested positive for COVID 3/5", "Tested positive for COVID [DATE]"),
        ("No change c/w 3/5, compared to 3/6", "No change c/w [DATE], compared to [DATE]"),
        ("WBC 12.3 (3/5), K 4.1 mmol/L (3/6)", "WBC 12.3 ([DATE]), K 4.1 mmol/L ([DATE])"),
        ("3/5 0730: well\n3/6 @ 7: well", "[DATE] 0730: well\n[DATE] @ 7: well"),
        ("CT of the chest 3/5, last chemo 3/6", "CT of the chest [DATE], last chemo [DATE]"),
        ("Mon 3/5, to OR 3/6, home 3/7", "Mon [DATE], to OR [DATE], home [DATE]"),
        ("3/14 L arm, 3/14 H&P, 3/14 cycle 2", "[DATE] L arm, [DATE] H&P, [DATE] cycle 2"),
        ("12/29 MMSE 24/30, MMSE on 12/29", "[DATE] MMSE 24/30, MMSE on [DATE]"),
        ("off vent 12/29, blurred vision 12/29", "off vent [DATE], blurred vision [DATE]"),
        ("lisinopril 3/14", "lisinopril [DATE]"),
        (
            "from 12/5, cultures 10/3 and MRI without 9/4",
            "from [DATE], cultures [DATE] and MRI without [DATE]",
        ),
        ("Seen 3/14, 3/15 and 4/2.", "Seen [DATE], [DATE] and [DATE]."),
        ("admitted 3/5-3/7", "admitted [DATE]-[DATE]"),
        ("on 3/5-7", "on [DATE]"),
        ("from 12/25 to 12/28", "from [DATE] to [DATE]"),
        ("CXR (12/25): clear", "CXR ([DATE]): clear"),
        ("on 12/25 pain had gone", "on [DATE] pain had gone"),
        ("gesehen am 14.3. und", "gesehen am [DATE] und"),
        ("on 3/14/20", "on [DATE]"),
        ("Last dose 3/14, s/p CABG 3/15", "Last dose [DATE], s/p CABG [DATE]"),
        ("discharged home (12/25)", "discharged home ([DATE])"),
        ("Ward:\n3/14 - no fever\n3/15: pain", "Ward:\n[DATE] - no fever\n[DATE]: pain"),
    ],
)
def test_days_without_a_year_are_masked(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "6/12 months, for 3/7 days, seen 3/12 months ago",
        "5/5 strength, strength on left 4/5, on 4/5 strength, power 3/5",
        "BP 120/80, BP on arrival 110/70, on 12/8 mmHg",
        "1/2 tab, on 1/2 tab, on 1/2 NS, started 1/2 dose, on 1/2 normal saline",
        "L4/5, C5/6, at L4/5, CT of L4/5",
        "20/40 vision, vision of 20/25, 20/20 on the left",
        "grade 3/6 murmur, systolic murmur of 2/6",
        "pain from 8/10 to 3/10, pain of 7/10, last 3/10 pain",
        "MMSE 12/30, GCS 11/15, GCS of 3/15 points, Apgar 8/9",
        "cultures 2/4 bottles, biopsy 3/12 cores, received 4/6 cycles, on 2/3 occasions",
        "on 35/40 and on 13/13",
        "started BiPAP 12/5, received H/H 10/30, seen with H/H 9/12, s/p 3/4 of a course",
        "3/5 - strength in the arm",
        "24/7 care, UTI 2/2 stones, 12/14 taper, 5/16 inch, ratio 1/16, titer 1/20",
        "VA 6/24, vision of 6/18, 6/24 in the right eye, pinhole: 6/18",
        "BiPAP 15/5, IPAP/EPAP 18/8, PS at 14/6, BUN/Cr 24/1, H&H 10/30",
        "Vytorin 10/20, enalapril 10/25, 10/20 daily, amlodipine 5/20, 10/25 po",
        "strength 4/5 compared to 3/5, now 4/5 vs 3/5, 4/5 or 3/5, strength today 4/5",
        "pain 8 (8/10), power 3/5 CT, last pain 3/10, last MMSE 12/30",
        "removed 2/3 of the thyroid, seen 3/7 ago, home on 1/2 tab, 4/24 hourly",
        "PHQ-9/27, IL-12/23, CK 7/20, IL 12/23, HPV 6/11, increased to 12/5",
        "image 12/25, series 3/14, Vytorin 10/20",
    ],
)
def test_fractions_ratios_and_scores_stay(text: str) -> None:
    assert clean(text) == text
