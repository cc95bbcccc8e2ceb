"""Shares and interactions: games by hand, Shapley's axioms, and another way to the same numbers."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.network import Inputs
from medfuse.attribution.shapley import (
    Outputs,
    shapley_interactions,
    shapley_values,
    shares,
)
from medfuse.attribution.subject import score
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name
from tests.attribution_network import TOKENIZER, SumNetwork, bent, linear, make_subject, pick

IMAGE, NOTE, VOICE = MODALITIES
NONE: frozenset[Modality] = frozenset()
ALL = (NONE, *SUBSETS)

players = st.integers(1, 3).map(lambda n: MODALITIES[:n])


def games(of: tuple[Modality, ...]) -> st.SearchStrategy[dict[frozenset[Modality], float]]:
    subsets = [s for s in ALL if s <= set(of)]
    numbers = st.floats(-10, 10)
    return st.fixed_dictionaries(dict.fromkeys(subsets, numbers))


def of(game: Outputs) -> tuple[Modality, ...]:
    return tuple(m for m in MODALITIES if frozenset({m}) in game)


any_game = players.flatmap(games)


def test_exclusive_or_is_shared_evenly_and_is_all_interaction() -> None:
    # 1 when just one of the two is there: each adds 1 to none, and takes 1 from the other.
    game = {NONE: 0.0, frozenset({IMAGE}): 1.0, frozenset({NOTE}): 1.0}
    game[frozenset({IMAGE, NOTE})] = 0.0
    assert shapley_values(game, (IMAGE, NOTE)) == {IMAGE: 0, NOTE: 0}
    assert shapley_interactions(game, (IMAGE, NOTE)) == {frozenset({IMAGE, NOTE}): -2}


def test_and_is_halved_and_its_pair_says_more_than_each() -> None:
    game = {subset: float({IMAGE, NOTE} <= subset) for subset in ALL}
    assert shapley_values(game, MODALITIES) == pytest.approx({IMAGE: 0.5, NOTE: 0.5, VOICE: 0})
    assert shapley_interactions(game, MODALITIES) == pytest.approx(
        {frozenset({IMAGE, NOTE}): 1, frozenset({IMAGE, VOICE}): 0, frozenset({NOTE, VOICE}): 0}
    )


def test_three_that_must_come_together_share_in_thirds_and_pair_in_halves() -> None:
    game = {subset: 6.0 * (len(subset) == 3) for subset in ALL}
    assert shapley_values(game, MODALITIES) == pytest.approx(dict.fromkeys(MODALITIES, 2))
    # With and without the third: (6 + 0) / 2.
    pairs = [frozenset(p) for p in combinations(MODALITIES, 2)]
    assert shapley_interactions(game, MODALITIES) == pytest.approx(dict.fromkeys(pairs, 3))


def test_evidence_that_either_gives_alone_has_a_negative_interaction() -> None:
    game = {subset: float(bool(subset & {IMAGE, VOICE})) for subset in ALL}
    found = shapley_interactions(game, MODALITIES)
    assert found[frozenset({IMAGE, VOICE})] == pytest.approx(-1)


@given(any_game)
def test_shares_add_up_to_the_output_of_all_less_that_of_none(game: Outputs) -> None:
    total = sum(shapley_values(game, of(game)).values())
    assert total == pytest.approx(game[frozenset(of(game))] - game[NONE], abs=1e-9)


@given(any_game)
def test_two_that_add_the_same_to_everything_have_the_same_share(game: Outputs) -> None:
    if len(of(game)) < 2:
        return
    swap = {IMAGE: NOTE, NOTE: IMAGE, VOICE: VOICE}
    even = {s: (game[s] + game[frozenset(swap[m] for m in s)]) / 2 for s in game}
    found = shapley_values(even, of(game))
    assert found[IMAGE] == pytest.approx(found[NOTE], abs=1e-9)


@given(any_game, st.floats(-10, 10))
def test_one_that_adds_the_same_to_everything_has_that_as_share_and_interacts_with_none(
    game: Outputs, alone: float
) -> None:
    dummy = of(game)[-1]
    plain = {s: game[s - {dummy}] + alone * (dummy in s) for s in game}
    assert shapley_values(plain, of(game))[dummy] == pytest.approx(alone, abs=1e-9)
    for pair, value in shapley_interactions(plain, of(game)).items():
        if dummy in pair:
            assert value == pytest.approx(0, abs=1e-9)


@given(st.tuples(games(MODALITIES), games(MODALITIES)), st.floats(-3, 3))
def test_a_sum_of_games_has_the_sum_of_their_shares_and_interactions(
    two: tuple[Outputs, Outputs], factor: float
) -> None:
    first, second = two
    both = {s: first[s] + factor * second[s] for s in ALL}
    values = [shapley_values(game, MODALITIES) for game in (both, first, second)]
    for m in MODALITIES:
        assert values[0][m] == pytest.approx(values[1][m] + factor * values[2][m], abs=1e-8)
    pairs = [shapley_interactions(game, MODALITIES) for game in (both, first, second)]
    for p in pairs[0]:
        assert pairs[0][p] == pytest.approx(pairs[1][p] + factor * pairs[2][p], abs=1e-8)


def dividends(game: Outputs) -> dict[frozenset[Modality], float]:
    """What each coalition adds beyond all of its smaller ones (Harsanyi 1963)."""
    return {
        s: sum((-1) ** (len(s) - len(t)) * value for t, value in game.items() if t <= s)
        for s in game
    }


@given(any_game)
def test_shares_are_the_mean_over_orders_and_interactions_come_from_dividends(
    game: Outputs,
) -> None:
    orders = list(permutations(of(game)))
    found = shapley_values(game, of(game))
    for player in of(game):
        added = []
        for order in orders:
            before = frozenset(order[: order.index(player)])
            added.append(game[before | {player}] - game[before])
        assert found[player] == pytest.approx(np.mean(added), abs=1e-9)
    # Grabisch & Roubens 1999: a coalition's dividend goes to a pair in it by 1 / (size - 1).
    parts = dividends(game)
    pairs = shapley_interactions(game, of(game))
    assert set(pairs) == {frozenset(p) for p in combinations(of(game), 2)}
    for pair, value in pairs.items():
        expected = sum(part / (len(s) - 1) for s, part in parts.items() if pair <= s)
        assert value == pytest.approx(expected, abs=1e-8)


def blank(network: SumNetwork, subset: frozenset[Modality]) -> Baseline:
    return make_baseline("blank", make_subject(network, subset), network, TOKENIZER, None, ())


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_what_is_absent_is_hidden_by_its_mask_and_every_subset_is_asked_in_one_call(
    subset: frozenset[Modality],
) -> None:
    network = bent()
    subject = make_subject(network, subset)
    sums = network.sums(subject.inputs)[0]
    found = shares(network, subject, pick(network), None)
    assert found.baseline == "absent"
    assert found.target == pick(network).name
    (asked,) = network.asked
    assert len(asked) == 2 ** len(subset)
    for modality in MODALITIES:  # tokens stay in their places, hidden or not
        assert asked.values[modality].shape[1:] == subject.inputs.values[modality].shape[1:]
    assert set(found.outputs) == {s for s in ALL if s <= subset}
    weights = np.array([0.05, 0.02, 0.1])
    for s, output in found.outputs.items():
        here = np.array([m in s for m in MODALITIES])
        assert output == pytest.approx(np.tanh(sums @ (weights * here)), abs=1e-9)
    assert set(found.shares) == subset
    assert sum(found.shares.values()) == pytest.approx(
        found.outputs[subset] - found.outputs[NONE], abs=1e-9
    )
    assert len(found.interactions) == {1: 0, 2: 1, 3: 3}[len(subset)]


def test_against_a_baseline_its_content_stands_in_and_masks_stay() -> None:
    network = linear()
    subject = make_subject(network)
    baseline = blank(network, frozenset(MODALITIES))
    found = shares(network, subject, pick(network), baseline)
    assert found.baseline == "blank"
    here = network.sums(subject.inputs)[0]
    gone = network.sums(baseline.versions[0])[0]
    for weight, end, start, modality in zip((2, 3, 0.5), here, gone, MODALITIES, strict=True):
        assert found.shares[modality] == pytest.approx(weight * (end - start), rel=1e-6)
    assert list(found.interactions.values()) == pytest.approx([0, 0, 0], abs=1e-9)
    for inputs in network.asked:
        assert all(inputs.masks[m].all() for m in MODALITIES)
    start = baseline.versions[0]
    assert found.outputs[NONE] == pytest.approx(score(network, start, pick(network))[0])


@examples(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_shares_against_several_versions_are_their_mean(seed: int) -> None:
    network = bent()
    subject = make_subject(network)
    rng = np.random.default_rng(seed)
    first, second = (
        Inputs(
            {m: rng.random(v.shape, np.float32) for m, v in subject.inputs.values.items()},
            subject.inputs.masks,
        )
        for _ in range(2)
    )
    both, one, two = (
        shares(network, subject, pick(network), Baseline("marginal", versions))
        for versions in ((first, second), (first,), (second,))
    )
    for modality in MODALITIES:
        mean = (one.shares[modality] + two.shares[modality]) / 2
        assert both.shares[modality] == pytest.approx(mean, abs=1e-9)
    for pair, value in both.interactions.items():
        mean = (one.interactions[pair] + two.interactions[pair]) / 2
        assert value == pytest.approx(mean, abs=1e-9)


def test_a_product_of_two_modalities_is_their_interaction_and_no_other_s() -> None:
    network = bent(pair=0.01)
    subject = make_subject(network)
    found = shares(network, subject, pick(network, 1), None)
    image, note, _ = network.sums(subject.inputs)[0]
    product = 0.01 * image * note
    assert found.interactions[frozenset({IMAGE, NOTE})] == pytest.approx(product)
    assert found.shares == pytest.approx({IMAGE: product / 2, NOTE: product / 2, VOICE: 0})
