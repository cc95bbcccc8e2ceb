"""The scores of an audit in; figures with intervals, verdicts, tables and files out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.table import Table

from medfuse.attribution.settings import Method
from medfuse.audit.evaluate import SOURCES, AuditSettings, Owner, Score, Source
from medfuse.audit.figures import Figure, estimate_mean
from medfuse.audit.truth import unique_modality
from medfuse.config import Settings
from medfuse.errors import SettingsError
from medfuse.types import MODALITIES, Modality

ALL = "all findings"
"""A line over every finding that has evidence in the modality."""

PLACES = (
    "pointing",
    "share",
    "share near",
    "net elsewhere",
    "insertion less deletion",
    "random orders beaten",
)
"""The figures of a map, in the order of the tables."""

JUDGED = ("pointing", "share", "insertion less deletion")
"""Those of them by which a method is held against the controls."""

TELLING = (
    "dominant right",
    "synergy",
    "synergy sign right",
    "interaction where planted",
    "interaction elsewhere",
)
"""The figures of what modalities tell."""

TITLES: Mapping[Source, str] = {
    "model": "model",
    "random": "random map",
    "edges": "edge detector",
    "randomised": "weights randomised",
}


class Line(Settings):
    """One figure of one source.

    Attributes:
        figure: Its name.
        finding: Or `ALL`.
        where: A modality, a pair of them, or nothing.
        method: Of attribution; None where a figure has none.
        source: Whose figure it is.
        mean: Over studies, with its interval.
    """

    figure: str
    finding: str
    where: str
    method: Method | None
    source: Owner
    mean: Figure


class Verdict(Settings):
    """Whether a method knows more than a control does, by the intervals of their figures.

    Attributes:
        method: Of attribution; None for what the modalities tell.
        where: The modality, or nothing.
        finding: What is compared: the finding that only this modality tells, or `ALL`.
        control: Held against.
        well_above: By figure: whether the method's whole interval lies above the control's.
    """

    method: Method | None
    where: str
    finding: str
    control: Source
    well_above: dict[str, bool]

    @property
    def passed(self) -> bool:
        """Whether it is well above in every figure."""
        return all(self.well_above.values())


class AuditReport(Settings):
    """What `medfuse explain-eval` measured."""

    schema_version: Literal[1] = 1
    model: str = Field(description="the bundle's digest")
    settings: AuditSettings
    lines: tuple[Line, ...]
    verdicts: tuple[Verdict, ...]

    def find(
        self, figure: str, finding: str, where: str, method: Method | None, source: Owner
    ) -> Figure:
        """Look up a figure; an empty one where nothing was measured."""
        wanted = (figure, finding, where, method, source)
        for line in self.lines:
            if (line.figure, line.finding, line.where, line.method, line.source) == wanted:
                return line.mean
        return Figure(value=None)


def summarise(scores: Iterable[Score], settings: AuditSettings, model: str) -> AuditReport:
    """Average scores over studies, per finding and over all of them, and hold them to controls."""
    groups: dict[tuple[str, str, str, str, Owner], tuple[list[float], list[int]]]
    groups = defaultdict(lambda: ([], []))
    for score in scores:
        for finding in (score.finding, ALL):
            key = (score.name, finding, score.where, score.method, score.source)
            groups[key][0].append(score.value)
            groups[key][1].append(score.patient)
            if score.name == "interaction elsewhere":  # over all pairs too
                key = (score.name, finding, "", score.method, score.source)
                groups[key][0].append(score.value)
                groups[key][1].append(score.patient)
    lines = tuple(
        Line(
            figure=figure,
            finding=finding,
            where=where,
            method=method or None,  # type: ignore[arg-type]  # pydantic checks the name
            source=source,
            mean=estimate_mean(values, patients, settings.seed),
        )
        for (figure, finding, where, method, source), (values, patients) in groups.items()
    )
    report = AuditReport(model=model, settings=settings, lines=lines, verdicts=())
    return report.model_copy(update={"verdicts": tuple(_judge(report))})


def unique_findings(report: AuditReport, modality: Modality) -> tuple[str, ...]:
    """Name the audited findings that only this modality tells."""
    return tuple(f for f in report.settings.findings if unique_modality(f) is modality)


def _judge(report: AuditReport) -> Iterable[Verdict]:
    """Hold every method, and then the shares, against each control."""
    for method in report.settings.methods:
        for modality in MODALITIES:
            for finding in unique_findings(report, modality) or (ALL,):
                places = [(figure, modality.value) for figure in JUDGED]
                yield from _compare(report, method, modality.value, finding, places)
    planted = [(line.figure, line.where) for line in report.lines if line.figure == "synergy"]
    yield from _compare(report, None, "", ALL, [("dominant right", ""), *planted[:1]])


def _compare(
    report: AuditReport,
    method: Method | None,
    where: str,
    finding: str,
    figures: Sequence[tuple[str, str]],
) -> Iterable[Verdict]:
    for control in SOURCES[1:]:
        above = {}
        for figure, place in figures:
            key = (figure, finding, place, method)
            better = report.find(*key, "model").above(report.find(*key, control))
            if better is not None:
                above[figure] = better
        if above:
            yield Verdict(
                method=method, where=where, finding=finding, control=control, well_above=above
            )


def place_tables(report: AuditReport, findings: Sequence[str] | None = None) -> Iterable[Table]:
    """Make a table per modality: where each method's maps point, and the controls'.

    Args:
        report: The figures.
        findings: Which to show; those that only the modality tells, and all together, if not said.
    """
    for modality in MODALITIES:
        table = Table("finding", "method", "figure", "n", title=modality.value)
        for source in SOURCES:
            table.add_column(TITLES[source], justify="right")
        table.add_column("chance", justify="right")
        for finding in findings or (*unique_findings(report, modality), ALL):
            for method in report.settings.methods:
                for figure in PLACES:
                    key = (figure, finding, modality.value, method)
                    if report.find(*key, "model").value is None:
                        continue
                    found = [report.find(*key, source) for source in SOURCES]
                    chance = report.find(*key, "chance").value
                    table.add_row(
                        finding,
                        method,
                        figure,
                        str(found[0].count),
                        *map(str, found),
                        "" if chance is None else f"{chance:.2f}",
                    )
        if table.rows:
            yield table


def telling_table(report: AuditReport) -> Table:
    """Make the table of what the modalities tell: which one most, and which only together."""
    table = Table("figure", "where", "n", "exact", title="shares and synergy")
    for source in SOURCES:
        table.add_column(TITLES[source], justify="right")
    for figure in TELLING:
        for where in ("", *sorted({line.where for line in report.lines if line.where})):
            found = [report.find(figure, ALL, where, None, source) for source in SOURCES]
            if found[0].value is None or (figure == "interaction elsewhere" and where):
                continue
            exact = report.find(figure, ALL, where, None, "exact").value
            table.add_row(
                figure,
                where or "any",
                str(found[0].count),
                "" if exact is None else f"{exact:.2f}",
                *map(str, found),
            )
    return table


def badge_table(report: AuditReport) -> Table:
    """Make the table of how many explanations pass the badge, and each of its checks."""
    table = Table("method", "check", "n", title="reliability badge, share that passes")
    for source in ("model", "randomised"):
        table.add_column(source, justify="right")
    for method in report.settings.methods:
        names = {line.figure for line in report.lines if line.figure.startswith("badge")}
        for name in sorted(names):
            model = report.find(name, ALL, "", method, "model")
            control = report.find(name, ALL, "", method, "randomised")
            if model.value is not None:
                check = name.removeprefix("badge").strip() or "all checks"
                table.add_row(method, check, str(model.count), str(model), str(control))
    return table


def describe(verdict: Verdict) -> str:
    """Say a verdict in one line."""
    figures = ", ".join(f"{name} {'yes' if v else 'NO'}" for name, v in verdict.well_above.items())
    who = f"{verdict.where}, {verdict.finding}, {verdict.method}" if verdict.method else "shares"
    return f"{who}: well above {TITLES[verdict.control]}: {figures}"


def write_report(folder: Path, report: AuditReport) -> None:
    """Write ``audit.json``, and ``audit.md`` with the figures of every finding.

    Raises:
        SettingsError: The folder cannot be written to.
    """
    findings = (*report.settings.findings, ALL)
    tables = [*place_tables(report, findings), telling_table(report), badge_table(report)]
    text = "\n".join(
        [
            "# Explanations against known truth",
            "",
            f"Model {report.model}; {report.settings.studies} unseen studies from number "
            f"{report.settings.first}, baseline {report.settings.baseline}, seed "
            f"{report.settings.seed}. Brackets are 95 % bootstrap intervals that draw patients.",
            "",
            *(line for table in tables for line in _to_markdown(table)),
            "## Verdicts",
            "",
            *(f"* {describe(verdict)}" for verdict in report.verdicts),
            "",
        ]
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / "audit.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written ({error.strerror})") from error


def _to_markdown(table: Table) -> list[str]:
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    heads = [str(column.header) or " " for column in table.columns]
    rows = [f"| {' | '.join(row)} |" for row in zip(*cells, strict=True)]
    rule = f"| {' | '.join('---' for _ in heads)} |"
    return [f"## {table.title}", "", f"| {' | '.join(heads)} |", rule, *rows, ""]
