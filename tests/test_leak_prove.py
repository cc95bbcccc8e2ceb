"""The proof of the check's own power: what is planted, what is counted."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from medfuse.leaks.check import check_table
from medfuse.leaks.plant import PLANTS, PREPARE, Drawn, Plan, draw_cohort, make_pool_study
from medfuse.leaks.prove import (
    Outcome,
    ProofOptions,
    _count,
    _count_copies,
    format_proof,
    prove,
    share,
)
from medfuse.leaks.settings import CheckSettings
from medfuse.synthetic.options import CohortOptions

OPTIONS = CohortOptions(seed=77, studies=110, size=192)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    pool = [make_pool_study(OPTIONS, i) for i in range(110)]
    return draw_cohort(OPTIONS, pool, 100, np.random.default_rng(0))


def alarms(drawn: Drawn) -> list[tuple[str, str | None]]:
    report = check_table(drawn.table, drawn.facts, PREPARE, CheckSettings(resamples=100))
    return [(f.kind, f.target) for f in report.by("fail", "warn")]


@pytest.mark.slow
def test_a_cohort_as_it_is_drawn_raises_no_alarm(drawn: Drawn) -> None:
    assert alarms(drawn) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTS)
def test_each_kind_that_is_planted_is_found(drawn: Drawn, kind: str) -> None:
    planted = PLANTS[kind](drawn, Plan(3, 0.9, np.random.default_rng(1)))
    assert kind in {found for found, _ in alarms(planted)}
    if kind.startswith("duplicate-"):
        report = check_table(planted.table, planted.facts, PREPARE, CheckSettings(resamples=100))
        assert _count_copies(report, planted) == len(planted.copies) >= 4
        assert _count_copies(report, replace(planted, copies=((0, 1),))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["site", "marks", "background", "source-in-note", "absence"])
def test_a_trait_that_is_as_frequent_without_the_label_is_none(drawn: Drawn, kind: str) -> None:
    planted = PLANTS[kind](drawn, Plan(3, 0.0, np.random.default_rng(1)))
    assert kind not in {found for found, _ in alarms(planted)}


@pytest.mark.slow
def test_a_small_proof_counts_every_cohort_once() -> None:
    told: list[int] = []
    options = ProofOptions(cohorts=2, pool=40, smallest=30, largest=40, seed=1)
    proof = prove(options, workers=1, advance=told.append)
    assert told == list(range(1, options.steps + 1))
    assert sum(own.of for own in proof.found.values()) == proof.all_found.of == 2
    assert proof.false_alarms.of == 2
    text = format_proof(proof)
    assert f"| all | {proof.all_found} |" in text


def test_found_ones_and_false_alarms_are_counted_apart() -> None:
    proof = _count(
        ProofOptions(cohorts=3),
        [
            Outcome("site", True, ("site",)),
            Outcome("site", False, ("date",)),
            Outcome("marks", True, ("marks", "border")),
            Outcome("duplicate-note", True, ("duplicate-note",), (4, 1)),
            Outcome("duplicate-note", True, ("duplicate-note",), (6, 5)),
            Outcome(None, False, ()),
            Outcome(None, False, ("border", "date")),
            Outcome(None, False, ()),
        ],
    )
    assert (proof.found["site"].hits, proof.found["site"].of) == (1, 2)
    assert (proof.all_found.hits, proof.all_found.of) == (4, 5)
    assert proof.copies == {"duplicate-note": share(6, 10)}
    assert f"| each copied note | {share(6, 10)} |" in format_proof(proof)
    assert (proof.false_alarms.hits, proof.false_alarms.of) == (1, 3)
    assert proof.alarms == {"border": 1, "date": 1}
    assert proof.beside == {"date": 1, "border": 1}


@pytest.mark.parametrize(("hits", "of"), [(0, 20), (20, 20), (7, 31)])
def test_the_interval_is_that_of_clopper_and_pearson(hits: int, of: int) -> None:
    wanted = binomtest(hits, of).proportion_ci(0.95, method="exact")
    own = share(hits, of)
    assert (own.low, own.high) == pytest.approx((wanted.low, wanted.high))
