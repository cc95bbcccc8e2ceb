"""What training adds to a decoder: a fitted model in; thresholds, and figures of stating, out."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit

from medfuse.config import Task
from medfuse.data.sentences import findings_of
from medfuse.models.fused import FusedModel
from medfuse.text.record import TextRecord
from medfuse.text.thresholds import choose_thresholds
from medfuse.text.vocabulary import Vocabulary
from medfuse.training.report import StatedReport
from medfuse.training.settings import TrainSettings
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.types import Modality

PROBED = 3200
"""Mel frames by which it is measured how many of them become one token."""


def describe_text(
    settings: TrainSettings, model: FusedModel, vocabulary: Vocabulary, validation: Answers
) -> TextRecord:
    """Write down how a decoder is asked, and from where on a finding is stated.

    Args:
        settings: The run's.
        model: The fitted model.
        vocabulary: Its words.
        validation: Its calibrated answers to the validation studies.
    """
    objective = settings.objectives.findings_text
    assert objective is not None
    return TextRecord(
        words=vocabulary.words,
        findings=findings_of(settings.tasks),
        thresholds=choose_thresholds(
            settings.tasks,
            expit(validation.logits[AS_GIVEN]),
            validation.labels,
            objective.precision,
        ),
        precision=objective.precision,
        cells=model.image.feature_shape[0],
        mel_step=measure_mel_step(model, settings.prepare.voice.mel_bands),
    )


@torch.inference_mode()
def measure_mel_step(model: FusedModel, bands: int) -> float:
    """Count how many mel frames become one token of the voice; in evaluation mode."""
    device = next(model.parameters()).device
    mask = torch.ones(1, PROBED, dtype=torch.bool, device=device)
    values = torch.zeros(1, PROBED, bands, device=device)
    features = model.extract(Modality.VOICE, values, mask)
    tokens = model.voice(features, model.voice.cover(mask)).tokens.shape[1]
    return PROBED / tokens


def measure_text(
    tasks: Sequence[Task], record: TextRecord | None, test: Answers, settings: TrainSettings
) -> dict[str, StatedReport] | None:
    """Measure how rightly each finding is stated on test studies.

    Args:
        tasks: In the order of the logits.
        record: With the thresholds; None of a model that writes no text.
        test: Calibrated answers.
        settings: Say how many resamples.
    """
    if record is None:
        return None
    patients = [row.patient_id for row in test.rows]
    weights = patient_weights(patients, settings.report.resamples, settings.report.seed)
    reports = {}
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        for k, target in enumerate(task.targets):
            if target not in record.thresholds:
                continue
            threshold = record.thresholds[target]
            chances = expit(test.logits[AS_GIVEN][:, where][:, k])
            labels = test.labels[:, columns][:, k]
            known = ~np.isnan(labels)
            stated = known & (chances >= (np.inf if threshold is None else threshold))
            there = labels == 1
            reports[target] = StatedReport(
                threshold=threshold,
                stated=int(stated.sum()),
                precision=_share(weights, there & stated, stated),
                recall=_share(weights, there & stated, there),
            )
    return reports


def _share(weights: Float[np.ndarray, "r n"], found: np.ndarray, among: np.ndarray) -> Figure:
    counts = weights @ among
    hits = weights @ found
    shares = np.divide(hits, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return summarise(shares)
