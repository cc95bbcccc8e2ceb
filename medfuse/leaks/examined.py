"""What every check is handed: a cohort's rows, labels, other columns and facts, in one order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfuse.config import PrepareSettings, Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.leaks.association import Target
from medfuse.leaks.facts import StudyFacts
from medfuse.leaks.settings import CheckSettings


@dataclass(frozen=True, slots=True)
class Examined:
    """A cohort as checks see it.

    Attributes:
        settings: Of the check.
        tasks: What is asked.
        prepare: How studies become what the model gets.
        rows: The studies.
        others: Columns of the table that are neither a part of a study nor a label.
        facts: Of each study.
        targets: What may be told, a yes or no each.
        patients: A number per study, the same for the studies of one patient.
        alpha: Chance of a false finding of one kind.
    """

    settings: CheckSettings
    tasks: tuple[Task, ...]
    prepare: PrepareSettings
    rows: tuple[CohortRow, ...]
    others: Mapping[str, tuple[str, ...]]
    facts: tuple[StudyFacts, ...]
    targets: tuple[Target, ...]
    patients: Int64[np.ndarray, " n"]
    alpha: float

    def name(self, studies: Sequence[int] | Int64[np.ndarray, " k"]) -> tuple[str, ...]:
        """Give the identifiers of some studies."""
        return tuple(self.rows[int(i)].study_id for i in studies)

    @property
    def present(self) -> Bool[np.ndarray, "n 3"]:
        """Which of image, note and voice each study has."""
        parts = [
            (bool(row.images), row.note is not None or row.note_text is not None, bool(row.voice))
            for row in self.rows
        ]
        return np.array(parts, dtype=bool).reshape(-1, 3)


def make_targets(tasks: Sequence[Task], labels: Float[np.ndarray, "n c"]) -> tuple[Target, ...]:
    """Make a yes or no of every finding, class and level; of a quantity, whether it is large."""
    targets: list[Target] = []
    column = 0
    for task in tasks:
        own = labels[:, column : column + task.label_columns]
        column += task.label_columns
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            answers = list(own.T)
        elif task.kind is TaskKind.REGRESSION:
            known = own[~np.isnan(own)]
            answers = [_mark(own[:, 0], own[:, 0] > (np.median(known) if known.size else 0.0))]
        elif task.kind is TaskKind.ORDINAL:
            answers = [_mark(own[:, 0], own[:, 0] > k) for k in range(task.logits)]
        else:
            answers = [_mark(own[:, 0], own[:, 0] == k) for k in range(task.logits)]
        targets += [Target(name, a) for name, a in zip(task.targets, answers, strict=True)]
    return tuple(targets)


def number_patients(rows: Sequence[CohortRow]) -> Int64[np.ndarray, " n"]:
    """Number the patients."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.patient_id, len(numbers)) for row in rows], np.int64)


def _mark(known: Float[np.ndarray, " n"], yes: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(np.isnan(known), np.nan, yes.astype(np.float64))
