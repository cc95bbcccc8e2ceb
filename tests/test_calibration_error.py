"""The calibration error without what chance adds: known answers, laws, and how often it holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from medfuse.config import Task, TaskKind
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.calibration_error import error_without_chance
from medfuse.trust.figures import DEBIASED, ReportSettings
from medfuse.trust.measure import measure_subsets
from medfuse.trust.metrics import calibration_error, calibration_gaps
from tests.test_trust import make_answers

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))


def resample(seen: list[float], noise: np.ndarray) -> np.ndarray:
    return np.concatenate([np.array([seen]), np.array(seen) + noise])


def ends(figure: Figure) -> tuple[float, float, float]:
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.value, figure.high


def test_of_one_large_gap_it_is_the_usual_interval_about_what_was_seen() -> None:
    # Far from zero nothing is added by chance: gap + noise shows 0.5 where gap = 0.5 - noise.
    noise = np.linspace(-0.04, 0.04, 401)[:, None]
    assert ends(error_without_chance(resample([-0.5], noise))) == pytest.approx(
        (0.5 - 0.038, 0.5, 0.5 + 0.038), abs=3e-4
    )


def test_an_error_as_small_as_chance_shows_may_be_none() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (2000, 10))
    by_chance = np.abs(noise).sum(axis=1)
    usual, small = np.quantile(by_chance, [0.49, 0.02])
    low, value, high = ends(error_without_chance(resample([usual / 10] * 10, noise)))
    assert (low, value) == (0.0, 0.0)
    # With other noise, an error of the upper end, alike in all bins, shows so little 1 time in 40.
    fresh = np.random.default_rng(1).normal(0, 0.01, (20_000, 10))
    shown = np.abs(high / 10 + fresh).sum(axis=1)
    assert (shown < usual).mean() == pytest.approx(0.025, abs=0.01)
    # Perfect probabilities hardly ever show so little, so no error is left to be had.
    assert ends(error_without_chance(resample([small / 10] * 10, noise))) == (0.0, 0.0, 0.0)


def test_what_has_no_noise_is_what_was_seen() -> None:
    assert ends(error_without_chance(np.array([[0.1, -0.2, 0.0]] * 50))) == pytest.approx([0.3] * 3)


def test_without_data_or_resamples_there_is_no_figure() -> None:
    assert error_without_chance(np.full((5, 10), np.nan)) == Figure(value=None)
    assert error_without_chance(np.array([[0.1, 0.2]])) == Figure(value=None)


@settings(deadline=None, max_examples=25)
@given(
    arrays(np.float64, 6, elements=st.floats(-0.2, 0.2)),
    st.integers(0, 1000),
    st.permutations(range(6)),
)
def test_the_estimate_lies_in_its_interval_whatever_the_bins_order_signs_and_unit(
    seen: np.ndarray, seed: int, order: list[int]
) -> None:
    gaps = resample(seen.tolist(), np.random.default_rng(seed).normal(0, 0.01, (200, 6)))
    low, value, high = found = ends(error_without_chance(gaps))
    assert 0 <= low <= value <= high
    # Sums in another order differ in the last digits, which may decide one resample.
    assert ends(error_without_chance(gaps[:, order])) == pytest.approx(found, abs=2e-3)
    assert ends(error_without_chance(-gaps)) == found
    assert ends(error_without_chance(8 * gaps)) == pytest.approx([8 * x for x in found], rel=1e-6)


def draw(scale: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and what truly happens of each: perfect at a scale of 1."""
    true = rng.normal(-0.7, 1.5, n)
    return expit(true * scale), expit(true)


@pytest.mark.parametrize("scale", [1.0, 1.15, 1.5])
def test_the_interval_holds_the_true_error_as_often_as_it_says(scale: float) -> None:
    rng = np.random.default_rng(0)
    chances, true = draw(scale, 2_000_000, rng)
    bins = np.minimum((chances * 10).astype(int), 9)
    truth = np.abs(np.bincount(bins, chances - true) / len(chances)).sum()
    truth = 0.0 if scale == 1 else truth
    held, middles, seen, percentiles = [], [], [], []
    for _ in range(100):
        chances, true = draw(scale, 1000, rng)
        happened = rng.random(1000) < true
        weights = np.concatenate(
            [np.ones((1, 1000)), rng.multinomial(1000, np.full(1000, 1e-3), 300)]
        )
        low, value, high = ends(error_without_chance(calibration_gaps(chances, happened, weights)))
        held.append(low <= truth <= high)
        middles.append(value)
        errors = calibration_error(chances, happened, weights)
        seen.append(errors[0])
        plain = summarise(errors)
        percentiles.append(plain.low is not None and plain.low <= truth)
    # 95 in 100, less three standard errors.
    assert np.mean(held) >= 0.88
    # What is seen is far above the truth; the estimate is near it.
    assert abs(np.mean(middles) - truth) < 0.55 * abs(np.mean(seen) - truth) + 0.002
    if scale == 1:
        assert not any(percentiles)


def test_films_of_one_patient_do_not_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(3)
    chances, true = draw(1.3, 300, rng)
    happened = rng.random(300) < true
    patients = [str(i) for i in range(300)]
    once = calibration_gaps(chances, happened, patient_weights(patients, 500, 0))
    again = np.tile(np.arange(300), 5)
    five = calibration_gaps(chances[again], happened[again], patient_weights(patients * 5, 500, 0))
    assert ends(error_without_chance(five)) == pytest.approx(ends(error_without_chance(once)))


def test_a_report_gives_the_error_that_was_seen_and_the_one_without_chance() -> None:
    rng = np.random.default_rng(4)
    n = 3000
    logits = rng.normal(0, 1.5, (n, 2))
    labels = (rng.random((n, 2)) < expit(logits)).astype(float)
    labels[:500, 1] = np.nan
    given: Answers = make_answers(labels, {AS_GIVEN: logits})
    report = measure_subsets([FINDINGS], given, ReportSettings(resamples=400), {})[AS_GIVEN]
    for target in ("findings.nodule", "findings.effusion", "findings"):
        own = report.targets[target]
        seen, debiased = own["ece"], own[DEBIASED]
        assert seen.value is not None
        assert (seen.low, seen.high) == (None, None)
        low, value, _ = ends(debiased)
        # The labels were drawn from these probabilities.
        assert low == 0.0
        assert value < seen.value
    # Over two findings, noise is averaged as well.
    whole, parts = (
        ends(report.targets["findings"][DEBIASED])[2],
        [ends(report.targets[t][DEBIASED])[2] for t in FINDINGS.targets],
    )
    assert whole < max(parts)
    sure = make_answers(labels, {AS_GIVEN: 4 * logits})
    far = measure_subsets([FINDINGS], sure, ReportSettings(resamples=100), {})[AS_GIVEN].targets
    parts = [ends(far[t][DEBIASED])[1] for t in FINDINGS.targets]
    assert ends(far["findings"][DEBIASED])[1] == pytest.approx(np.mean(parts), rel=0.05)
    none = measure_subsets([FINDINGS], given, ReportSettings(resamples=0), {})[AS_GIVEN]
    assert none.targets["findings"][DEBIASED] == Figure(value=None)
