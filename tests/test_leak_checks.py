"""Each check on a cohort made by hand: what it finds, what it leaves alone, and what helps."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medfuse.config import Box, PrepareSettings, Task, TaskKind, VoiceSettings
from medfuse.data.cohort import Split
from medfuse.data.dicom import decode_frames
from medfuse.leaks.check import CHECKS, check_table
from medfuse.leaks.checks.absence import check_absence
from medfuse.leaks.checks.acquisition import check_acquisition, parse_dates, split_name
from medfuse.leaks.checks.columns import check_columns
from medfuse.leaks.checks.duplicates import check_duplicates, join_pairs
from medfuse.leaks.checks.marks import check_marks
from medfuse.leaks.checks.notes import (
    check_label_words,
    check_note_words,
    check_sources,
    check_templates,
)
from medfuse.leaks.checks.patients import check_labels, check_splits
from medfuse.leaks.checks.recordings import check_background, check_bandwidths, check_duration
from medfuse.leaks.examined import Examined, make_targets
from medfuse.leaks.facts import StudyFacts
from medfuse.leaks.image_facts import read_image_facts
from medfuse.leaks.plant import PLANTS, copy_image
from medfuse.leaks.report import LeakFinding, Remedy
from medfuse.leaks.words import find_proper_nouns, find_words, name_words
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from tests.leak_cohorts import (
    TASK,
    in_split,
    make_examined,
    make_image,
    make_rows,
    make_voice,
    with_file,
    with_notes,
)

RNG = np.random.default_rng(11)
LABELS = np.array([1.0, 0.0] * 60)
ROWS = make_rows(LABELS.tolist())
TOLD = LABELS.astype(int)
WORDS = ("cough", "fever", "tired", "dyspnoea", "headache", "chills", "nausea", "rash", "pain")


def random_note(k: int, length: int = 12) -> str:
    rng = np.random.default_rng(k)
    return " ".join(rng.choice(WORDS, length))


def only(findings: list[LeakFinding]) -> LeakFinding:
    (finding,) = findings
    return finding


# Patients


def test_a_patient_in_two_splits_is_found_and_grouped() -> None:
    rows = [in_split(row, Split.TRAIN) for row in make_rows([1, 0, 1, 0], studies_each=2)]
    assert not check_splits(make_examined(rows))
    rows[3] = in_split(rows[3], Split.TEST)
    finding = only(check_splits(make_examined(rows)))
    assert (finding.kind, finding.severity, finding.count) == ("patient-in-splits", "fail", 2)
    assert finding.remedy is not None
    assert finding.remedy.group == (("S2", "S3"),)


def test_labels_of_one_patient_and_day_must_agree() -> None:
    rows = [replace(row, date="2024-02-03") for row in make_rows([1, 0, 1, 1], studies_each=2)]
    finding = only(check_labels(make_examined(rows)))
    assert (finding.severity, finding.examples) == ("fail", ("S0", "S1"))
    later = [replace(rows[0], date="2024-05-03"), *rows[1:]]
    assert not check_labels(make_examined(later))


def test_a_patient_who_differs_where_all_others_agree_is_a_warning() -> None:
    labels = [float(k % 2) for k in range(15) for _ in range(2)]
    assert not check_labels(make_examined(make_rows(labels, studies_each=2)))
    labels[0] = 1 - labels[0]
    finding = only(check_labels(make_examined(make_rows(labels, studies_each=2))))
    assert (finding.severity, finding.count) == ("warn", 2)
    # Where labels are the study's, not the patient's, nothing is odd.
    mixed = [1.0, 0.0] * 15
    assert not check_labels(make_examined(make_rows(mixed, studies_each=2)))


# Duplicates


def phantom(k: int) -> np.ndarray:
    """Smooth noise, another for each k."""
    rng = np.random.default_rng(k)
    small = Image.fromarray((255 * rng.random((24, 24))).astype(np.uint8))
    return np.asarray(small.resize((400, 360), Image.Resampling.BICUBIC), np.float32) / 255


def as_thumbnail(image: bytes) -> np.ndarray:
    prepare = PrepareSettings()
    return np.asarray(read_image_facts([image], prepare.image, prepare.limits).thumbnails[0])


def as_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(255 * image).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_changed_copy_of_another_patients_image_is_found() -> None:
    images = [as_thumbnail(as_png(phantom(k))) for k in range(40)]
    rows = [with_file(row) for row in ROWS[:41]]
    facts = [StudyFacts(image=make_image(thumbnail=own)) for own in images]
    copied = as_thumbnail(copy_image(phantom(7), np.random.default_rng(0)))
    copy = StudyFacts(image=make_image(thumbnail=copied))
    assert not check_duplicates(make_examined(rows[:40], facts))
    finding = only(check_duplicates(make_examined(rows, [*facts, copy])))
    assert (finding.kind, finding.severity) == ("duplicate-image", "fail")
    assert finding.remedy is not None
    assert finding.remedy.group == (("S7", "S40"),)
    # The same patient may have the same image twice, as long as the splits are by patient.
    same = [*rows[:40], replace(rows[40], patient_id=rows[7].patient_id)]
    assert not check_duplicates(make_examined(same, [*facts, copy]))


def test_the_films_most_alike_of_thousands_are_no_copies_and_a_copy_of_one_is() -> None:
    """These two pairs are the nearest of the 15,564 films of `medfuse cohort --studies 12000`."""
    numbers = [2_418, 11_859, 2_233, 8_569, *range(30)]
    films = [make_study(CohortOptions(), number).study.images[0] for number in numbers]
    facts = [StudyFacts(image=make_image(thumbnail=as_thumbnail(film))) for film in films]
    rows = [with_file(row) for row in ROWS[: len(films) + 1]]
    assert not check_duplicates(make_examined(rows[:-1], facts))
    prepare = PrepareSettings()
    native = decode_frames(films[:1], prepare.image, prepare.limits)[0].image
    rng = np.random.default_rng(0)
    for _ in range(5):
        copied = as_thumbnail(copy_image(native, rng))
        copy = StudyFacts(image=make_image(thumbnail=copied))
        finding = only(check_duplicates(make_examined(rows, [*facts, copy])))
        assert finding.examples == ("S0", f"S{len(films)}")


def test_a_crop_of_another_patients_image_is_found() -> None:
    images = [as_thumbnail(as_png(phantom(k))) for k in range(40)]
    images.append(as_thumbnail(as_png(phantom(7)[10:-14, 16:-11])))  # 6.7 % of either side
    facts = [StudyFacts(image=make_image(thumbnail=own)) for own in images]
    finding = only(check_duplicates(make_examined([with_file(r) for r in ROWS[:41]], facts)))
    assert finding.examples == ("S7", "S40")


def test_a_mark_that_films_share_makes_no_copies_and_one_that_is_added_hides_none() -> None:
    def film(k: int, *, marked: bool) -> np.ndarray:
        """A film of little contrast, as of lungs; a mark is the brightest thing in it."""
        picture = Image.fromarray(np.round(50 + 110 * phantom(k)).astype(np.uint8))
        if marked:
            draw = ImageDraw.Draw(picture)
            draw.rectangle((20, 20, 110, 50), fill=255)
            draw.text((220, 310), "PORTABLE AP", fill=255, font_size=24)
        return np.asarray(picture, np.float32) / 255

    films = [as_thumbnail(as_png(film(k, marked=k < 8))) for k in range(40)]
    facts = [StudyFacts(image=make_image(thumbnail=own)) for own in films]
    rows = [with_file(row) for row in ROWS[:41]]
    assert not check_duplicates(make_examined(rows[:40], facts))
    rng = np.random.default_rng(0)
    for original, marked in ((5, True), (5, False), (17, True)):
        copied = as_thumbnail(copy_image(film(original, marked=marked), rng))
        copy = StudyFacts(image=make_image(thumbnail=copied))
        finding = only(check_duplicates(make_examined(rows, [*facts, copy])))
        assert finding.examples == (f"S{original}", "S40")


def test_a_copy_of_a_film_that_is_mostly_black_is_found() -> None:
    def place(image: np.ndarray) -> np.ndarray:
        black = np.zeros((800, 1_200), np.float32)
        black[:360, :400] = image
        return black

    images = [as_thumbnail(as_png(place(phantom(k)))) for k in range(40)]
    images.append(as_thumbnail(copy_image(place(phantom(7)), np.random.default_rng(1))))
    facts = [StudyFacts(image=make_image(thumbnail=own)) for own in images]
    finding = only(check_duplicates(make_examined([with_file(r) for r in ROWS[:41]], facts)))
    assert finding.examples == ("S7", "S40")


def test_a_note_that_one_patient_has_twice_is_no_copy() -> None:
    rows = [ROWS[0], replace(ROWS[1], patient_id=ROWS[0].patient_id)]
    assert not check_duplicates(with_notes(rows, [random_note(1)] * 2))


def test_a_note_of_which_words_were_left_out_or_most_was_is_a_copy() -> None:
    words = random_note(1, length=40).split()
    gaps = " ".join(word for i, word in enumerate(words) if i % 10 != 4)
    excerpt = " ".join(words[:14])
    apart = " ".join([*random_note(2, length=15).split(), *words[:10]])  # 7 runs of 4 words
    for note, found in ((gaps, True), (excerpt, True), (apart, False)):
        findings = check_duplicates(with_notes(ROWS[:2], [" ".join(words), note]))
        assert [finding.kind for finding in findings] == ["duplicate-note"] * found


def test_copies_within_one_split_are_a_warning_and_across_splits_a_failure() -> None:
    note = random_note(1)
    for other, severity in ((Split.TRAIN, "warn"), (Split.TEST, "fail")):
        rows = [in_split(ROWS[0], Split.TRAIN), in_split(ROWS[1], other)]
        finding = only(check_duplicates(with_notes(rows, [note, note])))
        assert (finding.kind, finding.severity) == ("duplicate-note", severity)
        assert "differ in covid.covid19" in finding.message


def test_where_files_carry_the_patient_a_copy_is_dropped_instead() -> None:
    rows = [replace(row, check_patient_id=True) for row in ROWS[:2]]
    finding = only(check_duplicates(with_notes(rows, [random_note(1)] * 2)))
    assert finding.remedy is not None
    assert finding.remedy.drop == ("S1",)


def test_a_template_that_all_notes_share_is_no_copy() -> None:
    template = "Laboratory values around the examination are given here in the usual order : "
    notes = [template + random_note(k) for k in range(60)]
    assert not check_duplicates(with_notes(ROWS[:60], notes))
    notes[3] = notes[8].replace("cough", "Cough,")
    finding = only(check_duplicates(with_notes(ROWS[:60], notes)))
    assert finding.remedy is not None
    assert finding.remedy.group == (("S3", "S8"),)


def test_a_noisy_copy_of_another_patients_recording_is_found() -> None:
    sounds = [np.repeat(RNG.standard_normal((8, 16)), 6, axis=0) for _ in range(20)]
    sounds.append(0.9 * sounds[4][2:] + 0.05 * RNG.standard_normal((46, 16)))
    prints = [sound.astype(np.float32) for sound in sounds]
    facts = [StudyFacts(voice=make_voice(fingerprint=own)) for own in prints]
    rows = [with_file(row) for row in ROWS[:21]]
    finding = only(check_duplicates(make_examined(rows, facts)))
    assert (finding.kind, finding.count) == ("duplicate-recording", 2)
    assert not check_duplicates(make_examined(rows[:20], facts[:20]))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_joined_pairs_are_the_parts_that_hang_together(pairs: list[tuple[int, int]]) -> None:
    groups = join_pairs(pairs)
    members = [i for group in groups for i in group]
    assert len(members) == len(set(members))
    where = {i: k for k, group in enumerate(groups) for i in group}
    assert all(where[i] == where[j] for i, j in pairs)


# Acquisition


@pytest.mark.parametrize(
    ("name", "kind", "cells"),
    [
        ("hospital", "site", ["A", "B"]),
        ("record_date", "date", ["2020-04-23", "2021-07-09"]),
        ("license", "licence", ["CC0", "CC BY 3.0"]),
        ("source_url", "source", ["https://a.example/%d", "https://b.example/%d"]),
        ("deviceModel", "scanner", ["m1", "m2"]),
        ("file_format", "format", ["png", "jpg"]),
        ("image_width", "size", ["1024", "2048"]),
        ("original_rate_hz", "sampling-rate", ["44100", "4000"]),
    ],
)
def test_a_column_that_says_how_a_study_was_made_fails_by_its_kind(
    name: str, kind: str, cells: list[str]
) -> None:
    own = [cells[k] % i if "%" in cells[k] else cells[k] for i, k in enumerate(TOLD)]
    finding = only(check_acquisition(make_examined(ROWS, others={name: own})))
    assert (finding.kind, finding.severity, finding.target) == (kind, "fail", "covid.covid19")
    assert finding.figure is not None
    assert finding.figure.value == 1.0
    mixed = [own[k] for k in RNG.permutation(len(own))]
    assert not check_acquisition(make_examined(ROWS, others={name: mixed}))
    assert not check_acquisition(make_examined(ROWS, others={name: own}, ignore=(name,)))
    assert not check_acquisition(make_examined(ROWS, others={name: own}, clinical=(name,)))


def test_a_column_of_another_name_is_acquisition_where_settings_say_so() -> None:
    own = {"l_c": [str(k) for k in TOLD]}
    assert not check_acquisition(make_examined(ROWS, others=own))
    assert only(check_acquisition(make_examined(ROWS, others=own, acquisition=("l_c",))))


def test_a_certain_but_small_effect_is_a_warning() -> None:
    labels = np.array([1.0, 0.0] * 300)
    rows = make_rows(labels.tolist())
    site = ["A" if label and i < 80 else "B" for i, label in enumerate(labels)]
    rows = tuple(replace(row, site=own) for row, own in zip(rows, site, strict=True))
    finding = only(check_acquisition(make_examined(rows)))
    assert finding.severity == "warn"
    assert finding.figure is not None
    assert finding.figure.value == pytest.approx(0.5 + 40 / 300 / 2, abs=0.02)


def test_a_site_of_both_labels_is_balanced_and_one_of_one_label_goes() -> None:
    site = ["A" if k else "B" for k in TOLD]
    site[0], site[1] = "B", "A"
    site[2] = site[3] = "C"
    rows = [replace(row, site=own) for row, own in zip(ROWS, site, strict=True)]
    finding = only(check_acquisition(make_examined(rows)))
    assert finding.remedy is not None
    kept = [row for row in rows if row.study_id not in finding.remedy.drop]
    assert {row.site for row in kept} >= {"C"}
    assert not check_acquisition(make_examined(kept))


def test_a_rate_is_moot_once_all_recordings_are_low_passed() -> None:
    own = {"original_rate_hz": ["44100" if k else "4000" for k in TOLD]}
    rows = [with_file(row) for row in ROWS]
    facts = [StudyFacts(voice=make_voice())] * len(rows)
    finding = only(check_acquisition(make_examined(rows, facts, own)))
    assert finding.remedy is not None
    assert finding.remedy.lowpass_hz == 1_800  # nine tenths of half of 4,000
    voice = VoiceSettings(lowpass_hz=1_800)
    low = PrepareSettings(voice=voice)
    assert not check_acquisition(make_examined(rows, facts, own, prepare=low))


def test_headers_and_names_of_files_count_as_columns_do() -> None:
    rows = [with_file(row) for row in ROWS]
    made = [{"StationName": "R1" if k else "R2"} for k in TOLD]
    facts = [StudyFacts(image=make_image(made=own)) for own in made]
    assert only(check_acquisition(make_examined(rows, facts))).kind == "scanner"
    wide = [StudyFacts(image=make_image(columns=640.0 if k else 512.0)) for k in TOLD]
    assert only(check_acquisition(make_examined(rows, wide))).kind == "size"
    named = [
        replace(row, images=(row.images[0].with_name("mhh_1.dcm" if k else "cidc_1.dcm"),))
        for row, k in zip(rows, TOLD, strict=True)
    ]
    assert only(check_acquisition(make_examined(named))).feature == "image file's name"


def test_names_of_columns_are_split_into_words() -> None:
    assert split_name("ctDate_of-Scan2") == ["ct", "date", "of", "scan"]


def test_dates_are_read_as_people_write_them() -> None:
    for cells in (["2024-01-31", ""], ["20240131", ""], ["31.01.2024", ""], ["2024/01/31", ""]):
        days = parse_dates(cells)
        assert days is not None
        assert days[0] == 738_916
        assert np.isnan(days[1])
    assert parse_dates(["12", "13"]) is None


# Recordings


def test_hum_and_a_louder_room_that_go_with_a_label_fail() -> None:
    rows = [with_file(row) for row in ROWS]
    for key, low, high in (("hum_50_db", 0.0, 30.0), ("background_db", -70.0, -50.0)):
        facts = []
        for k in TOLD:
            voice = make_voice()
            numbers = {**voice.numbers, key: high if k else low}
            facts.append(StudyFacts(voice=replace(voice, numbers=numbers)))
        finding = only(check_background(make_examined(rows, facts)))
        assert (finding.kind, finding.severity) == ("background", "fail")


def test_a_few_recordings_that_reach_higher_are_a_warning_even_if_they_tell_nothing() -> None:
    rows = [with_file(row) for row in ROWS]
    reach = [8_000.0 if i in (0, 2, 4) else 2_000.0 for i in range(len(rows))]
    facts = [StudyFacts(voice=make_voice(bandwidth_hz=own)) for own in reach]
    finding = only(check_bandwidths(make_examined(rows, facts)))
    assert (finding.kind, finding.severity, finding.count) == ("mixed-bandwidth", "warn", 3)
    assert "all of the 3 have covid.covid19" in finding.message
    assert finding.remedy is not None
    assert finding.remedy.lowpass_hz == 1_800
    assert not check_bandwidths(make_examined(rows, [facts[0]] * len(rows)))


def test_length_is_told_and_refuses_nothing() -> None:
    rows = [with_file(row) for row in ROWS]
    facts = [StudyFacts(voice=make_voice(duration_s=4.0 + k)) for k in TOLD]
    assert only(check_duration(make_examined(rows, facts))).severity == "info"


# Marks


def test_a_mark_is_reported_as_a_box_that_covers_it() -> None:
    rows = [with_file(row) for row in ROWS]
    edges = np.zeros((16, 16), np.uint16)
    edges[1, 13:15] = 40
    other = np.zeros((16, 16), np.uint16)
    other[0, 15] = 40  # a side marker in all of them
    facts = [StudyFacts(image=make_image(edges=other + k * edges)) for k in TOLD.astype(np.uint16)]
    finding = only(check_marks(make_examined(rows, facts)))
    assert (finding.kind, finding.severity, finding.count) == ("marks", "fail", 60)
    assert finding.remedy is not None
    (box,) = finding.remedy.blank
    assert box.top < 1 / 16 < 2 / 16 < box.bottom
    assert box.left < 13 / 16 < 15 / 16 < box.right
    assert box.right < 1


def with_borders(**widths: np.ndarray) -> Examined:
    """A cohort of images with flat borders, by side."""
    each = [dict(zip(widths, own, strict=True)) for own in zip(*widths.values(), strict=True)]
    facts = [
        StudyFacts(image=make_image(**{f"flat border, {side}": w for side, w in own.items()}))
        for own in each
    ]
    return make_examined([with_file(row) for row in ROWS], facts)


def test_a_frame_around_the_label_s_images_fails_and_is_blanked_by_its_width() -> None:
    top, right = 0.04 * TOLD, 0.1 * TOLD
    top[np.flatnonzero(TOLD)[:2]] = 0.06
    finding = only(check_marks(with_borders(top=top, left=0 * top, right=right)))
    assert (finding.kind, finding.severity) == ("border", "fail")
    # Widths are rounded to 2 %, so a border may be 1 % wider than is measured.
    assert finding.remedy == Remedy(
        blank=(
            Box(top=0, left=0, bottom=0.07, right=1),
            Box(top=0, left=0.89, bottom=1, right=1),
        )
    )


def test_air_beside_the_body_is_not_blanked() -> None:
    finding = only(check_marks(with_borders(top=0.3 * TOLD)))
    assert finding.kind == "border"
    assert finding.remedy is None  # no row has the label without the air
    some = 0.3 * (TOLD ^ (np.arange(len(TOLD)) % 10 == 0))
    remedy = only(check_marks(with_borders(top=some))).remedy
    assert remedy is not None
    assert remedy.drop
    assert not remedy.blank
    # Nor is a frame whose blank would leave the air to tell the label.
    remedy = only(
        check_marks(with_borders(top=np.where(np.arange(len(some)) < 4, 0.04, some)))
    ).remedy
    assert remedy is not None
    assert not remedy.blank


# Absence and columns


def test_lacking_a_recording_with_the_label_fails() -> None:
    rows = [
        replace(with_file(row), voice=None if k else row.voice)
        for row, k in zip(map(with_file, ROWS), TOLD, strict=True)
    ]
    finding = only(check_absence(make_examined(rows)))
    assert (finding.kind, finding.severity) == ("absence", "fail")
    assert not check_absence(make_examined([with_file(row) for row in ROWS]))


def test_a_column_that_beats_the_image_is_a_warning_and_one_that_does_not_is_none() -> None:
    rows = [with_file(row) for row in ROWS]
    noise = [RNG.integers(0, 255, (64, 64)).astype(np.uint8) for _ in rows]
    values = {"crp": [f"{RNG.normal(4 * k):.2f}" for k in TOLD]}
    blind = [StudyFacts(image=make_image(thumbnail=own)) for own in noise]
    finding = only(check_columns(make_examined(rows, blind, values)))
    assert (finding.kind, finding.severity, finding.feature) == ("column", "warn", "crp")
    seeing = [
        StudyFacts(image=make_image(thumbnail=(own // 2 + 100 * k).astype(np.uint8)))
        for own, k in zip(noise, TOLD, strict=True)
    ]
    assert not check_columns(make_examined(rows, seeing, values))


# Notes


def test_words_that_name_the_label_fail_and_are_masked() -> None:
    notes = [
        random_note(i) + (" Known COVID-19." if k and i < 40 else "") for i, k in enumerate(TOLD)
    ]
    finding = only(check_label_words(with_notes(ROWS, notes)))
    assert (finding.kind, finding.severity, finding.count) == ("label-in-note", "fail", 20)
    assert finding.remedy is not None
    assert finding.remedy.mask_words == ("covid-19",)


def test_words_that_are_as_often_wrong_are_for_reading_alone() -> None:
    notes = [random_note(i) + (" Covid test sent." if i < 30 else "") for i in range(len(ROWS))]
    assert only(check_label_words(with_notes(ROWS, notes))).severity == "info"
    assert not check_label_words(with_notes(ROWS, [random_note(i) for i in range(len(ROWS))]))


def test_a_label_is_named_by_its_synonyms_and_the_settings_words() -> None:
    tasks = (
        Task(name="findings", kind=TaskKind.MULTILABEL, classes=("heart_failure", "covid19")),
        Task(name="grade", kind=TaskKind.ORDINAL, classes=("mild", "severe")),
    )
    named = name_words(tasks, {"covid19": ("Wuhan",)})
    assert {"heart failure", "heart-failure", "chf"} <= set(named["findings.heart_failure"])
    assert {"covid19", "covid-19", "sars-cov-2", "wuhan"} <= set(named["findings.covid19"])
    assert "severe" in named["grade.at_least_severe"]


def test_the_place_in_a_note_fails_and_its_sentence_is_masked() -> None:
    notes = [
        random_note(i) + (". Seen at the Northfield unit." if k else ". Seen at home.")
        for i, k in enumerate(TOLD)
    ]
    findings = check_sources(with_notes(ROWS, notes))
    assert [f.severity for f in findings] == ["fail", "warn"]
    assert findings[0].feature == "unit"
    assert findings[0].remedy is not None
    assert findings[0].remedy.mask_words == ("Seen at the Northfield unit",)
    assert findings[1].feature == "northfield"


def test_a_sentence_that_few_patients_have_is_never_shown() -> None:
    notes = [
        random_note(i) + (". Seen at the Northfield unit." if k else ". Seen at home.")
        for i, k in enumerate(TOLD)
    ]
    notes[1] += " Quimby came to the unit at noon."
    findings = check_sources(with_notes(ROWS, notes))
    assert [f.remedy.mask_words for f in findings if f.remedy] == [
        ("unit",),
        ("Seen at the Northfield unit",),
    ]
    assert not any("quimby" in f.model_dump_json().lower() for f in findings)


def test_a_date_is_shown_by_its_month() -> None:
    days = [f"2024-{3 if k else 8:02}-{1 + i % 28:02}" for i, k in enumerate(TOLD)]
    finding = only(check_acquisition(make_examined(ROWS, others={"scan_date": days})))
    assert (finding.kind, "up to 2024-03'" in finding.message) == ("date", True)


def test_rates_of_the_body_are_no_sampling_rates() -> None:
    rates = {"heart_rate": [str(60 + 40 * k) for k in TOLD]}
    assert not check_acquisition(make_examined(ROWS, others=rates))
    rates = {"recording rate": rates["heart_rate"]}
    assert only(check_acquisition(make_examined(ROWS, others=rates))).kind == "sampling-rate"


def test_a_mark_that_masking_left_is_a_source_word() -> None:
    notes = [random_note(i) + (" [MASKED] suspected" if k else "") for i, k in enumerate(TOLD)]
    assert check_sources(with_notes(ROWS, notes))[0].feature == "masked"


def test_words_of_symptoms_are_evidence_however_telling() -> None:
    notes = [random_note(i) + (" swollen calf" if k else "") for i, k in enumerate(TOLD)]
    assert not check_sources(with_notes(ROWS, notes))


def test_wording_of_one_label_alone_fails_once_enough_patients_have_it() -> None:
    wording = " laboratory values around the examination 12 mg"
    notes = [random_note(i) + (wording if k else "") for i, k in enumerate(TOLD)]
    finding = only(check_templates(with_notes(ROWS, notes)))
    assert (finding.kind, finding.severity, finding.count) == ("note-template", "fail", 60)
    few = [random_note(i) + (wording if k and i < 40 else "") for i, k in enumerate(TOLD)]
    assert not check_templates(with_notes(ROWS, few))
    # Eight in nine, as a sign may be, is evidence.
    mixed = [random_note(i) + (wording if k or i % 16 == 1 else "") for i, k in enumerate(TOLD)]
    assert not check_templates(with_notes(ROWS, mixed))


def test_notes_that_are_nearly_certain_fail_and_good_evidence_is_for_reading() -> None:
    sure = [random_note(i) + (" calf" if k else " knee") for i, k in enumerate(TOLD)]
    finding = only(check_note_words(with_notes(ROWS, sure)))
    assert (finding.kind, finding.severity) == ("note-words", "fail")
    good = [
        random_note(i) + (" calf" if RNG.random() < (0.8 if k else 0.15) else "")
        for i, k in enumerate(TOLD)
    ]
    finding = only(check_note_words(with_notes(ROWS, good)))
    assert finding.severity == "info"
    assert "calf" in finding.message


def test_names_are_words_with_a_capital_inside_sentences_only() -> None:
    notes = [
        "Seen in Lisbon on Monday with an ECG.",
        "Cough and fever. Fever in March.",
        "more " * 9,
    ]
    assert find_proper_nouns(notes) == {"lisbon"}
    german = ["Der Patient hat Husten und Fieber seit Montag", "Die Lunge ist ohne Befund"]
    assert find_proper_nouns(german) == frozenset()


def test_words_keep_their_hyphens_and_lose_their_brackets() -> None:
    assert find_words("[MASKED] SARS-CoV-2, don't (x).") == ["masked", "sars-cov-2", "don't", "x"]


# All together


def test_every_kind_that_is_planted_is_one_that_a_check_names() -> None:
    kinds = {kind for own in CHECKS.values() for kind in own}
    assert set(PLANTS) <= kinds
    assert len(PLANTS) >= 8


def test_a_cohort_that_is_too_small_says_so_instead_of_passing() -> None:
    examined = make_examined(make_rows([1, 0, 1, 0]))
    from medfuse.data.cohort import Cohort, WholeTable

    report = check_table(
        WholeTable(Cohort((TASK,), examined.rows), {}),
        examined.facts,
        PrepareSettings(),
        examined.settings,
    )
    assert not report.failed
    (small,) = [each for each in report.unchecked if each.kind == "covid.covid19"]
    assert "too few patients (2 with it, 2 without)" in small.why
    assert {each.kind for each in report.unchecked} >= {"images", "notes", "recordings"}


def test_a_quantity_a_class_and_a_level_become_yes_or_no() -> None:
    tasks = (
        Task(name="cause", kind=TaskKind.MULTICLASS, classes=("a", "b", "c")),
        Task(name="stage", kind=TaskKind.ORDINAL, classes=("low", "mid", "high")),
        Task(name="age", kind=TaskKind.REGRESSION, classes=("age",)),
    )
    labels = np.array([[0, 2, 10.0], [1, 1, 20.0], [np.nan, 0, 30.0], [2, np.nan, 40.0]])
    found = {t.name: t.labels.tolist() for t in make_targets(tasks, labels)}
    assert found["cause.b"][:2] == [0.0, 1.0]
    assert np.isnan(found["cause.a"][2])
    assert found["stage.at_least_mid"][:3] == [1.0, 1.0, 0.0]
    assert found["stage.at_least_high"][:3] == [1.0, 0.0, 0.0]
    assert found["age.age"] == [0.0, 0.0, 1.0, 1.0]
