"""What a benchmark found: frozen records in; JSON and a Markdown page out."""

from collections.abc import Iterator
from typing import Literal

from medfuse.config import Settings
from medfuse.training.report import table_head, table_row
from medfuse.trust.bootstrap import Figure

NOTICE = "For research only: nothing here is clinical evidence."


class Entry(Settings):
    """One contender's figures.

    Attributes:
        role: Metadata alone, a single modality, or a fusion.
        auroc: Of its answers, the mean over the repeats for each study.
        accuracy: Of the same, at even odds.
        repeat_aurocs: Of each repeat by itself.
        over_metadata: Its AUROC less that of metadata alone, on the same patients.
        over_single: A fusion's AUROC less that of the best single modality, likewise.
    """

    name: str
    role: Literal["metadata", "single", "fusion"]
    auroc: Figure
    accuracy: Figure
    repeat_aurocs: tuple[float, ...]
    over_metadata: Figure | None = None
    over_single: Figure | None = None


class Published(Settings):
    """A figure from the literature, for orientation: of other patients, or of another split."""

    name: str
    auroc: float | None
    accuracy: float | None
    source: str


class Table(Settings):
    """All contenders on one population.

    Attributes:
        population: In words.
        positives: Studies that have the label, of all that are asked about.
        left_out: Rows of the data that are not among them, by reason.
        judged: How patients were divided, in words.
        majority: Accuracy of always saying the commoner label.
        best_single: The single modality with the highest AUROC, which fusions are held against.
        fusion: The contender, named beforehand, that a gain of fusion is read from; or none.
    """

    title: str
    population: str
    studies: int
    patients: int
    positives: int
    left_out: dict[str, int]
    judged: str
    resamples: int
    majority: Figure
    entries: tuple[Entry, ...]
    best_single: str
    fusion: str = ""

    def find(self, name: str) -> Entry:
        """Give a contender's figures."""
        return next(entry for entry in self.entries if entry.name == name)


class BenchmarkRecord(Settings):
    """One benchmark.

    Attributes:
        command: That makes these figures.
        synthetic_patients: Whether modalities of different people were put together.
        not_shown: What the figures do not show, a paragraph.
    """

    name: str
    question: str
    command: str
    synthetic_patients: bool
    tables: tuple[Table, ...]
    published: tuple[Published, ...]
    not_shown: str


class BenchmarkReport(Settings):
    """All that were run, and why others were not.

    Attributes:
        skipped: By name, what was missing.
    """

    schema_version: Literal[1] = 1
    records: tuple[BenchmarkRecord, ...]
    skipped: dict[str, str]


LEAST = 0.0005
"""What is shown as 0.000 is no gain, whatever its further digits are."""


def describe_gains(table: Table) -> str:
    """Say in a sentence whether fusion gains over the best single modality."""
    if not table.fusion:
        return "Nothing is fused: one modality."
    gain = table.find(table.fusion).over_single
    assert gain is not None  # it is a fusion
    told = f"`{table.fusion}` less `{table.best_single}`: {gain}"
    if gain.low is not None and gain.low >= LEAST:
        return f"A gain of fusion over the best single modality is shown ({told})."
    if gain.high is not None and gain.high <= -LEAST:
        return f"Fusion loses ({told})."
    return f"No gain of fusion is shown, since the interval reaches zero ({told})."


def describe_baseline(table: Table) -> str:
    """Say in a sentence whether the best single modality tells more than metadata alone."""
    over = table.find(table.best_single).over_metadata
    assert over is not None  # it is not metadata itself
    if over.low is not None and over.low >= LEAST:
        return f"`{table.best_single}` tells more than metadata alone ({over})."
    return f"That `{table.best_single}` tells more than metadata alone is not shown ({over})."


def format_benchmarks(report: BenchmarkReport) -> str:
    """Write it as Markdown."""
    return "\n".join(_lines(report)) + "\n"


def format_table(table: Table) -> str:
    """Write one population's table as Markdown."""
    return "\n".join(_table_lines(table)) + "\n"


def _lines(report: BenchmarkReport) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield (
        f"{NOTICE} Brackets: 95 % bootstrap interval by patient. `less metadata` and `less the "
        "best single` are differences of AUROC on the same patients, with paired intervals. They "
        "hold the models as they were fitted: what another draw of training patients would change "
        "shows in `one repeat`, the lowest and highest AUROC of one repeat by itself."
    )
    for record in report.records:
        yield ""
        yield from _record_lines(record)
    if report.skipped:
        yield ""
        yield "## Not run"
        yield ""
        for name, why in report.skipped.items():
            yield f"- `{name}`: {why}"


def _record_lines(record: BenchmarkRecord) -> Iterator[str]:
    yield f"## {record.name}: {record.question}"
    yield ""
    yield f"`{record.command}`"
    if record.synthetic_patients:
        yield ""
        yield (
            "**Synthetic patients**: each is put together from parts of different people who have "
            "the same label."
        )
    for table in record.tables:
        yield ""
        yield from _table_lines(table)
        yield ""
        yield f"{describe_gains(table)} {describe_baseline(table)}"
    if record.published:
        yield ""
        yield "Published, for orientation:"
        yield ""
        yield from table_head(("", "AUROC", "accuracy", "source"))
        for each in record.published:
            yield table_row((each.name, _show(each.auroc), _show(each.accuracy), each.source))
    yield ""
    yield f"**What this does not show.** {record.not_shown} {NOTICE}"


def _table_lines(table: Table) -> Iterator[str]:
    yield f"### {table.title}"
    yield ""
    negatives = table.studies - table.positives
    yield (
        f"{table.population} {table.studies} studies of {table.patients} patients; "
        f"{table.positives} have the label, {negatives} do not. {table.judged} "
        f"{table.resamples} resamples."
    )
    if table.left_out:
        left = "; ".join(f"{reason}: {count}" for reason, count in table.left_out.items())
        yield f"Left out: {left}."
    yield ""
    columns = ("AUROC", "one repeat", "accuracy", "less metadata", "less the best single")
    yield from table_head(("", "role", *columns))
    yield table_row(("the commoner label", "baseline", "0.500", "-", str(table.majority), "-", "-"))
    for entry in table.entries:
        low, high = min(entry.repeat_aurocs), max(entry.repeat_aurocs)
        yield table_row(
            (
                entry.name,
                entry.role,
                str(entry.auroc),
                f"{low:.3f} to {high:.3f}",
                str(entry.accuracy),
                "-" if entry.over_metadata is None else str(entry.over_metadata),
                "-" if entry.over_single is None else str(entry.over_single),
            )
        )


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
