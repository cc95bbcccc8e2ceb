"""What a check finds: findings with their figures and remedies in, JSON and a readable page out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from medfuse.config import Box, Settings
from medfuse.errors import CohortError
from medfuse.trust.bootstrap import Figure

Severity = Literal["fail", "warn", "info"]

JSON = "check.json"
PAGE = "check.md"

EXAMPLES = 5
"""How many studies a finding names."""


class Remedy(Settings):
    """What takes a leak away; `medfuse check-cohort --fix` applies it.

    Attributes:
        mask_words: For ``prepare.note.mask_words``.
        lowpass_hz: For ``prepare.voice.lowpass_hz``.
        blank: For ``prepare.image.blank``.
        drop: Studies whose rows go.
        group: Studies that are of one patient; each group gets one patient and one split.
    """

    mask_words: tuple[str, ...] = ()
    lowpass_hz: float | None = None
    blank: tuple[Box, ...] = ()
    drop: tuple[str, ...] = Field(default=(), repr=False)
    group: tuple[tuple[str, ...], ...] = Field(default=(), repr=False)

    def __str__(self) -> str:
        """Say in words what it does."""
        parts = []
        if self.mask_words:
            parts.append("mask " + ", ".join(f"'{word}'" for word in self.mask_words))
        if self.lowpass_hz is not None:
            parts.append(f"low-pass every recording at {self.lowpass_hz:g} Hz")
        if self.blank:
            parts.append("blank " + "; ".join(_describe_box(box) for box in self.blank))
        if self.group:
            parts.append(f"make {len(self.group)} group(s) of studies one patient each")
        if self.drop:
            parts.append(f"drop {len(self.drop)} row(s)")
        return ", ".join(parts)


class LeakFinding(Settings):
    """One thing that a cohort gives away.

    Attributes:
        kind: Such as ``site``; docs/check-cohort.md lists them.
        severity: Training refuses a ``fail``; a ``warn`` wants a look; an ``info`` is for reading.
        target: The label that it tells, such as ``findings.nodule``; None where it is of none.
        feature: What tells it, in words; holds no cell of a row and no patient.
        figure: How well it tells the label: an out-of-fold AUROC with its interval by patient.
        count: Of how many studies it is true.
        p: Chance of so much by accident, adjusted for all that this kind of check tried.
        examples: Some of those studies, by their identifiers.
        message: One sentence.
        remedy: What to do; None where nobody but the cohort's owner can know.
    """

    kind: str
    severity: Severity
    target: str | None = None
    feature: str = ""
    figure: Figure | None = None
    count: int = 0
    p: float | None = None
    examples: tuple[str, ...] = ()
    message: str
    remedy: Remedy | None = None


class Unchecked(Settings):
    """What could not be looked at, and why."""

    kind: str
    why: str


class LeakReport(Settings):
    """All that a check found.

    Attributes:
        studies: How many were checked.
        patients: Of how many patients.
        cohort_digest: SHA-256 of the rows' identities, labels and splits.
        findings: Failures first.
        unchecked: What the cohort is too small for, or does not have.
        kinds: All kinds that were looked for.
    """

    schema_version: Literal[1] = 1
    studies: int
    patients: int
    cohort_digest: str
    findings: tuple[LeakFinding, ...]
    unchecked: tuple[Unchecked, ...] = ()
    kinds: tuple[str, ...] = ()

    def by(self, *severities: Severity) -> tuple[LeakFinding, ...]:
        """Give the findings of some severities."""
        return tuple(f for f in self.findings if f.severity in severities)

    @property
    def failed(self) -> tuple[str, ...]:
        """The kinds that fail, each once."""
        return tuple(dict.fromkeys(f.kind for f in self.by("fail")))


class LeakRecord(Settings):
    """What a checkpoint and a bundle keep of the check: findings without any study.

    Attributes:
        mode: ``refuse`` where nothing failed, ``record`` where training was told to go on, ``off``.
        failed: The kinds that failed, and were overridden.
        findings: The figures of what failed and warned, as sentences.
    """

    mode: Literal["refuse", "record", "off"]
    failed: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def overridden(self) -> bool:
        """Whether the model was trained although a check failed, or none was made."""
        return bool(self.failed) or self.mode == "off"


def summarise_report(report: LeakReport, mode: Literal["refuse", "record", "off"]) -> LeakRecord:
    """Keep what may leave the cohort's owner: no study, and nothing of a row."""
    told = report.by("fail", "warn")
    return LeakRecord(
        mode=mode, failed=report.failed, findings=tuple(describe_finding(f) for f in told)
    )


def describe_finding(finding: LeakFinding) -> str:
    """Write a finding as one line without a word of a note or a value of a column."""
    told = "" if finding.target is None else f" tells {finding.target}"
    figure = "" if finding.figure is None else f", AUROC {finding.figure}"
    return f"{finding.severity}: {finding.kind}{told}, {finding.count} studies{figure}"


def describe_overrides(records: Mapping[str, LeakRecord]) -> Iterator[str]:
    """Say which of several models were trained although a check failed, or none was made."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, record in records.items():
        if record.overridden:
            alike.setdefault(record.failed, []).append(name)
    for failed, names in alike.items():
        kinds = f"although the cohort gives labels away by {', '.join(failed)}"
        yield f"Trained {kinds if failed else 'without a check for leaks'}: {', '.join(names)}."


def write_report(report: LeakReport, folder: Path) -> None:
    """Write a report as `JSON` and as `PAGE` into a folder, which is made.

    Raises:
        CohortError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(format_report(report), encoding="utf-8")
    except OSError as error:
        raise CohortError(f"{folder}: the report cannot be written ({error.strerror})") from error


def format_report(report: LeakReport) -> str:
    """Write the report as Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: LeakReport) -> Iterator[str]:
    failed, warned = report.by("fail"), report.by("warn")
    verdict = f"fails ({', '.join(report.failed)})" if failed else "passes"
    yield f"# The cohort {verdict}"
    yield ""
    yield (
        f"{report.studies} studies of {report.patients} patients; {len(failed)} failure(s), "
        f"{len(warned)} warning(s). AUROC: out of fold by patient, with a 95 % bootstrap interval."
    )
    titles: tuple[tuple[Severity, str], ...] = (
        ("fail", "Failures"),
        ("warn", "Warnings"),
        ("info", "For reading"),
    )
    for severity, title in titles:
        found = report.by(severity)
        if not found:
            continue
        yield ""
        yield f"## {title}"
        for finding in found:
            yield ""
            yield from _finding_lines(finding)
    if report.unchecked:
        yield ""
        yield "## Not checked"
        yield ""
        for each in report.unchecked:
            yield f"- {each.kind}: {each.why}"


def _finding_lines(finding: LeakFinding) -> Iterator[str]:
    figure = "" if finding.figure is None else f" AUROC {finding.figure}."
    chance = "" if finding.p is None else f" p {finding.p:.1g}."
    yield f"- **{finding.kind}**: {finding.message}{figure}{chance}"
    if finding.examples:
        more = " and more" if finding.count > len(finding.examples) else ""
        yield f"  Studies: {', '.join(finding.examples)}{more}."
    if finding.remedy is not None:
        yield f"  Remedy: {finding.remedy}."


def _describe_box(box: Box) -> str:
    return (
        f"rows {box.top:.0%} to {box.bottom:.0%}, columns {box.left:.0%} to {box.right:.0%} of "
        "every frame"
    )


def pick_examples(study_ids: Sequence[str]) -> tuple[str, ...]:
    """Name the first few studies."""
    return tuple(study_ids[:EXAMPLES])
