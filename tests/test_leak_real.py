"""The real sets' known leaks, found by the check alone; see docs/check-cohort.md."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from medfuse.config import Limits, read_settings
from medfuse.data.cohort import read_cohort
from medfuse.leaks.check import CheckRequest, check_cohort
from medfuse.leaks.checks.duplicates import find_same_images
from medfuse.leaks.facts import StudyFacts
from medfuse.leaks.image_facts import read_image_facts
from medfuse.leaks.report import LeakReport
from medfuse.training.settings import TrainSettings
from tests.leak_cohorts import make_examined

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


def test_films_that_bear_the_same_mark_or_frame_are_no_copies() -> None:
    settings = read_settings(EXAMPLES / "check-covid.toml", TrainSettings)
    table = (ROOT / settings.cohort.table).resolve()
    if not table.is_file():
        pytest.skip(f"the real data is not there: {settings.cohort.table} from the repository")
    cohort = settings.cohort.model_copy(update={"table": table})
    rows = read_cohort(cohort, settings.tasks).rows[:150]

    drawings: tuple[Callable[[ImageDraw.ImageDraw, int, int], object], ...] = (
        lambda *_: None,
        lambda d, w, h: d.rectangle((0, 0, w - 1, h - 1), outline=255, width=6),
        lambda d, w, h: d.rectangle((20, 20, 20 + w // 5, 40), fill=255),
        lambda d, w, h: d.text((20, 20), "PORTABLE AP", fill=255, font_size=w // 12),
    )
    facts: list[list[StudyFacts]] = [[] for _ in drawings]
    for row in rows:
        with Image.open(row.images[0]) as picture:
            film = picture.convert("L")
        for draw, own in zip(drawings, facts, strict=True):
            marked, file = film.copy(), io.BytesIO()
            draw(ImageDraw.Draw(marked), *marked.size)
            marked.save(file, "PNG", compress_level=0)
            read = read_image_facts([file.getvalue()], settings.prepare.image, Limits())
            own.append(StudyFacts(image=read))
    plain, framed, barred, worded = (find_same_images(make_examined(rows, own)) for own in facts)
    assert framed == plain
    assert barred == plain
    assert worded == plain


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
