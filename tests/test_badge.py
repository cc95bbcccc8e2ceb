"""The badge: every check has a figure worked out by hand, and bad maps fail the check for them."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medfuse.attribution.attribute import attribute
from medfuse.attribution.badge import BadgeSettings, judge, merge_regions
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.network import Inputs
from medfuse.attribution.perturbation import Curves, answer_without, list_totals, trace_curves
from medfuse.attribution.regions import NO_REGION, Regions
from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.attribution.subject import Subject
from medfuse.types import MODALITIES, Attribution, Check, Modality
from tests.attribution_network import (
    TOKENIZER,
    SumNetwork,
    bent,
    linear,
    make_subject,
    pick,
)

QUICK = BadgeSettings(copies=2, points=4)


def blank(network: SumNetwork, subject: Subject) -> Baseline:
    return make_baseline("blank", subject, network, TOKENIZER, None, ())


def explain(
    network: SumNetwork,
    subject: Subject,
    method: Method = "integrated_gradients",
) -> Attribution:
    settings = AttributionSettings(method=method, steps=16)
    return attribute(network, subject, blank(network, subject), pick(network), settings)


def check(
    name: str,
    network: SumNetwork,
    subject: Subject,
    attribution: Attribution,
    settings: BadgeSettings = QUICK,
) -> Check:
    badge = judge(network, subject, blank(network, subject), pick(network), attribution, settings)
    assert [c.name for c in badge.checks] == [
        "completeness",
        "stability",
        "faithfulness",
        "agreement",
    ]
    assert badge.passed == all(c.passed for c in badge.checks)
    return next(c for c in badge.checks if c.name == name)


def spread(subject: Subject, totals: dict[Modality, np.ndarray]) -> dict[Modality, np.ndarray]:
    return {m: subject.regions.spread(m, each) for m, each in totals.items()}


def test_the_true_map_of_a_linear_network_passes_every_check() -> None:
    network = linear()
    subject = make_subject(network)
    true = explain(network, subject)
    badge = judge(network, subject, blank(network, subject), pick(network), true, QUICK)
    assert badge.passed
    values = {c.name: c.value for c in badge.checks}
    # No order of regions can beat the true one, and occlusion says the same number for number.
    assert values["faithfulness"] == 1.0
    assert values["agreement"] == pytest.approx(1.0)
    assert values["completeness"] < 1e-6
    assert values["stability"] > 0.9
    for c in badge.checks:
        assert c.message.endswith(".")
        assert "good" in c.message


def test_maps_of_noise_pass_no_badge() -> None:
    network = linear()
    subject = make_subject(network)
    true = explain(network, subject)
    figures = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        counts = subject.regions.counts
        noise = replace(
            true, values=spread(subject, {m: rng.standard_normal(n) for m, n in counts.items()})
        )
        badge = judge(network, subject, blank(network, subject), pick(network), noise, QUICK)
        assert not badge.passed
        figures.append([check.value for check in badge.checks[2:]])
    # A random order beats about half of the others, and ranks as nothing else does.
    beaten, correlation = np.mean(figures, axis=0)
    assert 0.2 < beaten < 0.8
    assert abs(correlation) < 0.2


def test_a_map_with_its_sign_turned_fails_faithfulness_and_agreement() -> None:
    network = linear()
    subject = make_subject(network)
    true = explain(network, subject)
    turned = replace(true, values={m: -v for m, v in true.values.items()})
    faithful = check("faithfulness", network, subject, turned)
    assert faithful.value == 0.0
    assert not faithful.passed
    assert check("agreement", network, subject, turned).value == pytest.approx(-1.0)


@pytest.mark.parametrize(("gap", "passed"), [(0.0049, True), (0.0051, False), (None, True)])
def test_completeness_is_the_gap_and_is_granted_to_a_method_that_promises_none(
    gap: float | None, passed: bool
) -> None:
    network = linear()
    subject = make_subject(network)
    given_map = replace(explain(network, subject), completeness_gap=gap)
    found = check("completeness", network, subject, given_map)
    assert found.passed is passed
    if gap is None:
        assert "promises no completeness" in found.message
    else:
        assert found.value == gap
        assert f"{gap:.2%}" in found.message


def test_a_network_whose_gradient_turns_with_the_noise_is_unstable_and_a_linear_one_is_not() -> (
    None
):
    # The output stays within sin's 1e-3, and its slope is of any sign a hair away.
    shaky = SumNetwork(
        lambda z: 1e-3 * np.sin(1e4 * z.sum(axis=1, keepdims=True)),
        lambda z: 10 * np.cos(1e4 * z.sum(axis=1, keepdims=True))[:, :, None] * np.ones(3),
    )
    subject = make_subject(shaky)
    found = check("stability", shaky, subject, explain(shaky, subject, "gradients"))
    assert not found.passed
    steady = linear()
    subject = make_subject(steady)
    found = check("stability", steady, subject, explain(steady, subject, "gradients"))
    # Image and voice: the gradient of a linear network is the same everywhere.
    assert found.value > 0.9


@pytest.mark.parametrize("unread", range(3))
def test_a_modality_that_the_output_never_reads_fails_no_check(unread: int) -> None:
    weights = [0.9, 0.8, -0.7]
    weights[unread] = 0.0
    network = linear((weights[0], weights[1], weights[2]))
    subject = make_subject(network)
    true = explain(network, subject)
    assert not true.values[MODALITIES[unread]].any()
    badge = judge(network, subject, blank(network, subject), pick(network), true, QUICK)
    assert badge.passed, [c.message for c in badge.checks if not c.passed]


def test_noise_is_halved_until_the_probability_stays() -> None:
    network = linear((40.0, 0.0, 0.0))  # a tenth of an image's deviation would change the answer
    subject = make_subject(network, {Modality.IMAGE})
    middle = float(network.sums(subject.inputs)[0, 0])
    steep = SumNetwork(
        lambda z: 40 * (z[:, :1] - middle), lambda z: np.broadcast_to([40.0, 0, 0], (len(z), 1, 3))
    )
    baseline = make_baseline("blank", subject, steep, TOKENIZER, None, ())
    network_asked = steep.asked
    target = pick(steep)
    true = attribute(steep, subject, baseline, target, AttributionSettings(steps=4))
    network_asked.clear()
    badge = judge(steep, subject, baseline, target, true, BadgeSettings(moved=0.01, copies=2))
    assert "by 0.0" in badge.checks[1].message
    noisy = [asked for asked in network_asked if len(asked) == 2]
    moves = [
        np.abs(asked.values[Modality.IMAGE] - subject.inputs.values[Modality.IMAGE]).max()
        for asked in noisy[:3]
    ]
    assert moves[0] > moves[1] > moves[2] > 0


def test_where_nothing_moves_the_output_there_is_nothing_to_explain() -> None:
    network = linear((1e-6, 1e-6, 1e-6))
    subject = make_subject(network)
    found = check("faithfulness", network, subject, explain(network, subject))
    assert not found.passed
    assert "nothing to explain" in found.message


def test_grad_cam_is_judged_on_the_image_alone() -> None:
    network = linear(even=True)
    subject = make_subject(network)
    network.asked.clear()
    badge = judge(
        network,
        subject,
        blank(network, subject),
        pick(network),
        explain(network, subject, "grad_cam"),
        QUICK,
    )
    assert badge.checks[0].passed
    original = subject.inputs.values
    for asked in network.asked:
        if len(asked) > QUICK.copies:  # the copies have noise everywhere
            assert (asked.values[Modality.VOICE] == original[Modality.VOICE]).all()
            assert (asked.values[Modality.NOTE] == original[Modality.NOTE]).all()


@pytest.mark.parametrize("present", [{m} for m in MODALITIES])
def test_every_modality_alone_can_be_judged(present: Collection[Modality]) -> None:
    network = linear()
    subject = make_subject(network, present)
    badge = judge(
        network,
        subject,
        blank(network, subject),
        pick(network),
        explain(network, subject),
        QUICK,
    )
    assert badge.passed


def test_occlusion_is_held_against_integrated_gradients() -> None:
    network = linear()
    subject = make_subject(network)
    found = check("agreement", network, subject, explain(network, subject, "occlusion"))
    assert "integrated_gradients" in found.message
    assert found.value == pytest.approx(1.0)


def test_the_badge_of_the_same_explanation_is_the_same() -> None:
    network = bent()
    subject = make_subject(network)
    true = explain(network, subject)
    once, again = (
        judge(network, subject, blank(network, subject), pick(network), true, QUICK)
        for _ in range(2)
    )
    assert once == again


def test_progress_counts_four_checks() -> None:
    network = linear()
    subject = make_subject(network, {Modality.NOTE})
    seen: list[tuple[int, int]] = []
    judge(
        network,
        subject,
        blank(network, subject),
        pick(network),
        explain(network, subject),
        QUICK,
        lambda done, wanted: seen.append((done, wanted)),
    )
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_stages_that_random_orders_do_not_share_are_refused() -> None:
    with pytest.raises(ValidationError, match="not a multiple"):
        BadgeSettings(stages=8, order_stages=3)


# Deletion and insertion.


def test_curves_by_hand() -> None:
    curves = Curves(deletion=np.array([6.0, 1.0, 0.0]), insertion=np.array([0.0, 5.0, 6.0]))
    # Trapezoids of width 1/2: insertion (2.5 + 5.5) / 2 = 4, deletion (3.5 + 0.5) / 2 = 2.
    assert curves.area == pytest.approx(2.0)
    assert curves.span == 6.0
    assert curves.every(2).area == 0.0  # the straight line from end to end, both ways


def additive(subject: Subject) -> tuple[SumNetwork, np.ndarray]:
    """A linear network, and how much each region of a study adds to its first logit."""
    network = linear()
    baseline = blank(network, subject)
    return network, list_totals(
        subject.regions,
        {
            m: _sum_embedding(
                m,
                network.weights(m, subject.inputs)[0]
                * (subject.inputs.values[m] - baseline.versions[0].values[m])[0]
                * {Modality.IMAGE: 2.0, Modality.NOTE: 3.0, Modality.VOICE: 0.5}[m],
            )
            for m in MODALITIES
        },
    )


def _sum_embedding(modality: Modality, values: np.ndarray) -> np.ndarray:
    return values.sum(axis=-1) if modality is Modality.NOTE else values


def test_taking_regions_away_takes_away_what_they_add() -> None:
    subject = make_subject(linear())
    network, adds = additive(subject)
    gone = np.random.default_rng(0).random((40, len(adds))) < 0.5
    whole = network.answer(subject.inputs)[0, 0]
    answers = answer_without(
        network,
        subject,
        blank(network, subject).versions[0],
        pick(network),
        MODALITIES,
        gone,
    )
    assert answers == pytest.approx(whole - gone @ adds, rel=1e-5, abs=1e-4)


def test_the_curves_of_an_order_are_sums_of_what_is_left() -> None:
    subject = make_subject(linear())
    network, adds = additive(subject)
    order = np.random.default_rng(1).permutation(len(adds))
    baseline = blank(network, subject).versions[0]
    (curves,) = trace_curves(network, subject, baseline, pick(network), MODALITIES, [order], 5)
    cuts = np.round(np.arange(6) / 5 * len(adds)).astype(int)
    whole = float(network.answer(subject.inputs)[0, 0])
    lost = np.array([adds[order[:cut]].sum() for cut in cuts])
    assert curves.deletion == pytest.approx(whole - lost, rel=1e-5, abs=1e-4)
    assert curves.insertion == pytest.approx(whole - adds.sum() + lost, rel=1e-5, abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_an_order_read_backwards_has_the_opposite_area(seed: int) -> None:
    subject = make_subject(linear(), {Modality.VOICE})
    network = bent((0.01, 0.01, 0.3))
    count = subject.regions.counts[Modality.VOICE]
    order = np.random.default_rng(seed).permutation(count)
    there, back = trace_curves(
        network,
        subject,
        blank(network, subject).versions[0],
        pick(network),
        (Modality.VOICE,),
        [order, order[::-1]],
        4,
    )
    assert there.area == pytest.approx(-back.area, abs=1e-9)


def test_few_versions_are_made_at_a_time() -> None:
    network = linear()
    subject = make_subject(network)
    count = sum(subject.regions.counts.values())
    network.asked.clear()
    baseline = blank(network, subject).versions[0]
    gone = np.zeros((100, count), bool)
    answer_without(network, subject, baseline, pick(network), MODALITIES, gone)
    assert max(len(asked) for asked in network.asked) <= 32
    assert sum(len(asked) for asked in network.asked) == 100


# Coarser regions.


def test_merging_by_hand() -> None:
    image = np.full((1, 4, 4), NO_REGION, np.int32)
    image[0, 1:3] = np.arange(8).reshape(2, 4)  # rows 0 and 3 are padding
    regions = Regions(
        {
            Modality.IMAGE: image,
            Modality.NOTE: np.array([NO_REGION, 0, 1, 1, 2, 3, NO_REGION], np.int32),
            Modality.VOICE: np.arange(16, dtype=np.int32).reshape(4, 4),
        },
        {Modality.IMAGE: 8, Modality.NOTE: 4, Modality.VOICE: 16},
    )
    merged = merge_regions(regions, MODALITIES, patches=2, parts=2)
    assert merged.labels[Modality.IMAGE][0].tolist() == [
        [-1, -1, -1, -1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [-1, -1, -1, -1],
    ]
    assert merged.labels[Modality.NOTE].tolist() == [-1, 0, 0, 0, 1, 1, -1]
    assert merged.labels[Modality.VOICE].tolist() == [[0, 0, 1, 1]] * 4
    assert dict(merged.counts) == {Modality.IMAGE: 4, Modality.NOTE: 2, Modality.VOICE: 2}
    note = merge_regions(regions, (Modality.NOTE,), patches=2, parts=2)
    assert note.counts == {Modality.IMAGE: 0, Modality.NOTE: 2, Modality.VOICE: 0}
    assert (note.labels[Modality.IMAGE] == NO_REGION).all()


@given(st.integers(1, 9), st.integers(2, 40))
def test_merging_keeps_every_total_and_numbers_without_gaps(patches: int, parts: int) -> None:
    subject = make_subject(linear())
    merged = merge_regions(subject.regions, MODALITIES, patches, parts)
    for modality in MODALITIES:
        fine, coarse = subject.regions.labels[modality], merged.labels[modality]
        assert ((fine == NO_REGION) == (coarse == NO_REGION)).all()
        assert set(np.unique(coarse)) - {NO_REGION} == set(range(merged.counts[modality]))
        for region in range(subject.regions.counts[modality]):
            assert len(np.unique(coarse[fine == region])) == 1
        values = np.cos(np.arange(fine.size)).reshape(fine.shape)
        assert merged.total(modality, values).sum() == pytest.approx(
            subject.regions.total(modality, values).sum()
        )


def test_noise_leaves_padding_and_special_pieces_alone() -> None:
    network = linear()
    subject = make_subject(network)
    network.asked.clear()
    judge(
        network,
        subject,
        blank(network, subject),
        pick(network),
        explain(network, subject, "gradients"),
        QUICK,
    )
    copies = [asked for asked in network.asked if len(asked) == QUICK.copies]
    assert copies
    noisy: Inputs = copies[0]
    for modality in MODALITIES:
        moved = (noisy.values[modality] != subject.inputs.values[modality]).any(axis=0)
        if modality is Modality.NOTE:
            moved = moved.any(axis=-1)
        assert (moved == (subject.regions.labels[modality] != NO_REGION)).mean() > 0.99
        assert not moved[subject.regions.labels[modality] == NO_REGION].any()
