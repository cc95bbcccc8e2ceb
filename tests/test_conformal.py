"""Conformal thresholds, by known answers and by the law that makes them valid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfuse.trust.conformal import least_probability, widest_error

VALUES = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=60, unique=True).map(
    np.array
)
COVERAGES = st.sampled_from([0.6, 0.75, 0.8, 0.9, 0.95])


def test_the_kth_smallest_probability_is_the_least_and_few_studies_leave_nothing_out() -> None:
    nine = np.array([0.9, 0.3, 0.5, 0.7, 0.2, 0.8, 0.6, 0.4, 0.1])
    assert least_probability(nine, 0.9) == 0.1
    assert least_probability(nine, 0.8) == 0.2
    assert least_probability(nine[:8], 0.9) == 0.0
    assert least_probability(np.zeros(0), 0.9) == 0.0


def test_the_kth_largest_error_is_the_widest_whatever_its_sign() -> None:
    errors = np.array([1.0, -9.0, 2.0, -3.0, 4.0, -5.0, 6.0, 7.0, -8.0])
    assert widest_error(errors, 0.9) == 9.0
    assert widest_error(errors, 0.8) == 8.0
    assert widest_error(errors[:8], 0.9) is None


@given(VALUES, COVERAGES)
def test_of_n_plus_1_studies_at_most_the_allowed_share_fall_out_when_held_to_the_others(
    values: np.ndarray, coverage: float
) -> None:
    # Exchangeable studies are equally likely to be the new one: that share is the chance of a miss.
    others = [np.delete(values, i) for i in range(len(values))]
    missed = sum(v < least_probability(o, coverage) for v, o in zip(values, others, strict=True))
    assert missed <= len(values) * (1 - coverage) + 1e-9
    wide = [widest_error(o, coverage) for o in others]
    out = sum(w is not None and abs(v) > w for v, w in zip(values, wide, strict=True))
    assert out <= len(values) * (1 - coverage) + 1e-9


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_no_more_is_kept_than_the_promise_needs(coverage: float) -> None:
    values = np.random.default_rng(0).random(4000)
    own = least_probability(values, coverage)
    assert (values >= own).mean() == pytest.approx(coverage, abs=0.001)
