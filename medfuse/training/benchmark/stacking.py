"""Calibrated scores of training studies in; the few numbers that make one answer of them out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from medfuse.trust.metrics import auroc

SHRINKAGE = 0.05
"""What a member's share costs when it leaves that of a plain average, squared, beside the mean
log loss. Stacks of a hundred patients are better near the average than free (Breiman 1996)."""

SLOPE_SHRINKAGE = 0.01

Scores = Float[np.ndarray, "n m"]
Labels = Bool[np.ndarray, " n"]
Weights = Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Line:
    """A score to a logit, by a slope that is never below zero."""

    centre: float
    scale: float
    slope: float
    offset: float

    def __call__(self, scores: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Give the logits."""
        return np.asarray(self.offset + self.slope * (scores - self.centre) / self.scale)


def fit_line(scores: Float[np.ndarray, " n"], labels: Labels, weights: Weights) -> Line:
    """Fit the line of least log loss (Platt 2000), the slope at least zero and shrunk a little."""
    centre, scale = float(np.average(scores, weights=weights)), float(scores.std()) or 1.0
    standard = (scores - centre) / scale

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        offset, slope = line
        value, slant = _log_loss(offset + slope * standard, labels, weights)
        gradient = np.array([slant.sum(), slant @ standard + 2 * SLOPE_SHRINKAGE * slope])
        return value + SLOPE_SHRINKAGE * slope**2, gradient

    found = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=[(None, None), (0, None)])
    return Line(centre, scale, slope=float(found.x[1]), offset=float(found.x[0]))


def average(scores: Scores, labels: Labels, weights: Weights) -> Float[np.ndarray, " m"]:
    """Let every member count alike."""
    return np.full(scores.shape[1], 1 / scores.shape[1])


def choose_best(scores: Scores, labels: Labels, weights: Weights) -> Float[np.ndarray, " m"]:
    """Take the member with the highest AUROC on the training studies, and no other."""
    areas = [auroc(column, labels, weights[None])[0] for column in scores.T]
    return np.asarray(np.eye(scores.shape[1])[int(np.argmax(areas))])


def stack(scores: Scores, labels: Labels, weights: Weights) -> Float[np.ndarray, " m"]:
    """Fit the members' shares, none below zero, drawn towards those of a plain average."""
    m = scores.shape[1]
    even = np.full(m, 1 / m)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        offset, shares = free[0], free[1:]
        value, slant = _log_loss(offset + scores @ shares, labels, weights)
        away = shares - even
        gradient = np.concatenate([[slant.sum()], slant @ scores + 2 * SHRINKAGE * away])
        return value + SHRINKAGE * float(away @ away), gradient

    start = np.concatenate([[0.0], even])
    found = minimize(loss, start, jac=True, bounds=[(None, None), *[(0, None)] * m])
    return np.asarray(found.x[1:])


CombineName = Literal["average", "best", "stacked"]

COMBINERS: dict[CombineName, Callable[[Scores, Labels, Weights], Float[np.ndarray, " m"]]] = {
    "average": average,
    "best": choose_best,
    "stacked": stack,
}


def _log_loss(
    logits: Float[np.ndarray, " n"], labels: Labels, weights: Weights
) -> tuple[float, Float[np.ndarray, " n"]]:
    """Give the weighted mean log loss, and its gradient by each logit."""
    share = weights / weights.sum()
    loss = float(share @ (np.logaddexp(0, logits) - labels * logits))
    chances = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    return loss, np.asarray(share * (chances - labels))
