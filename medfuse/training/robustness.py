"""Answers under attack: a model and studies in, what it says of features moved against it out."""

from collections.abc import Sequence

import numpy as np
import torch

from medfuse.data.cohort import Cohort, Split
from medfuse.training.dataset import Collator, FeatureDataset, fit_scale, make_loader
from medfuse.training.features import Features
from medfuse.training.fit import Fitted, find_split
from medfuse.training.objectives.adversarial import attack
from medfuse.training.objectives.supervised import SupervisedObjective
from medfuse.training.settings import SupervisedSettings, TrainSettings
from medfuse.trust.answers import AS_GIVEN, Answers, pool
from medfuse.trust.figures import SubsetReport
from medfuse.trust.measure import measure_subsets


def ask_attacked(
    settings: TrainSettings, fitted: Fitted, cohort: Cohort, features: Features, epsilon: float
) -> Answers:
    """Ask a fitted model about test studies whose every feature was moved against its answer.

    One step of the fast gradient sign method (Goodfellow et al. 2015), by someone who knows the
    model and the labels. It climbs the tasks' plain losses by their weights, whatever else the
    model was trained with, so that models can be compared.

    Args:
        settings: The run's.
        fitted: Asked.
        cohort: Whose test studies.
        features: Of its rows.
        epsilon: How far, in standard deviations of a feature's channel.

    Returns:
        Calibrated, of the studies as given.
    """
    module, places = fitted.module, find_split(cohort, Split.TEST)
    scale = fit_scale(settings.tasks, cohort.labels[find_split(cohort, Split.TRAIN)])
    plain = SupervisedObjective(SupervisedSettings(), settings.fit)
    data = FeatureDataset(features, places, scale.standardise(cohort.labels))
    collator = Collator(module.model, settings.prepare)
    device = next(module.parameters()).device
    module.eval()
    present, logits = [], []
    for batch in make_loader(data, collator, settings.fit.batch_size, None):
        present.append(batch.present.numpy())
        there = batch.to(device)
        with torch.no_grad():
            given, masks = module.extract(there)
        moved = attack(module.model, plain, given, masks, there.labels, epsilon)
        with torch.no_grad():
            said = module.model.fuse(module.model.encode(moved, masks)).logits
        logits.append(said.double().cpu().numpy())
    rows = tuple(cohort.rows[i] for i in places)
    answers = Answers(rows, np.concatenate(present), {AS_GIVEN: np.concatenate(logits)})
    return answers.calibrated(settings.tasks, fitted.calibration)


def measure_attacks(
    settings: TrainSettings,
    fits: Sequence[Fitted],
    cohorts: Sequence[Cohort],
    features: Sequence[Features],
) -> dict[str, SubsetReport]:
    """Measure the models' answers under each attack of the settings, folds pooled, by strength."""
    reports = {}
    for epsilon in settings.report.attack:
        answers = pool(
            [
                ask_attacked(settings, *each, epsilon)
                for each in zip(fits, cohorts, features, strict=True)
            ]
        )
        measured = measure_subsets(settings.tasks, answers, settings.report, {})
        reports[f"{epsilon:g}"] = measured[AS_GIVEN]
    return reports
