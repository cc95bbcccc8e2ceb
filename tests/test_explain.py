"""Captum on a torch model: answers by hand, completeness, and the torch-free methods beside it."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.attribution.attribute import attribute
from medfuse.attribution.badge import BadgeSettings
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.explain import explain_study
from medfuse.attribution.network import Inputs
from medfuse.attribution.regions import Regions
from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target, parse_target
from medfuse.config import Task, TaskKind
from medfuse.data.prepare import collate
from medfuse.errors import SettingsError
from medfuse.explain.compare import Comparison, compare_maps, compare_with_captum
from medfuse.explain.integrated_gradients import integrated_gradients
from medfuse.explain.reference import METHODS, by_captum, reference_attribute
from medfuse.explain.torch_network import TorchNetwork
from medfuse.models.fused import FusedModel, Outputs
from medfuse.models.tokens import Tokens
from medfuse.training.checkpoint import Checkpoint, load_checkpoint
from medfuse.types import MODALITIES, SUBSETS, Modality, Prepared, subset_name
from tests.attribution_network import MASK_PIECE, NOTE, SETTINGS, TOKENIZER, make_prepared
from tests.tiny import PREPARE

TASK = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("none", "sum"))


class Plain(nn.Module):
    """An encoder that hands on what it is given."""

    frozen = pretrained = False
    backbone = None
    feature_shape = ()
    stride = 1

    def cover(self, mask: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        return mask

    def extract(self, values: Tensor, mask: Bool[Tensor, "b n"]) -> Tensor:
        return values

    contextualise = extract

    def forward(self, features: Tensor, mask: Bool[Tensor, "b n"]) -> Tokens:
        tokens = features.flatten(2)
        return Tokens(tokens, mask, tokens.mean(dim=1))

    def attend_frames(self, encoded: Tokens) -> Float[Tensor, "b s"]:
        real = encoded.mask.float()
        return real / real.sum(dim=1, keepdim=True).clamp(min=1.0)


class SumModel(FusedModel):
    """A model one can work out: the second logit is a weighted sum, bent where it is negative."""

    def __init__(self, bend: float = 1.0, offset: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.tasks = (TASK,)
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0, 0.5]))
        self.bend, self.offset = bend, offset
        for modality in MODALITIES:
            self.add_module(modality.value, Plain())
        self.eval()

    def embed_note(self, pieces: Int64[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        return torch.stack([pieces / 1000, -pieces / 500], dim=2)

    def forward_features(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> Outputs:
        sums = [
            torch.where(masks[m], features[m].flatten(2).sum(dim=2), 0.0).sum(dim=1)
            for m in MODALITIES
        ]
        total = torch.stack(sums, dim=1) @ self.weight - self.offset
        bent = torch.where(total > 0, total, self.bend * total)
        empty = torch.zeros(len(total), 1)
        return Outputs(torch.stack([empty[:, 0], bent], dim=1), empty, empty, empty, empty)


SUM = Target("findings.sum", np.array([0, 1], np.float32))


def take(model: FusedModel, prepared: Prepared | None = None) -> Subject:
    return take_up(TorchNetwork(model), prepared or make_prepared(), SETTINGS)


def blank(model: FusedModel, subject: Subject) -> Baseline:
    return make_baseline("blank", subject, TorchNetwork(model), TOKENIZER, None, ())


def test_a_linear_model_gets_its_weights_times_the_way_from_the_baseline() -> None:
    model = SumModel()
    subject = take(model)
    attribution = integrated_gradients(
        model, subject, blank(model, subject), SUM, AttributionSettings()
    )
    image, voice = (subject.inputs.values[m][0] for m in (Modality.IMAGE, Modality.VOICE))
    np.testing.assert_allclose(attribution.values[Modality.IMAGE], 2 * image, rtol=1e-5)
    # The two numbers of an embedding are p and -2p, so they sum to -p, in thousands.
    expected = 3 * -(subject.pieces - MASK_PIECE) / 1000
    expected[[0, -1]] = 0
    np.testing.assert_allclose(attribution.values[Modality.NOTE], expected, rtol=1e-4)
    np.testing.assert_allclose(attribution.values[Modality.VOICE], 0.5 * (voice + 1), rtol=1e-4)
    assert attribution.completeness_gap is not None
    assert attribution.completeness_gap < 1e-5
    assert attribution.details["steps"] == 64
    assert attribution.details["internal_batch_size"] == 8


def test_a_target_the_input_does_not_move_gets_nothing_and_leaves_no_gap() -> None:
    model = SumModel()
    subject = take(model)
    with torch.no_grad():
        model.weight.zero_()
    attribution = integrated_gradients(
        model, subject, blank(model, subject), SUM, AttributionSettings()
    )
    assert attribution.completeness_gap == 0
    assert not any(values.any() for values in attribution.values.values())


def one_pixel(model: FusedModel) -> tuple[Subject, Baseline]:
    """Light one pixel of a black study that is an image alone."""
    subject = take(model, make_prepared({Modality.IMAGE}, frames=1))
    light = np.zeros_like(subject.inputs.values[Modality.IMAGE])
    light[0, 0, 16, 16] = 1
    dark = np.zeros_like(light)
    values, masks = subject.inputs.values, subject.inputs.masks
    lit, black = (Inputs({**values, Modality.IMAGE: v}, masks) for v in (light, dark))
    return (
        Subject(subject.prepared, lit, subject.pieces, subject.regions),
        Baseline("blank", (black,)),
    )


def test_points_double_until_the_gap_is_small_and_stop_at_the_most() -> None:
    # One pixel from 0 to 1, weight 2: flat up to 0.7, then straight, so the integral has a corner.
    model = SumModel(bend=0.0, offset=1.4)
    subject, baseline = one_pixel(model)

    def explain(**options: float) -> tuple[float, float, float]:
        chosen = AttributionSettings.model_validate({"steps": 2, **options})
        found = integrated_gradients(model, subject, baseline, SUM, chosen)
        assert found.completeness_gap is not None
        value = found.values[Modality.IMAGE][0, 16, 16]
        return float(value), found.completeness_gap, found.details["steps"]

    value, gap, steps = explain(gap=0.005)
    assert steps > 2
    assert gap <= 0.005
    assert value == pytest.approx(0.6, rel=0.005)
    value, gap, steps = explain(gap=0.005, most_steps=7)
    assert steps == 4  # 8 would be more than 7
    assert gap == pytest.approx(abs(value - 0.6) / 0.6, rel=1e-3)
    assert gap > 0.005


def test_several_versions_of_a_baseline_give_the_mean_of_what_each_gives() -> None:
    model = SumModel()
    subject = take(model)
    first = blank(model, subject).versions[0]
    second = Inputs({m: v + np.float32(0.5) for m, v in first.values.items()}, first.masks)
    chosen = AttributionSettings(steps=2, most_steps=2)
    both, *each = (
        integrated_gradients(model, subject, Baseline("marginal", versions), SUM, chosen)
        for versions in ((first, second), (first,), (second,))
    )
    for modality in MODALITIES:
        mean = (each[0].values[modality] + each[1].values[modality]) / 2
        np.testing.assert_allclose(both.values[modality], mean, rtol=1e-4, atol=1e-6)
    origins = [part.details["baseline_output"] for part in each]
    assert both.details["baseline_output"] == pytest.approx(np.mean(origins))
    assert both.completeness_gap == pytest.approx(0, abs=1e-5)


def test_progress_counts_points_up_to_those_wanted() -> None:
    model = SumModel()
    subject = take(model)
    seen: list[tuple[int, int]] = []
    integrated_gradients(
        model,
        subject,
        blank(model, subject),
        SUM,
        AttributionSettings(steps=20, most_steps=20),
        lambda done, wanted: seen.append((done, wanted)),
    )
    assert seen == [(8, 20), (16, 20), (20, 20)]


def test_gradients_are_the_weights_and_a_word_s_is_times_its_embedding() -> None:
    model = SumModel()
    subject = take(model)
    chosen = AttributionSettings(method="gradients")
    found = reference_attribute(model, subject, blank(model, subject), SUM, chosen)
    assert (found.values[Modality.IMAGE] == 2).all()
    np.testing.assert_allclose(
        found.values[Modality.NOTE], -3 * subject.pieces / 1000, rtol=1e-5, atol=1e-7
    )
    assert (found.values[Modality.VOICE] == 0.5).all()
    assert found.baseline == "none"
    assert found.completeness_gap is None


def test_occlusion_spreads_what_a_region_says_over_its_elements() -> None:
    model = SumModel()
    subject = take(model)
    baseline = blank(model, subject)
    chosen = AttributionSettings(method="occlusion")
    found = reference_attribute(model, subject, baseline, SUM, chosen)
    way = {
        m: (subject.inputs.values[m] - baseline.versions[0].values[m])[0].astype(np.float64)
        for m in MODALITIES
    }
    way[Modality.NOTE] = way[Modality.NOTE].sum(axis=1)
    for modality, weight in zip(MODALITIES, (2, 3, 0.5), strict=True):
        totals = weight * subject.regions.total(modality, way[modality])
        expected = subject.regions.spread(modality, totals)
        np.testing.assert_allclose(found.values[modality], expected, atol=2e-4)
        assert found.values[modality].any()


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def network(checkpoint: Checkpoint) -> TorchNetwork:
    return TorchNetwork(checkpoint.model)


def draw(
    network: TorchNetwork,
    present: Collection[Modality] = MODALITIES,
    seed: int = 0,
    frames: int = 1,
) -> Subject:
    """Draw a study that fits the tiny model."""
    rng = np.random.default_rng(seed)
    words = "Wheeze for two days and a rash. " * seed
    prepared = make_prepared(present, seed=seed, frames=frames, note=words + NOTE)
    side, bands = PREPARE.image.size, PREPARE.voice.mel_bands
    if prepared.image is not None:
        geometry = tuple(
            replace(place, size=side, top=0, left=0, height=side, width=side)
            for place in prepared.image.geometry
        )
        values = rng.random((frames, side, side), np.float32)
        prepared = replace(
            prepared, image=replace(prepared.image, values=values, geometry=geometry)
        )
    if prepared.voice is not None:
        values = rng.random((24, bands), np.float32) * 2 - 1
        prepared = replace(prepared, voice=replace(prepared.voice, values=values))
    return take_up(network, prepared, PREPARE)


def coarsen(subject: Subject) -> Subject:
    """Join regions, thirty to one, so that there are few to take away."""
    regions = subject.regions
    labels = {m: np.where(each < 0, each, each // 30) for m, each in regions.labels.items()}
    counts = {m: (count - 1) // 30 + 1 for m, count in regions.counts.items()}
    return replace(subject, regions=Regions(labels, counts))


def mixed(network: TorchNetwork) -> Target:
    names = network.targets
    return parse_target(f"{names[0]}=1,{names[3]}=-0.5,{names[-1]}=2", names)


def relate(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_every_method_that_settings_name_is_there() -> None:
    assert set(METHODS) == set(get_args(Method))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_torch_free_method_gives_captum_s_numbers(
    checkpoint: Checkpoint, network: TorchNetwork, method: Method
) -> None:
    subject, target = coarsen(draw(network, frames=2)), mixed(network)
    samples = tuple(draw(network, seed=seed).inputs for seed in (1, 2))
    baseline = make_baseline("marginal", subject, network, checkpoint.tokenizer, None, samples)
    assert len(baseline.versions) == 2
    chosen = AttributionSettings(method=method, steps=6, most_steps=6, samples=10, seed=3)
    seen: list[tuple[int, int]] = []
    own = attribute(network, subject, baseline, target, chosen)
    captum = reference_attribute(
        network.model, subject, baseline, target, chosen, lambda *at: seen.append(at)
    )
    assert seen[-1][0] == seen[-1][1]
    assert (captum.method, captum.baseline, captum.target) == (
        own.method,
        own.baseline,
        own.target,
    )
    assert own.values.keys() == captum.values.keys()
    # Sums in another order and other sizes of batch, whose float32 kernels round otherwise; a
    # region's fall is the small difference of two answers.
    limit = 1e-3 if method == "occlusion" else 1e-4
    for modality, values in own.values.items():
        assert values.dtype == captum.values[modality].dtype == np.float32
        assert relate(values, captum.values[modality]) < limit
    for name, value in own.details.items():
        assert captum.details[name] == pytest.approx(value, rel=1e-4)
    if own.completeness_gap is None:
        assert captum.completeness_gap is None
    else:
        assert captum.completeness_gap == pytest.approx(own.completeness_gap, rel=1e-2)


def test_grad_cam_of_a_study_without_an_image_is_refused(network: TorchNetwork) -> None:
    subject = draw(network, {Modality.NOTE})
    chosen = AttributionSettings(method="grad_cam")
    with pytest.raises(SettingsError, match="grad_cam explains images"):
        reference_attribute(network.model, subject, Baseline("blank", ()), mixed(network), chosen)


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_attributions_add_up_to_the_change_of_the_answer_for_every_subset(
    checkpoint: Checkpoint, network: TorchNetwork, subset: frozenset[Modality]
) -> None:
    subject = draw(network, subset)
    baseline = make_baseline("blank", subject, network, checkpoint.tokenizer, None, ())
    target = parse_target("stage.at_least_severe", network.targets)
    attribution = integrated_gradients(
        network.model, subject, baseline, target, AttributionSettings(steps=64, most_steps=64)
    )
    assert set(attribution.values) == subset

    batch = collate([subject.prepared], PREPARE)
    arrays = [part for m in MODALITIES for part in (batch.values[m], batch.masks[m])]
    with torch.no_grad():  # through the word pieces, not the embeddings
        outputs: Outputs = network.model(*map(torch.from_numpy, arrays))
    answer = float(outputs.logits[0, network.targets.index("stage.at_least_severe")])
    assert attribution.details["output"] == pytest.approx(answer, abs=1e-5)
    change = answer - attribution.details["baseline_output"]
    total = sum(float(values.sum(dtype=np.float64)) for values in attribution.values.values())
    error = abs(total - change) / max(abs(change), 0.01)
    assert error == pytest.approx(attribution.completeness_gap, abs=1e-3)
    if Modality.IMAGE not in subset:  # an untrained ReLU network's kinks on noise need more points
        assert error < 1e-3


def test_a_network_is_held_to_captum_s_maps_of_the_model_in_float64(
    checkpoint: Checkpoint, network: TorchNetwork
) -> None:
    prepared, target = draw(network).prepared, mixed(network)
    chosen = AttributionSettings(steps=4, most_steps=16, gap=1e-9)
    seen: list[tuple[int, int]] = []
    compared = compare_with_captum(
        network, checkpoint, prepared, target, chosen, (), lambda *at: seen.append(at)
    )
    assert seen[-1] == (12, 12)  # the first number of points, three times, and no doubling
    assert seen == sorted(seen)
    assert set(compared) == set(MODALITIES)
    for figures in compared.values():
        # What float32 loses; the same in float32 again would differ by 1e-8 or by nothing.
        assert 1e-7 < figures.captum_to_float64 < 1e-3
        assert 1e-7 < figures.onnx_to_float64 < 1e-3
        assert figures.relative_l2 < 1e-4
        assert figures.largest < 1e-4


def test_a_network_that_differs_is_told_apart_from_captum(
    checkpoint: Checkpoint, network: TorchNetwork
) -> None:
    other = TorchNetwork(deepcopy(network.model))
    other.model.get_submodule("voice.adapter").requires_grad_(False)
    for weight in other.model.get_submodule("voice.adapter").parameters():
        weight.mul_(1.01)
    prepared = draw(network).prepared
    chosen = AttributionSettings(method="gradients")
    compared = compare_with_captum(other, checkpoint, prepared, mixed(network), chosen, ())
    assert compared[Modality.VOICE].relative_l2 > 1e-3
    assert compared[Modality.VOICE].onnx_to_float64 > 1e-3
    assert compared[Modality.VOICE].captum_to_float64 < 1e-4


def test_maps_are_compared_by_length_and_by_their_largest_element() -> None:
    image = Modality.IMAGE
    onnx, captum, exact = (
        {image: np.array(values)} for values in ([[3.0, 4.5]], [[3.0, 4.0]], [[0.0, 4.0]])
    )
    assert compare_maps(onnx, captum, exact) == {
        image: Comparison(
            relative_l2=0.5 / 5,
            largest=0.5 / 4,
            onnx_to_float64=np.sqrt(9.25) / 4,
            captum_to_float64=3 / 4,
        )
    }
    nothing = {image: np.zeros((1, 2))}
    assert compare_maps(nothing, nothing, nothing) == {image: Comparison(0.0, 0.0, 0.0, 0.0)}
    assert compare_maps(onnx, nothing, exact)[image].relative_l2 == np.inf


def test_a_checkpoint_and_its_network_are_explained_alike(
    checkpoint: Checkpoint, network: TorchNetwork
) -> None:
    subject, target = draw(network), mixed(network)
    samples = (draw(network, seed=1).inputs,)
    chosen = AttributionSettings(steps=4, most_steps=4, baseline="mean")
    rest = (
        subject,
        target,
        chosen,
        BadgeSettings(copies=1, points=2, patches=2, parts=4, stages=3),
        checkpoint.tokenizer,
        checkpoint.background,
        samples,
        "d" * 64,
    )
    own = explain_study(network, *rest, band=True)
    captum = explain_study(network, *rest, band=True, by=by_captum(network.model))
    assert captum.shares == own.shares
    assert captum.shares_by_baseline == own.shares_by_baseline
    assert {s.baseline for s in captum.shares_by_baseline} >= {"blank", "mean", "marginal"}
    assert captum.model_digest == own.model_digest
    assert captum.attribution.details["internal_batch_size"] == 8
    assert [c.name for c in captum.badge.checks] == [c.name for c in own.badge.checks]
    for modality in MODALITIES:
        assert relate(captum.attribution.values[modality], own.attribution.values[modality]) < 1e-4
    alone = explain_study(network, *rest, by=by_captum(network.model))
    assert alone.shares_by_baseline == ()


def test_the_code_shown_in_the_docs_explains_a_study(
    checkpoint: Checkpoint, network: TorchNetwork
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "explain.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {
        "network": network,
        "prepared": draw(network).prepared,
        "prepare_settings": PREPARE,
        "tokenizer": checkpoint.tokenizer,
        "background": checkpoint.background,
        "digest": checkpoint.digest,
        "model": network.model,
    }
    exec(code, names)
    assert names["explanation"].attribution.target == "findings.nodule"
    assert set(names["explanation"].shares.shares) == set(MODALITIES)
    assert set(names["reference"].values) == set(MODALITIES)
