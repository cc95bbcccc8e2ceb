"""The benchmarks on data: what is missing is said, and the page tells what was measured how."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from medfuse.config import VoiceSettings, read_settings
from medfuse.data.voice import log_mel
from medfuse.errors import CohortError, MedfuseError, SettingsError
from medfuse.training.benchmark.command import NAMES, benchmark
from medfuse.training.benchmark.contest import deal_repeats
from medfuse.training.benchmark.material import (
    Material,
    encode_columns,
    read_material,
    read_settings_of,
)
from medfuse.training.benchmark.network import answer_by_network
from medfuse.training.benchmark.options import BenchmarkOptions
from medfuse.training.benchmark.report import BenchmarkReport, format_benchmarks
from medfuse.training.benchmark.run import BENCHMARKS, run_benchmarks
from medfuse.training.benchmark.small_network import (
    ask_small_network,
    fit_small_network,
    vary_pictures,
)
from medfuse.training.benchmark.sounds import BANDS, RHYTHMS_HZ, describe_sound
from medfuse.training.settings import TrainSettings
from tests.tiny_run import write_config

SHARED = Path("../shared/data")

APP = typer.Typer()
APP.command()(benchmark)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def write_reports(folder: Path, reports: int) -> Path:
    """Open-I's reports, of which the abnormal ones were asked for with other words."""
    (folder / "ecgen-radiology").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(reports):
        abnormal = i % 2 == 0
        told = rng.random() < 0.85
        reason = ("dyspnea and known cardiac failure", "preoperative check before hernia repair")
        (folder / "ecgen-radiology" / f"{i}.xml").write_text(
            f'<eCitation><uId id="CXR{i}"/><Abstract><AbstractText Label="INDICATION">'
            f"XXXX-year-old, {reason[abnormal != told]}.</AbstractText></Abstract><MeSH><major>"
            f"{'Cardiomegaly/mild' if abnormal else 'normal'}</major></MeSH></eCitation>"
        )
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run on reports that were made up."""
    folder = tmp_path_factory.mktemp("benchmark")
    reports = write_reports(folder / "reports", 60)
    said = run(
        "indication", "--open-i", reports, "--data", folder, "--out", folder / "out",
        "--repeats", 1,
    )  # fmt: skip
    return folder / "out", said


def test_the_command_names_every_benchmark() -> None:
    assert NAMES.split(", ") == list(BENCHMARKS)
    assert all(name in run("--help") for name in BENCHMARKS)


def test_what_is_planted_in_the_indication_is_told(ran: tuple[Path, str]) -> None:
    report = BenchmarkReport.model_validate_json((ran[0] / "benchmark.json").read_bytes())
    (table,) = report.records[0].tables
    assert (table.studies, table.patients, table.positives) == (60, 60, 30)
    words = next(each for each in table.entries if each.name == "note, words")
    assert words.auroc.value == pytest.approx(0.85, abs=0.1)
    assert words.over_metadata is not None
    # All indications are about as long as each other, but for what was asked.
    assert [each.role for each in table.entries].count("metadata") == 1


def test_the_page_says_the_command_the_baselines_the_population_and_what_is_not_shown(
    ran: tuple[Path, str],
) -> None:
    page = (ran[0] / "benchmark.md").read_text(encoding="utf-8")
    report = BenchmarkReport.model_validate_json((ran[0] / "benchmark.json").read_bytes())
    assert format_benchmarks(report) == page
    assert re.search(r"`medfuse benchmark indication --data \S+ --out \S+ --open-i \S+ ", page)
    assert "60 studies of 60 patients; 30 have the label" in page
    assert "1 times 5-fold cross-validation by patient" in page
    assert "| the commoner label | baseline | 0.500 |" in page
    assert "| metadata: length and removed names | metadata |" in page
    assert "Nothing is fused: one modality." in page
    assert "tells more than metadata alone" in page
    assert "**What this does not show.**" in page
    assert "research only" in page
    assert str(ran[0] / "benchmark.md") in ran[1].replace("\n", "")


def test_missing_data_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    options = BenchmarkOptions(data=tmp_path, out=tmp_path / "out")
    report = run_benchmarks([], options)
    assert not report.records
    assert list(report.skipped) == list(BENCHMARKS)
    assert "no cxr_notes.csv and no images" in report.skipped["covid"]
    assert "pip download torchxrayvision --no-deps" in report.skipped["indication"]
    assert not (tmp_path / "out").exists()
    with pytest.raises(CohortError, match=r"covid: .* has no cxr_notes\.csv"):
        run("covid", "--data", tmp_path, "--out", tmp_path / "out")
    gone = BenchmarkOptions(data=tmp_path, out=tmp_path / "out", open_i=tmp_path / "gone.tgz")
    told = run_benchmarks(["indication"], gone).skipped["indication"]
    assert "gone.tgz is not there" in told


def test_one_that_is_named_and_cannot_run_fails_after_the_others_ran_as_before(
    ran: tuple[Path, str], tmp_path: Path
) -> None:
    out = shutil.copytree(ran[0], tmp_path / "out")
    before = BenchmarkReport.model_validate_json((out / "benchmark.json").read_bytes())
    (out / "benchmark.json").unlink()
    with pytest.raises(MedfuseError, match="covid: "):
        run(
            "indication", "covid", "--open-i", ran[0].parent / "reports", "--data", tmp_path,
            "--out", out, "--repeats", 1,
        )  # fmt: skip
    after = BenchmarkReport.model_validate_json((out / "benchmark.json").read_bytes())
    assert after.records[0].tables == before.records[0].tables
    page = (out / "benchmark.md").read_text(encoding="utf-8")
    assert "## Not run" in page
    assert "- `covid`: " in page


def test_a_benchmark_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no benchmark mnist; there are covid, lung-sounds"):
        run("mnist", "--data", tmp_path)


@pytest.mark.parametrize("name", ["covid", "lung_sounds", "indication", "pneumonia"])
def test_packaged_settings_are_valid(name: str, tmp_path: Path) -> None:
    settings = read_settings_of(name, tmp_path / "t.csv", tmp_path)
    assert settings.cohort.table == tmp_path / "t.csv"
    assert settings.tasks[0].name in settings.cohort.labels


def test_every_synthetic_patient_is_called_so() -> None:
    own = BENCHMARKS["synthetic-patients"]
    assert own.synthetic_patients
    assert "synthetic patient" in own.question
    assert own.not_shown.startswith("Anything about patients: no synthetic patient exists.")
    assert not any(each.synthetic_patients for each in BENCHMARKS.values() if each is not own)


def test_metadata_become_numbers_without_a_label() -> None:
    encoded = encode_columns(
        {"age": ("30", "", "50", "70"), "site": ("a", "a", "a", "b"), "sex": ("M", "M", "M", "M")}
    )
    expected = [
        [30, 0, 1, 0, 1],
        [50, 1, 1, 0, 1],
        [50, 0, 1, 0, 1],
        [70, 0, 0, 1, 1],
    ]
    np.testing.assert_array_equal(encoded, expected)


def make_sound(rate_hz: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    time_s = np.arange(4 * 16_000) / 16_000
    swell = 1 + 0.9 * np.sin(2 * np.pi * rate_hz * time_s)
    return (0.02 * swell * rng.normal(size=len(time_s))).astype(np.float32)


def test_how_loud_a_recording_is_changes_nothing_of_its_description() -> None:
    settings = VoiceSettings(high_hz=2000.0, lowpass_hz=2000.0)
    sound = make_sound(3.0)
    soft, loud = (
        describe_sound(log_mel(gain * sound, settings).astype(np.float64), settings)
        for gain in (np.float32(1), np.float32(8))
    )
    # Log-mel has single precision.
    np.testing.assert_allclose(soft, loud, atol=1e-3)


def test_a_rhythm_shows_at_its_own_rate() -> None:
    settings = VoiceSettings(high_hz=2000.0, lowpass_hz=2000.0)
    for rate_hz, place in ((3.0, 3), (6.0, 4), (12.0, 5)):
        assert RHYTHMS_HZ[place] < rate_hz < RHYTHMS_HZ[place + 1]
        heard = log_mel(make_sound(rate_hz), settings).astype(np.float64)
        described = describe_sound(heard, settings)
        bands = (len(described) - 5) // (5 + len(RHYTHMS_HZ) - 1)
        assert bands <= BANDS
        rhythms = described[5 * bands : -5].reshape(-1, bands).mean(axis=1)
        assert rhythms.argmax() == place


def make_pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and in every second picture a bright disc."""
    rng = np.random.default_rng(0)
    pictures = rng.random((n, 16, 16)).astype(np.float32) * 0.5
    labels = np.arange(n) % 2 == 0
    far = np.hypot(*(np.indices((16, 16)) - 8))
    pictures[labels] += 0.4 * (far < 4)
    return pictures, labels


def test_the_small_network_learns_a_disc_and_the_same_from_the_same_seed() -> None:
    pictures, labels = make_pictures(160)
    # Its loss is balanced, its order drawn, its weights begun by the seed alone.
    first, second = (
        ask_small_network(fit_small_network(pictures[:96], labels[:96], 0, 6), pictures[96:])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert ((first > np.median(first)) == labels[96:]).mean() > 0.9


def test_pictures_are_varied_each_by_itself_and_keep_their_place() -> None:
    pictures = torch.full((4, 1, 16, 16), 0.5)
    varied = vary_pictures(pictures, torch.Generator().manual_seed(0))
    centre = varied[:, 0, 8, 8]
    assert len(set(centre.tolist())) == 4
    # 0.5 * (1 +- 0.2) +- 0.1
    assert ((centre >= 0.3) & (centre <= 0.7)).all()


def test_the_fused_network_answers_for_test_folds_alone_and_never_by_their_labels(
    small_cohort: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, epochs=1)
    settings = read_settings(config, TrainSettings)
    cohort = settings.cohort.model_copy(
        update={"columns": settings.cohort.columns.model_copy(update={"split": ""})}
    )
    settings = settings.model_copy(update={"cohort": cohort, "tasks": settings.tasks[1:]})
    material = read_material(settings, tmp_path / "out", None)
    repeats = deal_repeats(material.labels, material.patients, 2, 2, 0)
    only = repeats[0][:1]

    def ask(own: Material) -> np.ndarray:
        said = answer_by_network(own, [only, only], 1, tmp_path / "fits", 0, None)
        return np.asarray(said.scores)

    scores = ask(material)
    assert np.isfinite(scores[0, only[0].test]).all()
    assert np.isnan(scores[0, only[0].train]).all()
    assert np.isnan(scores[1]).all()
    tested = set(only[0].test.tolist())
    rows = tuple(
        replace(row, labels=(1 - row.labels[0],)) if i in tested else row
        for i, row in enumerate(material.cohort.rows)
    )
    changed = replace(material, cohort=replace(material.cohort, rows=rows))
    np.testing.assert_array_equal(ask(changed), scores)
    assert not list((tmp_path / "fits").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")
def test_real_lung_sounds_are_measured_by_patient_beside_their_metadata(tmp_path: Path) -> None:
    options = BenchmarkOptions(
        data=SHARED, out=tmp_path, repeats=1, folds=3, inner_folds=2, network_repeats=0
    )
    (table,) = run_benchmarks(["lung-sounds"], options).records[0].tables
    assert (table.studies, table.patients, table.positives) == (204, 72, 130)
    best = max(each.auroc.value or 0 for each in table.entries if each.role == "single")
    metadata = next(each for each in table.entries if each.role == "metadata")
    assert 0.6 < best < 0.9
    assert 0.4 < (metadata.auroc.value or 0) < 0.75
    assert table.left_out == {"left out by keep": 172}
