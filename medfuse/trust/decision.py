"""Calibrated probabilities and the truth in; what acting on them is worth, by threshold, out.

Decision-curve analysis (Vickers & Elkin 2006): at a threshold p the harm of acting on a study
without the finding is p / (1 - p) of the benefit of acting on one with it, so the net benefit is
the share of true positives less that odds times the share of false ones.
"""

import numpy as np
from jaxtyping import Bool, Float

from medfuse.config import Settings
from medfuse.trust.bootstrap import Figure, summarise

THRESHOLDS = tuple(i / 100 for i in range(1, 100))


class DecisionCurve(Settings):
    """The net benefit of acting on one finding, per study.

    Attributes:
        target: The finding.
        subset: The modalities that the answers rest on.
        studies: How many.
        thresholds: Probabilities from which on one would act.
        model: Of acting by the model.
        everyone: Of acting on every study.
        useful: The range of thresholds around its best over which the model's interval of
            advantage over both simple rules lies above zero; None where it lies so nowhere.
    """

    target: str
    subset: str
    studies: int
    thresholds: tuple[float, ...]
    model: tuple[Figure, ...]
    everyone: tuple[float, ...]
    useful: tuple[float, float] | None


def measure_decisions(
    target: str,
    subset: str,
    chances: Float[np.ndarray, " n"],
    there: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "r n"],
) -> DecisionCurve:
    """Measure the net benefit at every threshold, with its interval by patient.

    Args:
        target: The finding.
        subset: The modalities that the answers rest on.
        chances: Calibrated.
        there: Whether the finding is there.
        weights: How often each study counts in each resample.
    """
    total = weights.sum(axis=1)
    p = np.array(THRESHOLDS)
    odds = p / (1 - p)
    acted = chances[:, None] >= p  # (N, thresholds)
    hits, alarms = (weights @ (acted & own[:, None]) / total[:, None] for own in (there, ~there))
    model = hits - odds * alarms  # (R, thresholds)
    prevalence = (weights @ there / total)[:, None]
    everyone = prevalence - odds * (1 - prevalence)
    advantage = model - np.maximum(everyone, 0.0)
    better = [_is_above(summarise(column)) for column in advantage.T]
    return DecisionCurve(
        target=target,
        subset=subset,
        studies=len(chances),
        thresholds=THRESHOLDS,
        model=tuple(summarise(column) for column in model.T),
        everyone=tuple(everyone[0].tolist()),
        useful=_widest(better, advantage[0]),
    )


def _is_above(figure: Figure) -> bool:
    return figure.low is not None and figure.low > 0


def _widest(better: list[bool], advantage: Float[np.ndarray, " t"]) -> tuple[float, float] | None:
    """Give the run of better thresholds that holds the best of them."""
    if not any(better):
        return None
    best = int(np.argmax(np.where(better, advantage, -np.inf)))
    low = high = best
    while low > 0 and better[low - 1]:
        low -= 1
    while high + 1 < len(better) and better[high + 1]:
        high += 1
    return THRESHOLDS[low], THRESHOLDS[high]
