"""Labels of one class: nothing to learn is refused, and a part of it is said, before any fit."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medfuse.config import Task, TaskKind, read_settings
from medfuse.data.cohort import Cohort, CohortRow, Split
from medfuse.errors import CohortError
from medfuse.training.classes import check_classes, check_split_classes, find_alike
from medfuse.training.leaderboard.run import BoardOptions, run_leaderboard
from medfuse.training.run import train_model
from medfuse.training.settings import TrainSettings

TASKS = (
    Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion")),
    Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "severe")),
)
NONE = np.nan


def make(*rows: tuple[float, ...], split: Split | None = None) -> Cohort:
    return Cohort(
        tasks=TASKS,
        rows=tuple(
            CohortRow(
                number=i,
                labels=tuple(map(float, labels)),
                patient_id=f"p{i}",
                study_id=f"s{i}",
                split=split,
            )
            for i, labels in enumerate(rows)
        ),
    )


def test_labels_of_one_class_are_named_by_finding_or_task() -> None:
    assert find_alike(make((1, 0, 0), (0, 0, 0))) == ["findings.effusion", "stage"]
    assert find_alike(make((1, 0, 0), (0, 1, 1))) == []
    assert find_alike(make((1, NONE, 0), (0, NONE, 1))) == ["findings.effusion"]
    assert find_alike(make((NONE, NONE, NONE))) == []


def test_a_cohort_of_one_class_is_refused_and_one_without_labels_is_not() -> None:
    with pytest.raises(
        CohortError, match=r"^t\.csv: .* findings\.nodule, findings\.effusion, stage;"
    ):
        check_classes("t.csv", make((1, 0, 0), (1, 0, 0)), None)
    check_classes("t.csv", make((NONE, NONE, NONE)), None)


def test_what_is_alike_in_the_cohort_or_a_split_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    train = make((1, 0, 0), (0, 0, 1), split=Split.TRAIN)
    test = make((1, 0, 0), (1, 0, 1), split=Split.TEST)
    both = Cohort(tasks=TASKS, rows=train.rows + test.rows)
    with caplog.at_level(logging.WARNING):
        check_classes("t.csv", both, console)
        check_split_classes(both, console)
    assert shown.getvalue().splitlines() == [
        "All of the cohort's studies have the same label of findings.effusion: nothing can be "
        "learnt or measured of it there.",
        "All of the test studies have the same label of findings.nodule: nothing can be learnt or "
        "measured of it there.",
    ]
    assert len(caplog.records) == 2


def test_training_and_leaderboard_refuse_labels_of_one_class_before_any_fit(
    tmp_path: Path,
) -> None:
    lines = ["patient_id,study_id,note_text,nodule", *(f"p{i},s{i},cough,1" for i in range(20))]
    (tmp_path / "c.csv").write_text("\n".join(lines))
    (tmp_path / "c.toml").write_text(
        f"[cohort]\ntable = {json.dumps(str(tmp_path / 'c.csv'))}\n"
        '[cohort.columns]\nnote_text = "note_text"\n'
        '[[tasks]]\nname = "findings"\nkind = "multilabel"\nclasses = ["nodule"]\n'
    )
    settings = read_settings(tmp_path / "c.toml", TrainSettings)
    options = BoardOptions(contenders={"a": {}}, baseline="a", repeats=1, folds=2)
    with pytest.raises(CohortError, match=r"nothing to learn"):
        train_model(settings, tmp_path / "out")
    with pytest.raises(CohortError, match=r"nothing to learn"):
        run_leaderboard(settings, options, tmp_path / "out")
    assert not (tmp_path / "out").exists()
