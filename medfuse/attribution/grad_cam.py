"""Grad-CAM: a study and a target in; a signed map over its frames out.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", at the image encoder's last map.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.gradients import NO_BASELINE
from medfuse.attribution.network import Cells, Network
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, weigh
from medfuse.attribution.target import Target
from medfuse.data.image import resize
from medfuse.errors import SettingsError
from medfuse.types import Attribution, Modality

METHOD = "grad_cam"


def grad_cam(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Map where the image's last features speak for a target (above 0) and where against it.

    The paper clips what speaks against; here the sign stays. The cells' map is brought to the
    model's square bilinearly, so the numbers are logits of a cell, not of a pixel: they compare
    places, and don't add up to the output. The note and the recording get no map.

    Args:
        network: Shows its last map.
        subject: The study.
        baseline: Not looked at, as the settings: every method is asked alike.
        target: What is explained.
        settings: Not looked at.
        progress: Called once.

    Raises:
        SettingsError: The study has no image.
    """
    if subject.prepared.image is None:
        raise SettingsError(
            "grad_cam explains images and the study has none; choose integrated_gradients"
        )
    cells = network.see(subject.inputs, weigh(target, 1))
    _, _, rows, columns = subject.inputs.values[Modality.IMAGE].shape
    frames = [resize(frame.astype(np.float32), rows, columns) for frame in weigh_cells(cells)[0]]
    if progress is not None:
        progress(1, 1)
    return Attribution(
        target=target.name,
        values={Modality.IMAGE: np.stack(frames)},
        method=METHOD,
        baseline=NO_BASELINE,
        completeness_gap=None,
        details={"output": float(cells.logits[0].astype(np.float64) @ target.weights)},
    )


def weigh_cells(cells: Cells) -> Float64[np.ndarray, "n s side side"]:
    """Add up each frame's channels, each by its mean gradient over the frame's cells (eq. 1, 2)."""
    weights = cells.gradients.mean(axis=2, dtype=np.float64)  # (N, S, C)
    maps: Float[np.ndarray, "n s p"] = np.einsum("nspc,nsc->nsp", cells.activations, weights)
    n, s, p = maps.shape
    side = math.isqrt(p)
    assert side * side == p, "the image encoder's cells are no square grid"
    return maps.reshape(n, s, side, side)
