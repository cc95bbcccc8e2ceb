"""A leaderboard in; a point and an interval per contender, as PNG, out."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from medfuse.training.leaderboard.report import Leaderboard
from medfuse.training.plots import make_figure, save_figure
from medfuse.trust.answers import AS_GIVEN
from medfuse.trust.bootstrap import Figure


def plot_leaderboard(path: Path, board: Leaderboard) -> None:
    """Draw the headline figure on studies as they are, the best on top."""
    figure, (axes,) = make_figure(1)
    figure.set_size_inches(6, 1.4 + 0.35 * len(board.entries))
    _draw(axes, board, AS_GIVEN)
    axes.set(xlabel=f"{board.metric}, studies as they are")
    _explain(figure, axes)
    save_figure(figure, path)


def plot_by_subset(path: Path, board: Leaderboard) -> None:
    """Draw it from each subset of modalities, in the same order."""
    subsets = [name for name in board.entries[0].subsets if name != AS_GIVEN]
    figure, all_axes = make_figure(len(subsets))
    rows = -(-len(subsets) // 3)
    figure.set_size_inches(13, rows * (1.2 + 0.3 * len(board.entries)))
    for axes, name in zip(all_axes, subsets, strict=True):
        _draw(axes, board, name)
        axes.set(title=name)
    _explain(figure, all_axes[0])
    figure.supxlabel(board.metric)
    save_figure(figure, path)


def _draw(axes: Axes, board: Leaderboard, subset: str) -> None:
    """Draw a row per contender, and the best possible as a line and a band."""
    entries = board.entries
    best = board.bayes.get(subset)
    if best is not None and best.value is not None:
        axes.axvline(best.value, color="0.4", linestyle="--", linewidth=1, label="best possible")
        if best.low is not None and best.high is not None:
            axes.axvspan(best.low, best.high, color="0.92")
    for y, own in enumerate(_figures(board, subset)):
        if own.value is None:
            continue
        if own.low is not None and own.high is not None:
            axes.plot([own.low, own.high], [y, y], "C0", linewidth=1.5)
        axes.plot(own.value, y, "C0o", markersize=5)
    axes.set_yticks(range(len(entries)), [entry.name for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _explain(figure: Canvas, axes: Axes) -> None:
    """Name the line outside the axes, where it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, fontsize=7, loc="outside upper right")


def _figures(board: Leaderboard, subset: str) -> Sequence[Figure]:
    return [entry.subsets.get(subset, Figure(value=None)) for entry in board.entries]
