import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from medfuse.config import read_settings
from medfuse.data.cohort import Cohort, Split
from medfuse.data.missing import MissingSettings, Removal
from medfuse.errors import SettingsError, TrainingError
from medfuse.training import fit as training_fit
from medfuse.training.features import Features
from medfuse.training.fit import Fitted, find_split
from medfuse.training.search import run as search_run
from medfuse.training.search.command import search
from medfuse.training.search.report import SearchReport, TrialRecord
from medfuse.training.search.run import run_search
from medfuse.training.search.settings import Choices, Range
from medfuse.training.search.space import check_space, put
from medfuse.training.settings import TrainSettings
from medfuse.types import MODALITIES
from tests.tiny_run import write_config

SEARCH = """
[search]
startup = 2
warmup = 1
seed = 5
{more}
[search.space]
"fit.learning_rate" = {{ low = 1e-4, high = 1e-1, log = true }}
"fit.batch_size" = {{ low = 8, high = 24, step = 8 }}
"model.fusion" = {{ choices = ["gated", "cross_attention"] }}
"""


@pytest.fixture
def settings(tmp_path: Path, small_cohort: Path, tiny_bert: Path) -> TrainSettings:
    config = write_config(tmp_path, small_cohort, tiny_bert, 3, SEARCH.format(more=""))
    return read_settings(config, TrainSettings)


def known(report: SearchReport) -> list[TrialRecord]:
    """What a search decides, without what the clock says."""
    return [t.model_copy(update={"seconds": None}) for t in report.trials]


def pretend_to_fit(settings: TrainSettings, *arguments: Any) -> Any:
    """Tell the watchers of a fit whose loss is least at a rate of 1e-2 and falls by epoch."""
    (watch,) = arguments[-1]
    losses = []
    for epoch in range(settings.fit.epochs):
        distance = (np.log10(settings.fit.learning_rate) + 2) ** 2
        losses.append(distance + 0.1 * (settings.model.fusion != "gated") + 1 / (epoch + 1))
        watch.report(losses[-1], epoch)
    return SimpleNamespace(history=SimpleNamespace(train=losses, validation=losses))


def test_a_search_resumes_to_the_same_trials_prunes_and_finds_the_best(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_run, "plot_search", lambda path, report: None)
    monkeypatch.setattr(search_run, "fit_model", pretend_to_fit)
    whole = run_search(settings, tmp_path / "whole", 10)
    assert {t.state for t in whole.trials} == {"complete", "pruned"}
    assert all((t.epochs or 3) < 3 for t in whole.trials if t.state == "pruned")
    best = whole.complete()[0]
    assert best.values["model.fusion"] == "gated"
    assert float(best.values["fit.learning_rate"]) == pytest.approx(1e-2, rel=0.5)
    assert best.value == pytest.approx(1 / 3, abs=0.05)
    assert max(whole.importances, key=lambda name: whole.importances[name]) == "fit.learning_rate"

    assert len(run_search(settings, tmp_path / "parts", 3).trials) == 3
    fitted = 0

    def stop(*arguments: Any) -> Any:
        nonlocal fitted
        fitted += 1
        if fitted == 2:
            raise KeyboardInterrupt
        return pretend_to_fit(*arguments)

    monkeypatch.setattr(search_run, "fit_model", stop)
    with pytest.raises(KeyboardInterrupt):
        run_search(settings, tmp_path / "parts", 10)
    resumed = known(run_search(settings, tmp_path / "parts", 10))
    (cut,) = (t for t in resumed if t.state == "interrupted")
    assert cut.number == 4
    assert resumed[5].values == cut.values
    resumed.remove(cut)
    assert [t.model_copy(update={"number": i}) for i, t in enumerate(resumed)] == known(whole)


def test_no_further_trial_is_begun_after_the_time_is_up(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_run, "fit_model", pretend_to_fit)
    report = run_search(settings, tmp_path / "out", 9, timeout_s=0.0)
    assert report.trials == ()
    assert not (tmp_path / "out" / "best.toml").exists()


def test_trials_see_what_is_missing_on_purpose(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(own: TrainSettings, cohort: Cohort, features: Features, *rest: Any) -> Any:
        assert [set(row.present) for row in cohort.rows] == [
            {m for m, there in zip(MODALITIES, row, strict=True) if there}
            for row in features.present
        ]
        assert 0 < features.present.mean() < 0.6
        return pretend_to_fit(own, *rest)

    monkeypatch.setattr(search_run, "fit_model", look)
    missing = MissingSettings(mechanism=Removal.RANDOM, rate=0.8)
    thinned = settings.model_copy(update={"missing": missing})
    report = run_search(thinned, tmp_path / "out", 1)
    assert [t.state for t in report.trials] == ["complete"]


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(search)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_real_fits_are_judged_on_validation_studies_pruned_and_written_as_a_whole_file(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[Split] = set()

    def watch(cohort: Any, split: Split) -> list[int]:
        asked.add(split)
        return find_split(cohort, split)

    monkeypatch.setattr(training_fit, "find_split", watch)
    # A rate of 5 ruins a network in one epoch. A frozen DenseNet without weights of its own is
    # refused, which only a trial can find out.
    more = """
[search]
startup = 1
warmup = 0
seed = 7
[search.space]
"fit.learning_rate" = { choices = [1e-3, 5.0] }
"model.image" = { choices = ["efficientnet_lite0", "densenet121"] }
"""
    config = write_config(tmp_path, small_cohort, tiny_bert, 2, more)
    printed = run(config, "--out", tmp_path / "out", "--trials", 4)
    report = SearchReport.model_validate_json((tmp_path / "out" / "search.json").read_bytes())
    assert asked == {Split.TRAIN, Split.VALIDATION}
    assert {t.state for t in report.trials} == {"complete", "pruned", "failed"}
    for t in report.trials:
        if t.state == "failed":
            assert "densenet121 comes without weights" in str(t.error)
        elif t.state == "pruned":
            assert (t.values["fit.learning_rate"], t.epochs) == (5.0, 1)
    best = report.complete()[0]
    assert report.best == best.number
    assert best.values["fit.learning_rate"] == 1e-3

    written = read_settings(tmp_path / "out" / "best.toml", TrainSettings)
    base = read_settings(config, TrainSettings)
    assert written == put(base, best.values)
    assert written.search is None
    assert tomllib.loads((tmp_path / "out" / "best.toml").read_text())["report"]["seed"] == 0
    assert "medfuse train" in printed
    assert (tmp_path / "out" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob("trials/*/resume"))

    other = base.model_copy(update={"fit": base.fit.model_copy(update={"epochs": 3})})
    with pytest.raises(TrainingError, match="begun with other settings"):
        run_search(other, tmp_path / "out", 4)
    with pytest.raises(SettingsError, match="no section"):
        run_search(written, tmp_path / "out", 4)
    several = base.model_copy(update={"fit": base.fit.model_copy(update={"processes": 2})})
    with pytest.raises(TrainingError, match="only medfuse train"):
        run_search(several, tmp_path / "out", 4)
    with pytest.raises(TrainingError, match="no search"):
        run_search(base, tmp_path, 4)


def test_the_headline_is_measured_on_the_weights_that_are_kept(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_run, "plot_search", lambda path, report: None)
    fitted: list[Fitted] = []

    def keep(*arguments: Any) -> Fitted:
        fitted.append(training_fit.fit_model(*arguments))
        return fitted[-1]

    monkeypatch.setattr(search_run, "fit_model", keep)
    assert settings.search is not None
    how = settings.search.model_copy(update={"objective": "headline", "pruner": "hyperband"})
    (trial,) = run_search(settings.model_copy(update={"search": how}), tmp_path / "out", 1).trials
    answers = fitted[0].validation
    areas = [
        roc_auc_score(answers.labels[:, k], answers.logits["as given"][:, k])
        for k in range(6)
        if len(set(answers.labels[:, k])) == 2
    ]
    assert trial.value == pytest.approx(np.mean(areas))
    assert trial.epochs == 3


@pytest.mark.parametrize("page", ["search.md", "many-nodes.md"])
def test_the_settings_in_the_docs_can_be_read(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, page: str
) -> None:
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    config = write_config(tmp_path, small_cohort, tiny_bert)
    if "[fit]" in block:
        config.write_text(config.read_text().partition("[fit]")[0] + block)
    else:
        config.write_text(config.read_text() + block)
    settings = read_settings(config, TrainSettings)
    if settings.search is not None:
        check_space(settings.search.space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"fit.lerning_rate": Range(low=0.1, high=0.2)}, "no setting 'fit.lerning_rate'"),
        ({"fit": Choices(choices=(1,))}, "no setting 'fit'"),
        ({"split.seed": Range(low=0, high=9)}, "no setting 'split.seed'"),
        ({"fit.batch_size": Range(low=0, high=9)}, "batch_size: 0: .*greater than 0"),
        ({"fit.batch_size": Range(low=1, high=9.5)}, "batch_size"),
        ({"model.fusion": Choices(choices=("gated", "gatd"))}, "'gatd'"),
        ({"prepare.image.size": Range(low=16, high=64)}, "size: 16"),
    ],
)
def test_a_space_that_cannot_be_is_named(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_space(space)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('"fit.dropout" = { low = 1, high = 1 }', "low 1 is not below high 1"),
        ('"fit.dropout" = { low = 0, high = 1, log = true }', "log needs a low above 0"),
        ('"fit.balance" = { choices = ["none", "weight"] }', "objective = 'headline'"),
        ('"fit.dropout" = { low = 0, hihg = 1 }', "hihg"),
    ],
)
def test_a_section_that_cannot_be_is_named(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, section: str, message: str
) -> None:
    more = f"[search.space]\n{section}\n"
    config = write_config(tmp_path, small_cohort, tiny_bert, 1, more)
    with pytest.raises(SettingsError, match=message):
        read_settings(config, TrainSettings)


def test_settings_are_put_where_their_paths_say(settings: TrainSettings) -> None:
    found = put(settings, {"fit.learning_rate": 0.5, "prepare.image.size": 96})
    assert (found.fit.learning_rate, found.prepare.image.size) == (0.5, 96)
    changed = json.loads(found.model_dump_json())
    expected = json.loads(settings.model_dump_json())
    expected["fit"]["learning_rate"], expected["prepare"]["image"]["size"] = 0.5, 96
    expected["search"] = None
    assert changed == expected
