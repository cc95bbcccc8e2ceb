"""How likely each modality goes missing in; what is left of a study, never nothing, out."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from medfuse.types import MODALITIES, SUBSETS, Modality


def subset_chances(rates: Mapping[Modality, float]) -> Float64[np.ndarray, " 7"]:
    """P(exactly this subset is left), in the order of `SUBSETS`, given that something is.

    Modalities go missing independently of each other; where all would, all are drawn again.

    Args:
        rates: The chance that each goes missing; at least one is below 1.
    """
    chances = np.array(
        [
            np.prod([1 - rates[m] if m in subset else rates[m] for m in MODALITIES])
            for subset in SUBSETS
        ]
    )
    return np.asarray(chances / chances.sum())


def choose_subset(chances: Float64[np.ndarray, " 7"], uniform: float) -> int:
    """Turn a number from 0 to 1 into a subset's place in `SUBSETS`, each with its chance."""
    return int(np.searchsorted(np.cumsum(chances), uniform * chances.sum(), side="right"))


def scale_odds(rate: float, factor: float) -> float:
    """Multiply a chance's odds, which keeps it from 0 to 1 as no factor on itself would."""
    return factor * rate / (1 - rate + factor * rate)
