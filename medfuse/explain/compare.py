"""A bundle's network and the checkpoint it came from in; how far its maps are from Captum's, out.

Deep ReLU networks flip a few signs under different rounding, so a difference alone does not say who
is right: both are held to the same attribution of the model in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medfuse.attribution.attribute import attribute
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target
from medfuse.explain.reference import reference_attribute
from medfuse.explain.torch_network import TorchNetwork
from medfuse.training.checkpoint import Checkpoint
from medfuse.types import Modality, Prepared


@dataclass(frozen=True, slots=True)
class Comparison:
    """One modality's map by ONNX Runtime and by Captum.

    Attributes:
        relative_l2: Length of their difference, relative to the length of Captum's.
        largest: Largest difference of any element, relative to the largest element of Captum's.
        onnx_to_float64: As `relative_l2`, of ONNX Runtime's against Captum's of the model in
            float64.
        captum_to_float64: Likewise of Captum's, in float32.
    """

    relative_l2: float
    largest: float
    onnx_to_float64: float
    captum_to_float64: float


def compare_with_captum(
    network: Network,
    checkpoint: Checkpoint,
    prepared: Prepared,
    target: Target,
    settings: AttributionSettings,
    samples: Sequence[Inputs],
    progress: Callable[[int, int], None] | None = None,
) -> dict[Modality, Comparison]:
    """Attribute by a bundle, and by Captum in float32 and in float64, and compare.

    An integral has the settings' first number of points on all sides and no more: every point
    tests the whole gradient, and in float64 each costs seconds.

    Args:
        network: The bundle's.
        checkpoint: What the bundle was exported from.
        prepared: The study.
        target: What is explained of it.
        settings: How.
        samples: What the baseline `marginal` is made from.
        progress: Called with the work done and wanted, over all three together.
    """
    settings = settings.model_copy(update={"most_steps": settings.steps})
    torch_network = TorchNetwork(checkpoint.model)

    def take(network: Network) -> tuple[Subject, Baseline]:
        subject = take_up(network, prepared, checkpoint.prepare)
        tokenizer, background = checkpoint.tokenizer, checkpoint.background
        return subject, make_baseline(
            settings.baseline, subject, network, tokenizer, background, samples
        )

    def show(part: int) -> Callable[[int, int], None]:
        def tell(done: int, wanted: int) -> None:
            if progress is not None:
                progress(part * wanted + done, 3 * wanted)

        return tell

    onnx = attribute(network, *take(network), target, settings, show(0))
    subject, baseline = take(torch_network)
    captum, exact = (
        reference_attribute(model, subject, baseline, target, settings, show(part))
        for part, model in ((1, checkpoint.model), (2, deepcopy(checkpoint.model).double()))
    )
    return compare_maps(onnx.values, captum.values, exact.values)


def compare_maps(
    onnx: Mapping[Modality, Float[np.ndarray, "..."]],
    captum: Mapping[Modality, Float[np.ndarray, "..."]],
    exact: Mapping[Modality, Float[np.ndarray, "..."]],
) -> dict[Modality, Comparison]:
    """Compare maps of one study by ONNX Runtime, by Captum, and by Captum in float64."""
    return {
        m: Comparison(
            relative_l2=_relate(np.linalg.norm(onnx[m] - captum[m]), np.linalg.norm(captum[m])),
            largest=_relate(np.abs(onnx[m] - captum[m]).max(), np.abs(captum[m]).max()),
            onnx_to_float64=_relate(np.linalg.norm(onnx[m] - exact[m]), np.linalg.norm(exact[m])),
            captum_to_float64=_relate(
                np.linalg.norm(captum[m] - exact[m]), np.linalg.norm(exact[m])
            ),
        )
        for m in onnx
    }


def _relate(difference: np.floating, scale: np.floating) -> float:
    """Divide; two maps of nothing do not differ."""
    return float(difference / scale) if scale else float(np.inf if difference else 0.0)
