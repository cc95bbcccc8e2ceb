"""The real sets' known leaks, found by the check alone; see docs/check-cohort.md."""

from pathlib import Path

import pytest

from medfuse.config import read_settings
from medfuse.leaks.check import CheckRequest, check_cohort
from medfuse.leaks.report import LeakReport
from medfuse.training.settings import TrainSettings

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"

pytestmark = pytest.mark.slow


def check(name: str) -> LeakReport:
    settings = read_settings(EXAMPLES / f"{name}.toml", TrainSettings)
    table = (ROOT / settings.cohort.table).resolve()
    if not table.is_file():
        pytest.skip(f"the real data is not there: {settings.cohort.table} from the repository")
    cohort = settings.cohort.model_copy(update={"table": table})
    return check_cohort(
        CheckRequest(cohort, settings.tasks, settings.prepare, settings.check), workers=1
    )


def test_the_words_and_the_website_of_covid_19_case_reports_are_found() -> None:
    report = check("check-covid")
    assert {"label-in-note", "note-template", "source", "licence"} <= set(report.failed)
    words = next(f for f in report.findings if f.kind == "label-in-note")
    assert words.remedy is not None
    assert {"covid-19", "sars-cov-2"} <= set(words.remedy.mask_words)
    website = next(f for f in report.findings if f.kind == "source")
    assert website.figure is not None
    assert website.figure.low is not None
    assert website.figure.low > 0.8
    assert "source_url" in website.feature + website.message


def test_the_sampling_rate_of_bronchitis_lung_sounds_is_found() -> None:
    report = check("check-lung-sounds")
    assert report.failed == ("sampling-rate",)
    (finding,) = report.by("fail")
    assert finding.target == "diagnosis.bronchitis"
    assert finding.remedy is not None
    assert finding.remedy.lowpass_hz == 1_800
    assert finding.figure is not None
    assert finding.figure.value == 1.0


def test_the_day_of_recording_of_coswara_is_found() -> None:
    report = check("check-coswara")
    assert report.failed == ("date",)
    (finding,) = report.by("fail")
    assert finding.feature == "record_date"
    assert finding.figure is not None
    assert finding.figure.low is not None
    assert finding.figure.low > 0.9
