"""Whether fusion does harm, on answers made by hand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.training.plots import plot_gains
from medfuse.training.report import Report, format_report, format_summary
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import Figure
from medfuse.trust.figures import FusionGain, ReportSettings, SubsetReport, judge
from medfuse.trust.measure import measure_gains
from medfuse.types import SUBSETS, subset_name

CHEST = Task(name="chest", kind=TaskKind.BINARY, classes=("nodule",))
MOOD = Task(name="mood", kind=TaskKind.BINARY, classes=("low",))
WEIGHT = Task(name="weight", kind=TaskKind.REGRESSION, classes=("weight",), unit="kg")
SETTINGS = ReportSettings(resamples=100)
YES = np.tile([0.0, 1.0], 20)
"""Forty patients, one study each; every second one has the finding."""
RIGHT, WRONG, BLIND = 2 * YES - 1, 1 - 2 * YES, np.zeros(40)


def answer(
    labels: np.ndarray, said: Mapping[str, np.ndarray], present: np.ndarray | None = None
) -> Answers:
    """Make answers from what is said from each subset; from all others the same as `BLIND`."""
    present = np.ones((40, 3), bool) if present is None else present
    labels = labels.reshape(40, -1)
    blind = np.zeros(labels.shape)
    rows = tuple(
        CohortRow(number=i + 1, labels=tuple(own), patient_id=f"p{i}", study_id=f"s{i}")
        for i, own in enumerate(labels.tolist())
    )
    logits = {name: said.get(name, blind).reshape(40, -1) for name in map(subset_name, SUBSETS)}
    return Answers(rows, present, logits | {AS_GIVEN: blind})


def by_subset(gains: tuple[FusionGain, ...], task: str = "chest") -> dict[str, FusionGain]:
    return {gain.subset: gain for gain in gains if gain.task == task}


def test_a_known_harm_is_flagged_and_a_known_gain_is_not() -> None:
    # The image alone is right; with the note it is always wrong, and note and voice together are
    # right where each alone is blind.
    said = {"image": RIGHT, "image+note": WRONG, "note+voice": RIGHT, "image+voice": RIGHT}
    answers = answer(YES, said)
    gains = by_subset(measure_gains([CHEST], answers, answers, SETTINGS))
    assert list(gains) == ["image+note", "image+voice", "note+voice", "image+note+voice"]
    harm = gains["image+note"]
    assert harm.verdict == "harm"
    assert (harm.best_single, harm.studies, harm.metric) == ("image", 40, "auroc")
    assert (harm.fused.value, harm.single.value) == (0.0, 1.0)
    assert harm.difference == Figure(value=-1.0, low=-1.0, high=-1.0)
    assert gains["note+voice"].verdict == "gain"
    assert gains["note+voice"].difference.value == 0.5
    # No better and no worse than the image is no verdict; blind where the image sees is harm.
    assert gains["image+voice"].verdict == "undecided"
    assert gains["image+voice"].difference.value == 0.0
    assert gains["image+note+voice"].verdict == "harm"
    assert gains["image+note+voice"].difference.value == -0.5


def test_the_single_modality_is_chosen_on_validation_studies_alone() -> None:
    validation = answer(YES, {"image": RIGHT, "note": WRONG})
    test = answer(YES, {"image": WRONG, "note": RIGHT, "image+note": BLIND})
    gain = by_subset(measure_gains([CHEST], validation, test, SETTINGS))["image+note"]
    assert gain.best_single == "image"
    assert gain.difference.value == 0.5
    assert gain.verdict == "gain"


def test_both_sides_answer_the_studies_that_have_the_whole_subset() -> None:
    # Where the note is missing the image is wrong, which must not count against it.
    present = np.ones((40, 3), bool)
    present[20:, 1] = False
    image = np.concatenate([RIGHT[:20], WRONG[20:]])
    test = answer(YES, {"image": image, "image+note": BLIND}, present)
    gains = by_subset(measure_gains([CHEST], answer(YES, {"image": RIGHT}), test, SETTINGS))
    assert gains["image+note"].studies == 20
    assert gains["image+note"].single.value == 1.0
    assert gains["image+note"].verdict == "harm"
    assert gains["image+voice"].studies == 40
    present[:, 1:] = False
    alone = answer(YES, {"image": RIGHT}, present)
    assert measure_gains([CHEST], alone, alone, SETTINGS) == ()


def test_a_small_loss_that_chance_could_make_is_no_harm() -> None:
    # One of twenty positives is missed by the fused answer: 0.975 against 1.
    nearly = RIGHT.copy()
    nearly[1] = 0.0 - 1.0
    answers = answer(YES, {"image": RIGHT, "image+note": nearly})
    gain = by_subset(measure_gains([CHEST], answers, answers, SETTINGS))["image+note"]
    assert gain.difference.value == pytest.approx(-0.025)
    assert gain.verdict == "undecided"


def test_each_task_has_a_verdict_of_its_own() -> None:
    labels = np.stack([YES, YES, YES], axis=1)
    said = {
        "image": np.stack([RIGHT, BLIND, 0.5 + BLIND], axis=1),
        "note": np.stack([BLIND, BLIND, YES], axis=1),
        "image+note": np.stack([BLIND, RIGHT, 1 - YES], axis=1),
    }
    answers = answer(labels, said)
    gains = measure_gains([CHEST, MOOD, WEIGHT], answers, answers, SETTINGS)
    found = {gain.task: gain for gain in gains if gain.subset == "image+note"}
    assert found["chest"].verdict == "harm"
    assert found["mood"].verdict == "gain"
    assert (found["weight"].metric, found["weight"].best_single) == ("r2", "note")
    # Always off by 1 where half would do: 1 - 1 / (1 / 4).
    assert found["weight"].difference.value == pytest.approx(-3 - 1)
    assert found["weight"].verdict == "harm"


def test_an_interval_is_needed_for_a_verdict() -> None:
    assert judge(Figure(value=-0.1, low=-0.2, high=-0.01)) == "harm"
    assert judge(Figure(value=-0.1, low=-0.2, high=0.0)) == "undecided"
    assert judge(Figure(value=0.1, low=0.01, high=0.2)) == "gain"
    assert judge(Figure(value=-0.1)) == "undecided"
    assert judge(Figure(value=None)) == "undecided"


def test_what_no_validation_study_can_score_is_not_compared() -> None:
    unknown = answer(np.full(40, np.nan), {})
    assert measure_gains([CHEST], unknown, answer(YES, {}), SETTINGS) == ()


def test_every_harm_is_written_where_it_is_seen(tmp_path: Path) -> None:
    answers = answer(YES, {"image": RIGHT, "image+note": WRONG, "image+note+voice": RIGHT})
    gains = measure_gains([CHEST], answers, answers, SETTINGS)
    figures = {"auroc": Figure(value=0.5)}
    report = Report(
        studies={"test": 40},
        patients=40,
        excluded={},
        folds=0,
        epochs=(1,),
        seconds={},
        subsets={
            AS_GIVEN: SubsetReport(
                studies=40, patients=40, targets={"chest": figures, "chest.nodule": figures}
            )
        },
        gains=gains,
    )
    assert Report.model_validate_json(report.model_dump_json()) == report
    for text in (format_report(report, [CHEST]), format_summary(report, [CHEST])):
        assert "image+note against image alone" in text
        assert "-1.000 [-1.000, -1.000]: harm." in text
        assert "Fusion does harm in 2 of 4 comparisons" in text
    lines = format_report(report, [CHEST]).splitlines()
    assert sum(line.endswith("| harm |") for line in lines) == 2
    plot_gains(tmp_path / "gains.png", gains)
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")
    plot_gains(tmp_path / "none.png", ())
    assert not (tmp_path / "none.png").exists()
