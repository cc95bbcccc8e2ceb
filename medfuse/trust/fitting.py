"""A model's answers to validation studies in, what may be promised of its answers out."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from medfuse.config import Task, TaskKind
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.calibration import Calibration, label_slices, logit_slices, probabilities
from medfuse.trust.conformal import least_probability, widest_error
from medfuse.trust.record import ABSENT, PRESENT, QuestionTrust, TrustRecord, TrustSettings
from medfuse.trust.selective import sure_from


def fit_trust(tasks: Sequence[Task], validation: Answers, settings: TrustSettings) -> TrustRecord:
    """Choose every threshold of every question, for each subset of modalities by itself.

    Args:
        tasks: In the order of the logits.
        validation: Calibrated answers to studies that the model was not fitted to.
        settings: What is promised.
    """
    subsets = {}
    for name, logits in validation.logits.items():
        has = ~np.isnan(logits).any(axis=1)
        if name != AS_GIVEN and has.any():
            questions = _fit_questions(tasks, logits[has], validation.labels[has], settings)
            subsets[name] = dict(questions)
    return TrustRecord(settings=settings, subsets=subsets)


def _fit_questions(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    settings: TrustSettings,
) -> Iterator[tuple[str, QuestionTrust]]:
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        x, y = logits[:, where], labels[:, columns]
        if task.kind is TaskKind.REGRESSION:
            yield task.name, _fit_quantity(task, x[:, 0], y[:, 0], settings)
            continue
        chances = probabilities(task, x, Calibration())
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            for k, target in enumerate(task.targets):
                both = np.stack([1 - chances[:, k], chances[:, k]], axis=1)
                yield target, _fit_classes((ABSENT, PRESENT), both, y[:, k], settings)
        else:
            yield task.name, _fit_classes(task.classes, chances, y[:, 0], settings)


def _fit_classes(
    classes: Sequence[str],
    chances: Float[np.ndarray, "n c"],
    labels: Float[np.ndarray, " n"],
    settings: TrustSettings,
) -> QuestionTrust:
    known = ~np.isnan(labels)
    chances, true = chances[known], labels[known].astype(np.int64)
    own = {name: chances[true == c, c] for c, name in enumerate(classes)}
    positive = None
    if tuple(classes) == (ABSENT, PRESENT):
        positive = least_probability(own[PRESENT], settings.sensitivity) or None
    return QuestionTrust(
        studies={name: len(its) for name, its in own.items()},
        least={name: least_probability(its, settings.coverage) for name, its in own.items()},
        sure=sure_from(
            chances.max(axis=1), chances.argmax(axis=1) == true, settings.risk, settings.confidence
        ),
        positive=positive,
    )


def _fit_quantity(
    task: Task,
    said: Float[np.ndarray, " n"],
    true: Float[np.ndarray, " n"],
    settings: TrustSettings,
) -> QuestionTrust:
    errors = (said - true)[~np.isnan(true)]
    return QuestionTrust(
        studies={task.classes[0]: len(errors)}, within=widest_error(errors, settings.coverage)
    )
