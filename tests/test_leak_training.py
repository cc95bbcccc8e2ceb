"""Training and the check: a refusal before any fit, an override that is recorded to the bundle."""

import json
from pathlib import Path

import pandas as pd
import pytest

from medfuse.config import read_settings
from medfuse.errors import CohortError
from medfuse.leaks.report import LeakRecord
from medfuse.training.check import check_before
from medfuse.training.checkpoint import load_checkpoint
from medfuse.training.leaderboard.run import BoardOptions, run_leaderboard
from medfuse.training.run import train_model
from medfuse.training.search.run import run_search
from medfuse.training.settings import TrainSettings
from medfuse_export.model_card import _leaks as describe_leaks
from tests.tiny_run import write_config


@pytest.fixture
def leaking(tmp_path: Path, small_cohort: Path, tiny_bert: Path) -> Path:
    """Settings of the small cohort with a column by which its sites give pneumonia away."""
    table = pd.read_csv(small_cohort / "cohort.csv", dtype=str, keep_default_na=False)
    table["scanner"] = ["A" if label == "1" else "B" for label in table.pneumonia]
    path = tmp_path / "leaking.csv"
    table.to_csv(path, index=False)
    config = write_config(tmp_path, small_cohort, tiny_bert, epochs=1)
    text = config.read_text().replace(
        json.dumps(str(small_cohort / "cohort.csv")),
        f"{json.dumps(str(path))}\nroot = {json.dumps(str(small_cohort))}",
    )
    config.write_text(text)
    return config


def with_mode(config: Path, mode: str) -> TrainSettings:
    settings = read_settings(config, TrainSettings)
    check = settings.check.model_copy(update={"mode": mode})
    return settings.model_copy(update={"check": check})


def test_training_search_and_leaderboard_refuse_what_fails_before_any_fit(
    leaking: Path, tmp_path: Path
) -> None:
    settings = read_settings(leaking, TrainSettings)
    wanted = r"labels away by scanner; look with `medfuse check-cohort`"
    out = tmp_path / "out"
    with pytest.raises(CohortError, match=wanted):
        train_model(settings, out)
    assert not out.exists()  # so that the same command runs once the cohort is fixed
    options = BoardOptions(
        contenders={"a": {}, "b": {"fit": {"epochs": 2}}}, baseline="a", repeats=1, folds=2
    )
    with pytest.raises(CohortError, match=wanted):
        run_leaderboard(settings, options, out)
    leaking.write_text(
        leaking.read_text()
        + '[search]\n[search.space."fit.learning_rate"]\nlow = 1e-4\nhigh = 1e-3\n'
    )
    with pytest.raises(CohortError, match=wanted):
        run_search(read_settings(leaking, TrainSettings), out, trials=1)
    assert not out.exists()


def test_an_override_is_recorded_in_the_checkpoint(leaking: Path, tmp_path: Path) -> None:
    train_model(with_mode(leaking, "record"), tmp_path / "out")
    leaks = load_checkpoint(tmp_path / "out" / "checkpoint").record.leaks
    assert leaks is not None
    assert leaks.overridden
    assert (leaks.mode, leaks.failed) == ("record", ("scanner",))
    (line,) = [line for line in leaks.findings if "scanner" in line]
    assert line.startswith("fail: scanner tells findings.pneumonia, ")
    assert "AUROC 1.000" in line


def test_a_clean_cohort_leaves_a_clean_record(
    small_cohort: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert)
    record = check_before(read_settings(config, TrainSettings), tmp_path / "out", None)
    assert record == LeakRecord(mode="refuse")
    assert not record.overridden


def test_a_check_that_is_off_reads_the_table_alone_and_says_so(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("a study's file was read"))
    record = check_before(with_mode(leaking, "off"), tmp_path / "out", None)
    assert record == LeakRecord(mode="off")
    assert record.overridden


def test_the_model_card_says_what_was_overridden() -> None:
    failed = LeakRecord(
        mode="record", failed=("site", "marks"), findings=("fail: site tells a.b, 9 studies",)
    )
    assert "overridden: labels are given away by site, marks" in describe_leaks(failed)
    assert "- fail: site tells a.b, 9 studies" in describe_leaks(failed)
    assert "found none that fails" in describe_leaks(LeakRecord(mode="refuse"))
    for unknown in (None, LeakRecord(mode="off")):
        assert "Nobody checked" in describe_leaks(unknown)
