"""Sentences of findings: the known-truth cohort's, a table of one's own, words and numbers."""

import csv
from pathlib import Path

import numpy as np
import pytest

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortSettings, read_cohort
from medfuse.data.sentences import GivenSentence, read_sentences
from medfuse.errors import CohortError
from medfuse.synthetic.evidence import ImageEvidence
from medfuse.synthetic.findings import (
    SIGN_WORDS,
    _place,
    name_signs,
    shown_signs,
    write_findings,
)
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.synthetic.world import SIGN_NAMES, TARGETS, TASKS
from medfuse.text.vocabulary import END, START, UNKNOWN, build_vocabulary, split_words
from medfuse.types import Modality, subset_name

YES_NO = (
    Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "shadow")),
    Task(name="later", kind=TaskKind.BINARY, classes=("shadow",)),
    Task(name="age", kind=TaskKind.REGRESSION, classes=("age",)),
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "sentences.csv"


def test_no_wording_of_one_sign_holds_that_of_another() -> None:
    assert set(SIGN_WORDS) == set(SIGN_NAMES)
    for sign, words in SIGN_WORDS.items():
        for word in words:
            assert name_signs(word) == {sign}


def test_a_sentence_names_exactly_the_planted_signs_of_the_modalities_it_rests_on() -> None:
    options = CohortOptions(size=192)
    seen = set()
    for index in (0, 1, 3):
        truth = make_study(options, index).truth
        for each in write_findings(options, index, truth):
            seen.add(each.finding)
            assert truth.labels[TARGETS.index(each.finding)]
            shown = shown_signs(truth, each.finding)
            assert {sign for m in each.modalities for sign in shown[m]} == set(each.signs)
            assert name_signs(each.text) == set(each.signs) <= truth.signs
    assert len(seen) > 3


def test_a_sign_on_the_left_of_the_film_is_on_the_patients_right() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1, 0] = True
    found = [ImageEvidence("effusion", 0, mask)]
    assert _place("effusion", "fluid", found) == "fluid on the right"
    assert _place("effusion", "fluid", [ImageEvidence("effusion", 0, mask[:, ::-1])]) == (
        "fluid on the left"
    )
    mask[1, 5] = True
    assert _place("effusion", "fluid", found) == "fluid on both sides"


def test_the_cohort_has_every_sentence_and_no_note_holds_one(small_cohort: Path) -> None:
    with (small_cohort / "sentences.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    options = CohortOptions(studies=40, seed=3, size=192)
    own = [line for line in lines if line["study_id"] == "S000004"]
    expected = write_findings(options, 4, make_study(options, 4).truth)
    assert [(line["finding"], line["modalities"], line["sentence"]) for line in own] == [
        (each.finding, subset_name(each.modalities), each.text) for each in expected
    ]
    for line in lines:
        note = small_cohort / "studies" / line["study_id"] / "note.txt"
        assert line["sentence"].encode() not in note.read_bytes()


def test_a_cohort_is_read_with_its_sentences(small_cohort: Path) -> None:
    settings = CohortSettings(table=small_cohort / "cohort.csv")
    plain = read_cohort(settings, TASKS)
    told = read_cohort(
        settings.model_copy(update={"sentences": small_cohort / "sentences.csv"}), TASKS
    )
    assert not any(row.sentences for row in plain.rows)
    assert sum(bool(row.sentences) for row in told.rows) > 30
    assert plain.digest != told.digest
    first = told.rows[0].sentences[0]
    assert first.target.startswith(("findings.", "affect."))
    assert first.modalities is not None
    assert first.text not in repr(told.rows[0])


def test_a_table_of_ones_own_names_findings_by_target_or_by_class(table: Path) -> None:
    table.write_text(
        "study_id,finding,sentence\n7,nodule,A nodule.\n7,later.shadow,Later a shadow.\n"
    )
    assert read_sentences(table, YES_NO) == {
        "7": (
            GivenSentence("findings.nodule", None, "A nodule."),
            GivenSentence("later.shadow", None, "Later a shadow."),
        )
    }
    table.write_text("study_id,finding,modalities,sentence\n7,nodule,image+voice,A nodule.\n")
    ((given,),) = read_sentences(table, YES_NO).values()
    assert given.modalities == frozenset({Modality.IMAGE, Modality.VOICE})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (",nodule,,Doe", "row 1, column 'study_id': no study"),
        ("7,shadow,,Doe", "row 1, column 'finding': expected one of findings.nodule"),
        ("7,age,,Doe", "column 'finding'"),
        ("7,nodule,film,Doe", "column 'modalities'"),
        ("7,nodule,,", "column 'sentence': 0 words; expected 1 to 64"),
        ("7,nodule,," + "Doe " * 65, "65 words"),
        ("7,nodule,,Doe\n7,findings.nodule,,Doe", "row 2, column 'finding': a second sentence"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_without_its_content(
    table: Path, line: str, why: str
) -> None:
    table.write_text(f"study_id,finding,modalities,sentence\n{line}\n")
    with pytest.raises(CohortError) as caught:
        read_sentences(table, YES_NO)
    assert why in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_a_table_that_is_none_or_of_other_studies_is_refused(
    table: Path, small_cohort: Path
) -> None:
    with pytest.raises(CohortError, match="cannot be read"):
        read_sentences(table, YES_NO)
    table.write_text("study_id,sentence\n7,A nodule.\n")
    with pytest.raises(CohortError, match="no column finding"):
        read_sentences(table, YES_NO)
    table.write_text("study_id,finding,sentence\nX9,nodule,A nodule.\n")
    with pytest.raises(CohortError, match="no sentence is of a study of the cohort"):
        read_cohort(CohortSettings(table=small_cohort / "cohort.csv", sentences=table), TASKS)


def test_words_are_numbered_by_how_often_they_stand_and_come_back_as_they_were() -> None:
    vocabulary = build_vocabulary(["A nodule, 3.5 cm (left).", "a nodule on CT."])
    assert vocabulary.words[4:8] == (".", "a", "nodule", "(")  # ties by the alphabet
    sentence = "A nodule, 3.5 cm (left)."
    numbers = vocabulary.encode(sentence)
    assert (numbers[0], numbers[-1]) == (START, END)
    assert vocabulary.decode(numbers) == sentence
    assert vocabulary.encode("A cat")[2] == UNKNOWN
    assert vocabulary.decode(vocabulary.encode("CT on a cat")) == "CT on a"
    assert split_words("It's X-ray 7/8.") == ["it's", "X-ray", "7/8", "."]
