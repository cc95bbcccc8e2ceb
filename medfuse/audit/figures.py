"""A number per study in; their mean with its bootstrap interval out."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from medfuse.config import Settings

COVERAGE = 0.95
RESAMPLES = 2000


class Figure(Settings):
    """A mean over studies with its 95 % interval; None where there is no study.

    Attributes:
        value: The mean.
        low: Of the interval.
        high: Of the interval.
        count: How many numbers it is the mean of.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int = Field(default=0, ge=0)

    def __str__(self) -> str:
        """Show it as ``0.81 [0.77, 0.85]``."""
        if self.value is None:
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def above(self, other: "Figure") -> bool | None:
        """Whether the whole interval lies above another's; None where one of them is missing."""
        if self.low is None or other.high is None:
            return None
        return self.low > other.high


def estimate_mean(values: Sequence[float], patients: Sequence[int], seed: int) -> Figure:
    """Give the mean and the percentile interval over resampled patients.

    A patient's studies resemble each other, so patients are drawn, with all of their numbers
    (Efron and Tibshirani 1993, ch. 8).

    Args:
        values: The numbers.
        patients: Whose each is.
        seed: The same seed gives the same interval.
    """
    if not values:
        return Figure(value=None)
    _, whose = np.unique(np.array(patients), return_inverse=True)
    counts = np.bincount(whose).astype(np.float64)
    sums = np.bincount(whose, weights=np.array(values, np.float64))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ counts)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Figure(
        value=float(sums.sum() / counts.sum()), low=float(low), high=float(high), count=len(values)
    )
