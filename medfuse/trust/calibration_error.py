"""A calibration error's gaps in every resample in; the error without what chance adds out.

The error that few studies show is too large: the noise in a bin's gap adds to its absolute value
(Roelofs et al. 2022). A bootstrap adds that noise once more, so that its percentiles lie above the
truth, and of perfect probabilities never reach down to zero. Instead, errors are tried: those with
every bin's gap shrunk, or widened, by the same number of its standard errors. Each is given the
resamples' noise and shows something. The error that shows what was seen in the middle of its
resamples is the estimate, and those that show as much, or as little, in 2.5 % of them are the
interval's ends: a test inverted along one family, hybrid resampling (Chuang & Lai 2000).
"""

import numpy as np
from jaxtyping import Float

from medfuse.trust.bootstrap import COVERAGE, Figure

WIDEST = 8.0
"""Standard errors by which gaps are widened at most; with as many, nothing shows so little."""

HALVINGS = 25
"""Of the span of standard errors that is searched."""


def error_without_chance(gaps: Float[np.ndarray, "r b"]) -> Figure:
    """Estimate the calibration error that ever more such studies would show, with its interval.

    Args:
        gaps: Of each bin, whose absolute values add up to the error; the first row is the data as
            they are, the others are resamples.

    Returns:
        No value where the data do not define it, or nothing was resampled.
    """
    seen, resampled = gaps[0], gaps[1:]
    noise = resampled[~np.isnan(resampled).any(axis=1)] - seen
    if np.isnan(seen).any() or not len(noise):
        return Figure(value=None)
    spread, error = noise.std(axis=0), float(np.abs(seen).sum())
    certain = spread < 1e-12
    if certain.all():
        return Figure(value=error, low=error, high=error)
    # A hair more, so that no gap is left for rounding.
    all_gone = float((np.abs(seen[~certain]) / spread[~certain]).max()) * (1 + 1e-9)

    def shrink(steps: float) -> Float[np.ndarray, " b"]:
        return np.asarray(np.sign(seen) * np.maximum(np.abs(seen) - steps * spread, 0.0))

    def find(level: float) -> float:
        """Find the error whose resamples show less than was seen with this chance."""
        low, high = -WIDEST, all_gone
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            shown = np.abs(shrink(middle) + noise).sum(axis=1)
            if (shown < error).mean() < level:
                low = middle
            else:
                high = middle
        return float(np.abs(shrink(high)).sum())

    tail = (1 - COVERAGE) / 2
    return Figure(value=find(0.5), low=find(1 - tail), high=find(tail))
