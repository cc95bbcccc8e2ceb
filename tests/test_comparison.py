import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medfuse.trust.comparison import corrected_t_test, holm, rank


def test_the_corrected_t_test_is_as_worked_out_by_hand() -> None:
    # Mean 0.2, variance 0.01: t = 0.2 / sqrt((1/3 + 1/2) * 0.01), so t squared is 4.8; with two
    # degrees of freedom p = 1 - t / sqrt(t squared + 2).
    p = corrected_t_test(np.array([0.1, 0.2, 0.3]), 0.5)
    assert p == pytest.approx(1 - math.sqrt(4.8 / 6.8), rel=1e-12)
    assert corrected_t_test(np.array([-0.1, -0.2, -0.3]), 0.5) == pytest.approx(p)


def test_without_overlap_it_is_the_plain_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.3, 15)
    expected = stats.ttest_1samp(differences, 0.0).pvalue
    assert corrected_t_test(differences, 0.0) == pytest.approx(expected)


def test_folds_that_define_no_difference_are_left_out() -> None:
    with_gap = np.array([0.1, np.nan, 0.2, 0.3])
    assert corrected_t_test(with_gap, 0.5) == corrected_t_test(with_gap[[0, 2, 3]], 0.5)
    assert math.isnan(corrected_t_test(np.array([0.1, np.nan]), 0.5))
    assert corrected_t_test(np.zeros(5), 0.5) == 1.0


def test_overlapping_folds_of_equal_models_are_called_different_as_rarely_as_it_says() -> None:
    # Ten folds whose differences share half of their variance, as overlapping training sets do:
    # the variance of their mean is (1/n + rho / (1 - rho)) times what is seen (Nadeau and Bengio).
    rng = np.random.default_rng(1)
    folds = rng.normal(size=(4_000, 10)) + rng.normal(size=(4_000, 1))
    corrected = np.mean([corrected_t_test(each, 1.0) < 0.05 for each in folds])
    plain = np.mean([corrected_t_test(each, 0.0) < 0.05 for each in folds])
    assert corrected == pytest.approx(0.05, abs=0.012)
    assert plain > 0.4


def test_holm_is_as_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan, 0.5]) == pytest.approx(
        [0.04, 0.09, 0.09, math.nan, 0.5], nan_ok=True
    )
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(values: list[float]) -> None:
    corrected = holm(values)
    assert all(c >= p for c, p in zip(corrected, values, strict=True))
    assert max(corrected) <= 1
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_the_highest_is_first_and_ties_share_their_ranks() -> None:
    values = np.array([[0.7, 0.9, 0.8], [0.8, 0.8, 0.1], [0.5, np.nan, 0.4]])
    np.testing.assert_array_equal(rank(values), [[3, 1, 2], [1.5, 1.5, 3], [1, 3, 2]])
