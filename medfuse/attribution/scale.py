"""Maps of known studies in; the one scale that every picture of a target is drawn on out.

A map's own largest value as its scale would make a study that says nothing look like one that says
much. So the scale is measured once, on studies that no training has seen, and kept with the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from medfuse.attribution.target import parse_target
from medfuse.config import PrepareSettings, Settings
from medfuse.overlay import Scale, smooth
from medfuse.types import Modality

SHARE = 0.8
"""Share of the studies that were measured whose whole map stays below the scale."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Scales(Settings):
    """Where each map's colour is full.

    Attributes:
        full: By method, target and modality, in the units of the smoothed map (an image's per pixel
            of the model's square, a note's per word).
    """

    full: dict[str, dict[str, dict[Modality, Positive]]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DisplayScale:
    """The scale of one explanation's pictures.

    Attributes:
        parts: By modality.
        measured: Whether it was measured on the model's own maps; if not, it is a default.
    """

    parts: Mapping[Modality, Scale]
    measured: bool


_SQUARE = 224
DEFAULTS: Mapping[str, Mapping[Modality, float]] = {
    "integrated_gradients": {Modality.IMAGE: 0.04, Modality.NOTE: 0.3, Modality.VOICE: 0.004},
    "occlusion": {Modality.IMAGE: 0.04, Modality.NOTE: 0.3, Modality.VOICE: 0.004},
    "grad_cam": {Modality.IMAGE: 0.09},
    "gradients": {Modality.IMAGE: 0.04, Modality.NOTE: 0.15, Modality.VOICE: 0.003},
    "smooth_gradients": {Modality.IMAGE: 0.04, Modality.NOTE: 0.15, Modality.VOICE: 0.003},
}
"""Where the colour is full for a model that brings no scale: about what was measured, on average
over the findings, on the demo's model with its square of 224 pixels. An image's is per pixel, so
that it shrinks as the square's pixels grow in number; Grad-CAM's is per cell and does not."""

_ADDITIVE = {"integrated_gradients", "occlusion"}
_ELEMENTS = {Modality.IMAGE: "pixel", Modality.NOTE: "word", Modality.VOICE: "mel bin"}


def measure_peak(modality: Modality, values: Float[np.ndarray, "..."]) -> float:
    """Give the largest absolute value of a map as it is displayed.

    Args:
        modality: Whose axes they are.
        values: Image (S, H, W) and voice (T, F) in the model's axes; a note's as displayed, a value
            per word.
    """
    return float(np.abs(smooth(modality, values)).max(initial=0.0))


def choose_scale(peaks: Sequence[float]) -> float | None:
    """Choose where the colour is full: above the peaks of `SHARE` of the studies.

    Args:
        peaks: Of one method, target and modality, a study each.

    Returns:
        None where no map had anything in it.
    """
    scale = float(np.quantile(peaks, SHARE)) if len(peaks) else 0.0
    return scale if scale > 0 else None


def find_scale(scales: Scales, method: str, target: str, prepare: PrepareSettings) -> DisplayScale:
    """Look up the scale of a method's pictures of a target.

    A weighting's map is the weighted sum of its targets' maps, so that its scale is the sum of
    theirs, each times its weight without the sign: what they would reach together at most.

    Args:
        scales: What the model brings.
        method: As `Attribution.method`.
        target: As `Attribution.target`.
        prepare: The model's, for the size of its square.

    Raises:
        SettingsError: The target cannot be read.
    """
    weights = _read_weights(target)
    own = scales.full.get(method, {})
    default = _find_default(method, prepare)
    full = dict.fromkeys(default, 0.0)
    measured = True
    for name, weight in weights.items():
        for modality in full:
            known = own.get(name, {}).get(modality)
            measured = measured and known is not None
            full[modality] += abs(weight) * (known or default[modality])
    return DisplayScale(
        {m: Scale(value, unit_of(method, m), method in _ADDITIVE) for m, value in full.items()},
        measured,
    )


def unit_of(method: str, modality: Modality) -> str:
    """Name the unit of one element of a method's map, a note's per word."""
    if method == "grad_cam":
        return "logits per cell"
    if method in _ADDITIVE or modality is Modality.NOTE:
        return f"logits per {_ELEMENTS[modality]}"
    return "logits per unit of the input"


def _read_weights(target: str) -> dict[str, float]:
    names = []
    for part in target.split(","):
        name, equals, number = part.rpartition("=")
        names.append((name if equals else number).strip())
    weights = parse_target(target, names).weights.tolist()
    return dict(zip(names, weights, strict=True))


def _find_default(method: str, prepare: PrepareSettings) -> dict[Modality, float]:
    full = dict(DEFAULTS[method])
    if method != "grad_cam":
        full[Modality.IMAGE] *= (_SQUARE / prepare.image.size) ** 2
    return full
