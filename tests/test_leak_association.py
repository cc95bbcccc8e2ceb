"""medfuse.leaks.association: exact tests, figures out of fold, balanced levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from sklearn.metrics import roc_auc_score

from medfuse.leaks.association import (
    Feature,
    Target,
    balance,
    cut_numbers,
    cut_values,
    find_associations,
    flag,
    measure_feature,
    score_levels,
)

EVERY = np.ones(40, dtype=bool)


def of_labels(labels: object) -> Target:
    return Target("covid.covid19", np.asarray(labels, dtype=np.float64))


def alone(n: int) -> np.ndarray:
    """A patient per study."""
    return np.arange(n)


def test_one_flag_of_one_label_has_the_p_of_fishers_exact_test() -> None:
    labels = np.array([1] * 12 + [0] * 28)
    has = np.array([True] * 10 + [False] * 2 + [True] * 3 + [False] * 25)
    (found,) = find_associations([flag("x", has, EVERY)], [of_labels(labels)], alone(40), 0.05)
    smaller = min(
        fisher_exact([[10, 3], [2, 25]], alternative=side).pvalue for side in ("less", "greater")
    )
    assert found.p == pytest.approx(2 * smaller)


def test_studies_of_one_patient_that_agree_count_once() -> None:
    # Four patients with ten studies each: enough for 40 patients, and nothing for four.
    labels = np.repeat([1, 1, 0, 0], 10)
    feature = flag("site", labels == 1, EVERY)
    assert find_associations([feature], [of_labels(labels)], alone(40), 0.01)
    assert not find_associations([feature], [of_labels(labels)], np.repeat(range(4), 10), 0.01)


def test_tests_that_could_find_nothing_cost_nothing() -> None:
    # One in forty is positive: no single flag can have a p below 2 / 40.
    labels = np.array([1] * 4 + [0] * 36)
    pure = flag("pure", labels == 1, EVERY)
    single = [flag(f"row {i}", np.arange(40) == i, EVERY) for i in range(40)]
    (one,) = find_associations([pure], [of_labels(labels)], alone(40), 0.001)
    (among,) = find_associations([pure, *single], [of_labels(labels)], alone(40), 0.001)
    assert among.p == one.p
    # Those that could, do: 91390 tables of four among forty.
    assert one.p == pytest.approx(2 / 91_390)


def test_ten_patients_find_nothing_at_a_strict_level() -> None:
    labels = np.array([1] * 5 + [0] * 5)
    feature = flag("x", labels == 1, np.ones(10, dtype=bool))
    assert not find_associations([feature], [of_labels(labels)], alone(10), 0.001)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_noise_is_found_no_more_often_than_it_may_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alarms = 0
    for _ in range(60):
        labels = (rng.random(80) < 0.4).astype(float)
        patients = np.sort(rng.integers(0, 50, 80))
        numbers = [cut_numbers(str(k), rng.standard_normal(80)) for k in range(10)]
        values = [cut_values(str(k), list(map(str, rng.integers(0, 4, 80)))) for k in range(10)]
        made = [f for f in (*numbers, *values) if f is not None]
        alarms += bool(find_associations(made, [of_labels(labels)], patients, 0.05))
    assert alarms <= 10  # 3 are allowed on average; more than 10 have a chance of 3e-4


def test_a_number_tells_from_a_cut_on_although_no_level_does_alone() -> None:
    values = np.arange(160, dtype=np.float64)
    rng = np.random.default_rng(0)
    labels = (rng.random(160) < np.where(values < 80, 0.2, 0.8)).astype(float)
    feature = cut_numbers("date", values)
    assert feature is not None
    (found,) = find_associations([feature], [of_labels(labels)], alone(160), 1e-6)
    assert found.level >= len(feature.names)


def test_few_numbers_are_levels_and_many_are_cut_evenly() -> None:
    few = cut_numbers("rate", np.array([4000.0, 44100.0, np.nan, 4000.0]))
    assert few is not None
    assert few.levels.tolist() == [0, 1, -1, 0]
    assert few.names == ("up to 4000", "up to 4.41e+04")
    many = cut_numbers("day", np.arange(800.0))
    assert many is not None
    assert np.bincount(many.levels).tolist() == [100] * 8
    assert cut_numbers("same", np.ones(5)) is None


def test_rare_values_are_one_level() -> None:
    feature = cut_values("device", ["a", "a", "b", "b", "b", "c", "d", None])
    assert feature is not None
    assert feature.names == ("b", "a", "another value")
    assert feature.levels.tolist() == [1, 1, 0, 0, 0, 2, 2, -1]


def test_scores_come_from_other_patients() -> None:
    # A level of one patient's own tells nothing, and a shared one tells all.
    own = Feature("own", np.arange(40), tuple(map(str, range(40))))
    labels = np.array([1.0, 0.0] * 20)
    assert score_levels(own.levels, labels, alone(40), 0) == pytest.approx(np.zeros(40))
    shared = flag("shared", labels == 1, EVERY)
    scores = score_levels(shared.levels, labels, alone(40), 0)
    assert roc_auc_score(labels, scores) == 1.0
    figure = measure_feature(shared, of_labels(labels), alone(40), 50, 0)
    assert (figure.value, figure.low, figure.high) == (1.0, 1.0, 1.0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=4, max_size=60),
    st.integers(0, 5),
)
def test_balanced_levels_have_the_label_alike(studies: list[tuple[int, bool]], seed: int) -> None:
    levels = np.array([level for level, _ in studies])
    labels = np.array([float(label) for _, label in studies])
    dropped = balance(levels, labels, seed)
    kept = np.setdiff1d(np.arange(len(studies)), dropped)
    shares = []
    for level in np.unique(levels[kept]):
        own = labels[kept][levels[kept] == level]
        assert 0 < own.sum() < len(own)
        # Whole studies can miss the common odds by less than one.
        shares.append((own.sum(), len(own) - own.sum()))
    for yes, no in shares:
        for other_yes, other_no in shares:
            odds = other_yes / other_no
            assert abs(yes - odds * no) <= 1 + odds


def test_balance_keeps_what_it_can() -> None:
    levels = np.array([0] * 20 + [1] * 20 + [2] * 10)
    labels = np.array([1.0] * 15 + [0.0] * 5 + [1.0] * 5 + [0.0] * 15 + [1.0] * 10)
    dropped = balance(levels, labels, 0)
    assert set(range(40, 50)) <= set(dropped.tolist())  # a level of one label says it all
    kept = np.setdiff1d(np.arange(50), dropped)
    assert len(kept) >= 20
