"""One model fitted: settings, a cohort and its features in; the best epoch's, calibrated, out."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console
from torch import distributed
from torch.utils.data import DataLoader

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import Cohort, Split
from medfuse.data.sentences import findings_of
from medfuse.errors import TrainingError
from medfuse.models.focus import PLAIN
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.processes import share_batch_norms
from medfuse.text.record import TextRecord
from medfuse.text.vocabulary import Vocabulary, build_vocabulary
from medfuse.training.dataset import (
    Collator,
    EpochSampler,
    Example,
    FeatureDataset,
    QuantityScale,
    Told,
    fit_scale,
    label_weights,
    make_loader,
    sampling_chances,
    tell,
)
from medfuse.training.evaluate import ask
from medfuse.training.features import Features
from medfuse.training.history import History, Patience
from medfuse.training.loop import TrainingModule
from medfuse.training.processes import WHOLE, Share, choose_strategy, name_accelerator
from medfuse.training.settings import TrainSettings
from medfuse.training.start import begin_from
from medfuse.training.text import describe_text
from medfuse.trust.answers import Answers
from medfuse.trust.calibration import Calibration, TargetCalibration, label_slices
from medfuse.trust.fitting import fit_promises
from medfuse.trust.record import TrustRecord


@dataclass(frozen=True, slots=True)
class Parts:
    """What is needed to fit a model.

    Attributes:
        module: The network, untrained, and what a step does with a batch.
        loaders: Batches of the training and of the validation studies.
        scale: How quantities are standardised in them.
        vocabulary: Of the training studies' sentences; None where no text is learnt.
    """

    module: TrainingModule
    loaders: Mapping[Split, DataLoader[Example]]
    scale: QuantityScale
    vocabulary: Vocabulary | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """One fitted model.

    Attributes:
        module: Holds the best epoch's weights.
        calibration: Fitted on the validation studies.
        validation: The calibrated answers to them.
        trust: What is promised of answers, by them.
        history: The losses by epoch.
        text: How its decoder is asked; None of a model without one.
    """

    module: TrainingModule
    calibration: Calibration
    validation: Answers
    trust: TrustRecord
    history: History
    text: TextRecord | None = None

    @property
    def model(self) -> FusedModel:
        """The network."""
        return self.module.model


def fit_model(
    settings: TrainSettings,
    cohort: Cohort,
    features: Features,
    folder: Path,
    device: torch.device,
    console: Console | None,
    watchers: Sequence[lightning.Callback] = (),
    share: Share = WHOLE,
) -> Fitted:
    """Fit one model on a cohort's training studies and calibrate it on the validation studies.

    Goes on from ``folder/resume`` if a fit was begun there. The test studies are not touched.

    Args:
        settings: The whole run.
        cohort: Every row with its split.
        features: Of the same rows.
        folder: Gets ``resume/`` and ``logs/``.
        device: Where to.
        console: Where progress is shown; nowhere without one.
        watchers: Further callbacks.
        share: Of each batch, where several processes fit the model together.
    """
    assert settings.fit.processes * settings.fit.nodes == share.of
    fit = settings.fit
    parts = assemble(settings, cohort, features, share)
    module, loaders = parts.module, parts.loaders
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
        *watchers,
    ]
    if console is not None:
        callbacks.append(RichProgressBar(leave=False))
    last = folder / "resume" / "last.ckpt"
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=name_accelerator(device),
            devices=fit.processes,
            num_nodes=fit.nodes,
            strategy=choose_strategy(share, device),
            use_distributed_sampler=False,  # each process's loader has its share already
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
    validation = ask_module(settings, module, cohort, features, Split.VALIDATION)
    shifted = fit.balance != "none" or settings.objectives.supervised.focus != PLAIN
    promised = fit_promises(
        settings.tasks,
        validation,
        settings.trust,
        _read_scale(settings.tasks, parts.scale),
        bias=shifted,
    )
    return Fitted(
        module=module,
        calibration=promised.calibration,
        validation=promised.answers,
        trust=promised.trust,
        history=history,
        text=(
            describe_text(settings, module.model, parts.vocabulary, promised.answers)
            if parts.vocabulary
            else None
        ),
    )


def assemble(
    settings: TrainSettings, cohort: Cohort, features: Features, share: Share = WHOLE
) -> Parts:
    """Build a network and the batches of a cohort's training and validation studies."""
    fit, labels = settings.fit, cohort.labels
    places = {split: find_split(cohort, split) for split in (Split.TRAIN, Split.VALIDATION)}
    train_labels = labels[places[Split.TRAIN]]
    scale = fit_scale(settings.tasks, train_labels)
    vocabulary, told = _number_sentences(settings, cohort, places[Split.TRAIN])
    model = build_seeded(settings, vocabulary)
    collator = Collator(model, settings.prepare)
    data = {
        split: FeatureDataset(features, chosen, scale.standardise(labels), told)
        for split, chosen in places.items()
    }
    chances = sampling_chances(fit.balance, settings.tasks, train_labels)
    sampler = EpochSampler(len(data[Split.TRAIN]), fit.seed, chances)
    orders = {Split.TRAIN: sampler, Split.VALIDATION: None}
    loaders = {
        split: make_loader(own, collator, fit.batch_size, orders[split], share)
        for split, own in data.items()
    }
    weights = label_weights(settings.tasks, train_labels) if fit.balance == "weight" else ()
    if share.of > 1:
        share_batch_norms(model, distributed.new_group())
    steps = fit.epochs * len(loaders[Split.TRAIN])
    module = TrainingModule(
        model, fit, steps, weights, settings.objectives, settings.augment, share
    )
    return Parts(module, loaders, scale, vocabulary)


def _number_sentences(
    settings: TrainSettings, cohort: Cohort, training: Sequence[int]
) -> tuple[Vocabulary | None, Sequence[tuple[Told, ...]]]:
    """Build the vocabulary of the training studies, and number all studies' words by it.

    Raises:
        TrainingError: Text is to be learnt, and no training study has a sentence.
    """
    if not settings.model.findings_text:
        return None, ()
    sentences = [each.text for i in training for each in cohort.rows[i].sentences]
    if not sentences:
        raise TrainingError("no training study has a sentence to learn findings text from")
    vocabulary = build_vocabulary(sentences)
    return vocabulary, tell(cohort.rows, findings_of(settings.tasks), vocabulary)


def ask_fitted(
    settings: TrainSettings, fitted: Fitted, cohort: Cohort, features: Features, split: Split
) -> Answers:
    """Ask a fitted model about the studies of a split, and calibrate what it says."""
    answers = ask_module(settings, fitted.module, cohort, features, split)
    return answers.calibrated(settings.tasks, fitted.calibration)


def ask_module(
    settings: TrainSettings,
    module: TrainingModule,
    cohort: Cohort,
    features: Features,
    split: Split,
) -> Answers:
    """Ask a model about the studies of a split."""
    places = find_split(cohort, split)
    collator = Collator(module.model, settings.prepare)
    data = FeatureDataset(features, places, cohort.labels)
    batches = make_loader(data, collator, settings.fit.batch_size, None)
    return ask(module, [cohort.rows[i] for i in places], batches)


def find_split(cohort: Cohort, split: Split) -> list[int]:
    """Give the places of a split's rows."""
    return [i for i, row in enumerate(cohort.rows) if row.split is split]


def choose_device(settings: TrainSettings) -> torch.device:
    """Resolve ``fit.device``.

    Raises:
        TrainingError: A GPU is wanted and there is none.
    """
    wanted = settings.fit.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("fit.device = 'cuda', but torch finds no GPU; use 'auto' or 'cpu'")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def build_seeded(settings: TrainSettings, vocabulary: Vocabulary | None = None) -> FusedModel:
    """Build the network of a run, whose new weights come from the run's seed.

    Args:
        settings: The whole run.
        vocabulary: What its decoder writes with; without one it has no decoder.

    Raises:
        SettingsError: A backbone's weights are missing.
        TrainingError: The checkpoint to begin from does not fit.
    """
    torch.manual_seed(settings.fit.seed)
    words = len(vocabulary) if vocabulary is not None else 0
    model = build_model(
        settings.model, settings.prepare, settings.tasks, pretrained=True, words=words
    )
    if settings.fit.start is not None:
        begin_from(model, settings.model, settings.fit.start)
    return model


def _read_scale(tasks: Sequence[Task], scale: QuantityScale) -> Calibration:
    """Let quantities be read in their own unit again."""
    return Calibration(
        targets={
            task.targets[0]: TargetCalibration(
                offset=scale.offset[where.start], scale=scale.scale[where.start]
            )
            for task, where in label_slices(tasks)
            if task.kind is TaskKind.REGRESSION
        }
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice for other situations from the console."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # More loading processes (batches come from mapped memory), short epochs, and so on.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 asks torch 2.13 about its trees in the old way.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
