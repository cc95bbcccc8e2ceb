"""The report of a training run: figures in, ``metrics.json`` and a readable table out."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from medfuse.config import Settings, Task
from medfuse.trust.answers import AS_GIVEN
from medfuse.trust.bootstrap import Figure
from medfuse.trust.figures import COLUMNS, FusionGain, SubsetReport, shown_columns


class StatedReport(Settings):
    """How rightly the text states one finding.

    Attributes:
        threshold: The calibrated probability from which it is stated; None where it never is,
            since no threshold was precise enough on the validation studies.
        stated: In how many test studies it is.
        precision: The share of those that have it.
        recall: The share of the studies that have it in which it is stated.
    """

    threshold: float | None
    stated: int
    precision: Figure
    recall: Figure


class Report(Settings):
    """All the figures of a run.

    Attributes:
        studies: How many are in each split; of cross-validation, in how many tests.
        excluded: Rows of the table that were left out, by reason.
        folds: 0, or how many models' answers are pooled.
        epochs: That each model was fitted for.
        seconds: That preparing, fitting and measuring took.
        subsets: On test studies.
        gains: Of every task, what each subset of several modalities adds to the best one of them.
        fold_values: The headline figure of every fold by itself, by subset.
        attacked: On the same studies, whatever they have, with every feature moved against the
            answer, by how far in standard deviations.
        text: How rightly each finding is stated; None of a model that writes no text, and of
            cross-validation, whose models each have thresholds of their own.
    """

    studies: dict[str, int]
    patients: int
    excluded: dict[str, int]
    folds: int
    epochs: tuple[int, ...]
    seconds: dict[str, float]
    subsets: dict[str, SubsetReport]
    gains: tuple[FusionGain, ...]
    fold_values: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    attacked: dict[str, SubsetReport] = Field(default_factory=dict)
    text: dict[str, StatedReport] | None = None


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
    yield from _attack_lines(report, tasks)
    yield from _text_lines(report)
    yield from _gain_lines(report)


def _attack_lines(report: Report, tasks: Sequence[Task]) -> Iterator[str]:
    """Tabulate each task's answers under attack."""
    if not report.attacked:
        return
    yield ""
    yield "## Under attack"
    yield ""
    yield "Every feature moved against the answer by one step of the fast gradient sign method."
    for task in tasks:
        column = COLUMNS[task.kind][0]
        yield ""
        yield from table_head((task.name, "standard deviations", column))
        untouched = {"0": report.subsets[AS_GIVEN]} if AS_GIVEN in report.subsets else {}
        for epsilon, own in (untouched | report.attacked).items():
            yield table_row(("", epsilon, str(own.targets[task.name].get(column, "-"))))


def _text_lines(report: Report) -> Iterator[str]:
    """Tabulate how rightly each finding is stated in words."""
    if report.text is None:
        return
    yield ""
    yield "## Findings text"
    yield ""
    yield "From its threshold on a finding is stated; without one precise enough it never is."
    yield ""
    yield from table_head(("finding", "threshold", "stated", "precision", "recall"))
    for target, own in report.text.items():
        least = "never stated" if own.threshold is None else f"{own.threshold:.3f}"
        yield table_row((target, least, str(own.stated), str(own.precision), str(own.recall)))


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
    if report.gains:
        yield ""
        yield from _harm_lines(report.gains)


def _harm_lines(gains: Sequence[FusionGain]) -> Iterator[str]:
    """Write the comparison of the first task's richest subset, and every one that shows harm."""
    richest = [gain for gain in gains if gain.task == gains[0].task][-1]
    yield _sentence(richest)
    harmful = [gain for gain in gains if gain.verdict == "harm"]
    for gain in harmful:
        if gain is not richest:
            yield _sentence(gain)
    yield (
        f"Fusion does harm in {len(harmful)} of {len(gains)} comparisons with the best single "
        "modality (the whole interval below zero)."
    )


def _sentence(gain: FusionGain) -> str:
    return (
        f"{gain.subset} against {gain.best_single} alone (the best on validation), "
        f"{gain.task}.{gain.metric}, {gain.studies} studies: {gain.fused} against {gain.single}, "
        f"difference {gain.difference}: {gain.verdict}."
    )


def _gain_lines(report: Report) -> Iterator[str]:
    """Tabulate what each subset adds to its best single modality."""
    if not report.gains:
        return
    yield ""
    yield "## Do no harm"
    yield ""
    yield "Each subset against the best of its modalities alone (chosen on validation), same test"
    yield "studies. Harm: the whole interval of the difference lies below zero; gain: above."
    yield ""
    columns = ("task", "subset", "studies", "metric", "fused", "best single", "alone")
    yield from table_head((*columns, "difference", "verdict"))
    for gain in report.gains:
        fused = (gain.task, gain.subset, str(gain.studies), gain.metric, str(gain.fused))
        single = (gain.best_single, str(gain.single))
        yield table_row((*fused, *single, str(gain.difference), gain.verdict))


def _columns(report: Report, task: Task, *, brief: bool) -> tuple[str, ...]:
    columns = shown_columns(task, report.subsets.values())
    if not brief:
        return columns
    return ("auroc", "bayes_share") if "bayes_share" in columns else columns[:2]


def _subset_lines(report: Report, task: Task, columns: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"## {task.name}"
    yield ""
    yield from table_head(("modalities", "studies", *columns))
    for name, subset in report.subsets.items():
        figures = subset.targets[task.name]
        cells = [str(figures.get(column, "-")) for column in columns]
        yield table_row((name, str(subset.studies), *cells))


def _target_lines(report: Report, task: Task, columns: Sequence[str]) -> Iterator[str]:
    if len(task.targets) < 2:
        return
    first = columns[: columns.index("auprc")] if "auprc" in columns else columns
    for name, subset in report.subsets.items():
        yield ""
        yield f"### {task.name} from {name}"
        yield ""
        yield from table_head(("target", *first))
        for target in task.targets:
            figures = subset.targets[target]
            yield table_row((target, *(str(figures.get(column, "-")) for column in first)))


def table_head(columns: Sequence[str]) -> Iterator[str]:
    """Write a Markdown table's head."""
    yield table_row(columns)
    yield table_row(["---"] * len(columns))


def table_row(cells: Sequence[str]) -> str:
    """Write a Markdown table's row."""
    return "| " + " | ".join(cells) + " |"
