"""Calibration: raw logits in, probabilities out that mean what they say, for every subset.

Guo et al. 2017, "On Calibration of Modern Neural Networks": divide the logits by a temperature
fitted on validation data, which never changes who ranks above whom. A finding may get a bias beside
it (Platt 1999), or a rising curve over both where the data allow one (Kumar et al. 2019): whichever
answers studies it was not fitted to best. A model is sure in other ways of a note alone than of
everything, so each subset of modalities has its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from medfuse.config import Settings, Task, TaskKind
from medfuse.trust.basis import choose_basis
from medfuse.types import TaskPrediction

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a fitted temperature; separable validation data would drive it to zero."""


FOLDS = 5
"""Of the cross-validation that chooses how a finding is calibrated."""

FEWEST = 10
"""Studies with and without a finding below which a subset is calibrated as all studies are."""

CURVE_FEWEST = 100
"""Likewise, below which no curve is tried."""

PRIOR = 10.0
"""Studies by which each bin of a curve is drawn towards temperature and bias alone."""

UNSURE = 1e-4
"""The least chance, and the least short of certainty, towards which it is drawn."""


class TargetCalibration(Settings):
    """How one target's logit is read: ``offset + scale * curve(logit / temperature + bias)``.

    Only a regression has an offset and a scale, and only the others the rest.
    """

    temperature: float = Field(default=1.0, gt=0)
    bias: float = Field(default=0.0, description="undoes the shift of class balancing")
    curve: tuple[tuple[float, float], ...] = Field(
        default=(),
        description="points of a rising curve from logits to logits, straight between them and of "
        "slope 1 beyond; none: the logit itself",
    )
    offset: float = Field(default=0.0, description="a regression's mean, in its own unit")
    scale: float = Field(default=1.0, gt=0, description="a regression's spread, in its own unit")


class Calibration(Settings):
    """How each target's logit is read, by target name; one that is not named is read as it is.

    Attributes:
        targets: Whatever a study has.
        subsets: Of the studies that have exactly this subset of modalities, by its name; a target
            that is not named here is read as in `targets`.
    """

    targets: dict[str, TargetCalibration] = Field(default_factory=dict)
    subsets: dict[str, dict[str, TargetCalibration]] = Field(default_factory=dict)

    def of(self, target: str, subset: str | None = None) -> TargetCalibration:
        """Give one target's calibration for studies with a subset of modalities."""
        own = self.subsets.get(subset, {}) if subset is not None else {}
        return own.get(target) or self.targets.get(target, TargetCalibration())


def logit_slices(tasks: Sequence[Task]) -> Iterator[tuple[Task, slice]]:
    """Yield each task with the place of its logits among all tasks'."""
    start = 0
    for task in tasks:
        yield task, slice(start, start + task.logits)
        start += task.logits


def label_slices(tasks: Sequence[Task]) -> Iterator[tuple[Task, slice]]:
    """Yield each task with the place of its label columns among all tasks'."""
    start = 0
    for task in tasks:
        yield task, slice(start, start + task.label_columns)
        start += task.label_columns


def fit_calibration(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    *,
    bias: bool = False,
) -> Calibration:
    """Fit every task's temperature by maximum likelihood on studies the model was not fitted to.

    A binary or multilabel task has a temperature per finding. The logits of a multiclass or an
    ordinal task answer one question together, so they share one. A target whose labels are all
    alike has no best temperature and keeps 1.

    Args:
        tasks: In the order of the logits.
        logits: All tasks' raw outputs, concatenated.
        labels: `Task.label_columns` per task: 0 or 1 for each finding, else the class or level
            counted from 0, or the quantity; NaN where not known.
        bias: Fit a bias for each finding too; needed when training balanced the classes, which
            shifts every logit by the log of the weight.
    """
    fitted: dict[str, TargetCalibration] = {}
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        x, y = logits[:, where].astype(np.float64), labels[:, columns].astype(np.float64)
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            for k, target in enumerate(task.targets):
                fitted[target] = _fit_findings(x[:, [k]], y[:, [k]], bias)
        elif task.kind is TaskKind.ORDINAL:
            reached = np.where(np.isnan(y), np.nan, y > np.arange(task.logits))
            fitted |= dict.fromkeys(task.targets, _fit_findings(x, reached, bias=False))
        elif task.kind is TaskKind.MULTICLASS:
            fitted |= dict.fromkeys(task.targets, _fit_classes(x, y[:, 0]))
        else:
            fitted[task.targets[0]] = TargetCalibration()
    return Calibration(targets=fitted)


def name_fittable(tasks: Sequence[Task], labels: Float[np.ndarray, "n c"]) -> set[str]:
    """Name the targets that the studies are enough to calibrate: `FEWEST` of each kind.

    Args:
        tasks: In the order of the labels.
        labels: As `fit_calibration` takes them.
    """
    named: set[str] = set()
    for task, columns in label_slices(tasks):
        y = labels[:, columns]
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            named |= {t for t, own in zip(task.targets, y.T, strict=True) if _fewest(own) >= FEWEST}
        elif task.kind is not TaskKind.REGRESSION and (~np.isnan(y)).sum() >= FEWEST:
            named |= set(task.targets)
    return named


def fit_subsets(
    tasks: Sequence[Task],
    logits: Mapping[str, Float[np.ndarray, "n k"]],
    labels: Float[np.ndarray, "n c"],
    patients: Sequence[str],
    exactly: Mapping[str, Bool[np.ndarray, " n"]],
    *,
    bias: bool = False,
) -> dict[str, dict[str, TargetCalibration]]:
    """Fit each subset's own calibration.

    A finding gets a temperature, a temperature and a bias, or those and a curve, whichever has the
    least log loss in cross-validation by patient; classes and levels get a temperature. Each is
    fitted on the studies that `choose_basis` names. What has too few of them of a kind (`FEWEST`)
    is left out, and so is a regression.

    Args:
        tasks: In the order of the logits.
        logits: Raw outputs by subset's name; NaN for a study that lacks it.
        labels: As `fit_calibration` takes them.
        patients: Whose study each is.
        exactly: By subset's name, which studies have its modalities and no others.
        bias: Never a temperature alone.
    """
    folds = _fold(patients)
    fitted: dict[str, dict[str, TargetCalibration]] = {}
    for name, said in logits.items():
        has = ~np.isnan(said).any(axis=1)
        fittable = name_fittable(tasks, labels[has])
        own = fitted.setdefault(name, {})
        slices = zip(logit_slices(tasks), label_slices(tasks), strict=True)
        for (task, where), (_, columns) in slices:
            x, y = said[:, where].astype(np.float64), labels[:, columns].astype(np.float64)
            if not fittable.intersection(task.targets):
                continue
            if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
                for k, target in enumerate(task.targets):
                    rows = choose_basis(task, y[:, k], has, exactly[name]).rows
                    rows = rows & ~np.isnan(y[:, k])
                    if target in fittable:
                        own[target] = _choose(x[rows, k], y[rows, k], folds[rows], bias)
            else:
                rows = choose_basis(task, y[:, 0], has, exactly[name]).rows
                own |= fit_calibration([task], x[rows], y[rows]).targets
    return {name: own for name, own in fitted.items() if own}


def calibrate(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, "n k"],
    calibration: Calibration,
    subset: str | None = None,
) -> Float[np.ndarray, "n k"]:
    """Scale logits so that their sigmoid or softmax, or a quantity itself, is what it says.

    Args:
        tasks: In the order of the logits.
        logits: Raw.
        calibration: How to read them.
        subset: The name of the modalities that the studies have, all of them the same.
    """
    each = [calibration.of(target, subset) for task in tasks for target in task.targets]
    bias, offset = [c.bias for c in each], [c.offset for c in each]
    scaled = logits.astype(np.float64) / [c.temperature for c in each] + bias
    for k, c in enumerate(each):
        if c.curve:
            scaled[:, k] = _follow(c.curve, scaled[:, k])
    return np.asarray(scaled * [c.scale for c in each] + offset)


def probabilities(
    task: Task,
    logits: Float[np.ndarray, "n k"],
    calibration: Calibration,
    subset: str | None = None,
) -> Float[np.ndarray, "n c"]:
    """Turn one task's logits into calibrated probabilities, a column per finding or class.

    A regression has none and gives (N, 0). An ordinal task's logits are of reaching each level; a
    level is never more probable to be reached than the one below it.
    """
    if task.kind is TaskKind.REGRESSION:
        return np.zeros((len(logits), 0))
    scaled = calibrate([task], logits, calibration, subset)
    if task.kind is TaskKind.MULTICLASS:
        return np.asarray(softmax(scaled, axis=1))
    if task.kind is TaskKind.ORDINAL:
        reached = np.minimum.accumulate(expit(scaled), axis=1)
        edges = np.pad(reached, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        return np.asarray(edges[:, :-1] - edges[:, 1:])
    return np.asarray(expit(scaled))


def answer(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, " k"],
    calibration: Calibration,
    subset: str | None = None,
) -> tuple[TaskPrediction, ...]:
    """Read one study's logits, of a subset of modalities, as an answer to each task."""
    answers = []
    for task, where in logit_slices(tasks):
        own = logits[where]
        value = None
        if task.kind is TaskKind.REGRESSION:
            value = float(calibrate([task], own[None], calibration, subset)[0, 0])
        chances = probabilities(task, own[None], calibration, subset)[0]
        answers.append(TaskPrediction(task=task, logits=own, probabilities=chances, value=value))
    return tuple(answers)


def _fold(patients: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Deal the patients out to folds, the same way each time."""
    _, code = np.unique(np.array(patients, dtype=np.str_), return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(code.max(initial=0) + 1)
    return np.asarray(shuffled[code] % FOLDS)


def _fewest(labels: Float[np.ndarray, " n"]) -> int:
    """Count the studies of the rarer kind."""
    return int(min((labels == 1).sum(), (labels == 0).sum()))


Fit = Callable[[Float[np.ndarray, " n"], Float[np.ndarray, " n"]], TargetCalibration]


def _choose(
    logits: Float[np.ndarray, " n"],
    labels: Float[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    bias: bool,
) -> TargetCalibration:
    """Fit in whichever way answers left-out patients best; of equals, the simplest."""
    ways: list[Fit] = [] if bias else [lambda x, y: _fit_findings(x[:, None], y[:, None], False)]
    ways.append(lambda x, y: _fit_findings(x[:, None], y[:, None], True))
    if _fewest(labels) >= CURVE_FEWEST:
        ways.append(_fit_curve)
    losses = []
    for way in ways:
        total = 0.0
        for fold in range(FOLDS):
            out = folds == fold
            if out.any():
                z = _read(way(logits[~out], labels[~out]), logits[out])
                total += float((np.logaddexp(0.0, z) - labels[out] * z).sum())
        losses.append(total)
    return ways[int(np.argmin(losses))](logits, labels)


def _read(fitted: TargetCalibration, logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    z = logits / fitted.temperature + fitted.bias
    return _follow(fitted.curve, z) if fitted.curve else z


def _fit_curve(
    logits: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"]
) -> TargetCalibration:
    """Fit a rising curve over temperature and bias: scaling, then binning (Kumar et al. 2019).

    Bins are of equal size, and twice the cube root of the studies in number, the root being the
    rate that balances bias and noise (Sun et al. 2023). What was seen in each is drawn to what
    temperature and bias say there, as by `PRIOR` studies, and never 0 or 1. Isotonic regression
    makes the shares rise, and lines join them at the bins' centres (Oron & Flournoy 2017), since
    steps would tie studies that differ.
    """
    plain = _fit_findings(logits[:, None], labels[:, None], True)
    z = logits / plain.temperature + plain.bias
    bins = np.array_split(np.argsort(z, kind="stable"), max(2, round(2 * np.cbrt(len(z)))))
    bins = [own for own in bins if len(own)]
    sizes = np.array([len(own) for own in bins], np.float64)
    there = np.array([labels[own].sum() for own in bins])
    said = np.clip([expit(z[own]).mean() for own in bins], UNSURE, 1 - UNSURE)
    shares = (there + PRIOR * said) / (sizes + PRIOR)
    rising = isotonic_regression(shares, weights=sizes)
    points: list[tuple[float, float]] = []
    for start, stop in pairwise(rising.blocks.tolist()):
        centre = float(np.mean(z[np.concatenate(bins[start:stop])]))
        height = float(logit(rising.x[start]))
        # Ties may share a centre.
        if not points or (centre > points[-1][0] and height > points[-1][1]):
            points.append((centre, height))
    return plain.model_copy(update={"curve": tuple(points) if len(points) > 1 else ()})


def _follow(
    curve: Sequence[tuple[float, float]], logits: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    x, y = np.array(curve).T
    below, above = np.minimum(logits - x[0], 0.0), np.maximum(logits - x[-1], 0.0)
    return np.asarray(np.interp(logits, x, y) + below + above)


def _fit_findings(
    logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, "n k"], bias: bool
) -> TargetCalibration:
    known = ~np.isnan(labels)
    x, y = logits[known], labels[known]
    if np.unique(y).size < 2:
        return TargetCalibration()

    def loss(temperature: float, shift: float) -> float:
        z = x / temperature + shift
        return float(np.mean(np.logaddexp(0.0, z) - y * z))

    if not bias:
        return TargetCalibration(temperature=_best_temperature(lambda t: loss(t, 0.0)))
    # In (1 / temperature, bias) the loss is convex, so one start is enough.
    best = minimize(
        lambda p: loss(1 / p[0], p[1]),
        x0=(1.0, 0.0),
        bounds=((1 / HIGHEST, 1 / LOWEST), (-20.0, 20.0)),
        method="L-BFGS-B",
    )
    return TargetCalibration(temperature=1 / float(best.x[0]), bias=float(best.x[1]))


def _fit_classes(
    logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, " n"]
) -> TargetCalibration:
    known = ~np.isnan(labels)
    x, y = logits[known], labels[known].astype(np.int64)
    if np.unique(y).size < 2:
        return TargetCalibration()
    each = np.arange(len(y))
    return TargetCalibration(
        temperature=_best_temperature(lambda t: float(-log_softmax(x / t, axis=1)[each, y].mean()))
    )


def _best_temperature(loss: Callable[[float], float]) -> float:
    """Minimise over the log of the temperature, in which the loss has a single minimum."""
    best = minimize_scalar(
        lambda log_t: loss(float(np.exp(log_t))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(best.x))
