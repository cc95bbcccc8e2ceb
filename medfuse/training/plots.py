"""Plots: a run's losses and calibrated answers in, PNG files out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medfuse.config import Task, TaskKind
from medfuse.training.evaluate import AS_GIVEN, Answers
from medfuse.training.history import History
from medfuse.training.metrics import BINS
from medfuse.training.report import FusionGain, Verdict
from medfuse.trust.area import auroc
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.types import SUBSETS, subset_name

COLOURS: Mapping[Verdict, str] = {"harm": "C3", "gain": "C2", "undecided": "0.5"}


def plot_losses(path: Path, histories: Sequence[History]) -> None:
    """Draw training and validation loss by epoch, a pair of lines per model."""
    figure, (axes,) = make_figure(1)
    for i, history in enumerate(histories):
        epochs = range(1, len(history.train) + 1)
        axes.plot(epochs, history.train, "C0", label="training, thinned out" if not i else None)
        axes.plot(epochs, history.validation, "C1", label="validation" if not i else None)
        if history.validation:
            best = int(np.argmin(history.validation))
            axes.plot(best + 1, history.validation[best], "C1o")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    save_figure(figure, path)


def plot_roc(path: Path, tasks: Sequence[Task], answers: Answers) -> None:
    """Draw each yes-or-no target's ROC curve, a line per subset of modalities."""
    targets = list(_yes_no(tasks, answers))
    if not targets:
        return
    figure, all_axes = make_figure(len(targets))
    for axes, (target, k, labels) in zip(all_axes, targets, strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        for subset in SUBSETS:
            scores = answers.logits[subset_name(subset)][:, k]
            known = ~np.isnan(labels) & ~np.isnan(scores)
            yes = labels[known] == 1
            if yes.any() and not yes.all():
                area = auroc(scores[known], yes, np.ones((1, known.sum())))[0]
                false, true = roc_points(scores[known], yes)
                axes.plot(false, true, linewidth=1, label=f"{subset_name(subset)} {area:.2f}")
        axes.set(title=target, xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
        if len(axes.lines) > 1:  # a target that all or none of the studies have has no curve
            axes.legend(fontsize=6)
    save_figure(figure, path)


def plot_reliability(path: Path, tasks: Sequence[Task], answers: Answers) -> None:
    """Draw how often each yes-or-no target is there against how probable it was called."""
    targets = list(_yes_no(tasks, answers))
    if not targets:
        return
    figure, all_axes = make_figure(len(targets))
    for axes, (target, k, labels) in zip(all_axes, targets, strict=True):
        chances = 1 / (1 + np.exp(-answers.logits[AS_GIVEN][:, k]))
        known = ~np.isnan(labels)
        bins = np.minimum((chances[known] * BINS).astype(int), BINS - 1)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        filled = np.unique(bins)
        said = [chances[known][bins == b].mean() for b in filled]
        happened = [labels[known][bins == b].mean() for b in filled]
        size = [4 + 60 * np.mean(bins == b) for b in filled]
        axes.scatter(said, happened, s=size)
        axes.set(title=target, xlabel="probability said", ylabel="share that has it")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    save_figure(figure, path)


def plot_gains(path: Path, gains: Sequence[FusionGain]) -> None:
    """Draw what each subset adds to its best single modality, a panel per task; harm is red."""
    tasks = list(dict.fromkeys(gain.task for gain in gains))
    if not tasks:
        return
    figure, all_axes = make_figure(len(tasks))
    for axes, task in zip(all_axes, tasks, strict=True):
        own = [gain for gain in gains if gain.task == task][::-1]
        axes.axvline(0, color="0.8", linewidth=0.8)
        for height, gain in enumerate(own):
            difference, colour = gain.difference, COLOURS[gain.verdict]
            if difference.value is not None:
                axes.plot(difference.value, height, "o", color=colour)
            if difference.low is not None and difference.high is not None:
                axes.plot([difference.low, difference.high], [height, height], color=colour)
        names = [f"{gain.subset}\nover {gain.best_single}" for gain in own]
        axes.set_yticks(range(len(own)), names, fontsize=7)
        axes.set(title=task, xlabel=f"gain in {own[0].metric}")
    save_figure(figure, path)


def roc_points(
    scores: Float[np.ndarray, " n"], positive: np.ndarray
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Give false and true positive rates at every threshold, from none called to all."""
    _, group = np.unique(-scores, return_inverse=True)
    yes = np.bincount(group, weights=positive)
    no = np.bincount(group, weights=~positive)
    rates = [np.concatenate([[0.0], np.cumsum(part) / part.sum()]) for part in (no, yes)]
    return rates[0], rates[1]


def _yes_no(
    tasks: Sequence[Task], answers: Answers
) -> Iterator[tuple[str, int, Float[np.ndarray, " n"]]]:
    """Yield each target that is a yes or no, the place of its logit, and its labels."""
    places = zip(logit_slices(tasks), label_slices(tasks), strict=True)
    for (task, where), (_, columns) in places:
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            for k, target in enumerate(task.targets):
                yield target, where.start + k, answers.labels[:, columns.start + k]


def make_figure(n: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``n`` axes, three in a row."""
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(4 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen, whatever backend is set
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return figure, list(grid[:n])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
