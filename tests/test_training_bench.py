import mmap
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from medfuse.config import read_settings
from medfuse.data.cohort import Split
from medfuse.errors import TrainingError
from medfuse.memory import measure_growth
from medfuse.training import bench
from medfuse.training.bench import TrainBenchReport
from medfuse.training.bench_command import train
from medfuse.training.settings import TrainSettings
from tests.tiny_run import write_config


@pytest.fixture
def config(tmp_path: Path, small_cohort: Path, tiny_bert: Path) -> Path:
    return write_config(tmp_path, small_cohort, tiny_bert)


def test_both_sides_train_on_the_very_same_batches(config: Path, tmp_path: Path) -> None:
    settings = read_settings(config, TrainSettings)
    parts = bench._assemble(settings)
    loader = parts.loaders[Split.TRAIN]
    studies, padding = bench._load(loader)
    for chosen, batch in zip(loader.batch_sampler or (), loader, strict=True):
        plain = bench._stack([studies[i] for i in chosen], padding)
        for m, values in batch.values.items():
            mask = batch.masks[m]
            assert torch.equal(plain.masks[m], mask)
            assert torch.equal(plain.values[m][mask], values[mask])
        torch.testing.assert_close(plain.labels, batch.labels, equal_nan=True)
    for side in bench.SIDES:
        took = bench.RUNS[side](settings, parts, 2, torch.device("cpu"))
        assert (took.studies, took.steps) == (16, 2)
        assert 0 < took.waiting_s < took.seconds


def test_the_table_and_the_record_have_both_sides(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Memory is measured in processes of their own, which takes seconds.
    monkeypatch.setattr(bench, "_measure_peak", lambda settings, side, steps: 64.0)
    app = typer.Typer()
    app.command()(train)
    options = ["--steps", "3", "--rounds", "1", "--json", str(tmp_path / "bench.json")]
    result = CliRunner().invoke(app, [str(config), *options], catch_exceptions=False)
    report = TrainBenchReport.model_validate_json((tmp_path / "bench.json").read_bytes())
    assert [row.name for row in report.rows] == ["medfuse", "plain"]
    assert (report.steps, report.rounds, report.batch_size) == (3, 1, 8)
    for row in report.rows:
        # Of one round, so that no median stands between the two.
        assert row.studies_per_s == pytest.approx(8000 / row.step_ms)
        assert 0 < row.waiting < 1
    assert "waiting for data" in result.stdout
    assert f"medfuse / plain: {report.ratio:.3f}" in result.stdout


def test_more_steps_than_an_epoch_has_are_refused(config: Path, tmp_path: Path) -> None:
    settings = read_settings(config, TrainSettings)
    with pytest.raises(TrainingError, match="an epoch has 4 batches"):
        bench.bench_training(settings, tmp_path, 5, 1, lambda done: None)


def test_the_memory_of_some_work_is_what_it_touches() -> None:
    def work() -> None:
        # Pages of its own: what Python frees may lie about in the heap, and is taken again.
        with mmap.mmap(-1, 64 * 2**20) as pages:
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1

    assert measure_growth(work) == pytest.approx(64, abs=8)
    assert measure_growth(lambda: None) == pytest.approx(0, abs=8)
