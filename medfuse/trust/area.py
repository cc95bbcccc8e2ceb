"""Scores, labels and resamples' weights in; the area under the ROC curve of each resample out."""

import numpy as np
from jaxtyping import Bool, Float

Weights = Float[np.ndarray, "r n"]
"""How often each study counts in each resample."""

Figures = Float[np.ndarray, " r"]
"""A figure per resample; NaN where the resample does not define it."""


def auroc(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> Figures:
    """Measure P(a positive scores above a negative) + half of P(they tie)."""
    yes, no = sum_by_score(scores, positive, weights)
    below = no.cumsum(axis=1) - no / 2
    return divide((yes * below).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1))


def sum_by_score(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights
) -> tuple[Float[np.ndarray, "r g"], Float[np.ndarray, "r g"]]:
    """Sum the weights of positives and of negatives at each distinct score, lowest first."""
    if not len(scores):
        return np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sums = (
        np.add.reduceat((weights * chosen)[:, order], starts, axis=1)
        for chosen in (positive, ~positive)
    )
    yes, no = sums
    return yes, no


def divide(numerator: Figures, denominator: Figures) -> Figures:
    """Divide; NaN where the denominator is zero."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))
