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


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
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
        "image 12/25, series 3/14, Vytorin 10/20",
    ],
)
def test_fractions_ratios_and_scores_stay(text: str) -> None:
    assert clean(text) == text
