"""A training run: settings in; a checkpoint, figures, plots and logs in one folder out."""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from medfuse.data.cohort import Cohort, Split
from medfuse.data.missing import Removal
from medfuse.data.splits import fold_cohort, split_cohort
from medfuse.errors import TrainingError
from medfuse.training.background import measure_background
from medfuse.training.check import check_before
from medfuse.training.checkpoint import CheckpointRecord, library_versions, save_checkpoint
from medfuse.training.classes import check_split_classes
from medfuse.training.fit import (
    Fitted,
    ask_fitted,
    choose_device,
    fit_model,
    quiet_lightning,
)
from medfuse.training.gather import gather, thin
from medfuse.training.novelty import describe_rows
from medfuse.training.plots import plot_gains, plot_losses, plot_reliability, plot_roc
from medfuse.training.processes import join, leader_first, leads, wait
from medfuse.training.progress import study_progress
from medfuse.training.report import Report, format_report
from medfuse.training.robustness import measure_attacks
from medfuse.training.settings import TrainSettings
from medfuse.training.text import measure_text
from medfuse.training.workers import combine
from medfuse.trust.answers import AS_GIVEN, Answers, pool
from medfuse.trust.measure import measure_gains, measure_subsets, read_bayes
from medfuse.trust.metrics import headline
from medfuse.trust.novelty_fitting import fit_novelty

SETTINGS = "settings.json"
METRICS = "metrics.json"
TABLE = "metrics.md"
CHECKPOINT = "checkpoint"


def train_model(
    settings: TrainSettings, out: Path, *, resume: bool = False, console: Console | None = None
) -> Report:
    """Prepare a cohort, fit a model to it (or one per fold), calibrate and measure it.

    Args:
        settings: The whole run.
        out: Folder for the run's ``checkpoint/``, ``metrics.json``, ``metrics.md``, ``plots/``,
            ``logs/`` and ``resume/``. Cross-validation writes figures and plots but no checkpoint.
        resume: Go on with the run that was begun in ``out``; one that is done is only read.
        console: Where progress is shown; nowhere without one.

    Raises:
        CohortError: The table cannot be used, or gives labels away and settings refuse that.
        SettingsError: The model's weights are missing.
        TrainingError: ``out`` holds a run already, or one of other settings; or a study cannot be
            used.
    """
    started = time.monotonic()
    leaks = None
    if leads(settings.fit):
        _refuse_other_run(settings, out, resume)
        if resume and (done := _read_report(out)) is not None:
            return done
        leaks = check_before(settings, out, console)
        _open_run(settings, out)
    elif resume and (done := _read_report(out)) is not None:
        return done
    device = choose_device(settings)
    with quiet_lightning():
        share = join(settings.fit, device)
    console = console if share.leads else None
    with leader_first(share):
        cohort, features = gather(settings, out, device, console)
    prepared = time.monotonic()
    if settings.split.folds:
        cohorts = fold_cohort(cohort, settings.split)
        folders = [out / "folds" / str(i + 1) for i in range(len(cohorts))]
    else:
        cohorts, folders = (split_cohort(cohort, settings.split),), [out]
        if share.leads:
            check_split_classes(cohorts[0], console)
    thinned = [thin(settings, part, features) for part in cohorts]
    cohorts = tuple(part for part, _ in thinned)
    fits, tests = [], []
    for i, ((part, own), folder) in enumerate(zip(thinned, folders, strict=True)):
        if console is not None and len(cohorts) > 1:
            console.print(f"Fold {i + 1} of {len(cohorts)}")
        fits.append(fit_model(settings, part, own, folder, device, console, share=share))
        if share.leads:
            tests.append(ask_fitted(settings, fits[-1], part, own, Split.TEST))
    fitted = time.monotonic()
    if not share.leads:
        wait(share)
        report = _read_report(out)
        assert report is not None
        return report

    report = _measure(settings, cohorts, fits, tests, features.left_out)
    attacked = measure_attacks(settings, fits, cohorts, [own for _, own in thinned])
    report = report.model_copy(update={"attacked": attacked})
    seconds = {
        "prepare": prepared - started,
        "fit": fitted - prepared,
        "measure": time.monotonic() - fitted,
    }
    report = report.model_copy(update={"seconds": {k: round(v, 1) for k, v in seconds.items()}})
    if not settings.split.folds:
        with study_progress(console) as progress:
            background = measure_background(
                cohorts[0].part(Split.TRAIN), settings, fits[0].model, progress
            )
        own = thinned[0][1]
        described = describe_rows(cohorts[0], own, (Split.TRAIN, Split.VALIDATION))
        novelty = fit_novelty(described, settings.trust.false_alarms, settings.fit.seed)
        record = CheckpointRecord(
            model=settings.model,
            prepare=settings.prepare,
            tasks=settings.tasks,
            calibration=fits[0].calibration,
            trust=fits[0].trust,
            metrics=report.model_dump(mode="json"),
            cohort_digest=combine([cohorts[0].digest, own.digest]),
            leaks=leaks,
            text=fits[0].text,
            versions=library_versions(),
        )
        save_checkpoint(out / CHECKPOINT, fits[0].model, background, novelty, record)
    _write_figures(settings, out, fits, pool(tests), report)
    wait(share)
    return report


def _open_run(settings: TrainSettings, out: Path) -> None:
    """Begin a run's folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(_write_down(settings), encoding="utf-8")


def _write_down(settings: TrainSettings) -> str:
    return settings.model_dump_json(indent=2) + "\n"


def _refuse_other_run(settings: TrainSettings, out: Path, resume: bool) -> None:
    """Refuse a folder that is not empty, or to resume what is not this run's."""
    begun = out / SETTINGS
    if not resume:
        if out.is_dir() and any(out.iterdir()):
            raise TrainingError(
                f"{out}: not empty; choose another folder, or go on with the run in it by --resume"
            )
        return
    if not begun.is_file():
        raise TrainingError(f"{out}: there is no run to resume here")
    if begun.read_text(encoding="utf-8") != _write_down(settings):
        raise TrainingError(
            f"{out}: its run was begun with other settings ({SETTINGS}); resume with those, or "
            "start a new run in another folder"
        )


def _read_report(out: Path) -> Report | None:
    """Read the report of a run that is done."""
    try:
        return Report.model_validate_json((out / METRICS).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise TrainingError(f"{out / METRICS}: not a report; remove it and resume") from error


def _measure(
    settings: TrainSettings,
    cohorts: Sequence[Cohort],
    fits: Sequence[Fitted],
    tests: Sequence[Answers],
    left_out: int,
) -> Report:
    """Measure what the models answered on test studies, of all folds together."""
    tasks = settings.tasks
    test, validation = pool(tests), pool([f.validation for f in fits])
    bayes = read_bayes(settings.cohort.table.parent, tasks, test.rows)
    if settings.missing.mechanism is Removal.FINDING:
        bayes.pop(AS_GIVEN, None)  # what was taken then tells of the finding; the truth is silent
    cohort = cohorts[0]
    excluded = dict(cohort.excluded) | ({"files cannot be used": left_out} if left_out else {})
    fold_values = {}
    if settings.split.folds:
        alone = settings.report.model_copy(update={"resamples": 0})
        by_fold = [measure_subsets(tasks, own, alone, {}) for own in tests]
        fold_values = {
            name: tuple(
                fold[name].targets[tasks[0].name][headline(tasks[0])].value
                for fold in by_fold
                if name in fold
            )
            for name in by_fold[0]
        }
        studies = {"tested": len(test.rows)}
    else:
        studies = {split.value: len(cohort.part(split)) for split in Split}
    return Report(
        studies=studies,
        patients=len({row.patient_id for row in cohort.rows}),
        excluded=excluded,
        folds=settings.split.folds,
        epochs=tuple(len(f.history.train) for f in fits),
        seconds={},
        subsets=measure_subsets(tasks, test, settings.report, bayes),
        gains=measure_gains(tasks, validation, test, settings.report),
        fold_values=fold_values,
        text=None if settings.split.folds else measure_text(tasks, fits[0].text, test, settings),
    )


def _write_figures(
    settings: TrainSettings, out: Path, fits: Sequence[Fitted], test: Answers, report: Report
) -> None:
    """Write plots and tables; ``metrics.json`` comes last and says that the run is done."""
    plot_losses(out / "plots" / "losses.png", [f.history for f in fits])
    plot_roc(out / "plots" / "roc.png", settings.tasks, test)
    plot_reliability(out / "plots" / "reliability.png", settings.tasks, test)
    plot_gains(out / "plots" / "gains.png", report.gains)
    (out / TABLE).write_text(format_report(report, settings.tasks), encoding="utf-8")
    unfinished = out / f"{METRICS}.part"
    unfinished.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    unfinished.rename(out / METRICS)
