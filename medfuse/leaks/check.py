"""The check: a cohort's settings in; the report of all that it gives away out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import comb

from medfuse.config import PrepareSettings, Task, read_settings
from medfuse.data.cohort import CohortSettings, WholeTable, read_whole_table
from medfuse.leaks.checks.absence import check_absence
from medfuse.leaks.checks.acquisition import KINDS, check_acquisition
from medfuse.leaks.checks.columns import check_columns
from medfuse.leaks.checks.duplicates import check_duplicates
from medfuse.leaks.checks.marks import check_marks
from medfuse.leaks.checks.notes import (
    check_label_words,
    check_note_words,
    check_sources,
    check_templates,
)
from medfuse.leaks.checks.patients import check_labels, check_splits
from medfuse.leaks.checks.recordings import check_background, check_bandwidths, check_duration
from medfuse.leaks.examined import Examined, make_targets, number_patients
from medfuse.leaks.facts import StudyFacts, read_facts
from medfuse.leaks.report import LeakFinding, LeakReport, Unchecked
from medfuse.leaks.settings import CheckSettings
from medfuse.training.settings import TrainSettings

Check = Callable[[Examined], list[LeakFinding]]

CHECKS: dict[Check, tuple[str, ...]] = {
    check_splits: ("patient-in-splits",),
    check_duplicates: ("duplicate-image", "duplicate-note", "duplicate-recording"),
    check_labels: ("label-conflict",),
    check_label_words: ("label-in-note",),
    check_sources: ("source-in-note",),
    check_templates: ("note-template",),
    check_note_words: ("note-words",),
    check_acquisition: KINDS,
    check_marks: ("marks", "border"),
    check_background: ("background",),
    check_bandwidths: ("mixed-bandwidth",),
    check_duration: ("duration",),
    check_absence: ("absence",),
    check_columns: ("column",),
}
"""Every check with the kinds of findings that it makes."""

TESTED = 16
"""Families of tests that share the chance of a false finding."""

ORDER = ("fail", "warn", "info")


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A cohort to be checked, as settings of a training run describe it.

    Attributes:
        cohort: Where it is.
        tasks: What is asked.
        prepare: How studies are prepared, since only what the model gets can leak into it.
        check: What counts as a leak.
    """

    cohort: CohortSettings
    tasks: tuple[Task, ...]
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    check: CheckSettings = field(default_factory=CheckSettings)


def read_request(config: Path) -> CheckRequest:
    """Read what is to be checked from the settings file of a training run.

    Raises:
        SettingsError: It can't be read.
    """
    settings = read_settings(config, TrainSettings)
    return CheckRequest(settings.cohort, settings.tasks, settings.prepare, settings.check)


def check_cohort(
    request: CheckRequest,
    *,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
    folder: Path | None = None,
) -> LeakReport:
    """Read a cohort and look for all leaks.

    Args:
        request: What to check.
        workers: Processes that read files; 0 is one per core.
        advance: Told how many studies are read.
        folder: Where facts about files are kept for the next time; nowhere without one.

    Raises:
        CohortError: The table or a file of it cannot be read.
    """
    table = read_whole_table(request.cohort, request.tasks)
    facts = read_facts(table.cohort.rows, request.prepare, workers, advance, folder)
    return check_table(table, facts, request.prepare, request.check)


def check_table(
    table: WholeTable, facts: Sequence[StudyFacts], prepare: PrepareSettings, check: CheckSettings
) -> LeakReport:
    """Look for all leaks in a cohort whose files have been read."""
    examined = examine(table, facts, prepare, check)
    findings = [finding for look in CHECKS for finding in look(examined)]
    findings.sort(key=lambda f: ORDER.index(f.severity))
    return LeakReport(
        studies=len(examined.rows),
        patients=int(examined.patients.max()) + 1,
        cohort_digest=table.cohort.digest,
        findings=tuple(findings),
        unchecked=tuple(_list_unchecked(examined)),
        kinds=tuple(kind for kinds in CHECKS.values() for kind in kinds),
    )


def examine(
    table: WholeTable, facts: Sequence[StudyFacts], prepare: PrepareSettings, check: CheckSettings
) -> Examined:
    """Lay out a cohort as checks see it."""
    cohort = table.cohort
    return Examined(
        settings=check,
        tasks=cohort.tasks,
        prepare=prepare,
        rows=cohort.rows,
        others={n: cells for n, cells in table.others.items() if n not in check.ignore},
        facts=tuple(facts),
        targets=make_targets(cohort.tasks, cohort.labels),
        patients=number_patients(cohort.rows),
        alpha=check.alpha / TESTED,
    )


def _list_unchecked(examined: Examined) -> list[Unchecked]:
    """Say what is too small or not there, instead of passing it in silence."""
    found = []
    if not examined.targets:
        found.append(Unchecked(kind="labels", why="there are none, so nothing can tell one"))
    for target in examined.targets:
        yes, no = (len(np.unique(examined.patients[target.labels == v])) for v in (1, 0))
        # Twice the chance of the one table that separates all patients.
        if 2 / comb(yes + no, yes) > examined.alpha:
            found.append(
                Unchecked(
                    kind=target.name,
                    why=f"too few patients ({yes} with it, {no} without) for any test of what "
                    "tells it",
                )
            )
    unread = sum(facts.unread for facts in examined.facts)
    if unread:
        found.append(Unchecked(kind="files", why=f"{unread} part(s) of studies cannot be read"))
    if all(row.split is None for row in examined.rows):
        found.append(
            Unchecked(
                kind="patient-in-splits",
                why="the table has no split; patients are divided when it is trained on",
            )
        )
    parts = zip(("images", "notes", "recordings"), examined.present.T, strict=True)
    found += [
        Unchecked(kind=part, why="the cohort has none") for part, has in parts if not has.any()
    ]
    return found
