"""Bootstrap by patient: how often each study counts in each resample, and a figure's interval."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medfuse.config import Settings

COVERAGE = 0.95


class Figure(Settings):
    """A measured number with its bootstrap interval; None where the data do not define it."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Show it as ``0.812 [0.770, 0.850]``."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def patient_weights(patients: Sequence[str], resamples: int, seed: int) -> Float[np.ndarray, "r n"]:
    """Draw patients with replacement and give how often each study then counts.

    Studies of one patient resemble each other, so the patient is what is drawn (Efron and
    Tibshirani 1993, ch. 8).

    Returns:
        ``resamples + 1`` rows, a column per study; the first row is the data as they are, all ones.
    """
    names, code = np.unique(np.array(patients, dtype=np.str_), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.concatenate([np.ones((1, len(code))), drawn[:, code]])


def summarise(values: Float[np.ndarray, " r"]) -> Figure:
    """Give the first value with the percentile interval of the others, undefined ones left out."""
    value, resampled = float(values[0]), values[1:]
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(value):
        return Figure(value=None)
    if not len(resampled):
        return Figure(value=value)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Figure(value=value, low=float(low), high=float(high))
