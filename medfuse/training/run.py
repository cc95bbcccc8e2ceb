"""A training run: settings in; a checkpoint, figures, plots and logs in one folder out."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from pydantic import ValidationError
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import Cohort, Split, read_cohort
from medfuse.data.splits import fold_cohort, split_cohort
from medfuse.errors import TrainingError
from medfuse.models.fused import FusedModel, build_model
from medfuse.training.checkpoint import CheckpointRecord, library_versions, save_checkpoint
from medfuse.training.dataset import (
    Collator,
    EpochSampler,
    FeatureDataset,
    QuantityScale,
    fit_scale,
    label_weights,
    make_loader,
    sampling_chances,
)
from medfuse.training.evaluate import (
    AS_GIVEN,
    Answers,
    ask,
    headline,
    measure_gain,
    measure_subsets,
    pool,
    read_bayes,
)
from medfuse.training.features import Features, Progress, build_features
from medfuse.training.history import History, Patience
from medfuse.training.loop import TrainingModule
from medfuse.training.plots import plot_losses, plot_reliability, plot_roc
from medfuse.training.report import Report, format_report
from medfuse.training.settings import TrainSettings
from medfuse.training.workers import combine
from medfuse.trust.calibration import Calibration, TargetCalibration, fit_calibration, label_slices

SETTINGS = "settings.json"
METRICS = "metrics.json"
TABLE = "metrics.md"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Fitted:
    """One fitted model with its answers, calibrated, to the studies it was not fitted to."""

    model: FusedModel
    calibration: Calibration
    validation: Answers
    test: Answers
    history: History


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
        CohortError: The table cannot be used.
        SettingsError: The model's weights are missing.
        TrainingError: ``out`` holds a run already, or one of other settings; or a study cannot be
            used.
    """
    started = time.monotonic()
    done = _open_run(settings, out, resume)
    if done is not None:
        return done
    cohort = read_cohort(settings.cohort, settings.tasks)
    device = _choose_device(settings)
    model = _build(settings).to(device)
    with _feature_progress(console) as progress:
        features = build_features(
            cohort.rows,
            settings.prepare,
            model,
            settings.model,
            settings.features,
            settings.features.cache or out.parent / "features",
            progress,
        )
    prepared = time.monotonic()
    cohort = replace(cohort, rows=features.rows)
    if settings.split.folds:
        cohorts = fold_cohort(cohort, settings.split)
        folders = [out / "folds" / str(i + 1) for i in range(len(cohorts))]
    else:
        cohorts, folders = (split_cohort(cohort, settings.split),), [out]
    fits = []
    for i, (part, folder) in enumerate(zip(cohorts, folders, strict=True)):
        if console is not None and len(cohorts) > 1:
            console.print(f"Fold {i + 1} of {len(cohorts)}")
        fits.append(_fit(settings, part, features, folder, device, console))
    fitted = time.monotonic()

    report = _measure(settings, cohorts, fits, features.left_out)
    seconds = {
        "prepare": prepared - started,
        "fit": fitted - prepared,
        "measure": time.monotonic() - fitted,
    }
    report = report.model_copy(update={"seconds": {k: round(v, 1) for k, v in seconds.items()}})
    if not settings.split.folds:
        _save(settings, out / CHECKPOINT, cohorts[0], features, fits[0], report)
    _write_figures(settings, out, fits, report)
    return report


def _open_run(settings: TrainSettings, out: Path, resume: bool) -> Report | None:
    """Begin a run's folder, or check that the one there is this run's; give its report if done."""
    text = settings.model_dump_json(indent=2) + "\n"
    begun = out / SETTINGS
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise TrainingError(
                f"{out}: not empty; choose another folder, or go on with the run in it by --resume"
            )
        out.mkdir(parents=True, exist_ok=True)
        begun.write_text(text, encoding="utf-8")
        return None
    if not begun.is_file():
        raise TrainingError(f"{out}: there is no run to resume here")
    if begun.read_text(encoding="utf-8") != text:
        raise TrainingError(
            f"{out}: its run was begun with other settings ({SETTINGS}); resume with those, or "
            "start a new run in another folder"
        )
    try:
        return Report.model_validate_json((out / METRICS).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise TrainingError(f"{out / METRICS}: not a report; remove it and resume") from error


def _choose_device(settings: TrainSettings) -> torch.device:
    wanted = settings.fit.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("fit.device = 'cuda', but torch finds no GPU; use 'auto' or 'cpu'")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _build(settings: TrainSettings) -> FusedModel:
    torch.manual_seed(settings.fit.seed)
    return build_model(settings.model, settings.prepare, settings.tasks, pretrained=True)


def _fit(
    settings: TrainSettings,
    cohort: Cohort,
    features: Features,
    folder: Path,
    device: torch.device,
    console: Console | None,
) -> Fitted:
    """Fit one model on a cohort's training studies and ask it about the others."""
    fit, labels = settings.fit, cohort.labels
    places = {
        split: [i for i, row in enumerate(cohort.rows) if row.split is split] for split in Split
    }
    train_labels = labels[places[Split.TRAIN]]
    scale = fit_scale(settings.tasks, train_labels)
    model = _build(settings)
    collator = Collator(model, settings.prepare)
    data = {
        split: FeatureDataset(features, chosen, scale.standardise(labels))
        for split, chosen in places.items()
    }
    chances = sampling_chances(fit.balance, settings.tasks, train_labels)
    sampler = EpochSampler(len(data[Split.TRAIN]), fit.seed, chances)
    loaders = {
        split: make_loader(own, collator, fit.batch_size, sampler if split is Split.TRAIN else None)
        for split, own in data.items()
    }
    weights = label_weights(settings.tasks, train_labels) if fit.balance == "weight" else ()
    module = TrainingModule(model, fit, fit.epochs * len(loaders[Split.TRAIN]), weights)
    history = History()
    best = ModelCheckpoint(
        dirpath=folder / "resume",
        filename="best",
        monitor="validation_loss",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    callbacks: list[lightning.Callback] = [
        history,
        Patience("validation_loss", patience=fit.patience, check_on_train_epoch_end=True),
        best,
    ]
    if console is not None:
        callbacks.append(RichProgressBar(leave=False))
    last = folder / "resume" / "last.ckpt"
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=fit.epochs,
            gradient_clip_val=fit.gradient_clip,
            callbacks=callbacks,
            logger=[
                CSVLogger(folder / "logs", name="csv"),
                TensorBoardLogger(folder / "logs", name="tensorboard"),
            ],
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=console is not None,
        )
        trainer.fit(
            module,
            loaders[Split.TRAIN],
            loaders[Split.VALIDATION],
            ckpt_path=last if last.is_file() else None,
            weights_only=True,
        )
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"], strict=False)
    module.to(device)
    validation, test = (
        ask(module, [cohort.rows[i] for i in places[split]], loaders[split])
        for split in (Split.VALIDATION, Split.TEST)
    )
    calibration = fit_calibration(
        settings.tasks,
        validation.logits[AS_GIVEN],
        validation.labels,
        bias=fit.balance != "none",
    )
    calibration = _undo_scale(settings.tasks, calibration, scale)
    return Fitted(
        model=model,
        calibration=calibration,
        validation=validation.calibrated(settings.tasks, calibration),
        test=test.calibrated(settings.tasks, calibration),
        history=history,
    )


def _undo_scale(
    tasks: Sequence[Task], calibration: Calibration, scale: QuantityScale
) -> Calibration:
    """Let quantities be read in their own unit again."""
    targets = dict(calibration.targets)
    for task, where in label_slices(tasks):
        if task.kind is TaskKind.REGRESSION:
            targets[task.targets[0]] = TargetCalibration(
                offset=scale.offset[where.start], scale=scale.scale[where.start]
            )
    return Calibration(targets=targets)


def _measure(
    settings: TrainSettings, cohorts: Sequence[Cohort], fits: Sequence[Fitted], left_out: int
) -> Report:
    """Measure what the models answered on test studies, of all folds together."""
    tasks = settings.tasks
    test, validation = pool([f.test for f in fits]), pool([f.validation for f in fits])
    bayes = read_bayes(settings.cohort.table.parent, tasks[0], test.rows)
    cohort = cohorts[0]
    excluded = dict(cohort.excluded) | ({"files cannot be used": left_out} if left_out else {})
    fold_values = {}
    if settings.split.folds:
        alone = settings.report.model_copy(update={"resamples": 0})
        by_fold = [measure_subsets(tasks, f.test, alone, {}) for f in fits]
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
        gain=measure_gain(tasks, validation, test, settings.report),
        fold_values=fold_values,
    )


def _save(
    settings: TrainSettings,
    folder: Path,
    cohort: Cohort,
    features: Features,
    fitted: Fitted,
    report: Report,
) -> None:
    record = CheckpointRecord(
        model=settings.model,
        prepare=settings.prepare,
        tasks=settings.tasks,
        calibration=fitted.calibration,
        metrics=report.model_dump(mode="json"),
        cohort_digest=combine([cohort.digest, features.digest]),
        versions=library_versions(),
    )
    save_checkpoint(folder, fitted.model, record)


def _write_figures(
    settings: TrainSettings, out: Path, fits: Sequence[Fitted], report: Report
) -> None:
    """Write plots and tables; ``metrics.json`` comes last and says that the run is done."""
    test = pool([f.test for f in fits])
    plot_losses(out / "plots" / "losses.png", [f.history for f in fits])
    plot_roc(out / "plots" / "roc.png", settings.tasks, test)
    plot_reliability(out / "plots" / "reliability.png", settings.tasks, test)
    (out / TABLE).write_text(format_report(report, settings.tasks), encoding="utf-8")
    unfinished = out / f"{METRICS}.part"
    unfinished.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    unfinished.rename(out / METRICS)


class _RichFeatureProgress(Progress):
    """Shows the studies prepared as a bar."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task = bar.add_task("Preparing studies", total=None, visible=False)

    def begin(self, total: int) -> None:
        self._bar.update(self._task, total=total, visible=total > 0)

    def advance(self) -> None:
        self._bar.advance(self._task)


@contextmanager
def _feature_progress(console: Console | None) -> Iterator[Progress]:
    if console is None:
        yield Progress()
        return
    columns = (*RichProgress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _RichFeatureProgress(bar)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice for other situations from the console."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # More loading processes (batches come from mapped memory), short epochs, and so on.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 asks torch 2.13 about its trees in the old way.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
            yield
    finally:
        logger.setLevel(level)
