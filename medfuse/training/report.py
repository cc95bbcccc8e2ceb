"""The report of a training run: figures in, ``metrics.json`` and a readable table out."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from medfuse.config import Settings, Task, TaskKind
from medfuse.training.bootstrap import Figure

COLUMNS = {
    TaskKind.BINARY: ("auroc", "auprc", "accuracy", "recall", "precision", "f1", "brier", "ece"),
    TaskKind.MULTILABEL: (
        "auroc",
        "auprc",
        "accuracy",
        "recall",
        "precision",
        "f1",
        "brier",
        "ece",
    ),
    TaskKind.MULTICLASS: ("auroc", "auprc", "accuracy", "recall", "precision", "f1", "ece"),
    TaskKind.ORDINAL: ("auroc", "auprc", "accuracy", "kappa", "mae", "ece"),
    TaskKind.REGRESSION: ("mae", "rmse", "r2"),
}
"""What the readable table shows of a task; ``metrics.json`` has everything."""


class SubsetReport(Settings):
    """Figures from one subset of modalities, on the studies that have it.

    `targets` maps a target's name, and the task's for the mean over its targets, to its metrics.
    """

    studies: int
    patients: int
    targets: dict[str, dict[str, Figure]]


class FusionGain(Settings):
    """What fusion adds to the best single modality, on the same test studies."""

    metric: str
    subset: str
    best_single: str
    studies: int
    fused: Figure
    single: Figure
    difference: Figure


class Report(Settings):
    """All the figures of a run.

    Attributes:
        studies: How many are in each split; of cross-validation, in how many tests.
        excluded: Rows of the table that were left out, by reason.
        folds: 0, or how many models' answers are pooled.
        epochs: That each model was fitted for.
        seconds: That preparing, fitting and measuring took.
        subsets: On test studies.
        fold_values: The headline figure of every fold by itself, by subset.
    """

    studies: dict[str, int]
    patients: int
    excluded: dict[str, int]
    folds: int
    epochs: tuple[int, ...]
    seconds: dict[str, float]
    subsets: dict[str, SubsetReport]
    gain: FusionGain | None
    fold_values: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)


def format_report(report: Report, tasks: Sequence[Task]) -> str:
    """Write the report as Markdown."""
    return "\n".join(_lines(report, tasks)) + "\n"


def format_summary(report: Report, tasks: Sequence[Task]) -> str:
    """Write as Markdown what fits a terminal: the leading figures of each subset."""
    lines = [*_head_lines(report)]
    for task in tasks:
        lines += _subset_lines(report, task, _columns(report, task, brief=True))
    return "\n".join(lines) + "\n"


def _lines(report: Report, tasks: Sequence[Task]) -> Iterator[str]:
    yield from _head_lines(report)
    for task in tasks:
        columns = _columns(report, task, brief=False)
        yield from _subset_lines(report, task, columns)
        yield from _target_lines(report, task, columns)


def _head_lines(report: Report) -> Iterator[str]:
    yield "# Figures on test studies"
    yield ""
    counts = ", ".join(f"{n} {name}" for name, n in report.studies.items())
    yield f"Studies: {counts}; {report.patients} patients in all."
    for reason, n in report.excluded.items():
        yield f"Left out: {n} ({reason})."
    if report.folds:
        yield f"Cross-validation by patient: the answers of {report.folds} models, pooled."
    yield "Brackets: 95 % bootstrap interval by patient."
    if report.gain is not None:
        gain = report.gain
        yield ""
        yield (
            f"{gain.subset} against {gain.best_single} alone (the best on validation), "
            f"{gain.metric}, {gain.studies} studies: {gain.fused} against {gain.single}, "
            f"difference {gain.difference}."
        )


def _columns(report: Report, task: Task, *, brief: bool) -> tuple[str, ...]:
    columns = COLUMNS[task.kind]
    known = any("bayes_auroc" in s.targets[task.name] for s in report.subsets.values())
    if brief:
        return ("auroc", "bayes_share") if known else columns[:2]
    return ("auroc", "bayes_auroc", "bayes_share", *columns[1:]) if known else columns


def _subset_lines(report: Report, task: Task, columns: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"## {task.name}"
    yield ""
    yield from _head(("modalities", "studies", *columns))
    for name, subset in report.subsets.items():
        figures = subset.targets[task.name]
        cells = [str(figures.get(column, "-")) for column in columns]
        yield _row((name, str(subset.studies), *cells))


def _target_lines(report: Report, task: Task, columns: Sequence[str]) -> Iterator[str]:
    if len(task.targets) < 2:
        return
    first = columns[: columns.index("auprc")] if "auprc" in columns else columns
    for name, subset in report.subsets.items():
        yield ""
        yield f"### {task.name} from {name}"
        yield ""
        yield from _head(("target", *first))
        for target in task.targets:
            figures = subset.targets[target]
            yield _row((target, *(str(figures.get(column, "-")) for column in first)))


def _head(columns: Sequence[str]) -> Iterator[str]:
    yield _row(columns)
    yield _row(["---"] * len(columns))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
