"""An imported cohort in; the report of what it gives away, written into it too, out."""

from collections.abc import Callable
from pathlib import Path

from medfuse.data.cohort import CohortSettings
from medfuse.data.importers.source import SourceCohort
from medfuse.data.importers.write import SETTINGS, TABLE, ImportSummary
from medfuse.leaks.check import CheckRequest, check_cohort, read_request
from medfuse.leaks.report import LeakReport, write_report


def check_import(
    out: Path,
    cohort: SourceCohort,
    summary: ImportSummary,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> LeakReport:
    """Check a cohort for leaks as ``medfuse train`` will before it trains on it.

    Where no study has a label there is no training to come; copies and the like are looked for
    all the same, and the report says what is not.

    Raises:
        CohortError: The cohort can't be read, or the report not be written.
    """
    if summary.labelled:
        request = read_request(out / SETTINGS)
    else:
        everyone = CohortSettings(table=out / TABLE, unlabelled="train")
        request = CheckRequest(everyone, cohort.tasks)
    report = check_cohort(request, workers=workers, advance=advance)
    write_report(report, out)
    return report
