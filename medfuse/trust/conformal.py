"""Conformal sets: calibrated probabilities and the truth in, the least to be believed out.

Split conformal prediction conditional on class and subset of modalities (Mondrian: Vovk, Gammerman
and Shafer 2005, section 4.5). Of n studies of a class, the next one of that class is as likely to
come at any place among them; so a set that leaves a class out only below the k-th smallest
probability, k = floor((n + 1) (1 - coverage)), holds the class with chance ``coverage`` or more,
whatever the model. With k = 0 the studies are too few to leave it out of any set: the promise is
kept, and says nothing.
"""

import numpy as np
from jaxtyping import Float


def least_probability(probabilities: Float[np.ndarray, " n"], coverage: float) -> float:
    """Choose from which probability on a class is in the set.

    Args:
        probabilities: Of the class, for the studies that truly are of it.
        coverage: In how many of such studies the set shall hold it.

    Returns:
        0 where the studies are too few to leave it out.
    """
    k = allowed_misses(len(probabilities), coverage)
    return float(np.sort(probabilities)[k - 1]) if k else 0.0


def widest_error(errors: Float[np.ndarray, " n"], coverage: float) -> float | None:
    """Choose how wide an interval about an estimate must be.

    Args:
        errors: How far estimates were from the truth.
        coverage: In how many studies the interval shall hold the truth.

    Returns:
        None where the studies are too few for any width.
    """
    k = allowed_misses(len(errors), coverage)
    return float(np.sort(np.abs(errors))[::-1][k - 1]) if k else None


def allowed_misses(studies: int, coverage: float) -> int:
    """Count k: how many of n + 1 studies may fall out of their sets."""
    # A hair above, since 10 * (1 - 0.9) is a hair below 1.
    return int(np.floor((studies + 1) * (1 - coverage) + 1e-9))
