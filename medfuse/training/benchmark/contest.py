"""Learners, labels and patients in; what each contender says out of fold, chosen within, out.

Whatever is chosen or fitted for a test fold (a member's calibration, a stack's weights, which
member is best) is chosen by answers to training patients that came out of an inner fold. So no
label of a test patient changes what is said of that fold.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold

from medfuse.errors import CohortError
from medfuse.training.benchmark.stacking import COMBINERS, CombineName, fit_line


class Role(StrEnum):
    """What a contender's figure stands for."""

    METADATA = "metadata"
    SINGLE = "single"
    FUSION = "fusion"


@dataclass(frozen=True, slots=True)
class Learner:
    """One way to read one part of a study.

    Attributes:
        name: Of it.
        values: A row per study: numbers, or texts.
        build: Gives an unfitted scikit-learn pipeline for a seed.
    """

    name: str
    values: np.ndarray = field(repr=False)
    build: Callable[[int], Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Contender:
    """Learners put together to one answer.

    Attributes:
        name: In the report.
        role: Metadata alone, one modality alone, or several modalities.
        groups: Names of learners. Those of a group, such as all that read the note, are averaged.
        combine: A name in `COMBINERS`, by which the groups are put together.
    """

    name: str
    role: Role
    groups: tuple[tuple[str, ...], ...]
    combine: CombineName = "stacked"


@dataclass(frozen=True, slots=True)
class Split:
    """Which studies a model is fitted on, and which it is asked about."""

    train: Int64[np.ndarray, " k"]
    test: Int64[np.ndarray, " t"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a contender says of every study, once per repeat.

    Attributes:
        scores: Logits at equal odds of both labels; NaN where a study was not asked about.
        log_odds: Of the label among the training patients: added to a score, it is a logit.
    """

    scores: Float[np.ndarray, "r n"]
    log_odds: Float[np.ndarray, "r n"]


def deal_folds(
    labels: Bool[np.ndarray, " n"], patients: Sequence[str], folds: int, seed: int
) -> tuple[Split, ...]:
    """Deal patients to folds that have about the same share of positive studies.

    Raises:
        CohortError: A label has fewer patients than there are folds.
    """
    groups = np.array(patients, dtype=np.str_)
    fewest = min(len(np.unique(groups[labels == value])) for value in (True, False))
    if fewest < folds:
        raise CohortError(
            f"{fewest} patients have the rarer label, and {folds} folds need one each; use fewer "
            "folds or more patients"
        )
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return tuple(
        Split(train.astype(np.int64), test.astype(np.int64))
        for train, test in dealer.split(np.zeros(len(labels)), labels, groups)
    )


def deal_repeats(
    labels: Bool[np.ndarray, " n"], patients: Sequence[str], folds: int, repeats: int, seed: int
) -> tuple[tuple[Split, ...], ...]:
    """Deal the folds of each repeat anew."""
    return tuple(deal_folds(labels, patients, folds, seed + r) for r in range(repeats))


def weigh_patients(
    labels: Bool[np.ndarray, " n"], patients: Sequence[str]
) -> Float[np.ndarray, " n"]:
    """Weigh studies so that a patient counts once and both labels count alike; the mean is 1."""
    _, code, counts = np.unique(
        np.array(patients, dtype=np.str_), return_inverse=True, return_counts=True
    )
    weights = 1 / counts[code]
    for value in (True, False):
        own = labels == value
        weights[own] /= weights[own].sum()
    return np.asarray(weights * len(labels) / weights.sum())


def run_contest(
    learners: Sequence[Learner],
    contenders: Sequence[Contender],
    labels: Bool[np.ndarray, " n"],
    patients: Sequence[str],
    repeats: Sequence[Sequence[Split]],
    inner_folds: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> Mapping[str, Said]:
    """Let every contender answer for the studies of every test fold.

    Args:
        learners: Each is fitted once per fold and inner fold, whoever it is a member of.
        contenders: Who answers.
        labels: What is to be told.
        patients: Whose studies they are.
        repeats: Of each repeat the folds.
        inner_folds: Within each fold's training patients.
        seed: Of the first repeat's inner folds and learners.
        advance: Called after each fold.
    """
    shape = (len(repeats), len(labels))
    scores = {contender.name: np.full(shape, np.nan) for contender in contenders}
    log_odds = np.full(shape, np.nan)
    groups = np.array(patients, dtype=np.str_)
    for r, folds in enumerate(repeats):
        for fold in folds:
            own, whose = labels[fold.train], groups[fold.train]
            weights = weigh_patients(own, whose.tolist())
            log_odds[r, fold.test] = _find_log_odds(own, whose)
            inner = deal_folds(own, whose.tolist(), inner_folds, seed + r)
            trained, asked = {}, {}
            for learner in learners:
                values = learner.values
                trained[learner.name] = _answer_within(
                    learner, values[fold.train], own, whose, inner, seed + r
                )
                asked[learner.name] = fit_and_ask(
                    learner, values[fold.train], own, weights, values[fold.test], seed + r
                )
            for contender in contenders:
                scores[contender.name][r, fold.test] = _combine(
                    contender, trained, asked, own, weights
                )
            advance()
    return {name: Said(own_scores, log_odds) for name, own_scores in scores.items()}


def fit_and_ask(
    learner: Learner,
    train: np.ndarray,
    labels: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    asked: np.ndarray,
    seed: int,
) -> Float[np.ndarray, " k"]:
    """Fit a learner and give its scores of other studies."""
    pipeline = learner.build(seed)
    last = pipeline.steps[-1][0]
    with warnings.catch_warnings():
        # Where words separate the labels, no finite weights are best; the penalty decides.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(train, labels, **{f"{last}__sample_weight": weights})
    if hasattr(pipeline, "decision_function"):
        return np.asarray(pipeline.decision_function(asked), dtype=np.float64)
    chances = np.clip(pipeline.predict_proba(asked)[:, 1], 1e-3, 1 - 1e-3)
    return np.asarray(np.log(chances / (1 - chances)), dtype=np.float64)


def _answer_within(
    learner: Learner,
    values: np.ndarray,
    labels: Bool[np.ndarray, " n"],
    patients: np.ndarray,
    inner: Sequence[Split],
    seed: int,
) -> Float[np.ndarray, " n"]:
    """Give a learner's scores of the training studies, each by a fit without its patient."""
    scores = np.full(len(labels), np.nan)
    for fold in inner:
        own = labels[fold.train]
        weights = weigh_patients(own, patients[fold.train].tolist())
        scores[fold.test] = fit_and_ask(
            learner, values[fold.train], own, weights, values[fold.test], seed
        )
    return scores


def _combine(
    contender: Contender,
    trained: Mapping[str, Float[np.ndarray, " n"]],
    asked: Mapping[str, Float[np.ndarray, " k"]],
    labels: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " k"]:
    """Average each group's calibrated members, combine the groups, and calibrate what comes."""
    within, beyond = [], []
    for group in contender.groups:
        lines = [(name, fit_line(trained[name], labels, weights)) for name in group]
        own = np.mean([line(trained[name]) for name, line in lines], axis=0)
        line = fit_line(own, labels, weights)
        within.append(line(own))
        beyond.append(line(np.mean([each(asked[name]) for name, each in lines], axis=0)))
    columns = np.stack(within, axis=1)
    shares = COMBINERS[contender.combine](columns, labels, weights)
    line = fit_line(columns @ shares, labels, weights)
    return line(np.stack(beyond, axis=1) @ shares)


def _find_log_odds(labels: Bool[np.ndarray, " n"], patients: np.ndarray) -> float:
    """Give the log odds of the label among studies, each patient counting once."""
    _, code, counts = np.unique(patients, return_inverse=True, return_counts=True)
    once = 1 / counts[code]
    return float(np.log(once[labels].sum() / once[~labels].sum()))
