"""Calibration: raw logits in, probabilities out that mean what they say, by one temperature each.

Guo et al. 2017, "On Calibration of Modern Neural Networks": divide the logits by a temperature
fitted on validation data, which never changes who ranks above whom.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

from medfuse.config import Settings, Task, TaskKind
from medfuse.types import TaskPrediction

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a fitted temperature; separable validation data would drive it to zero."""


class TargetCalibration(Settings):
    """How one target's logit is read: ``offset + scale * (logit / temperature + bias)``.

    Only a regression has an offset and a scale, and only the others a temperature and a bias.
    """

    temperature: float = Field(default=1.0, gt=0)
    bias: float = Field(default=0.0, description="undoes the shift of class balancing")
    offset: float = Field(default=0.0, description="a regression's mean, in its own unit")
    scale: float = Field(default=1.0, gt=0, description="a regression's spread, in its own unit")


class Calibration(Settings):
    """How each target's logit is read, by target name; one that is not named is read as it is."""

    targets: dict[str, TargetCalibration] = Field(default_factory=dict)

    def of(self, target: str) -> TargetCalibration:
        """Give one target's calibration."""
        return self.targets.get(target, TargetCalibration())


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


def calibrate(
    tasks: Sequence[Task], logits: Float[np.ndarray, "n k"], calibration: Calibration
) -> Float[np.ndarray, "n k"]:
    """Scale logits so that their sigmoid or softmax, or a quantity itself, is what it says."""
    each = [calibration.of(target) for task in tasks for target in task.targets]
    bias, offset = [c.bias for c in each], [c.offset for c in each]
    scaled = logits.astype(np.float64) / [c.temperature for c in each] + bias
    return np.asarray(scaled * [c.scale for c in each] + offset)


def probabilities(
    task: Task, logits: Float[np.ndarray, "n k"], calibration: Calibration
) -> Float[np.ndarray, "n c"]:
    """Turn one task's logits into calibrated probabilities, a column per finding or class.

    A regression has none and gives (N, 0). An ordinal task's logits are of reaching each level; a
    level is never more probable to be reached than the one below it.
    """
    if task.kind is TaskKind.REGRESSION:
        return np.zeros((len(logits), 0))
    scaled = calibrate([task], logits, calibration)
    if task.kind is TaskKind.MULTICLASS:
        return np.asarray(softmax(scaled, axis=1))
    if task.kind is TaskKind.ORDINAL:
        reached = np.minimum.accumulate(expit(scaled), axis=1)
        edges = np.pad(reached, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        return np.asarray(edges[:, :-1] - edges[:, 1:])
    return np.asarray(expit(scaled))


def answer(
    tasks: Sequence[Task], logits: Float[np.ndarray, " k"], calibration: Calibration
) -> tuple[TaskPrediction, ...]:
    """Read one study's logits as an answer to each task."""
    answers = []
    for task, where in logit_slices(tasks):
        own = logits[where]
        value = None
        if task.kind is TaskKind.REGRESSION:
            value = float(calibrate([task], own[None], calibration)[0, 0])
        chances = probabilities(task, own[None], calibration)[0]
        answers.append(TaskPrediction(task=task, logits=own, probabilities=chances, value=value))
    return tuple(answers)


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
