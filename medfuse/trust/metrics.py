"""Metrics: answers and labels in, each figure out once per bootstrap resample.

Every function takes the studies' weights (R, N), a row per resample, and gives its figure (R,),
so that a thousand resamples cost little more than one. NaN stands where a resample does not define
the figure, such as an AUROC without positives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from medfuse.config import Task, TaskKind
from medfuse.trust.calibration import Calibration, label_slices, logit_slices, probabilities

BINS = 10
"""Equal-width bins of the expected calibration error."""

Weights = Float[np.ndarray, "r n"]
Figures = Float[np.ndarray, " r"]
Gaps = Float[np.ndarray, "r b"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one target, or of a whole task, in every resample.

    Attributes:
        target: A target's name, or the task's for what sums up all its targets.
        metric: Such as ``auroc``.
        values: One per resample.
        gaps: Of a calibration error, what each bin adds to it but for the sign, in every resample.
    """

    target: str
    metric: str
    values: Figures
    gaps: Gaps | None = None


def measure_tasks(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    weights: Weights,
) -> tuple[Measure, ...]:
    """Measure every task with all the metrics that fit its kind.

    Args:
        tasks: In the order of the logits.
        logits: Calibrated: the sigmoid or softmax of them is the probability.
        labels: `Task.label_columns` per task; NaN where not known, and then not counted.
        weights: How often each study counts in each resample.
    """
    found: list[Measure] = []
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        found += MEASURES[task.kind](task, logits[:, where], labels[:, columns], weights)
    return tuple(found)


def measure_findings(
    task: Task, logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, "n k"], weights: Weights
) -> list[Measure]:
    """Measure each finding as a yes or no at probability 0.5, and their mean."""
    chances = probabilities(task, logits, Calibration())
    found: list[Measure] = []
    for k, target in enumerate(task.targets):
        known = ~np.isnan(labels[:, k])
        found += _measure_yes_no(
            target, chances[known, k], labels[known, k] == 1, weights[:, known]
        )
    return found + _average(task.name, found)


def measure_classes(
    task: Task, logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, "n 1"], weights: Weights
) -> list[Measure]:
    """Measure each class against the rest (the most probable one is said), and all together."""
    known = ~np.isnan(labels[:, 0])
    chances = probabilities(task, logits[known], Calibration())
    true, w = labels[known, 0].astype(np.int64), weights[:, known]
    said = chances.argmax(axis=1)
    found: list[Measure] = []
    for k, target in enumerate(task.targets):
        found += _measure_yes_no(target, chances[:, k], true == k, w, said == k)
    # Of a task with classes, accuracy and calibration are those of the class it says.
    mean = [m for m in _average(task.name, found) if m.metric not in ("accuracy", "brier", "ece")]
    one_hot = np.eye(len(task.classes))[true]
    return [
        *found,
        *mean,
        Measure(task.name, "accuracy", _mean(w, said == true)),
        Measure(task.name, "brier", _mean(w, ((chances - one_hot) ** 2).sum(axis=1))),
        _measure_calibration(task.name, chances.max(axis=1), said == true, w),
    ]


def measure_levels(
    task: Task, logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, "n 1"], weights: Weights
) -> list[Measure]:
    """Measure reaching each level as a yes or no, and how far the level said is off."""
    known = ~np.isnan(labels[:, 0])
    chances = probabilities(task, logits[known], Calibration())
    true, w = labels[known, 0].astype(np.int64), weights[:, known]
    reached = 1 - chances.cumsum(axis=1)[:, :-1]
    # The median level makes the expected distance least.
    said = (reached > 0.5).sum(axis=1)
    found: list[Measure] = []
    for k, target in enumerate(task.targets):
        found += _measure_yes_no(target, np.clip(reached[:, k], 0, 1), true > k, w)
    mean = [m for m in _average(task.name, found) if m.metric != "accuracy"]
    return [
        *found,
        *mean,
        Measure(task.name, "accuracy", _mean(w, said == true)),
        Measure(task.name, "mae", _mean(w, np.abs(said - true))),
        Measure(task.name, "kappa", quadratic_kappa(said, true, len(task.classes), w)),
    ]


def measure_quantity(
    task: Task, logits: Float[np.ndarray, "n 1"], labels: Float[np.ndarray, "n 1"], weights: Weights
) -> list[Measure]:
    """Measure a regression in its own unit."""
    known = ~np.isnan(labels[:, 0])
    said, true, w = logits[known, 0], labels[known, 0], weights[:, known]
    error = (said - true) ** 2
    centre = _mean(w, true)[:, None]
    spread = _divide((w * (true - centre) ** 2).sum(axis=1), w.sum(axis=1))
    return [
        Measure(target, metric, values)
        for target in (task.targets[0], task.name)
        for metric, values in (
            ("mae", _mean(w, np.abs(said - true))),
            ("rmse", np.sqrt(_mean(w, error))),
            ("r2", 1 - _divide(_mean(w, error), spread)),
        )
    ]


MEASURES: dict[TaskKind, Callable[..., list[Measure]]] = {
    TaskKind.BINARY: measure_findings,
    TaskKind.MULTILABEL: measure_findings,
    TaskKind.MULTICLASS: measure_classes,
    TaskKind.ORDINAL: measure_levels,
    TaskKind.REGRESSION: measure_quantity,
}


def headline(task: Task) -> str:
    """Name the one figure that a task is compared by."""
    return "r2" if task.kind is TaskKind.REGRESSION else "auroc"


def measure_headline(
    task: Task,
    logits: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    weights: Weights,
) -> Figures:
    """Measure that figure alone, which is much quicker than all of them."""
    if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
        areas = []
        for k in range(len(task.targets)):
            known = ~np.isnan(labels[:, k])
            area = auroc(logits[known, k], labels[known, k] == 1, weights[:, known])
            areas.append(Measure(task.name, "auroc", area))
        return _average(task.name, areas)[0].values
    measures = MEASURES[task.kind](task, logits, labels, weights)
    return next(m.values for m in measures if (m.target, m.metric) == (task.name, headline(task)))


def auroc(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> Figures:
    """Measure P(a positive scores above a negative) + half of P(they tie)."""
    yes, no = _by_score(scores, positive, weights)
    below = no.cumsum(axis=1) - no / 2
    return _divide((yes * below).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1))


def auprc(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> Figures:
    """Measure average precision: precision at each threshold, weighted by the recall it adds."""
    yes, no = (part[:, ::-1] for part in _by_score(scores, positive, weights))
    hits, alarms = yes.cumsum(axis=1), no.cumsum(axis=1)
    precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
    return _divide((yes * precision).sum(axis=1), yes.sum(axis=1))


def calibration_error(
    chances: Float[np.ndarray, " n"], happened: Bool[np.ndarray, " n"], weights: Weights
) -> Figures:
    """Measure the expected calibration error: |said - happened| per bin, weighted by its studies.

    Naeini et al. 2015, with `BINS` bins of equal width.
    """
    return np.asarray(np.abs(calibration_gaps(chances, happened, weights)).sum(axis=1))


def calibration_gaps(
    chances: Float[np.ndarray, " n"], happened: Bool[np.ndarray, " n"], weights: Weights
) -> Gaps:
    """Measure said less happened in each bin, times the bin's share of the studies."""
    bins = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
    gap = (chances - happened)[:, None] * np.eye(BINS)[bins]  # (N, bins)
    total = np.broadcast_to(weights.sum(axis=1)[:, None], (len(weights), BINS))
    undefined = np.full(total.shape, np.nan)
    return np.asarray(np.divide(weights @ gap, total, out=undefined, where=total > 0))


def quadratic_kappa(
    said: Int[np.ndarray, " n"], true: Int[np.ndarray, " n"], levels: int, weights: Weights
) -> Figures:
    """Measure agreement beyond chance with squared distances (Cohen 1968)."""
    cells = np.eye(levels * levels)[said * levels + true]  # (N, levels squared)
    table = (weights @ cells).reshape(-1, levels, levels)
    total = table.sum(axis=(1, 2))[:, None, None]
    table = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    chance = table.sum(axis=2)[:, :, None] * table.sum(axis=1)[:, None, :]
    cost = (np.arange(levels)[:, None] - np.arange(levels)) ** 2
    return 1 - _divide((table * cost).sum(axis=(1, 2)), (chance * cost).sum(axis=(1, 2)))


def _measure_yes_no(
    target: str,
    chances: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    weights: Weights,
    said: Bool[np.ndarray, " n"] | None = None,
) -> list[Measure]:
    """Measure one yes or no; recall, F1 and areas are undefined without positives."""
    said = chances >= 0.5 if said is None else said
    hits = (weights * (said & positive)).sum(axis=1)
    called = (weights * said).sum(axis=1)
    there = (weights * positive).sum(axis=1)
    # As usual, precision is 0 where nothing is called positive; nothing known defines nothing.
    usual = np.where(weights.sum(axis=1) > 0, 0.0, np.nan)
    precision = np.divide(hits, called, out=usual, where=called > 0)
    figures = {
        "auroc": auroc(chances, positive, weights),
        "auprc": auprc(chances, positive, weights),
        "accuracy": _mean(weights, said == positive),
        "recall": _divide(hits, there),
        "precision": precision,
        "f1": np.where(there > 0, _divide(2 * hits, called + there), np.nan),
        "brier": _mean(weights, (chances - positive) ** 2),
    }
    found = [Measure(target, metric, values) for metric, values in figures.items()]
    return [*found, _measure_calibration(target, chances, positive, weights)]


def _measure_calibration(
    target: str,
    chances: Float[np.ndarray, " n"],
    happened: Bool[np.ndarray, " n"],
    weights: Weights,
) -> Measure:
    gaps = calibration_gaps(chances, happened, weights)
    return Measure(target, "ece", np.abs(gaps).sum(axis=1), gaps)


def _average(name: str, measures: Sequence[Measure]) -> list[Measure]:
    """Average each metric over the targets that the data as they are define it for."""
    averages = []
    for metric in dict.fromkeys(m.metric for m in measures):
        own = [m for m in measures if m.metric == metric]
        defined = [m for m in own if not np.isnan(m.values[0])]
        nothing = np.full(len(own[0].values), np.nan)
        mean = np.mean([m.values for m in defined], axis=0) if defined else nothing
        gaps = [m.gaps / len(defined) for m in defined if m.gaps is not None]
        together = np.concatenate(gaps, axis=1) if gaps else None
        averages.append(Measure(name, metric, mean, together))
    return averages


def _by_score(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> tuple[Float[np.ndarray, "r g"], Float[np.ndarray, "r g"]]:
    """Sum the weights of positives and of negatives at each distinct score, lowest first."""
    if not len(scores):
        return np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sums = (
        np.add.reduceat((weights * chosen)[:, order], starts, axis=1)
        for chosen in (positive, ~positive)
    )
    yes, no = sums
    return yes, no


def _mean(weights: Weights, values: np.ndarray) -> Figures:
    return _divide(weights @ values.astype(np.float64), weights.sum(axis=1))


def _divide(numerator: Figures, denominator: Figures) -> Figures:
    """Divide; NaN where the denominator is zero."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))
