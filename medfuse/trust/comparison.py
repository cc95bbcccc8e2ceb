"""Paired comparisons: two models' figures on the same folds or resamples in, what differs out."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats


def corrected_t_test(differences: Float[np.ndarray, " n"], test_share: float) -> float:
    """Test whether repeated cross-validation's differences average to zero.

    Folds share most of their training studies, so their differences are not independent and a plain
    t-test finds too much. Nadeau and Bengio 2003 ("Inference for the generalization error") put
    ``1/n + n_test/n_train`` in place of ``1/n``; Bouckaert and Frank 2004 do so over the folds of
    all repeats.

    Args:
        differences: One per fold of every repeat; NaN where a fold does not define it.
        test_share: Test studies per training study.

    Returns:
        The two-sided p-value; NaN when fewer than two folds define a difference.
    """
    known = differences[~np.isnan(differences)]
    n = len(known)
    if n < 2:
        return math.nan
    mean, variance = known.mean(), known.var(ddof=1)
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    t = mean / math.sqrt((1 / n + test_share) * variance)
    return float(2 * stats.t.sf(abs(t), n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979): any false find is as rare as one test's.

    NaN stays NaN and is not counted.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for done, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - done) * p))
        corrected[i] = highest
    return corrected


def rank(values: Float[np.ndarray, "r n"]) -> Float[np.ndarray, "r n"]:
    """Rank the highest of each row 1; ties share the mean of their ranks, NaN comes last."""
    filled = np.where(np.isnan(values), -np.inf, values)
    return np.asarray(stats.rankdata(-filled, axis=1))
