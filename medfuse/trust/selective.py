"""Selective prediction: how sure a model was, and whether rightly, in; from when on it is out.

As Geifman and El-Yaniv 2017 bound the error of the answers that are given: several thresholds are
tried, the exact binomial bound (Clopper and Pearson 1934) of each is at a level divided by their
number, and the one that answers most studies within the risk is taken.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest

STEPS = 20
"""Thresholds that are tried: at so many equal shares of the studies."""


def sure_from(
    probabilities: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    risk: float,
    confidence: float,
) -> float | None:
    """Choose from which probability of the likeliest class on an answer is sure.

    Args:
        probabilities: Of the class that was said.
        right: Whether it was the true one.
        risk: The share of sure answers that may be wrong.
        confidence: The chance, over validation studies, that it is kept.

    Returns:
        None where no threshold keeps it.
    """
    order = np.argsort(-probabilities, kind="stable")
    sure, wrong = probabilities[order], np.cumsum(~right[order])
    level = 1 - (1 - confidence) / STEPS
    chosen = None
    for step in range(1, STEPS + 1):
        n = step * len(sure) // STEPS
        # Studies that are equally sure are answered together, or not at all.
        while 0 < n < len(sure) and sure[n] == sure[n - 1]:
            n += 1
        if n and upper_bound(int(wrong[n - 1]), n, level) <= risk:
            chosen = float(sure[n - 1])
    return chosen


def upper_bound(wrong: int, answered: int, confidence: float) -> float:
    """Bound a chance from above by how often it came true (Clopper and Pearson 1934)."""
    test = binomtest(wrong, answered, alternative="less")
    return float(test.proportion_ci(confidence, method="exact").high)
