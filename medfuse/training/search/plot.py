"""A search's record in; its course, and how much each setting matters, as PNG out."""

from pathlib import Path

import numpy as np

from medfuse.training.plots import make_figure, save_figure
from medfuse.training.search.report import SearchReport


def plot_search(path: Path, report: SearchReport) -> None:
    """Draw the objective by trial, with the best so far, and the importances."""
    figure, (course, bars) = make_figure(2)
    figure.set_size_inches(10, 4)
    styles = {"complete": ("C0o", "complete"), "pruned": ("C7x", "pruned")}
    for state, (style, label) in styles.items():
        chosen = [t for t in report.trials if t.state == state and t.value is not None]
        if chosen:
            course.plot(
                [t.number for t in chosen],
                [float(t.value or 0) for t in chosen],
                style,
                label=label,
            )
    done = sorted(report.complete(), key=lambda t: t.number)
    if done:
        best = np.maximum if report.higher_is_better else np.minimum
        so_far = best.accumulate([float(t.value or 0) for t in done])
        numbers = [t.number for t in done]
        course.step(numbers, so_far, "C1", where="post", label="best so far")
        course.legend(fontsize=8)
    course.locator_params(axis="x", integer=True)
    course.set(xlabel="trial", ylabel=f"{report.objective}, validation")
    names = list(report.importances)[::-1]
    bars.barh(names, [report.importances[name] for name in names], color="C0")
    bars.set(xlabel="importance", xlim=(0, 1))
    save_figure(figure, path)
