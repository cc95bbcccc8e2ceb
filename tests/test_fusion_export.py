"""Every fusion as ONNX: its answers and gradients are torch's, for every subset of modalities."""

from functools import cache

import numpy as np
import pytest

from medfuse.attribution.network import Inputs
from medfuse.explain.torch_network import TorchNetwork
from medfuse.models.fusion import FUSIONS
from medfuse.runtime import OnnxNetwork, read_weights
from medfuse.types import MODALITIES, SUBSETS, Modality
from medfuse_export.graph import export_graphs, input_specs, output_specs
from tests.fusion_laws import WIDTH
from tests.small_model import BANDS, PIECES, PREPARE, SIDE, build_small_model
from tests.test_contributing import worked_example

BUILDS = FUSIONS | worked_example()
"""What is offered, and what CONTRIBUTING works out."""


@cache
def networks() -> tuple[OnnxNetwork, TorchNetwork]:
    """Export every fusion, side by side in one model, since an export takes its time."""
    model = build_small_model(BUILDS).requires_grad_(False)
    outputs = [
        spec.model_copy(update={"axes": ("batch", WIDTH * len(BUILDS))})
        if spec.name == "fused"
        else spec
        for spec in output_specs(model)
    ]
    graphs = export_graphs(model, input_specs(PREPARE), outputs)
    assert graphs.explain is not None
    reference = TorchNetwork(model)
    exported = OnnxNetwork(
        graphs.answer,
        graphs.explain,
        read_weights(graphs.weights),
        graphs.embedding,
        reference.targets,
    )
    return exported, reference


def draw_inputs() -> Inputs:
    """Draw seven studies, one of each subset, with other lengths than the graph was traced at."""
    rng = np.random.default_rng(0)
    _, reference = networks()
    frames, pieces, mel_frames = 2, 9, 21
    values = {
        Modality.IMAGE: rng.random((7, frames, SIDE, SIDE), np.float32),
        Modality.NOTE: reference.embed(rng.integers(PIECES, size=(7, pieces))),
        Modality.VOICE: rng.random((7, mel_frames, BANDS), np.float32),
    }
    masks = {}
    for modality, length in zip(MODALITIES, (frames, pieces, mel_frames), strict=True):
        mask = np.arange(length) < rng.integers(1, length + 1, size=(7, 1))
        masks[modality] = mask & np.array([[modality in subset] for subset in SUBSETS])
    return Inputs(values, masks)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_an_exported_fusion_answers_and_is_differentiated_as_torch_does(name: str) -> None:
    exported, reference = networks()
    inputs = draw_inputs()
    weights = np.zeros((7, len(BUILDS)), np.float32)
    weights[:, list(BUILDS).index(name)] = 1.0
    found = exported.differentiate(inputs, weights, MODALITIES)
    expected = reference.differentiate(inputs, weights, MODALITIES)
    at = list(BUILDS).index(name)
    np.testing.assert_allclose(found.logits[:, at], expected.logits[:, at], rtol=0, atol=1e-5)
    for modality in MODALITIES:
        for row, subset in enumerate(SUBSETS):
            ours, theirs = found.values[modality][row], expected.values[modality][row]
            assert theirs.any() == (modality in subset)
            # Some ten steps of float32.
            assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
