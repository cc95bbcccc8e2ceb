"""A model's answers to validation studies in, how to read and what to promise of its answers out.

Training fits a new model so, and recalibration a bundle to a hospital's own studies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from medfuse.config import Task, TaskKind
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.basis import choose_basis
from medfuse.trust.calibration import (
    Calibration,
    fit_calibration,
    fit_subsets,
    label_slices,
    logit_slices,
    name_fittable,
    probabilities,
)
from medfuse.trust.conformal import least_probability, widest_error
from medfuse.trust.record import ABSENT, PRESENT, QuestionTrust, TrustRecord, TrustSettings
from medfuse.trust.selective import sure_from
from medfuse.types import SUBSETS, subset_name


@dataclass(frozen=True, slots=True)
class Promised:
    """How a model's answers are read, and what is promised of them.

    Attributes:
        calibration: How.
        answers: The studies' answers that it was fitted to, calibrated.
        trust: What is promised, by them.
    """

    calibration: Calibration
    answers: Answers
    trust: TrustRecord


def fit_promises(
    tasks: Sequence[Task],
    answers: Answers,
    settings: TrustSettings,
    before: Calibration,
    *,
    bias: bool = False,
) -> Promised:
    """Fit the calibration of every subset of modalities, and then what is promised of it.

    Args:
        tasks: In the order of the logits.
        answers: Raw, to studies that the model was not fitted to.
        settings: What is promised.
        before: How answers were read so far. It stays for quantities, which are not calibrated, and
            for whatever it names that the studies are too few for.
        bias: Never fit a temperature alone: training balanced the classes, or the studies come from
            elsewhere than the model's, where a finding is more or less frequent.
    """
    labels, given = answers.labels, answers.logits[AS_GIVEN]
    fittable = name_fittable(tasks, labels)
    targets = fit_calibration(tasks, given, labels, bias=bias).targets
    kept = {t: own for t, own in before.targets.items() if t not in fittable}
    subsets = fit_subsets(
        tasks,
        {name: own for name, own in answers.logits.items() if name != AS_GIVEN},
        labels,
        [row.patient_id for row in answers.rows],
        {subset_name(subset): answers.has_exactly(subset) for subset in SUBSETS},
        bias=bias,
    )
    names = [*subsets, *(name for name in before.subsets if name not in subsets)]
    calibration = Calibration(
        targets=targets | kept,
        subsets={name: before.subsets.get(name, {}) | subsets.get(name, {}) for name in names},
    )
    calibrated = answers.calibrated(tasks, calibration)
    return Promised(calibration, calibrated, fit_trust(tasks, calibrated, settings))


def fit_trust(tasks: Sequence[Task], validation: Answers, settings: TrustSettings) -> TrustRecord:
    """Choose every threshold of every question, for each subset of modalities by itself.

    Args:
        tasks: In the order of the logits.
        validation: Calibrated answers to studies that the model was not fitted to.
        settings: What is promised.
    """
    subsets = {}
    for subset in SUBSETS:
        name = subset_name(subset)
        logits = validation.logits.get(name)
        if logits is not None and not np.isnan(logits).all():
            exactly = validation.has_exactly(subset)
            subsets[name] = dict(
                _fit_questions(tasks, logits, validation.labels, exactly, settings)
            )
    return TrustRecord(settings=settings, subsets=subsets)


def _fit_questions(
    tasks: Sequence[Task],
    logits: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    exactly: Bool[np.ndarray, " n"],
    settings: TrustSettings,
) -> Iterator[tuple[str, QuestionTrust]]:
    has = ~np.isnan(logits).any(axis=1)
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        x, y = logits[:, where], labels[:, columns]
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            for k, target in enumerate(task.targets):
                basis = choose_basis(task, y[:, k], has, exactly)
                chance = expit(x[basis.rows, k])
                both = np.stack([1 - chance, chance], axis=1)
                yield (
                    target,
                    _fit_classes(
                        (ABSENT, PRESENT), both, y[basis.rows, k], settings, exact=basis.exact
                    ),
                )
            continue
        basis = choose_basis(task, y[:, 0], has, exactly)
        said, true = x[basis.rows], y[basis.rows, 0]
        if task.kind is TaskKind.REGRESSION:
            own = _fit_quantity(task, said[:, 0], true, settings, exact=basis.exact)
        else:
            chances = probabilities(task, said, Calibration())
            own = _fit_classes(task.classes, chances, true, settings, exact=basis.exact)
        yield task.name, own


def _fit_classes(
    classes: Sequence[str],
    chances: Float[np.ndarray, "n c"],
    labels: Float[np.ndarray, " n"],
    settings: TrustSettings,
    *,
    exact: bool,
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
        exact=exact,
    )


def _fit_quantity(
    task: Task,
    said: Float[np.ndarray, " n"],
    true: Float[np.ndarray, " n"],
    settings: TrustSettings,
    *,
    exact: bool,
) -> QuestionTrust:
    errors = (said - true)[~np.isnan(true)]
    return QuestionTrust(
        studies={task.classes[0]: len(errors)},
        within=widest_error(errors, settings.coverage),
        exact=exact,
    )
