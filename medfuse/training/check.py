"""Before any fit: settings in; the record of the cohort's check out, or a refusal."""

import logging
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from medfuse.data.cohort import read_cohort
from medfuse.errors import CohortError
from medfuse.leaks.check import CheckRequest, check_cohort
from medfuse.leaks.progress import reading_progress
from medfuse.leaks.report import LeakRecord, summarise_report
from medfuse.place import check_folder
from medfuse.training.classes import check_classes
from medfuse.training.settings import TrainSettings

_LOG = logging.getLogger(__name__)


def check_before(settings: TrainSettings, out: Path, console: Console | None) -> LeakRecord:
    """Check a cohort before it is trained on; facts about its files are kept beside its features.

    Args:
        settings: The whole run.
        out: The run's folder; it need not be there yet.
        console: Where progress and the verdict are shown; nowhere without one.

    Returns:
        What a checkpoint made of this cohort keeps of the check.

    Raises:
        OutputError: Nothing can be written to the run's folder, or to that of its features.
        CohortError: The table cannot be read, or its labels are all alike; or a check fails, and
            settings say to refuse.
    """
    folder = settings.features.cache or out.parent / "features"
    for place in (out, folder):
        check_folder(place)
    check_classes(settings.cohort.table.name, read_cohort(settings.cohort, settings.tasks), console)
    mode = settings.check.mode
    if mode == "off":
        return LeakRecord(mode="off")
    request = CheckRequest(settings.cohort, settings.tasks, settings.prepare, settings.check)
    workers = settings.features.workers
    if console is None:
        report = check_cohort(request, workers=workers, folder=folder)
    else:
        with reading_progress(console, "Checking the cohort") as advance:
            report = check_cohort(request, workers=workers, advance=advance, folder=folder)
    if not report.failed:
        return summarise_report(report, "refuse")
    kinds = ", ".join(report.failed)
    if mode == "refuse":
        raise CohortError(
            f"{settings.cohort.table.name}: the cohort gives labels away by {kinds}; look with "
            "`medfuse check-cohort`, which can also fix it, or train all the same with "
            "--override-check or check.mode = 'record', which is recorded"
        )
    _LOG.warning("the cohort gives labels away by %s; trained all the same", kinds)
    if console is not None:
        console.print(f"The cohort gives labels away by {kinds}; the checkpoint will say so.")
    return summarise_report(report, "record")


def check_each(
    runs: Mapping[str, TrainSettings],
    out: Path,
    console: Console | None,
    known: dict[str, LeakRecord] | None = None,
) -> dict[str, LeakRecord]:
    """Check what each of several runs is trained on, which its preparation decides.

    Args:
        runs: By name; those that train on the same are checked once.
        out: As of `check_before`.
        console: Likewise.
        known: What was checked before, to which this adds.

    Raises:
        CohortError: As of `check_before`; the message names the run.
    """
    known = {} if known is None else known
    records = {}
    for name, settings in runs.items():
        asked = settings.model_dump_json(include={"cohort", "tasks", "prepare", "check"})
        if asked not in known:
            try:
                known[asked] = check_before(settings, out, console)
            except CohortError as error:
                raise CohortError(f"{name}: {error}") from error
        records[name] = known[asked]
    return records
