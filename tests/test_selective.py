"""The threshold from which an answer is sure, by known answers and by how often it breaks."""

import numpy as np
import pytest

from medfuse.trust.selective import STEPS, sure_from, upper_bound


def test_the_bound_is_clopper_and_pearsons() -> None:
    # No error in n: the bound u solves (1 - u)^n = 1 - confidence.
    assert upper_bound(0, 29, 0.95) == pytest.approx(1 - 0.05 ** (1 / 29))
    # Table of Clopper & Pearson: 3 of 20, one-sided 97.5 %.
    assert upper_bound(3, 20, 0.975) == pytest.approx(0.3789, abs=1e-4)
    assert upper_bound(5, 5, 0.95) == 1.0


def test_faultless_answers_are_all_sure_once_there_are_enough() -> None:
    level = 1 - 0.05 / STEPS
    needed = int(np.ceil(np.log(1 - level) / np.log(0.9)))
    chances = np.linspace(0.5, 1, needed)
    assert sure_from(chances, np.ones(needed, bool), 0.1, 0.95) == 0.5
    assert sure_from(chances[1:], np.ones(needed - 1, bool), 0.1, 0.95) is None
    assert sure_from(np.zeros(0), np.zeros(0, bool), 0.1, 0.95) is None


def test_only_the_answers_that_keep_the_risk_are_sure() -> None:
    chances = np.concatenate([np.linspace(0.8, 1, 200), np.linspace(0.5, 0.79, 200)])
    right = np.concatenate([np.ones(200, bool), np.arange(200) % 2 == 0])
    chosen = sure_from(chances, right, 0.1, 0.95)
    assert chosen is not None
    assert 0.75 < chosen <= 0.8


def test_equally_sure_answers_are_answered_together() -> None:
    # Half of the ties are wrong; a threshold among them would hide that.
    chances = np.full(400, 0.9)
    right = np.arange(400) < 200
    assert sure_from(chances, right, 0.1, 0.95) is None


def test_the_risk_is_broken_no_more_often_than_confidence_allows() -> None:
    rng = np.random.default_rng(0)
    grid = np.linspace(0.5, 1, 20_001)
    broken = 0
    for _ in range(400):
        chances = rng.uniform(0.5, 1, 300)
        right = rng.random(300) < chances  # calibrated: wrong with chance 1 - p
        chosen = sure_from(chances, right, 0.1, 0.9)
        broken += chosen is not None and (1 - grid[grid >= chosen]).mean() > 0.1
    assert broken <= 0.1 * 400
