"""Promises held to labelled studies, groups compared, and decisions weighed: known answers."""

import numpy as np
import pytest
from scipy.special import logit

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.decision import measure_decisions
from medfuse.trust.evaluation import measure_reliability
from medfuse.trust.figures import ReportSettings
from medfuse.trust.fitting import fit_trust
from medfuse.trust.promises import exact_interval, measure_promises
from medfuse.trust.record import QuestionTrust, TrustRecord, TrustSettings
from medfuse.trust.subgroups import FEWEST, age_band, measure_subgroups

FINDING = Task(name="finding", kind=TaskKind.BINARY, classes=("nodule",))
AGE = Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a")


def make_answers(labels: np.ndarray, logits: dict[str, np.ndarray]) -> Answers:
    rows = tuple(
        CohortRow(number=i, patient_id=str(i), study_id=str(i), labels=tuple(own))
        for i, own in enumerate(labels)
    )
    return Answers(rows, np.ones((len(rows), 3), bool), logits)


# Promises

RECORD = TrustRecord(
    settings=TrustSettings(coverage=0.8, risk=0.25, sensitivity=0.5),
    subsets={
        "note": {
            "finding.nodule": QuestionTrust(
                studies={"absent": 99, "present": 99},
                least={"absent": 0.3, "present": 0.4},
                sure=0.8,
                positive=0.6,
            ),
            "age": QuestionTrust(studies={"age": 99}, within=5.0),
        }
    },
)


def test_promises_are_counted_as_on_paper() -> None:
    chances = np.array([0.9, 0.7, 0.5, 0.3, 0.85, 0.75, 0.2, 0.1])
    labels = np.array([1, 1, 1, 1, 0, 0, 0, np.nan])[:, None]
    answers = make_answers(labels, {"note": logit(chances)[:, None], AS_GIVEN: np.zeros((8, 1))})
    figures, sizes = measure_promises([FINDING], answers, RECORD)
    seen = {(f.kind, f.group): (f.hits, f.studies) for f in figures}
    # Of the four with it, 0.3 is below 0.4. Of the three without, two leave absent below 0.3.
    # Sure are 0.9, 0.85 and 0.2: one is wrong. Called positive: 0.9 and 0.7 of four.
    assert seen == {
        ("coverage", "present"): (3, 4),
        ("coverage", "absent"): (1, 3),
        ("risk", ""): (1, 3),
        ("sensitivity", "present"): (2, 4),
    }
    assert {f.subset for f in figures} == {"note"}
    (size,) = sizes
    # Only 0.7 and 0.5 leave both open: at 0.7 absent has 0.3. And sure are five with the unknown.
    assert (size.studies, size.single, size.sure) == (8, 6 / 8, 4 / 8)


def test_a_quantitys_interval_is_held_to_its_truth() -> None:
    answers = make_answers(np.array([[50.0], [60.0], [70.0]]), {"note": np.full((3, 1), 57.0)})
    (figure,), sizes = measure_promises([AGE], answers, RECORD)
    assert (figure.kind, figure.hits, figure.studies) == ("coverage", 1, 3)
    assert not sizes


def test_a_broken_promise_is_told_from_chance() -> None:
    labels = np.ones((200, 1))
    for covered, kept in ((160, True), (140, True), (110, False)):
        chances = np.where(np.arange(200) < covered, 0.9, 0.1)
        answers = make_answers(labels, {"note": logit(chances)[:, None]})
        figures, _ = measure_promises([FINDING], answers, RECORD)
        own = next(f for f in figures if (f.kind, f.group) == ("coverage", "present"))
        assert own.share == covered / 200
        assert own.kept is kept


def test_promises_that_hold_look_broken_as_rarely_as_said() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> Answers:
        truth = (rng.random(n) < 0.5).astype(float)
        said = rng.normal(1.5 * (truth - 0.5), 1)
        return make_answers(truth[:, None], {"note": said[:, None]})

    broken = total = 0
    for _ in range(150):
        record = fit_trust([FINDING], draw(200), TrustSettings())
        figures, _ = measure_promises([FINDING], draw(150), record)
        own = [f for f in figures if f.kind != "risk"]
        broken, total = broken + sum(not f.kept for f in own), total + len(own)
    # 450 figures at 2.5 %, each 3 from one draw: at most 5 %.
    assert total == 450
    assert broken / total < 0.05


def test_exact_intervals_are_clopper_and_pearsons() -> None:
    assert exact_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert exact_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert exact_interval(4, 20) == pytest.approx((0.0573, 0.4366), abs=1e-4)


# Groups


def test_a_group_that_is_answered_worse_is_found_and_the_others_are_not() -> None:
    rng = np.random.default_rng(0)
    n = 1200
    truth = (rng.random(n) < 0.5).astype(float)
    group = np.array(["a", "b", "c"])[np.arange(n) % 3]
    skill = np.where(group == "b", 0.2, 2.0)
    said = rng.normal(skill * (truth - 0.5), 1)
    answers = make_answers(truth[:, None], {AS_GIVEN: said[:, None]})
    sex = np.where(np.arange(n) % 2, "F", "M").tolist()
    small = ["rare" if i < FEWEST - 1 else "usual" for i in range(n)]
    fields = {"site": group.tolist(), "sex": sex, "size": small, "none": [""] * n}
    found = measure_subgroups([FINDING], answers, fields, ReportSettings(resamples=300))
    assert {f.field for f in found} == {"site", "sex"}
    by = {(f.field, f.group): f for f in found}
    worst = by["site", "b"]
    assert worst.studies == 400
    assert worst.difference.high is not None
    assert worst.difference.high < 0
    assert worst.p_holm is not None
    assert worst.p_holm < 1e-3
    assert all(f.p_holm is not None and f.p_holm > 0.05 for f in found if f.field == "sex")
    # The two sexes are each other's rest.
    assert by["sex", "F"].value == by["sex", "M"].rest


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0", "under 18"),
        ("17", "under 18"),
        ("18", "18 to 39"),
        ("64.9", "40 to 64"),
        ("80", "80 and over"),
        ("101", "80 and over"),
        ("", ""),
        ("old", ""),
        ("-1", ""),
        ("nan", ""),
        ("999", ""),
    ],
)
def test_ages_fall_into_bands(age: str, band: str) -> None:
    assert age_band(age) == band


# Decisions


def test_net_benefit_is_worked_out_on_paper() -> None:
    chances = np.array([0.9, 0.6, 0.4, 0.1])
    there = np.array([True, False, True, False])
    curve = measure_decisions("finding.nodule", "note", chances, there, np.ones((1, 4)))
    at = {
        p: (m.value, e)
        for p, m, e in zip(curve.thresholds, curve.model, curve.everyone, strict=True)
    }
    # At 0.5: one hit, one alarm of four at even odds.
    assert at[0.5] == pytest.approx((0.25 - 0.25, 0.5 - 0.5))
    # At 0.2: two hits and one alarm at odds of 1 to 4.
    assert at[0.2] == pytest.approx((0.5 - 0.25 / 4, 0.5 - 0.5 / 4))
    # At 0.95 nobody is acted on.
    assert at[0.95][0] == 0.0
    assert curve.useful is None  # without resamples no interval lies above zero


def test_a_model_that_knows_the_truth_is_useful_nearly_everywhere() -> None:
    rng = np.random.default_rng(0)
    there = rng.random(600) < 0.3
    weights = np.concatenate([np.ones((1, 600)), rng.multinomial(600, np.full(600, 1 / 600), 200)])
    sharp = measure_decisions("x", "note", np.where(there, 0.98, 0.02), there, weights)
    assert sharp.useful is not None
    assert sharp.useful[0] <= 0.05
    assert sharp.useful[1] >= 0.95
    blind = measure_decisions("x", "note", np.full(600, 0.3), there, weights)
    assert blind.useful is None


# Reliability


def test_calibrated_probabilities_err_as_chance_does_and_others_more() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (1000, 1))
    labels = (rng.random((1000, 1)) < 1 / (1 + np.exp(-true))).astype(float)
    answers = make_answers(labels, {"note": true, "voice": 2 * true})
    note, voice = measure_reliability([FINDING], answers, 0)
    assert note.error < note.by_chance[1]
    assert voice.error > 2 * voice.by_chance[1]
    assert sum(b.studies for b in note.bins) == 1000
