"""The bundle's explanations: certified against Captum anew, tied to the model, and refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from medfuse.attribution.attribute import attribute
from medfuse.attribution.baselines import make_baseline
from medfuse.attribution.network import Inputs, Network, gather_inputs
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import take_up
from medfuse.attribution.target import parse_target
from medfuse.bundle import (
    ANSWER_GRAPH,
    BACKGROUND,
    EXPLAIN_GRAPH,
    EXPLAINING,
    GRAPH,
    TIE,
    WEIGHTS,
    Bundle,
    Manifest,
    open_bundle,
    write_bundle,
)
from medfuse.config import PrepareSettings, VoiceSettings
from medfuse.data.prepare import collate, prepare
from medfuse.errors import BundleError, ExportError
from medfuse.explain.reference import reference_attribute
from medfuse.explain.torch_network import TorchNetwork
from medfuse.models.fusion import FUSIONS
from medfuse.models.image import IMAGE_NETWORKS
from medfuse.models.note import NOTE_NETWORKS
from medfuse.models.settings import ModelSettings
from medfuse.models.voice import VOICE_NETWORKS
from medfuse.models.voice.speaker import NEEDED
from medfuse.runtime import (
    OnnxNetwork,
    load_graph,
    load_weights,
    open_network,
    read_weights,
    shuffle_weights,
)
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.training.checkpoint import Checkpoint, load_checkpoint
from medfuse.types import MODALITIES, SUBSETS, Modality, Prepared, subset_name
from medfuse_export.certify import certify, check_certificate, count_studies
from medfuse_export.graph import export_graphs, input_specs, output_specs
from medfuse_export.parity import TOLERANCE, check_parity, measure_parity
from medfuse_serving.commands import verify
from medfuse_serving.explainer import check_explanations
from medfuse_serving.predictor import Predictor
from tests import small_model
from tests.small_model import build_small_model
from tests.tiny import PREPARE, TASKS, make_checkpoint


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def network(bundle: Bundle) -> OnnxNetwork:
    return open_network(bundle, "cpu")


@pytest.fixture(scope="module")
def pool(checkpoint: Checkpoint) -> list[Prepared]:
    """Other studies than those that export certifies on."""
    return make_pool(checkpoint)


def make_pool(checkpoint: Checkpoint) -> list[Prepared]:
    studies = [make_study(CohortOptions(seed=9), 1_000_500 + i).study for i in range(7)]
    return [prepare(study, checkpoint.prepare, checkpoint.tokenizer) for study in studies]


def mix(
    network: Network, pool: list[Prepared], settings: PrepareSettings = PREPARE, *, rows: int = 7
) -> Inputs:
    """One batch of every subset of modalities, of different lengths."""
    batch = collate(pool[:rows], settings)
    masks = {m: batch.masks[m].copy() for m in MODALITIES}
    for row in range(rows):
        for modality in set(MODALITIES) - SUBSETS[row % len(SUBSETS)]:
            masks[modality][row] = False
    values = dict(batch.values)
    values[Modality.NOTE] = network.embed(values[Modality.NOTE])
    return Inputs(values, masks)


def relate(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)


def test_the_graph_differentiates_as_torch_does_for_every_subset_at_once(
    network: OnnxNetwork, checkpoint: Checkpoint, pool: list[Prepared]
) -> None:
    assert_alike(network, checkpoint, pool)


def assert_alike(network: OnnxNetwork, checkpoint: Checkpoint, pool: list[Prepared]) -> None:
    """Compare every gradient of every subset with torch's own."""
    inputs = mix(network, pool, checkpoint.prepare)
    weights = np.random.default_rng(0).standard_normal((7, len(network.targets)))
    reference = TorchNetwork(checkpoint.model)
    found = network.differentiate(inputs, weights, MODALITIES)
    expected = reference.differentiate(inputs, weights, MODALITIES)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    for modality in MODALITIES:
        for row in range(7):
            present = modality in SUBSETS[row]
            assert found.values[modality][row].any() == present
            if present:
                # A few corners of the image's ReLUs are taken on the other side.
                most = 2e-2 if modality is Modality.IMAGE else 1e-5
                pair = found.values[modality][row], expected.values[modality][row]
                assert relate(*pair) < most, (modality, row)
    seen, known = network.see(inputs, weights), reference.see(inputs, weights)
    assert relate(seen.activations, known.activations) < 1e-5
    assert relate(seen.gradients, known.gradients) < 1e-5
    np.testing.assert_allclose(network.answer(inputs), known.logits, atol=1e-4)
    shares, expected_shares = network.attend_frames(inputs), reference.attend_frames(inputs)
    np.testing.assert_allclose(shares, expected_shares, atol=1e-5)
    frames = inputs.masks[Modality.IMAGE]
    np.testing.assert_allclose(shares.sum(axis=1), frames.any(axis=1), atol=1e-5)
    assert not shares[~frames].any()


def test_what_an_absent_modality_holds_changes_no_bit_of_any_gradient(
    network: OnnxNetwork, pool: list[Prepared]
) -> None:
    inputs = mix(network, pool)
    weights = np.ones((7, len(network.targets)))
    expected = network.differentiate(inputs, weights, MODALITIES)
    filled = {}
    for modality, values in inputs.values.items():
        mask = inputs.masks[modality]
        wide = mask.reshape(*mask.shape, *(1,) * (values.ndim - 2))
        filled[modality] = np.where(wide, values, np.float32(1e30))
    found = network.differentiate(replace(inputs, values=filled), weights, MODALITIES)
    for modality in MODALITIES:
        assert found.values[modality].tobytes() == expected.values[modality].tobytes()


def test_the_certificate_holds_on_other_studies_than_those_it_was_made_on(
    bundle: Bundle, network: OnnxNetwork, checkpoint: Checkpoint, pool: list[Prepared]
) -> None:
    record = bundle.manifest.explain
    assert record is not None
    again, scales = certify(network, checkpoint, pool, lambda done: None)
    assert again.baseline == record.certificate.baseline == "mean"
    assert again.by_subset == {subset_name(subset): 1 for subset in SUBSETS}
    for modality, found in again.modalities.items():
        # Four images are few for a median: a ReLU that flips on either side moves it to 6e-3.
        most = 1e-2 if modality is Modality.IMAGE else 1e-5
        assert found.onnx_to_float64 <= most
        assert found.holds(again.limit, again.ratio) or modality is Modality.IMAGE
        assert 0 < found.relative_l2 <= most, modality
        assert 0 < record.certificate.modalities[modality].relative_l2 <= most
    assert set(scales.full) == {
        "integrated_gradients",
        "gradients",
        "grad_cam",
        "occlusion",
        "smooth_gradients",
    }


def test_the_certificate_shows_every_subset_alike_often_and_every_target() -> None:
    assert count_studies(6) == 210
    assert count_studies(6, least=200) == 203
    assert count_studies(500) == 504


@pytest.mark.parametrize("method", ["gradients", "grad_cam", "occlusion"])
def test_the_other_methods_agree_with_captum_too(
    network: OnnxNetwork, checkpoint: Checkpoint, pool: list[Prepared], method: str
) -> None:
    settings = AttributionSettings.model_validate({"method": method})
    target = parse_target("findings.nodule=1,cause.viral=-0.5", network.targets)
    # Occlusion asks hundreds of times a study.
    for one in pool[: 1 if method == "occlusion" else 5]:
        subject = take_up(network, one, PREPARE)
        baseline = make_baseline("blank", subject, network, checkpoint.tokenizer, None, ())
        ours = attribute(network, subject, baseline, target, settings)
        captum = reference_attribute(checkpoint.model, subject, baseline, target, settings)
        for modality, values in captum.values.items():
            # One ReLU taken on the other side of its corner moves an image's map by 5e-3 here.
            most = 2e-2 if method == "gradients" and modality is Modality.IMAGE else 1e-3
            assert relate(ours.values[modality], values) < most, modality


def test_a_graph_whose_gradients_are_wrong_is_not_certified(
    bundle: Bundle, checkpoint: Checkpoint, pool: list[Prepared]
) -> None:
    weights = load_weights(bundle)
    model = onnx.load_from_string(bundle.read(EXPLAIN_GRAPH))
    last = [n for n in model.graph.node if n.output[0] == "voice_gradient"][-1]
    last.op_type = "Neg"  # was the identity
    record = bundle.manifest.explain
    assert record is not None
    wrong = OnnxNetwork(
        bundle.read(ANSWER_GRAPH),
        model.SerializeToString(),
        weights,
        record.embedding,
        [target for task in TASKS for target in task.targets],
    )
    certificate, _ = certify(wrong, checkpoint, pool, lambda done: None)
    assert not certificate.holds
    # An image's flipped ReLUs are another test's affair.
    voice = {Modality.VOICE: certificate.modalities[Modality.VOICE]}
    certificate = certificate.model_copy(update={"modalities": voice})
    with pytest.raises(ExportError, match=r"attributions to the voice differ .* no bundle"):
        check_certificate(certificate)


def copy_with(bundle: Bundle, folder: Path, changed: dict[str, bytes]) -> Path:
    """Write a bundle anew with other files, its manifest's hashes made to fit."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files} | changed
    return write_bundle(folder, contents, bundle.manifest).path


def test_one_flipped_bit_in_what_explains_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for name in EXPLAINING:
        folder = Path(shutil.copytree(bundle.path, tmp_path / name))
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(BundleError, match=f"{name} is not the file the manifest describes"):
            Predictor(folder, "cpu")


def test_a_bundle_that_says_it_explains_must_have_all_it_needs(
    bundle: Bundle, tmp_path: Path
) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    del contents[BACKGROUND]
    with pytest.raises(BundleError, match=r"background\.safetensors missing"):
        write_bundle(tmp_path / "bundle", contents, bundle.manifest)


def test_a_graph_from_another_checkpoint_is_refused_by_its_tie(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Also when whoever swapped it made the manifest's hashes fit."""
    other = load_weights(bundle).data
    shuffled = shuffle_weights(read_weights(other), 1).data
    folder = copy_with(bundle, tmp_path / "weights", {WEIGHTS: shuffled})
    with pytest.raises(BundleError, match="made from another model"):
        open_network(open_bundle(folder), "cpu")
    model = onnx.load_from_string(bundle.read(EXPLAIN_GRAPH))
    onnx.helper.set_model_props(model, {TIE: "0" * 64})
    folder = copy_with(bundle, tmp_path / "graph", {EXPLAIN_GRAPH: model.SerializeToString()})
    with pytest.raises(BundleError, match=r"explain\.onnx was made from another model"):
        open_network(open_bundle(folder), "cpu")


def test_verify_opens_what_explains_and_refuses_it_when_it_is_of_another_model(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(bundle.path, "cpu")
    assert "explain ok" in capsys.readouterr().out
    model = onnx.load_from_string(bundle.read(EXPLAIN_GRAPH))
    onnx.helper.set_model_props(model, {TIE: "0" * 64})
    folder = copy_with(bundle, tmp_path / "graph", {EXPLAIN_GRAPH: model.SerializeToString()})
    with pytest.raises(BundleError, match=r"explain\.onnx was made from another model"):
        verify(folder, "cpu")


def test_graphs_that_answer_otherwise_than_the_one_they_explain_are_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Even with the right tie: somebody who can copy it can copy it into any graph."""
    model = onnx.load_from_string(bundle.read(ANSWER_GRAPH))
    last = next(n for n in model.graph.node if n.output[0] == "logits")
    last.output[0] = "half"
    one = onnx.helper.make_node("Add", ["half", "half"], ["logits"])
    model.graph.node.append(one)
    folder = copy_with(bundle, tmp_path / "bundle", {ANSWER_GRAPH: model.SerializeToString()})
    with pytest.raises(BundleError, match=r"otherwise than predict\.onnx does"):
        check_explanations(Predictor(folder, "cpu"))


def test_a_bundle_without_explanations_says_so(bundle: Bundle, tmp_path: Path) -> None:
    contents = {n: bundle.read(n) for n in bundle.manifest.files if n not in EXPLAINING}
    contents[WEIGHTS] = bundle.read(WEIGHTS)
    manifest = Manifest.model_validate(bundle.manifest.model_dump() | {"explain": None})
    plain = write_bundle(tmp_path / "bundle", contents, manifest)
    Predictor(plain.path, "cpu").check_golden()
    with pytest.raises(BundleError, match="without explanations"):
        open_network(plain, "cpu")


def test_no_weight_is_stored_twice(bundle: Bundle) -> None:
    sizes = {name: bundle.manifest.files[name].size for name in bundle.manifest.files}
    graphs = sizes["predict.onnx"] + sizes[ANSWER_GRAPH] + sizes[EXPLAIN_GRAPH]
    assert graphs < 0.1 * sizes[WEIGHTS]
    arrays = list(load_weights(bundle).arrays.values())
    assert len({(a.shape, a.tobytes()) for a in arrays}) == len(arrays)


def test_a_network_with_shuffled_weights_answers_otherwise_and_keeps_each_tensors_numbers(
    bundle: Bundle, network: OnnxNetwork, pool: list[Prepared]
) -> None:
    control = open_network(bundle, "cpu", randomise=3)
    batch = collate(pool[:1], PREPARE)
    inputs = gather_inputs(network, batch, 0)
    assert np.abs(control.answer(inputs) - network.answer(inputs)).max() > 0.1
    before, after = load_weights(bundle), shuffle_weights(load_weights(bundle), 3)
    for name, array in before.arrays.items():
        assert np.array_equal(np.sort(array, axis=None), np.sort(after.arrays[name], axis=None))


PARTS: tuple[dict[str, object], ...] = (
    {"image": "repvgg_a0", "freeze_image": False, "shared_space": 0, "generate_missing": True},
    {
        "image": "efficientnet_lite0_stage4",
        "note": "lstm",
        "voice": "speaker",
        "fusion": "cross_attention",
    },
    {"image": "densenet121", "freeze_image": False},
    {"image": "vit_tiny", "freeze_image": False, "voice": "transformer"},
)
"""What else a model can be made of: the usual parts are in every other test, the fusions in
`tests/test_fusion_export.py`."""


def test_every_encoder_that_is_offered_is_tested() -> None:
    usual = ModelSettings()
    for name, kind in (
        ("image", IMAGE_NETWORKS),
        ("note", NOTE_NETWORKS),
        ("voice", VOICE_NETWORKS),
    ):
        tested = {getattr(usual, name)} | {parts[name] for parts in PARTS if name in parts}
        assert tested == set(kind)


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_every_other_part_answers_at_every_size_and_is_differentiated_as_torch_does(
    tmp_path: Path, parts: dict[str, object]
) -> None:
    settings = PREPARE
    if parts.get("voice") == "speaker":
        voice = VoiceSettings.model_validate(PREPARE.voice.model_dump() | NEEDED)
        settings = PREPARE.model_copy(update={"voice": voice})
    loaded = load_checkpoint(make_checkpoint(tmp_path / "checkpoint", settings, **parts))
    model = loaded.model.requires_grad_(False)
    graphs = export_graphs(model, input_specs(settings), output_specs(model))
    assert graphs.explain is not None
    targets = [target for task in TASKS for target in task.targets]
    weights = read_weights(graphs.weights)
    network = OnnxNetwork(graphs.answer, graphs.explain, weights, graphs.embedding, targets)
    pool = make_pool(loaded)
    assert_alike(network, loaded, pool)
    session = load_graph(GRAPH, graphs.predict, weights, "cpu")
    check_parity(measure_parity(session, model, settings, pool[:2], TOLERANCE, lambda done: None))


class Odd(torch.nn.Module):
    """A head through an operator that has no rule."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """Answer in waves."""
        waves: torch.Tensor = torch.sin(self.head(fused))
        return waves


@pytest.mark.slow
def test_a_model_whose_backward_cannot_be_written_is_refused_by_the_operators_name() -> None:
    model = build_small_model({"gated": FUSIONS["gated"]}).requires_grad_(False)
    model.heads[0] = Odd(model.heads[0])
    with pytest.raises(ExportError, match="gradient of the operator Sin is not known"):
        export_graphs(model, input_specs(small_model.PREPARE), output_specs(model))
