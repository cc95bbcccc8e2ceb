"""Training and the check: a refusal before any fit, an override that is recorded to the bundle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from pydantic import JsonValue

from medfuse.config import read_settings
from medfuse.errors import CohortError
from medfuse.leaks.plant import narrow_band
from medfuse.leaks.report import LeakRecord
from medfuse.training import check as training_check
from medfuse.training.check import check_before, check_each
from medfuse.training.checkpoint import load_checkpoint
from medfuse.training.leaderboard import run as board_run
from medfuse.training.leaderboard.report import format_board_summary
from medfuse.training.leaderboard.run import BoardOptions, run_leaderboard, vary
from medfuse.training.run import train_model
from medfuse.training.search import run as search_run
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


@pytest.fixture
def worded(tmp_path: Path, small_cohort: Path, tiny_bert: Path) -> TrainSettings:
    """Settings of a cohort whose notes name pneumonia where it is, and that mask it."""

    def name_it(note: Path) -> None:
        note.write_bytes(note.read_bytes() + b"\nHe has pneumonia.\n")

    masked: dict[str, JsonValue] = {"note": {"mask_words": ["pneumonia"]}}
    return with_changed(small_cohort, tmp_path, tiny_bert, ("note", name_it), masked)


@pytest.fixture
def narrow(tmp_path: Path, small_cohort: Path, tiny_bert: Path) -> TrainSettings:
    """Settings of a cohort whose recordings are narrow where pneumonia is, all low-passed."""

    def narrow_it(voice: Path) -> None:
        waveform, rate_hz = soundfile.read(voice)
        soundfile.write(voice, narrow_band(waveform), rate_hz, subtype="PCM_16")

    lowpassed: dict[str, JsonValue] = {"voice": {"lowpass_hz": 1_800.0}}
    return with_changed(small_cohort, tmp_path, tiny_bert, ("voice", narrow_it), lowpassed)


def with_changed(
    cohort: Path,
    folder: Path,
    bert: Path,
    change: tuple[str, Callable[[Path], None]],
    prepare: dict[str, JsonValue],
) -> TrainSettings:
    """Copy a cohort, change a part of the studies with pneumonia, and give settings of an epoch."""
    copied = folder / "cohort"
    shutil.copytree(cohort, copied)
    table = pd.read_csv(copied / "cohort.csv", dtype=str, keep_default_na=False)
    part, change_file = change
    for name in table[part][table.pneumonia == "1"]:
        if name:
            change_file(copied / name)
    settings = read_settings(write_config(folder, copied, bert, epochs=1), TrainSettings)
    return vary(settings, "changed", {"prepare": prepare})


def with_search(settings: TrainSettings, mode: str, spec: dict[str, JsonValue]) -> TrainSettings:
    """Let a search draw the low-pass."""
    space = {"prepare.voice.lowpass_hz": spec}
    return vary(settings, "search", {"check": {"mode": mode}, "search": {"space": space}})


UNMASKED: dict[str, JsonValue] = {"prepare": {"note": {"mask_words": []}}}


def test_a_variant_that_takes_a_remedy_away_is_refused_by_its_name(
    worded: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not check_before(worded, tmp_path / "out", None).failed
    monkeypatch.setattr(board_run, "fit_model", lambda *_: pytest.fail("something was fitted"))
    options = BoardOptions(
        contenders={"masked": {}, "plain": UNMASKED}, baseline="masked", repeats=1, folds=2
    )
    with pytest.raises(CohortError, match=r"^plain: .* gives labels away by label-in-note"):
        run_leaderboard(worded, options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_leaderboard_says_which_contender_was_overridden(
    worded: TrainSettings, tmp_path: Path
) -> None:
    record: dict[str, JsonValue] = {"check": {"mode": "record"}, **UNMASKED}
    options = BoardOptions(
        contenders={"masked": {}, "plain": record}, baseline="masked", repeats=1, folds=2
    )
    board = run_leaderboard(worded, options, tmp_path / "out")
    assert board.leaks["masked"] == LeakRecord(mode="refuse")
    assert (board.leaks["plain"].mode, board.leaks["plain"].failed) == (
        "record",
        ("label-in-note",),
    )
    line = "Trained although the cohort gives labels away by label-in-note: plain."
    assert line in (tmp_path / "out" / "leaderboard.md").read_text().splitlines()
    assert line in format_board_summary(board).splitlines()


def test_runs_that_train_on_the_same_are_checked_once(
    worded: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def check(settings: TrainSettings, *_: object) -> LeakRecord:
        asked.append(settings.prepare.note.mask_words)
        return LeakRecord(mode="refuse")

    monkeypatch.setattr(training_check, "check_before", check)
    longer = vary(worded, "longer", {"fit": {"epochs": 7}})
    runs = {"a": worded, "b": longer, "c": vary(worded, "c", UNMASKED)}
    assert list(check_each(runs, tmp_path, None)) == ["a", "b", "c"]
    assert asked == [("pneumonia",), ()]


def test_a_search_whose_choices_or_ends_of_a_range_leak_is_refused_before_any_fit(
    narrow: TrainSettings, tmp_path: Path
) -> None:
    wanted = r"^prepare.voice.lowpass_hz = 8000.0: .* gives labels away by .*sampling-rate"
    specs: list[dict[str, JsonValue]] = [
        {"choices": [1_000.0, 8_000.0]},
        {"low": 1_000.0, "high": 8_000.0},
    ]
    for spec in specs:
        with pytest.raises(CohortError, match=wanted):
            run_search(with_search(narrow, "refuse", spec), tmp_path / "out", trials=1)
    assert not (tmp_path / "out").exists()


def test_a_trial_that_leaks_between_the_ends_of_a_range_fails_unfitted(
    narrow: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(settings: TrainSettings, *_: object) -> LeakRecord:
        if settings.prepare.voice.lowpass_hz not in (1_000, 1_800):
            raise CohortError("it leaks")
        return LeakRecord(mode="refuse")

    monkeypatch.setattr(training_check, "check_before", check)
    monkeypatch.setattr(search_run, "fit_model", lambda *_: pytest.fail("something was fitted"))
    settings = with_search(narrow, "refuse", {"low": 1_000.0, "high": 1_800.0})
    report = run_search(settings, tmp_path / "out", trials=2)
    assert [t.state for t in report.trials] == ["failed", "failed"]
    assert [t.error for t in report.trials] == ["trial 0: it leaks", "trial 1: it leaks"]
    assert report.best is None
    assert not (tmp_path / "out" / "best.toml").exists()


@pytest.mark.slow
def test_a_search_says_which_trial_was_overridden(narrow: TrainSettings, tmp_path: Path) -> None:
    settings = with_search(narrow, "record", {"choices": [8_000.0]})
    (trial,) = run_search(settings, tmp_path / "out", trials=1).trials
    assert trial.leaks is not None
    assert trial.leaks.overridden
    assert "sampling-rate" in trial.leaks.failed
    kinds = ", ".join(trial.leaks.failed)
    line = f"Trained although the cohort gives labels away by {kinds}: trial 0."
    assert line in (tmp_path / "out" / "search.md").read_text().splitlines()
    best = read_settings(tmp_path / "out" / "best.toml", TrainSettings)
    assert best.check.mode == "record"


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
