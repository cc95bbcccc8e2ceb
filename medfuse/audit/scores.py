"""A map and the evidence it should show in; whether it points there, and how much lies there, out.

Both look at the map as it is displayed: smoothed, in an image's native pixels, per word of a note.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medfuse.audit.truth import Evidence
from medfuse.overlay import native_maps, smooth, sum_words
from medfuse.types import Modality, Prepared

Shown = tuple[np.ndarray, ...]
"""A modality's map as displayed, in the parts of `Evidence`."""


def show(prepared: Prepared, modality: Modality, values: Float[np.ndarray, "..."]) -> Shown:
    """Bring a map from the model's axes to those it is displayed in."""
    if modality is Modality.IMAGE:
        assert prepared.image is not None
        return native_maps(smooth(modality, values), prepared.image.geometry)
    if modality is Modality.NOTE:
        assert prepared.note is not None
        words = sum_words(prepared.note.text, prepared.note.spans, values)
        return (np.array([word.value for word in words]),)
    return (smooth(modality, values),)


def point(shown: Shown, evidence: Evidence) -> float:
    """Say whether the strongest value lies on the evidence, or as near as its tolerance.

    The pointing game of Zhang et al. 2018, with the strongest value in the direction in which the
    signs speak. Where several are as strong it is the share of them that do; a map that nowhere
    speaks in that direction points at nothing.
    """
    values = evidence.direction * _flatten(shown)
    most = values.max()
    if most <= 0:
        return 0.0
    return float(_flatten(evidence.near)[values == most].mean())


def share_inside(shown: Shown, evidence: Evidence, *, near: bool = False) -> float:
    """Say how much of what speaks in the evidence's direction lies on the evidence.

    The energy-based pointing game of Wang et al. 2020, "Score-CAM", equation 7; 0 for a map that
    nowhere speaks in that direction.

    Args:
        shown: The map.
        evidence: Where it should be.
        near: Count what is as near as the tolerance too.
    """
    inside = evidence.near if near else evidence.inside
    found = total = 0.0
    for values, mask, weight in zip(shown, inside, evidence.weights, strict=True):
        energy = np.maximum(evidence.direction * values.astype(np.float64), 0.0) * weight
        found += float(energy[mask].sum())
        total += float(energy.sum())
    return found / total if total else 0.0


def net_elsewhere(shown: Shown, evidence: Evidence) -> float:
    """Say what all that lies off the evidence adds up to, as a share of the map's whole amount.

    0 where what speaks for and against off the evidence cancels, as a network's own roughness
    does; 1 where all of the map lies there and speaks one way.
    """
    net = total = 0.0
    for values, mask, weight in zip(shown, evidence.inside, evidence.weights, strict=True):
        amounts = values.astype(np.float64) * weight
        net += float(amounts[~mask].sum())
        total += float(np.abs(amounts).sum())
    return abs(net) / total if total else 0.0


def _flatten(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])
