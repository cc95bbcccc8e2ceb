import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from medfuse.synthetic.network import (
    Variable,
    cohort_auc,
    draw,
    joint_distribution,
    measure_auc,
    population_auc,
    tabulate_posterior,
)

DISEASE = (
    Variable("disease", (), (0.1,)),
    Variable("test", ("disease",), (0.2, 0.9)),
)


Plan = list[tuple[str, tuple[str, ...], tuple[float, ...]]]


@st.composite
def plans(draw_from: st.DrawFn) -> Plan:
    """Plan networks of two to six variables, each with up to two parents in any order."""
    plan: Plan = []
    for number in range(draw_from(st.integers(2, 6))):
        names = [name for name, _, _ in plan]
        parents = draw_from(st.permutations(names)) if names else []
        parents = parents[: draw_from(st.integers(0, 2))]
        n = 2 ** len(parents)
        chances = draw_from(st.lists(st.floats(0.02, 0.98), min_size=n, max_size=n))
        plan.append((f"v{number}", tuple(parents), tuple(chances)))
    return plan


def build(plan: Plan) -> tuple[Variable, ...]:
    return tuple(Variable(*parts) for parts in plan)


def enumerate_by_hand(variables: Sequence[Variable], **known: bool) -> float:
    """Sum P over all answers that agree with what is known, one product at a time."""
    total = 0.0
    for answers in itertools.product((False, True), repeat=len(variables)):
        state = dict(zip((v.name for v in variables), answers, strict=True))
        if any(state[name] is not answer for name, answer in known.items()):
            continue
        product = 1.0
        for variable in variables:
            row = int("0" + "".join(str(int(state[p])) for p in variable.parents), 2)
            yes = variable.chances[row]
            product *= yes if state[variable.name] else 1 - yes
        total += product
    return total


def test_a_positive_test_of_a_rare_disease_is_one_third_right() -> None:
    joint = joint_distribution(DISEASE)
    table = tabulate_posterior(["disease", "test"], joint, ["disease"], ["test"])
    # 0.1 x 0.9 = 0.09 against 0.9 x 0.2 = 0.18; and 0.01 against 0.72.
    assert table.look_up({"test": True}) == pytest.approx([1 / 3])
    assert table.look_up({"test": False}) == pytest.approx([1 / 73])
    assert table.mass == pytest.approx([0.73, 0.27])


def test_the_area_of_one_test_is_the_mean_of_its_sensitivity_and_specificity() -> None:
    joint = joint_distribution(DISEASE)
    table = tabulate_posterior(["disease", "test"], joint, ["disease"], ["test"])
    assert population_auc([table]) == pytest.approx([(0.9 + 0.8) / 2])


def test_no_evidence_leaves_the_prior_and_an_area_of_one_half() -> None:
    table = tabulate_posterior(["disease", "test"], joint_distribution(DISEASE), ["disease"], [])
    assert table.look_up({}) == pytest.approx([0.1])
    assert population_auc([table]) == [0.5]


def test_an_exclusive_or_shows_in_both_of_its_parts_and_in_neither_alone() -> None:
    coins = (
        Variable("a", (), (0.5,)),
        Variable("b", (), (0.5,)),
        Variable("differ", ("a", "b"), (0.0, 1.0, 1.0, 0.0)),
    )
    joint = joint_distribution(coins)
    names = ["a", "b", "differ"]
    areas = [
        population_auc([tabulate_posterior(names, joint, ["differ"], known)])[0]
        for known in (["a"], ["b"], ["a", "b"])
    ]
    assert areas == [0.5, 0.5, 1.0]


def test_an_impossible_pattern_has_no_posterior_and_no_weight() -> None:
    certain = (Variable("y", (), (0.3,)), Variable("s", ("y",), (0.0, 0.0)))
    table = tabulate_posterior(["y", "s"], joint_distribution(certain), ["y"], ["s"])
    assert math.isnan(table.look_up({"s": True})[0])
    assert population_auc([table]) == [0.5]


@given(plans())
@settings(max_examples=40, deadline=None)
def test_posterior_agrees_with_a_sum_over_all_states(plan: Plan) -> None:
    variables = build(plan)
    names = [variable.name for variable in variables]
    target, evidence = names[0], names[1:3]
    table = tabulate_posterior(names, joint_distribution(variables), [target], evidence)
    for answers in itertools.product((False, True), repeat=len(evidence)):
        known = dict(zip(evidence, answers, strict=True))
        yes = enumerate_by_hand(variables, **{target: True}, **known)
        assert table.look_up(known)[0] == pytest.approx(yes / enumerate_by_hand(variables, **known))


@given(plans())
@settings(max_examples=60, deadline=None)
def test_probabilities_are_lawful(plan: Plan) -> None:
    variables = build(plan)
    names = [variable.name for variable in variables]
    joint = joint_distribution(variables)
    assert joint.sum() == pytest.approx(1)
    prior = enumerate_by_hand(variables, **{names[0]: True})
    for known in range(len(names)):
        table = tabulate_posterior(names, joint, names[:1], names[1 : 1 + known])
        assert ((table.posterior >= 0) & (table.posterior <= 1 + 1e-12)).all()
        assert (table.mass * table.posterior[0]).sum() == pytest.approx(prior)


@given(plans())
@settings(max_examples=60, deadline=None)
def test_more_evidence_never_lowers_the_bayes_area(plan: Plan) -> None:
    variables = build(plan)
    names = [variable.name for variable in variables]
    joint = joint_distribution(variables)
    areas = [
        population_auc([tabulate_posterior(names, joint, names[:1], names[1 : 1 + known])])[0]
        for known in range(len(names))
    ]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(areas))


def test_draws_follow_the_joint_distribution() -> None:
    variables = (*DISEASE, Variable("third", ("test", "disease"), (0.1, 0.3, 0.5, 0.95)))
    rng = np.random.default_rng(0)
    n = 20_000
    counts = np.zeros((2, 2, 2))
    for _ in range(n):
        drawn = draw(variables, rng)
        counts[int(drawn["disease"]), int(drawn["test"]), int(drawn["third"])] += 1
    joint = joint_distribution(variables)
    # Five standard errors of a count in each of the eight cells.
    assert (np.abs(counts / n - joint) < 5 * np.sqrt(joint * (1 - joint) / n)).all()


def test_a_variable_added_at_the_end_changes_no_other_draw() -> None:
    longer = (*DISEASE, Variable("mark", ("disease",), (0.2, 0.8)))
    for seed in range(50):
        short = draw(DISEASE, np.random.default_rng(seed))
        assert draw(longer, np.random.default_rng(seed)) | short == draw(
            longer, np.random.default_rng(seed)
        )


def test_area_agrees_with_the_rank_sum_test_when_there_are_ties() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((400, 1)) < 0.3
    scores = rng.integers(0, 6, (400, 1)) + labels * rng.integers(0, 2, (400, 1)) * 1.0
    yes, no = scores[labels], scores[~labels]
    expected = mannwhitneyu(yes, no).statistic / (len(yes) * len(no))
    assert cohort_auc(scores, labels) == pytest.approx([expected])


def test_rounding_differences_are_ties() -> None:
    scores = np.array([0.5, 0.5 + 1e-13])
    assert measure_auc(scores, np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 0.5


def test_one_label_alone_has_no_area() -> None:
    assert math.isnan(cohort_auc(np.array([[0.2], [0.9]]), np.array([[True], [True]]))[0])
