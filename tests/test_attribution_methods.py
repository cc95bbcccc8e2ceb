"""The methods: answers by hand, the axioms they promise, and Captum on the same network."""

import tracemalloc
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from medfuse.attribution import settings as named
from medfuse.attribution import subject as bounds
from medfuse.attribution.attribute import METHODS, attribute
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.grad_cam import grad_cam, weigh_cells
from medfuse.attribution.gradients import gradients, smooth_gradients
from medfuse.attribution.integrated_gradients import LEAST_CHANGE, integrated_gradients
from medfuse.attribution.network import Cells, Gradients, Inputs, gather_inputs
from medfuse.attribution.occlusion import occlusion
from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.attribution.shapley import shares
from medfuse.attribution.subject import Subject, rows_at_once, score, take_up, weigh
from medfuse.attribution.target import Target
from medfuse.data.prepare import collate
from medfuse.data.voice import SILENCE
from medfuse.errors import SettingsError
from medfuse.explain.torch_network import TorchNetwork
from medfuse.training.checkpoint import load_checkpoint
from medfuse.types import MODALITIES, SUBSETS, Attribution, Modality, Prepared, subset_name
from tests.attribution_network import (
    SETTINGS,
    SIDE,
    TOKENIZER,
    SumNetwork,
    bent,
    linear,
    make_prepared,
    make_subject,
    parts,
    pick,
)
from tests.tiny import PREPARE

CHOSEN = AttributionSettings()


def blank(network: SumNetwork | TorchNetwork, subject: Subject) -> Baseline:
    return make_baseline("blank", subject, network, TOKENIZER, None, ())


def way(subject: Subject, baseline: Baseline, modality: Modality) -> np.ndarray:
    """How far the study is from its baseline, in float64."""
    end, start = subject.inputs.values[modality][0], baseline.versions[0].values[modality][0]
    return np.asarray(end.astype(np.float64) - start)


def weights(network: SumNetwork, subject: Subject, modality: Modality) -> np.ndarray:
    return np.asarray(network.weights(modality, subject.inputs)[0])


# Integrated gradients


def test_a_linear_network_gets_its_weights_times_the_way_from_the_baseline() -> None:
    network = linear()
    subject = make_subject(network)
    found = integrated_gradients(network, subject, blank(network, subject), pick(network), CHOSEN)
    image, note, voice = (subject.inputs.values[m][0] for m in MODALITIES)
    each = [weights(network, subject, m) for m in MODALITIES]
    np.testing.assert_allclose(found.values[Modality.IMAGE], 2 * each[0] * image, atol=1e-6)
    np.testing.assert_allclose(
        found.values[Modality.VOICE], 0.5 * each[2] * (voice - SILENCE), atol=1e-6
    )
    words = 3 * (each[1] * (note - np.array([0.103, -0.206]))).sum(axis=1)
    words[[0, -1]] = 0  # [CLS] and [SEP]
    np.testing.assert_allclose(found.values[Modality.NOTE], words, rtol=1e-5)
    assert found.completeness_gap is not None
    assert found.completeness_gap < 1e-6
    assert (found.method, found.baseline) == ("integrated_gradients", "blank")
    start = blank(network, subject).versions[0]
    assert found.details == {
        "output": pytest.approx(score(network, subject.inputs, pick(network))[0]),
        "baseline_output": pytest.approx(score(network, start, pick(network))[0]),
        "steps": 64,
    }


def test_a_function_of_one_sum_shares_its_change_out_by_the_parts_of_the_sum() -> None:
    # d tanh(z) along a straight path is shared by dz, whatever the curve: in closed form.
    network = bent()
    subject = make_subject(network)
    baseline = blank(network, subject)
    found = integrated_gradients(network, subject, baseline, pick(network), CHOSEN)
    factor = np.array([0.05, 0.02, 0.1])
    end, start = (
        float((network.sums(x) @ factor).item()) for x in (subject.inputs, baseline.versions[0])
    )
    slope = (np.tanh(end) - np.tanh(start)) / (end - start)
    for weight, modality in zip(factor, MODALITIES, strict=True):
        expected = weight * slope * weights(network, subject, modality)
        expected = expected * way(subject, baseline, modality)
        if modality is Modality.NOTE:
            expected = expected.sum(axis=1)
        np.testing.assert_allclose(found.values[modality], expected, rtol=1e-4, atol=1e-7)


def test_a_product_of_image_and_note_takes_each_at_the_middle_of_the_other() -> None:
    network = bent(pair=0.01)
    subject = make_subject(network)
    baseline = blank(network, subject)
    found = integrated_gradients(network, subject, baseline, pick(network, 1), CHOSEN)
    middle = (network.sums(subject.inputs) + network.sums(baseline.versions[0]))[0] / 2
    expected = 0.01 * middle[1] * weights(network, subject, Modality.IMAGE)
    np.testing.assert_allclose(
        found.values[Modality.IMAGE],
        expected * way(subject, baseline, Modality.IMAGE),
        rtol=1e-4,
        atol=1e-8,
    )
    assert not found.values[Modality.VOICE].any()


factors = st.tuples(*[st.floats(-0.2, 0.2)] * 3)


@given(factors, st.floats(-0.01, 0.01), st.integers(0, 100), st.sampled_from(SUBSETS))
@examples(max_examples=20, deadline=None)
def test_attributions_add_up_to_the_change_of_a_smooth_network(
    factor: tuple[float, float, float], pair: float, seed: int, subset: frozenset[Modality]
) -> None:
    network = bent(factor, pair)
    subject = make_subject(network, subset, seed=seed)
    baseline = blank(network, subject)
    both = Target("both", np.array([1.0, -2.0], np.float32))
    found = integrated_gradients(network, subject, baseline, both, CHOSEN)
    change = score(network, subject.inputs, both) - score(network, baseline.versions[0], both)
    assert parts(found.values) == pytest.approx(change.item(), rel=2e-3, abs=1e-4)
    assert found.completeness_gap is not None
    gap = abs(parts(found.values) - change.item()) / max(abs(change.item()), LEAST_CHANGE)
    assert found.completeness_gap == pytest.approx(gap, abs=1e-4)


@given(st.integers(0, 2 * SIDE * SIDE - 1), st.floats(0.05, 1))
@examples(max_examples=20, deadline=None)
def test_the_one_input_that_differs_gets_the_whole_change_and_no_other_any(
    place: int, step: float
) -> None:
    # Sensitivity (a) of the paper.
    network = bent()
    subject = make_subject(network)
    image = np.array(subject.inputs.values[Modality.IMAGE])
    image.reshape(-1)[place] += np.float32(step)
    changed = Inputs({**subject.inputs.values, Modality.IMAGE: image}, subject.inputs.masks)
    baseline = Baseline("blank", (subject.inputs,))
    moved = replace(subject, inputs=changed)
    found = integrated_gradients(network, moved, baseline, pick(network), CHOSEN)
    change = score(network, changed, pick(network)) - score(network, subject.inputs, pick(network))
    assert change.item() != 0
    at = np.zeros(image.size, bool)
    at[place] = True
    pixels = found.values[Modality.IMAGE].reshape(-1)
    assert pixels[at].item() == pytest.approx(change.item(), rel=1e-3)
    assert not pixels[~at].any()
    assert not found.values[Modality.NOTE].any()


def test_two_networks_that_compute_one_function_are_explained_alike() -> None:
    network = bent()
    subject = make_subject(network)
    factor = np.array([0.05, 0.02, 0.1])

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-2 * (z @ factor))))[:, None]

    # tanh(z) = 2 sigmoid(2z) - 1
    other = SumNetwork(
        lambda z: 2 * sigmoid(z) - 1,
        lambda z: (4 * sigmoid(z) * (1 - sigmoid(z)) * factor)[:, None],
    )
    first = integrated_gradients(network, subject, blank(network, subject), pick(network), CHOSEN)
    second = integrated_gradients(other, subject, blank(other, subject), pick(other), CHOSEN)
    for modality in MODALITIES:
        np.testing.assert_allclose(
            first.values[modality], second.values[modality], rtol=1e-4, atol=1e-8
        )


@pytest.mark.parametrize("method", [integrated_gradients, gradients, smooth_gradients, occlusion])
def test_a_weighting_of_targets_gets_the_weighting_of_their_attributions(
    method: Callable[..., Attribution],
) -> None:
    network = bent()
    subject = make_subject(network, mel_frames=12)
    chosen = AttributionSettings(steps=64, most_steps=64)
    both = Target("findings.f0=2,findings.f1=-3", np.array([2, -3], np.float32))
    found, first, second = (
        method(network, subject, blank(network, subject), target, chosen)
        for target in (both, pick(network, 0), pick(network, 1))
    )
    assert found.target == both.name
    for modality in MODALITIES:
        expected = 2 * first.values[modality] - 3 * second.values[modality]
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(found.values[modality], expected, rtol=1e-4, atol=1e-6)


def bend(corner: float) -> tuple[SumNetwork, Subject, Baseline]:
    """Make an output that is flat up to a share of the way and then straight: no smooth curve."""
    plain = linear((1.0, 0.0, 0.0), even=True)
    subject = make_subject(plain, {Modality.IMAGE})
    total = float(plain.sums(subject.inputs)[0, 0])
    network = SumNetwork(
        lambda z: np.maximum(z[:, :1] / total - corner, 0),
        lambda z: (z[:, :1] / total > corner)[:, :, None] * np.array([1 / total, 0, 0]),
        even=True,
    )
    return network, subject, blank(network, subject)


def test_points_double_until_the_gap_is_small_and_stop_at_the_most() -> None:
    network, subject, baseline = bend(0.7)
    found = integrated_gradients(
        network, subject, baseline, pick(network), AttributionSettings(steps=2, gap=0.005)
    )
    assert found.completeness_gap is not None
    assert found.details["steps"] > 4
    assert found.completeness_gap <= 0.005
    assert parts(found.values) == pytest.approx(0.3, rel=0.005)
    few = AttributionSettings(steps=2, gap=0.005, most_steps=7)
    found = integrated_gradients(network, subject, baseline, pick(network), few)
    assert found.details["steps"] == 4  # 8 would be more than 7
    assert found.completeness_gap == pytest.approx(abs(parts(found.values) - 0.3) / 0.3, rel=1e-3)
    assert found.completeness_gap is not None
    assert found.completeness_gap > 0.005


def test_where_nothing_changes_the_gap_is_relative_to_the_least_change_that_shows() -> None:
    # Down and up again: the ends are alike, and two points see the slopes unevenly.
    network, subject, baseline = bend(0.0)
    image = network.sums(subject.inputs)[0, 0]
    wave = SumNetwork(
        lambda z: 1e-4 * np.sin(2 * np.pi * z[:, :1] / image) ** 2,
        lambda z: (
            (
                1e-4
                * np.sin(4 * np.pi * z[:, :1, None] / image)
                * np.array([2 * np.pi / image, 0, 0])
            )
            + np.array([1e-5 / image, 0, 0])
        ),
        even=True,
    )
    few = AttributionSettings(steps=2, most_steps=2)
    found = integrated_gradients(wave, subject, baseline, pick(wave), few)
    assert found.completeness_gap == pytest.approx(1e-5 / LEAST_CHANGE, rel=1e-3)


def test_several_versions_of_a_baseline_give_the_mean_of_what_each_gives() -> None:
    network = bent()
    subject = make_subject(network)
    start = blank(network, subject).versions[0]
    half = Inputs({m: v / 2 for m, v in start.values.items()}, start.masks)
    chosen = AttributionSettings(steps=64, most_steps=64)
    for method in (integrated_gradients, occlusion):
        found, first, second = (
            method(network, subject, Baseline("marginal", versions), pick(network), chosen)
            for versions in ((start, half), (start,), (half,))
        )
        for modality in MODALITIES:
            mean = (first.values[modality] + second.values[modality]) / 2
            np.testing.assert_allclose(found.values[modality], mean, rtol=1e-4, atol=1e-7)
        mean = (first.details["baseline_output"] + second.details["baseline_output"]) / 2
        assert found.details["baseline_output"] == pytest.approx(mean)
        assert found.baseline == "marginal"


def test_the_gap_is_that_of_the_mean_over_versions() -> None:
    network, subject, baseline = bend(0.7)
    start = baseline.versions[0]
    # The second starts where the first ends, so nothing changes on its way.
    both = Baseline("marginal", (start, subject.inputs))
    few = AttributionSettings(steps=4, most_steps=4)
    one, two = (
        integrated_gradients(network, subject, b, pick(network), few) for b in (baseline, both)
    )
    assert one.completeness_gap is not None
    assert one.completeness_gap > 0.01
    assert two.completeness_gap == pytest.approx(one.completeness_gap, rel=1e-3)
    assert two.details["baseline_output"] == pytest.approx(0.15)


def test_progress_counts_points_and_wants_more_when_they_double() -> None:
    network, subject, baseline = bend(0.7)
    seen: list[tuple[int, int]] = []
    settings = AttributionSettings(steps=40, most_steps=80, gap=1e-9)
    integrated_gradients(
        network, subject, baseline, pick(network), settings, lambda d, w: seen.append((d, w))
    )
    assert seen == [(32, 40), (40, 40), (72, 120), (104, 120), (120, 120)]


def test_versions_are_made_a_few_at_a_time_whatever_the_length_of_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = linear()
    subject = make_subject(network, frames=32)
    baseline = blank(network, subject)
    settings = AttributionSettings(steps=64, most_steps=64)
    one = sum(subject.inputs.values[m].nbytes for m in MODALITIES)

    def explain(method: Callable[..., Attribution], block: int) -> tuple[Attribution, int]:
        monkeypatch.setattr(bounds, "BLOCK_BYTES", block)
        network.asked.clear()
        found = method(network, subject, baseline, pick(network), settings)
        return found, max(len(inputs) for inputs in network.asked)

    for method in (integrated_gradients, smooth_gradients):
        whole, rows = explain(method, 10**9)
        assert rows == min(bounds.MOST_ROWS, 16 if method is smooth_gradients else 64)
        split, rows = explain(method, 3 * one)
        assert rows == 3
        alone, rows = explain(method, 1)
        assert rows == 1
        for modality in MODALITIES:
            for other in (split, alone):
                np.testing.assert_allclose(
                    other.values[modality], whole.values[modality], rtol=1e-5, atol=1e-9
                )


def test_explaining_a_long_study_takes_memory_for_a_block_and_not_for_its_steps() -> None:
    network = linear()
    subject = make_subject(network, {Modality.IMAGE}, frames=512)
    baseline = blank(network, subject)
    one = subject.inputs.values[Modality.IMAGE].nbytes  # 2 MiB
    assert rows_at_once(subject.inputs) == 32

    class Quiet(SumNetwork):  # takes no memory of its own
        def answer(self, inputs: Inputs) -> np.ndarray:
            return np.zeros((len(inputs), 2))

        def differentiate(
            self, inputs: Inputs, weights: np.ndarray, wanted: Collection[Modality]
        ) -> Gradients:
            return Gradients(weights, {m: inputs.values[m] for m in wanted})

    quiet = Quiet(network.function, network.slopes)
    settings = AttributionSettings(steps=512, most_steps=512)
    tracemalloc.start()
    try:
        integrated_gradients(quiet, subject, baseline, pick(network), settings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * bounds.BLOCK_BYTES
    assert 512 * one > 10 * bounds.BLOCK_BYTES


# Plain and smoothed gradients


def test_plain_gradients_are_signed_and_a_word_piece_s_is_times_its_embedding() -> None:
    network = linear((2.0, 3.0, -0.5))
    subject = make_subject(network)
    found = gradients(network, subject, blank(network, subject), pick(network), CHOSEN)
    each = [weights(network, subject, m) for m in MODALITIES]
    np.testing.assert_allclose(found.values[Modality.IMAGE], 2 * each[0], rtol=1e-6)
    np.testing.assert_allclose(found.values[Modality.VOICE], -0.5 * each[2], rtol=1e-6)
    words = (3 * each[1] * subject.inputs.values[Modality.NOTE][0]).sum(axis=1)
    np.testing.assert_allclose(found.values[Modality.NOTE], words, rtol=1e-5)
    assert (found.method, found.baseline) == ("gradients", "none")
    assert found.completeness_gap is None
    output = score(network, subject.inputs, pick(network))[0]
    assert found.details == {"output": pytest.approx(output)}


def test_smoothed_gradients_are_the_mean_over_the_seed_s_noisy_copies() -> None:
    network = bent()
    subject = make_subject(network)
    settings = AttributionSettings(method="smooth_gradients", samples=5, noise=0.2, seed=7)
    found = smooth_gradients(network, subject, blank(network, subject), pick(network), settings)
    copies = network.asked[0]
    assert len(copies) == 5
    expected = network.differentiate(copies, weigh(pick(network), 5), MODALITIES)
    for modality in (Modality.IMAGE, Modality.VOICE):
        np.testing.assert_allclose(
            found.values[modality], expected.values[modality].mean(axis=0), rtol=1e-5, atol=1e-9
        )
    words = expected.values[Modality.NOTE].mean(axis=0) * subject.inputs.values[Modality.NOTE][0]
    np.testing.assert_allclose(found.values[Modality.NOTE], words.sum(axis=1), rtol=1e-4)
    for modality in MODALITIES:
        own = subject.inputs.values[modality]
        noise = copies.values[modality] - own
        # 2,048 pixels, 320 mel bins or 30 numbers of embeddings, five times.
        tolerance = 0.25 if modality is Modality.NOTE else 0.05
        assert noise.std() == pytest.approx(0.2 * own.std(), rel=tolerance)
        assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)
        assert len({row.tobytes() for row in noise}) == 5
    assert (found.method, found.baseline) == ("smooth_gradients", "none")
    assert found.completeness_gap is None
    assert found.details["seed"] == 7
    again = smooth_gradients(network, subject, blank(network, subject), pick(network), settings)
    other = smooth_gradients(
        network,
        subject,
        blank(network, subject),
        pick(network),
        settings.model_copy(update={"seed": 8}),
    )
    assert np.array_equal(again.values[Modality.IMAGE], found.values[Modality.IMAGE])
    assert not np.array_equal(other.values[Modality.IMAGE], found.values[Modality.IMAGE])


def test_a_modality_s_noise_is_its_own_and_the_same_whatever_else_the_study_has() -> None:
    network = linear()
    prepared = make_prepared()

    def draw(study: Prepared, modality: Modality) -> np.ndarray:
        subject = take_up(network, study, SETTINGS)
        network.asked.clear()
        smooth_gradients(network, subject, blank(network, subject), pick(network), CHOSEN)
        noise = network.asked[0].values[modality] - subject.inputs.values[modality]
        return np.asarray(noise.reshape(-1) / noise.std())

    image, voice = (draw(prepared, m) for m in (Modality.IMAGE, Modality.VOICE))
    assert np.array_equal(image, draw(replace(prepared, note=None, voice=None), Modality.IMAGE))
    assert np.array_equal(voice, draw(replace(prepared, image=None, note=None), Modality.VOICE))
    assert abs(np.corrcoef(image[: len(voice)], voice)[0, 1]) < 0.1


def test_smoothing_changes_nothing_of_a_linear_network() -> None:
    network = linear()
    subject = make_subject(network)
    plain, smooth = (
        method(network, subject, blank(network, subject), pick(network), CHOSEN)
        for method in (gradients, smooth_gradients)
    )
    for modality in MODALITIES:
        np.testing.assert_allclose(
            plain.values[modality], smooth.values[modality], rtol=1e-5, atol=1e-7
        )


# Grad-CAM


def test_grad_cam_weighs_channels_by_their_mean_gradient_and_keeps_the_sign() -> None:
    # One frame of four cells and two channels. Mean gradients: (1 + 2 + 3 + 2) / 4 = 2, and -1.
    activations = np.array([[1, 5], [2, 0], [0, 3], [4, 2]], np.float32)[None, None]
    gradient = np.array([[1, -1], [2, -1], [3, -1], [2, -1]], np.float32)[None, None]
    cells = Cells(np.zeros((1, 1), np.float32), activations, gradient)
    assert weigh_cells(cells).tolist() == [[[[-3, 4], [-3, 6]]]]


def test_grad_cam_brings_cells_to_their_place_in_each_frame() -> None:
    network = linear((2.0, 3.0, 0.5), even=True)
    subject = make_subject(network)
    quarter = SIDE // 2
    for index, sign in ((0, 1), (1, -1)):  # the second target is the first's opposite
        found = grad_cam(network, subject, blank(network, subject), pick(network, index), CHOSEN)
        assert set(found.values) == {Modality.IMAGE}
        image = subject.inputs.values[Modality.IMAGE][0]
        assert found.values[Modality.IMAGE].shape == image.shape
        for frame, map_ in zip(image, found.values[Modality.IMAGE], strict=True):
            for rows, corner in ((slice(quarter), 0), (slice(quarter, SIDE), -1)):
                expected = sign * 2 * frame[rows, :quarter].sum()
                assert map_[corner, 0] == pytest.approx(expected, rel=1e-5)
                expected = sign * 2 * frame[rows, quarter:].sum()
                assert map_[corner, -1] == pytest.approx(expected, rel=1e-5)
            # Half way between the centres of two cells is their mean.
            edge = map_[0, [quarter - 1, quarter]].mean()
            assert edge == pytest.approx(map_[0, [0, -1]].mean(), rel=1e-4)
    assert (found.method, found.baseline) == ("grad_cam", "none")
    assert found.completeness_gap is None
    output = score(network, subject.inputs, pick(network, 1))[0]
    assert found.details == {"output": pytest.approx(output)}


def test_grad_cam_of_a_study_without_an_image_is_refused() -> None:
    network = linear()
    subject = make_subject(network, {Modality.NOTE, Modality.VOICE})
    with pytest.raises(SettingsError, match="grad_cam explains images and the study has none"):
        attribute(
            network,
            subject,
            blank(network, subject),
            pick(network),
            AttributionSettings(method="grad_cam"),
        )


# Occlusion


def test_occlusion_of_a_linear_network_gives_each_region_what_its_elements_say() -> None:
    network = linear()
    subject = make_subject(network)
    baseline = blank(network, subject)
    target = pick(network)
    found = occlusion(network, subject, baseline, target, CHOSEN)
    single = integrated_gradients(network, subject, baseline, target, CHOSEN)
    for modality in MODALITIES:
        totals = subject.regions.total(modality, found.values[modality])
        expected = subject.regions.total(modality, single.values[modality])
        np.testing.assert_allclose(totals, expected, rtol=1e-4, atol=1e-6)
        labels = subject.regions.labels[modality]
        assert not found.values[modality][labels < 0].any()
        for region in range(subject.regions.counts[modality]):
            assert len(np.unique(found.values[modality][labels == region])) == 1
    assert found.completeness_gap is None
    assert (found.method, found.baseline) == ("occlusion", "blank")
    assert found.details["output"] == pytest.approx(single.details["output"])
    assert found.details["baseline_output"] == pytest.approx(single.details["baseline_output"])


def test_occlusion_says_what_is_lost_with_a_part_and_not_what_it_adds_alone() -> None:
    # Image and note multiplied: without all of the note's words nothing is left of the output.
    network = SumNetwork(
        lambda z: 0.01 * z[:, :1] * z[:, 1:2],
        lambda z: 0.01 * np.stack([z[:, 1], z[:, 0], 0 * z[:, 2]], axis=1)[:, None],
        even=True,
    )
    subject = make_subject(network, {Modality.IMAGE, Modality.NOTE}, note="fever")
    zero = Inputs(
        {m: np.zeros_like(v) for m, v in subject.inputs.values.items()}, subject.inputs.masks
    )
    found = occlusion(network, subject, Baseline("blank", (zero,)), pick(network), CHOSEN)
    image, note = network.sums(subject.inputs)[0, :2]
    word = subject.regions.labels[Modality.NOTE] == 0
    own = subject.inputs.values[Modality.NOTE][0][word].sum()
    total = found.values[Modality.NOTE].sum(dtype=np.float64)
    assert total == pytest.approx(0.01 * image * own, rel=1e-5)
    assert found.values[Modality.IMAGE].sum() == pytest.approx(0.01 * image * note, rel=1e-4)


def test_occlusion_asks_once_for_each_region_and_changes_nothing_else() -> None:
    network = linear()
    subject = make_subject(network)
    seen: list[tuple[int, int]] = []
    occlusion(
        network,
        subject,
        blank(network, subject),
        pick(network),
        CHOSEN,
        lambda done, wanted: seen.append((done, wanted)),
    )
    count = sum(subject.regions.counts.values())
    assert seen[-1] == (count, count)
    assert sum(len(inputs) for inputs in network.asked) == count + 2  # and the two ends
    for inputs in network.asked[2:]:
        changed = [
            m
            for m in MODALITIES
            if not np.array_equal(inputs.values[m][0], subject.inputs.values[m][0])
        ]
        assert len(changed) <= 1  # a black patch of a black image changes nothing at all


# All methods


def test_every_method_that_settings_name_is_there() -> None:
    assert set(METHODS) == set(get_args(Method)) == set(named.METHODS)


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_is_absent_gets_no_entry_and_what_is_present_a_map_in_its_axes(
    method: Method, subset: frozenset[Modality]
) -> None:
    network = bent()
    subject = make_subject(network, subset, mel_frames=10)
    settings = AttributionSettings(method=method)
    if method == "grad_cam" and Modality.IMAGE not in subset:
        return
    seen: list[tuple[int, int]] = []
    found = attribute(
        network,
        subject,
        blank(network, subject),
        pick(network),
        settings,
        lambda done, wanted: seen.append((done, wanted)),
    )
    reached = {Modality.IMAGE} if method == "grad_cam" else subset
    assert set(found.values) == reached
    for modality in reached:
        assert found.values[modality].shape == subject.regions.labels[modality].shape
        assert found.values[modality].dtype == np.float32
        assert found.values[modality].any()
    assert found.method == method
    assert seen[-1][0] == seen[-1][1]


# Against Captum, on a network with every part


@pytest.fixture(scope="module")
def torch_network(tiny_checkpoint: Path) -> TorchNetwork:
    return TorchNetwork(load_checkpoint(tiny_checkpoint).model)


def draw_study(network: TorchNetwork, seed: int = 0, frames: int = 1) -> Subject:
    rng = np.random.default_rng(seed)
    prepared = make_prepared(seed=seed, frames=frames)
    assert prepared.image is not None
    assert prepared.voice is not None
    size, bands = PREPARE.image.size, PREPARE.voice.mel_bands
    geometry = tuple(
        replace(place, size=size, top=0, left=0, height=size, width=size)
        for place in prepared.image.geometry
    )
    image = replace(
        prepared.image, values=rng.random((frames, size, size), np.float32), geometry=geometry
    )
    voice = replace(prepared.voice, values=rng.random((24, bands), np.float32) * 2 - 1)
    return take_up(network, replace(prepared, image=image, voice=voice), PREPARE)


def forward_of(network: TorchNetwork, subject: Subject, target: Target) -> Callable[..., Tensor]:
    """The target's output as Captum wants it: from tensors of all three modalities."""
    masks = {m: torch.from_numpy(subject.inputs.masks[m]) for m in MODALITIES}

    def forward(image: Tensor, note: Tensor, voice: Tensor) -> Tensor:
        n = len(image)
        i, t, v = (masks[m].expand(n, -1) for m in MODALITIES)
        logits = network.model.forward_embedded(image, i, note, t, voice, v).logits
        return logits @ torch.from_numpy(target.weights)

    return forward


def mixed_target(network: TorchNetwork) -> Target:
    rng = np.random.default_rng(5)
    return Target("mixed", rng.standard_normal(len(network.targets)).astype(np.float32))


@pytest.mark.parametrize("seed", [0, 1])
def test_integrated_gradients_are_captum_s(torch_network: TorchNetwork, seed: int) -> None:
    subject = draw_study(torch_network, seed, frames=1 + seed)
    baseline, target = blank(torch_network, subject), mixed_target(torch_network)
    found = integrated_gradients(
        torch_network, subject, baseline, target, AttributionSettings(steps=8, most_steps=8)
    )
    ends, starts = (
        tuple(torch.from_numpy(np.array(x.values[m])) for m in MODALITIES)
        for x in (subject.inputs, baseline.versions[0])
    )
    expected = IntegratedGradients(forward_of(torch_network, subject, target)).attribute(
        ends, starts, n_steps=8, method="gausslegendre"
    )
    for modality, part in zip(MODALITIES, expected, strict=True):
        reference = part[0].double().numpy()
        if modality is Modality.NOTE:
            reference = reference.sum(axis=1)
        # Captum sums the steps in float32 and we in float64; the gradients are torch's in both.
        error = np.linalg.norm(found.values[modality] - reference) / np.linalg.norm(reference)
        assert error <= 1e-5, modality


def test_grad_cam_is_captum_s_before_its_map_is_resized(torch_network: TorchNetwork) -> None:
    subject, target = draw_study(torch_network, frames=2), mixed_target(torch_network)
    found = weigh_cells(torch_network.see(subject.inputs, weigh(target, 1)))
    layer = torch_network.model.image.backbone.network
    expected = LayerGradCam(forward_of(torch_network, subject, target), layer).attribute(
        tuple(torch.from_numpy(np.array(subject.inputs.values[m])) for m in MODALITIES),
        relu_attributions=False,
    )
    reference = expected[:, 0].detach().numpy()  # (S, 2, 2)
    assert (reference < 0).any()
    assert reference.shape == found[0].shape
    np.testing.assert_allclose(found[0], reference, rtol=1e-4, atol=1e-6 * np.abs(reference).max())


def test_a_study_is_explained_alike_alone_and_padded_beside_others(
    torch_network: TorchNetwork,
) -> None:
    alone = draw_study(torch_network, 0)
    longer = draw_study(torch_network, 1, frames=3)
    lacking = replace(alone.prepared, voice=None)
    batch = collate([alone.prepared, longer.prepared, lacking], PREPARE)
    assert batch.masks[Modality.IMAGE].shape == (3, 3)
    settings = AttributionSettings(steps=4, most_steps=4)
    target = mixed_target(torch_network)
    for i, study in ((0, alone.prepared), (2, lacking)):
        own = take_up(torch_network, study, PREPARE)
        beside = replace(own, inputs=gather_inputs(torch_network, batch, i))
        first, second = (
            integrated_gradients(
                torch_network, subject, blank(torch_network, subject), target, settings
            )
            for subject in (own, beside)
        )
        assert set(first.values) == set(second.values) == own.prepared.present
        for modality in own.prepared.present:
            assert np.array_equal(first.values[modality], second.values[modality])
        shared = [shares(torch_network, s, target, None) for s in (own, beside)]
        for modality, share in shared[0].shares.items():
            assert shared[1].shares[modality] == pytest.approx(share, abs=1e-5)


def test_tokens_that_a_mask_hides_get_nothing_and_change_nothing(
    torch_network: TorchNetwork,
) -> None:
    subject = draw_study(torch_network, frames=2)
    hidden = dict(subject.inputs.masks)
    hidden[Modality.IMAGE] = np.array([[True, False]])
    hidden[Modality.VOICE] = np.arange(24)[None] < 20
    rubbish = {m: np.array(v) for m, v in subject.inputs.values.items()}
    rubbish[Modality.IMAGE][:, 1], rubbish[Modality.VOICE][:, 20:] = 9, 9
    settings = AttributionSettings(steps=4, most_steps=4)
    baseline = blank(torch_network, subject).versions[0]
    first, second = (
        integrated_gradients(
            torch_network,
            replace(subject, inputs=Inputs(values, hidden)),
            Baseline("blank", (Inputs(baseline.values, hidden),)),
            mixed_target(torch_network),
            settings,
        ).values
        for values in (subject.inputs.values, rubbish)
    )
    for found in (first, second):
        assert not found[Modality.IMAGE][1].any()
        assert not found[Modality.VOICE][20:].any()
    for modality in MODALITIES:
        assert np.array_equal(first[modality], second[modality])
