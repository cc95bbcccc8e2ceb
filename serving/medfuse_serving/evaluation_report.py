"""An evaluation in; one HTML page with its plots inside, and one JSON file, out."""

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medfuse.bundle import Manifest
from medfuse.config import Task
from medfuse.errors import SettingsError
from medfuse.trust.answers import AS_GIVEN
from medfuse.trust.decision import DecisionCurve
from medfuse.trust.evaluation import Evaluation, Reliability
from medfuse.trust.figures import shown_columns
from medfuse.trust.promises import PromiseFigure

TEMPLATE = "evaluation.html.jinja"
PAGE, FIGURES = "report.html", "report.json"

NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def write_report(folder: Path, report: Evaluation, manifest: Manifest) -> None:
    """Write ``report.html`` and ``report.json``.

    Raises:
        SettingsError: They cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FIGURES).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(render_report(report, manifest.tasks), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written ({error.strerror})") from error


def render_report(report: Evaluation, tasks: Sequence[Task]) -> str:
    """Lay the page out; it holds all it shows and asks no other machine for anything."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("medfuse_serving").joinpath(TEMPLATE).read_text(encoding="utf-8")
    shown = [p for p in report.promises if p.studies]
    return environment.from_string(source).render(
        report=report,
        tasks=tasks,
        columns={task.name: shown_columns(task, report.subsets.values()) for task in tasks},
        kept=sum(p.kept for p in shown),
        asked=len(shown),
        plots={
            "reliability": _draw_reliability(
                [r for r in report.reliability if r.subset == AS_GIVEN]
            ),
            "promises": _draw_promises([p for p in shown if p.kind == "coverage"]),
            "decisions": _draw_decisions(report.decisions),
        },
    )


def _draw_reliability(own: Sequence[Reliability]) -> str:
    if not own:
        return ""
    figure, all_axes = _make_figure(len(own), 2.9)
    for axes, each in zip(all_axes, own, strict=True):
        total = sum(b.studies for b in each.bins)
        axes.plot([0, 1], [0, 1], color="0.75", linewidth=0.8)
        axes.scatter(
            [b.said for b in each.bins],
            [b.happened for b in each.bins],
            s=[6 + 120 * b.studies / total for b in each.bins],
            color="#2563eb",
            clip_on=False,
            zorder=3,
        )
        axes.set(title=each.target, xlabel="probability said", ylabel="share that has it")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _to_svg(figure)


def _draw_promises(own: Sequence[PromiseFigure]) -> str:
    if not own:
        return ""
    subsets = list(dict.fromkeys(p.subset for p in own))
    figure, all_axes = _make_figure(len(subsets), 3.2)
    for axes, subset in zip(all_axes, subsets, strict=True):
        rows = [p for p in own if p.subset == subset][::-1]
        axes.axvline(rows[0].promised, color="0.6", linewidth=0.8)
        for height, p in enumerate(rows):
            colour = "#2563eb" if p.kept else "#b91c1c"
            assert None not in (p.share, p.low, p.high)  # each shown has studies
            axes.plot(np.array([p.low, p.high], float), [height] * 2, color=colour, linewidth=1.2)
            axes.plot(
                np.array(p.share, float), height, "o" if p.kept else "X", color=colour, markersize=4
            )
        names = [f"{_short(p.question)} {p.group}{'' if p.exact else ' (hidden)'}" for p in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=6)
        axes.set(title=subset, xlabel="share of sets with the truth")
    return _to_svg(figure)


def _short(question: str) -> str:
    return question.partition(".")[2] or question


def _draw_decisions(own: Sequence[DecisionCurve]) -> str:
    if not own:
        return ""
    figure, all_axes = _make_figure(len(own), 2.9)
    for axes, curve in zip(all_axes, own, strict=True):
        x = curve.thresholds
        value = np.array([f.value for f in curve.model], float)
        if all(f.low is not None for f in curve.model):
            low, high = ([getattr(f, end) for f in curve.model] for end in ("low", "high"))
            axes.fill_between(x, low, high, color="#2563eb", alpha=0.2, linewidth=0)
        axes.plot(x, value, color="#2563eb", label="model")
        axes.plot(x, curve.everyone, color="0.5", linestyle="--", label="everybody")
        axes.axhline(0, color="0.5", linewidth=0.8, label="nobody")
        top = max(float(np.nanmax(value)), curve.everyone[0], 0.01)
        axes.set(title=curve.target, xlabel="acts from probability", ylabel="net benefit")
        axes.set(xlim=(0, 1), ylim=(-0.25 * top, 1.1 * top))
        axes.legend(fontsize=6)
    return _to_svg(figure)


def _make_figure(n: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(n, 4)
    rows = -(-n // columns)
    figure = Figure(figsize=(3.1 * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return figure, list(grid[:n])


def _to_svg(figure: Figure) -> str:
    """Write a figure as an SVG element, the same for the same figure."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "medfuse", "font.size": 8}):
        figure.savefig(file, format="svg", metadata=NO_METADATA)
    text = file.getvalue()
    return text[text.index("<svg") :]
