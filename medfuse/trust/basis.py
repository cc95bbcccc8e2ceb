"""Which studies an answer from a subset of modalities is held to: whose labels in, their rows out.

At the bedside an answer from the image alone is to a study that has an image and nothing else.
Validation studies of that kind are few, so studies that have more may stand in for them, asked as
if they had not: as good where a modality is missing for no reason that has to do with the patient,
and only there. A promise that shall hold otherwise rests on studies that lack the same (the
missingness pattern: Rubin 1976).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medfuse.config import Task, TaskKind

FEWEST_EXACT = 50
"""Studies of each class, having exactly a subset, from which on no others stand in for them."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Studies that a subset's answers to one question are held to.

    Attributes:
        rows: Which; all of them have the subset's modalities.
        exact: Whether they have no others. Otherwise others were taken away from some of them.
    """

    rows: Bool[np.ndarray, " n"]
    exact: bool


def choose_basis(
    task: Task,
    labels: Float[np.ndarray, " n"],
    has: Bool[np.ndarray, " n"],
    exactly: Bool[np.ndarray, " n"],
) -> Basis:
    """Choose by which studies to fit, and to promise, what is said of one question.

    Args:
        task: The question, or whose finding it is.
        labels: Of that finding, or of the task: the class or level counted from 0, or the
            quantity; NaN where not known.
        has: Which studies have the subset's modalities.
        exactly: Which have no others.
    """
    if task.kind is TaskKind.REGRESSION:
        enough = bool((~np.isnan(labels[exactly])).sum() >= FEWEST_EXACT)
    else:
        single = task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
        classes = range(2 if single else len(task.classes))
        enough = all((labels[exactly] == c).sum() >= FEWEST_EXACT for c in classes)
    exact = enough or not (has & ~exactly).any()
    return Basis(exactly if exact else has, exact)
