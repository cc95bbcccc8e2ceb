import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from medfuse.attribution.background import to_bytes
from medfuse.config import read_settings
from medfuse.data.cohort import CohortSettings, Split, load_study, read_cohort
from medfuse.data.missing import keep_modalities
from medfuse.data.prepare import collate, prepare
from medfuse.errors import TrainingError
from medfuse.synthetic.network import cohort_auc
from medfuse.synthetic.world import FINDINGS, TASKS
from medfuse.training.background import measure_background
from medfuse.training.checkpoint import load_checkpoint
from medfuse.training.features import Progress
from medfuse.training.report import Report
from medfuse.training.run import train_model
from medfuse.training.settings import TrainSettings
from medfuse.trust.calibration import calibrate
from medfuse.trust.measure import read_bayes
from medfuse.types import MODALITIES, SUBSETS, subset_name
from tests.tiny_run import add_sentences, write_config

PROGRAM = """
import sys
from pathlib import Path
from medfuse.training.command import train

config, *outs = map(Path, sys.argv[1:])
for out in outs:
    train(config, out, resume=out.exists())
"""
"""Trains into one folder after another, and goes on with a run that is there."""


ATTACK = "attack = [1e-6, 0.3]\n"
"""More of the settings of the run that the tests share, in its last table, ``[report]``."""


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, small_cohort: Path, tiny_bert: Path
) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder, small_cohort, tiny_bert, more=ATTACK)
    settings = read_settings(config, TrainSettings)
    return folder / "out", train_model(settings, folder / "out")


def test_a_run_leaves_checkpoint_figures_plots_and_logs(run: tuple[Path, Report]) -> None:
    out, report = run
    assert set(report.subsets) == {"as given", *map(subset_name, SUBSETS)}
    assert Report.model_validate_json((out / "metrics.json").read_bytes()) == report
    table = (out / "metrics.md").read_text()
    for name in (*report.subsets, *FINDINGS, "affect", "bayes_share"):
        assert name in table
    for plot in ("losses", "roc", "reliability", "gains"):
        assert (out / "plots" / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
    # Three pairs and all three, of each task.
    assert len(report.gains) == 8
    assert "## Do no harm" in table
    with (out / "logs/csv/version_0/metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert sum(bool(row["train_loss"]) for row in logged) == 2
    assert sum(bool(row["validation_loss"]) for row in logged) == 2
    assert list((out / "logs" / "tensorboard").rglob("events.out.tfevents.*"))


def test_an_attack_makes_answers_worse_the_more_the_further_it_moves(
    run: tuple[Path, Report],
) -> None:
    out, report = run
    assert list(report.attacked) == ["1e-06", "0.3"]
    for task in ("findings", "affect"):
        given, nothing, far = (
            own.targets[task]["brier"].value or 0.0
            for own in (report.subsets["as given"], *report.attacked.values())
        )
        assert nothing == pytest.approx(given, abs=1e-5)
        assert far > given + 0.003
    assert "## Under attack" in (out / "metrics.md").read_text()


def test_the_figures_are_those_of_the_checkpoint_asked_about_the_test_files(
    run: tuple[Path, Report], small_cohort: Path
) -> None:
    out, report = run
    checkpoint = load_checkpoint(out / "checkpoint")
    cohort = read_cohort(CohortSettings(table=small_cohort / "cohort.csv"), TASKS)
    rows = cohort.part(Split.TEST)
    batch = collate(
        [prepare(load_study(r), checkpoint.prepare, checkpoint.tokenizer) for r in rows],
        checkpoint.prepare,
    )
    labels = np.array([r.labels for r in rows])
    for subset in SUBSETS:
        masks = {m: batch.masks[m] & (m in subset) for m in MODALITIES}
        inputs = [torch.from_numpy(a) for m in MODALITIES for a in (batch.values[m], masks[m])]
        with torch.inference_mode():
            logits = checkpoint.model(*inputs).logits.double().numpy()
        figures = report.subsets[subset_name(subset)]
        assert figures.studies == len(rows)
        name = subset_name(subset)
        chances = expit(calibrate(checkpoint.tasks, logits, checkpoint.calibration, name))
        for k, target in enumerate(t for task in TASKS for t in task.targets):
            measured = figures.targets[target]
            # Float32 sums in another order could swap two studies that score all but alike.
            if 0 < labels[:, k].sum() < len(rows):
                area = roc_auc_score(labels[:, k], chances[:, k])
                assert measured["auroc"].value == pytest.approx(area, abs=0.03)
            brier = ((chances[:, k] - labels[:, k]) ** 2).mean()
            assert measured["brier"].value == pytest.approx(brier, abs=1e-4)


def test_the_checkpoint_promises_what_its_validation_studies_allow(
    run: tuple[Path, Report], small_cohort: Path
) -> None:
    checkpoint = load_checkpoint(run[0] / "checkpoint")
    cohort = read_cohort(CohortSettings(table=small_cohort / "cohort.csv"), TASKS)
    labels = np.array([row.labels for row in cohort.part(Split.VALIDATION)])
    for subset in SUBSETS:
        for k, target in enumerate(t for task in TASKS for t in task.targets):
            own = checkpoint.record.trust.of(subset_name(subset), target)
            assert own is not None
            n = int(labels[:, k].sum())
            assert own.studies == {"absent": len(labels) - n, "present": n}
            # Too few in a cohort of 40 to leave a class out, but where it has nine.
            assert (own.least["present"] > 0) is (n >= 9)
    # And too few patients to know what is usual.
    assert not checkpoint.novelty.usual


def test_the_checkpoint_holds_the_mean_of_the_training_studies_alone(
    run: tuple[Path, Report], tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    settings = read_settings(write_config(tmp_path, small_cohort, tiny_bert), TrainSettings)
    checkpoint = load_checkpoint(run[0] / "checkpoint")
    rows = read_cohort(settings.cohort, settings.tasks).part(Split.TRAIN)
    own = measure_background(rows, settings, checkpoint.model, Progress())
    assert own.studies == len({row.patient_id for row in rows})
    assert to_bytes(checkpoint.background) == to_bytes(own)


def test_bayes_figures_are_those_the_cohort_gives_of_itself(
    run: tuple[Path, Report], small_cohort: Path
) -> None:
    _, report = run
    rows = read_cohort(CohortSettings(table=small_cohort / "cohort.csv"), TASKS).part(Split.TEST)
    posterior = read_bayes(small_cohort, TASKS, rows)["note+voice"]
    own = cohort_auc(posterior, np.array([r.labels for r in rows]) == 1)
    targets = [target for task in TASKS for target in task.targets]
    for target, area in zip(targets, own, strict=True):
        value = report.subsets["note+voice"].targets[target]["bayes_auroc"].value
        if np.isnan(area):
            assert value is None
        else:
            assert value == pytest.approx(area)


def test_a_run_with_parts_missing_on_purpose_is_measured_on_what_is_left(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    more = '\n[missing]\nmechanism = "random"\nrate = 0.5\n'
    settings = read_settings(
        write_config(tmp_path, small_cohort, tiny_bert, 1, more), TrainSettings
    )
    report = train_model(settings, tmp_path / "out")
    cohort = read_cohort(settings.cohort, settings.tasks)
    rows = cohort.part(Split.TEST)
    kept = keep_modalities(settings.missing, TASKS, rows, np.ones((len(rows), 3), bool))
    assert report.subsets["as given"].studies == len(rows)
    for subset in SUBSETS:
        has = kept[:, [m in subset for m in MODALITIES]].all(axis=1)
        name = subset_name(subset)
        assert has.sum() == (report.subsets[name].studies if name in report.subsets else 0)
    posterior = read_bayes(small_cohort, TASKS, rows)
    names = [subset_name(frozenset(compress(MODALITIES, own))) for own in kept]
    left = np.array([posterior[name][i] for i, name in enumerate(names)])
    own = cohort_auc(left, np.array([r.labels for r in rows]) == 1)
    assert report.subsets["as given"].targets["affect.low_mood"]["bayes_auroc"].value == (
        pytest.approx(own[-1])
    )


def test_a_run_never_writes_into_a_folder_with_something_in_it(
    run: tuple[Path, Report], tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, more=ATTACK)
    settings = read_settings(config, TrainSettings)
    with pytest.raises(TrainingError, match="not empty"):
        train_model(settings, run[0])
    with pytest.raises(TrainingError, match="no run to resume"):
        train_model(settings, tmp_path / "nowhere", resume=True)
    other = settings.model_copy(update={"fit": settings.fit.model_copy(update={"seed": 1})})
    with pytest.raises(TrainingError, match="begun with other settings"):
        train_model(other, run[0], resume=True)


def test_resuming_a_finished_run_only_reads_its_report(
    run: tuple[Path, Report], tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, more=ATTACK)
    settings = read_settings(config, TrainSettings)
    written = (run[0] / "metrics.json").stat().st_mtime_ns
    assert train_model(settings, run[0], resume=True) == run[1]
    assert (run[0] / "metrics.json").stat().st_mtime_ns == written


def test_cross_validation_pools_every_study_once(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, 1, "\n[split]\nfolds = 3\n")
    settings = read_settings(config, TrainSettings)
    columns = settings.cohort.columns.model_copy(update={"split": ""})
    cohort = settings.cohort.model_copy(update={"columns": columns})
    report = train_model(settings.model_copy(update={"cohort": cohort}), tmp_path / "out")
    assert report.studies == {"tested": 40}
    assert report.subsets["as given"].studies == 40
    assert len(report.epochs) == 3
    assert len(report.fold_values["note"]) == 3
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_very_same_weights(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    # Every objective that draws, or learns something of its own that the checkpoint leaves behind.
    names = ("contrastive", "masked", "generation", "adversarial", "findings_text")
    more = "".join(f"[objectives.{name}]\n" for name in names) + "[augment]\nvoice = true\n"
    more += '[objectives.supervised]\ntask_balance = "uncertainty"\n'
    config = write_config(tmp_path, small_cohort, tiny_bert, epochs=4, more=more)
    parts = "[model]\nshared_space = 8\ngenerate_missing = true\nfindings_text = true\n"
    text = config.read_text().replace("[model]\n", parts)
    config.write_text(add_sentences(text, small_cohort))

    def start(*outs: str) -> subprocess.Popen[bytes]:
        folders = [str(tmp_path / out) for out in outs]
        command = [sys.executable, "-c", PROGRAM, str(config), *folders]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    killed = start("killed")
    last = tmp_path / "killed" / "resume" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not last.exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert start("whole", "killed").wait(300) == 0

    whole, resumed = (
        load_file(tmp_path / out / "checkpoint" / "model.safetensors")
        for out in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert not any("log_variances" in name for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    reports = [
        Report.model_validate_json((tmp_path / out / "metrics.json").read_bytes())
        for out in ("whole", "killed")
    ]
    assert reports[0].subsets == reports[1].subsets
    assert reports[0].epochs == reports[1].epochs


def test_encoders_pretrained_without_labels_are_what_a_run_begins_from(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, run: tuple[Path, Report]
) -> None:
    table = pd.read_csv(small_cohort / "cohort.csv", dtype=str, keep_default_na=False)
    table[[*FINDINGS, "low_mood"]] = ""
    table.to_csv(tmp_path / "unlabelled.csv", index=False)
    config = write_config(
        tmp_path,
        small_cohort,
        tiny_bert,
        more="[objectives.supervised]\nweight = 0\n[objectives.masked]\n",
    )
    text = config.read_text().replace(
        json.dumps(str(small_cohort / "cohort.csv")),
        f"{json.dumps(str(tmp_path / 'unlabelled.csv'))}\nroot = {json.dumps(str(small_cohort))}\n"
        'unlabelled = "train"',
    )
    config.write_text(text)
    report = train_model(read_settings(config, TrainSettings), tmp_path / "pretrained")
    known = {
        (target, metric)
        for subset in report.subsets.values()
        for target, figures in subset.targets.items()
        for metric, figure in figures.items()
        if figure.value is not None
    }
    assert not known
    pretrained = tmp_path / "pretrained" / "checkpoint"
    start = f"start = {json.dumps(str(pretrained))}\nlearning_rate = 1e-12\n"
    config = write_config(tmp_path, small_cohort, tiny_bert)
    config.write_text(config.read_text().replace("[report]", f"{start}[report]"))
    train_model(read_settings(config, TrainSettings), tmp_path / "tuned")
    before, after, other = (
        load_checkpoint(folder).model.state_dict()
        for folder in (pretrained, tmp_path / "tuned" / "checkpoint", run[0] / "checkpoint")
    )
    key = "voice.layers.0.conv.weight"
    torch.testing.assert_close(before[key], after[key], atol=1e-6, rtol=0)
    assert not torch.allclose(other[key], after[key], atol=1e-3)
    config.write_text(config.read_text().replace("width = 16", "width = 32"))
    wider = read_settings(config, TrainSettings)
    with pytest.raises(TrainingError, match=r"its model\.width is 16, not 32"):
        train_model(wider, tmp_path / "other")
