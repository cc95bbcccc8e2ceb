"""Calibrated probabilities and the truth in; from where on a finding may be stated out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medfuse.config import Task, TaskKind
from medfuse.trust.calibration import label_slices, logit_slices

FEWEST = 5
"""Studies that must be stated on the validation studies for a precision to be believed."""


def choose_thresholds(
    tasks: Sequence[Task],
    probabilities: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    precision: float,
) -> dict[str, float | None]:
    """Choose every finding's threshold on studies that the model was not fitted to.

    Args:
        tasks: In the order of the columns.
        probabilities: Calibrated, a column per logit; only those of yes-or-no tasks are read.
        labels: `Task.label_columns` per task; NaN where not known.
        precision: The share of stated findings that shall be there.
    """
    thresholds = {}
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            pairs = zip(probabilities[:, where].T, labels[:, columns].T, strict=True)
            for target, (own, truth) in zip(task.targets, pairs, strict=True):
                thresholds[target] = choose_threshold(own, truth, precision)
    return thresholds


def choose_threshold(
    probabilities: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], precision: float
) -> float | None:
    """Choose the lowest threshold from which on stated findings are there often enough.

    Returns:
        None where no threshold is precise enough over at least `FEWEST` studies.
    """
    known = ~np.isnan(labels)
    order = np.argsort(-probabilities[known], kind="stable")
    chances, there = probabilities[known][order], labels[known][order] == 1
    stated = np.arange(1, len(chances) + 1)
    # Studies of equal probability are stated together, or not at all.
    last = np.append(chances[1:] != chances[:-1], True)[: len(chances)]
    fine = last & (stated >= FEWEST) & (np.cumsum(there) / stated >= precision)
    if not fine.any():
        return None
    place = int(fine.nonzero()[0][-1])
    # Half way to the next one down, so that rounding elsewhere leaves nobody out.
    return float(chances[place : place + 2].mean())
