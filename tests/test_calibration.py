import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit, softmax
from sklearn.isotonic import IsotonicRegression

from medfuse.config import Task, TaskKind
from medfuse.trust.calibration import (
    CURVE_FEWEST,
    PRIOR,
    Calibration,
    TargetCalibration,
    _fit_curve,
    _fit_findings,
    _read,
    answer,
    calibrate,
    fit_calibration,
    fit_subsets,
    name_fittable,
    probabilities,
)

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
CAUSE = Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "bacterial", "other"))
STAGE = Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "moderate", "severe"))
AGE = Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a")


def test_planted_temperatures_of_findings_are_recovered() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (40_000, 2))
    labels = (rng.random(true.shape) < expit(true)).astype(np.float64)
    fitted = fit_calibration([FINDINGS], true * [3.0, 0.5], labels)
    assert fitted.of("findings.nodule").temperature == pytest.approx(3.0, rel=0.05)
    assert fitted.of("findings.effusion").temperature == pytest.approx(0.5, rel=0.05)


def test_planted_temperature_and_bias_are_recovered() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(-1, 2, (40_000, 2))
    labels = (rng.random(true.shape) < expit(true)).astype(np.float64)
    fitted = fit_calibration([FINDINGS], (true + 1.5) * 2.0, labels, bias=True)
    assert fitted.of("findings.nodule").temperature == pytest.approx(2.0, rel=0.05)
    assert fitted.of("findings.nodule").bias == pytest.approx(-1.5, abs=0.08)


def test_planted_temperature_of_classes_is_recovered_and_shared() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0, 2, (40_000, 3))
    drawn = (softmax(true, axis=1).cumsum(axis=1) > rng.random((40_000, 1))).argmax(axis=1)
    fitted = fit_calibration([CAUSE], true * 2.5, drawn[:, None].astype(np.float64))
    assert fitted.of("cause.viral").temperature == pytest.approx(2.5, rel=0.05)
    assert fitted.of("cause.viral") == fitted.of("cause.other")


def test_unknown_labels_do_not_count() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (500, 2))
    labels = (rng.random(logits.shape) < expit(logits / 2)).astype(np.float64)
    padded = fit_calibration(
        [FINDINGS],
        np.concatenate([logits, rng.normal(0, 9, (300, 2))]),
        np.concatenate([labels, np.full((300, 2), np.nan)]),
    )
    assert padded == fit_calibration([FINDINGS], logits, labels)


def test_a_target_whose_labels_are_all_alike_keeps_temperature_one() -> None:
    fitted = fit_calibration([FINDINGS], np.ones((4, 2)), np.zeros((4, 2)))
    assert fitted.of("findings.nodule") == TargetCalibration()


@settings(deadline=None, max_examples=40)
@given(
    logits=arrays(np.float64, (30, 2), elements=st.floats(-8, 8)),
    labels=arrays(np.float64, (30, 2), elements=st.sampled_from([0.0, 1.0, np.nan])),
    bias=st.booleans(),
)
def test_calibration_never_changes_the_ranking(
    logits: np.ndarray, labels: np.ndarray, bias: bool
) -> None:
    fitted = fit_calibration([FINDINGS], logits, labels, bias=bias)
    chances = probabilities(FINDINGS, logits, fitted)
    for k in range(2):
        ordered = chances[np.argsort(logits[:, k]), k]
        assert (np.diff(ordered) >= 0).all()


def test_calibration_lowers_the_loss_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(0, 1, (2_000, 2))
    labels = (rng.random(true.shape) < expit(true)).astype(np.float64)
    chances = [
        probabilities(FINDINGS, true * 4, calibration)
        for calibration in (Calibration(), fit_calibration([FINDINGS], true * 4, labels))
    ]
    raw, calibrated = (-np.log(np.where(labels == 1, p, 1 - p)).mean() for p in chances)
    assert calibrated < raw - 0.1


def test_answers_of_every_kind_of_task_match_hand_computed_values() -> None:
    calibration = Calibration(
        targets={
            "findings.nodule": TargetCalibration(temperature=2.0),
            "cause.viral": TargetCalibration(temperature=2.0),
            "cause.bacterial": TargetCalibration(temperature=2.0),
            "cause.other": TargetCalibration(temperature=2.0),
            "age.age": TargetCalibration(offset=50.0, scale=10.0),
        }
    )
    ln = np.log
    logits = np.array([2 * ln(3), ln(4), 0.0, 2 * ln(2), 2 * ln(5), ln(4), ln(1.5), 1.5])
    findings, cause, stage, age = answer([FINDINGS, CAUSE, STAGE, AGE], logits, calibration)
    np.testing.assert_allclose(findings.probabilities, [0.75, 0.8])
    np.testing.assert_allclose(cause.probabilities, [1 / 8, 2 / 8, 5 / 8])
    np.testing.assert_allclose(stage.probabilities, [0.2, 0.2, 0.6])
    assert age.value == pytest.approx(65.0)
    assert age.probabilities.size == 0
    assert findings.value is None


def test_crossed_ordinal_logits_still_give_a_distribution() -> None:
    chances = probabilities(STAGE, np.array([[-1.0, 2.0]]), Calibration())
    assert (chances >= 0).all()
    assert chances.sum() == pytest.approx(1.0)
    assert chances[0, 1] == 0.0


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (5, 8), elements=st.floats(-30, 30)))
def test_probabilities_of_classes_and_levels_sum_to_one(logits: np.ndarray) -> None:
    for task in (CAUSE, STAGE):
        chances = probabilities(task, logits[:, : task.logits], Calibration())
        np.testing.assert_allclose(chances.sum(axis=1), 1.0)
        assert (chances >= 0).all()


def test_planted_temperature_of_levels_is_recovered_and_shared() -> None:
    rng = np.random.default_rng(5)
    true = rng.normal(0, 2, (40_000, 1)) - [0.0, 1.5]
    level = (true > rng.logistic(size=(40_000, 1))).sum(axis=1, keepdims=True)
    fitted = fit_calibration([STAGE], true * 1.7, level.astype(np.float64))
    assert fitted.of("stage.at_least_severe").temperature == pytest.approx(1.7, rel=0.05)
    assert fitted.of("stage.at_least_severe") == fitted.of("stage.at_least_moderate")


# By subset


def draw_findings(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (n, 2))
    return true, (rng.random(true.shape) < expit(true)).astype(np.float64)


def none_exactly(labels: np.ndarray) -> dict[str, np.ndarray]:
    """No study has just a note or just a recording."""
    return {name: np.zeros(len(labels), bool) for name in ("note", "voice")}


def test_each_subset_gets_what_was_planted_in_it() -> None:
    true, labels = draw_findings(20_000, 0)
    note = true * 4.0
    voice = (true + 1.0) * 2.0
    note[: len(note) // 2] = np.nan  # half of the studies have no note
    patients = [str(i // 2) for i in range(len(true))]
    fitted = fit_subsets(
        [FINDINGS], {"note": note, "voice": voice}, labels, patients, none_exactly(labels)
    )
    calibration = Calibration(subsets=fitted)
    for name, logits in (("note", note), ("voice", voice)):
        has = ~np.isnan(logits[:, 0])
        read = calibrate([FINDINGS], logits[has], calibration, name)
        assert np.abs(expit(read) - expit(true[has])).mean() < 0.01
    # Read as another subset, it is the raw logit.
    assert calibrate([FINDINGS], voice, calibration, "image") == pytest.approx(voice)


def test_a_curve_is_fitted_where_no_line_fits_and_keeps_every_order() -> None:
    true, labels = draw_findings(20_000, 1)
    bent = np.where(true > 0, true * 6, true / 3)
    patients = [str(i) for i in range(len(true))]
    fitted = fit_subsets([FINDINGS], {"note": bent}, labels, patients, none_exactly(labels))["note"]
    assert all(own.curve for own in fitted.values())
    calibration = Calibration(subsets={"note": fitted})
    read = calibrate([FINDINGS], bent, calibration, "note")
    assert np.abs(expit(read) - expit(true)).mean() < 0.02
    order = np.argsort(bent[:, 0])
    assert (np.diff(read[order, 0]) > 0).all()
    straight = fit_subsets([FINDINGS], {"note": true * 3}, labels, patients, none_exactly(labels))[
        "note"
    ]
    # A curve over a straight line is no better on patients left out.
    assert not any(own.curve for own in straight.values())


def test_a_curve_finds_what_bends_the_chances_in_a_cohort_of_usual_size() -> None:
    rng = np.random.default_rng(6)
    closer = []
    for _ in range(10):
        true = rng.normal(0, 2, 1500)
        labels = (rng.random(1500) < expit(true)).astype(np.float64)
        bent = np.where(true > 0, true * 3, true / 2)
        ways = {
            "line": _fit_findings(bent[:, None], labels[:, None], True),
            "curve": _fit_curve(bent, labels),
        }
        off = {
            name: np.abs(expit(_read(own, bent)) - expit(true)).mean() for name, own in ways.items()
        }
        closer.append(off["curve"] / off["line"])
    assert np.mean(closer) < 0.4


def test_a_curve_over_a_straight_line_costs_little() -> None:
    rng = np.random.default_rng(8)
    errors = []
    for _ in range(10):
        true = rng.normal(-0.7, 0.8, 1500)
        labels = (rng.random(1500) < expit(true)).astype(np.float64)
        read = _read(_fit_curve(2 * true, labels), 2 * true)
        errors.append(np.sqrt(((expit(read) - expit(true)) ** 2).mean()))
    # Isotonic regression's steps, joined at their centres, are off by 0.035.
    assert np.mean(errors) < 0.03


def test_a_curve_joins_what_another_isotonic_regression_makes_of_the_bins() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2, 1000)
    labels = (rng.random(1000) < expit(np.sin(logits) + logits / 2)).astype(np.float64)
    fitted = _fit_curve(logits, labels)
    z = np.sort(logits) / fitted.temperature + fitted.bias
    there = labels[np.argsort(logits)]
    # A thousand studies: 2 * 10 bins of 50.
    shares = (there.reshape(20, 50).sum(axis=1) + PRIOR * expit(z).reshape(20, 50).mean(axis=1)) / (
        50 + PRIOR
    )
    rising = IsotonicRegression().fit_transform(np.arange(20), shares)
    heights = np.unique(rising)
    assert [y for _, y in fitted.curve] == pytest.approx(logit(heights))
    centres = [z.reshape(20, 50)[rising == h].mean() for h in heights]
    assert [x for x, _ in fitted.curve] == pytest.approx(centres)


def test_no_curve_is_tried_where_a_finding_is_rare() -> None:
    true, labels = draw_findings(20_000, 8)
    bent = np.where(true > 0, true * 6, true / 3)
    patients = [str(i) for i in range(len(true))]
    labels[:, 0] = np.where(np.cumsum(labels[:, 0]) < CURVE_FEWEST, labels[:, 0], 0)
    fitted = fit_subsets([FINDINGS], {"note": bent}, labels, patients, none_exactly(labels))["note"]
    assert not fitted["findings.nodule"].curve
    assert fitted["findings.effusion"].curve


def test_targets_with_enough_of_each_kind_are_named() -> None:
    labels = np.full((30, 5), np.nan)
    labels[:20, 0] = np.arange(20) % 2
    labels[:20, 1] = np.arange(20) < 9
    labels[:10, 2], labels[:9, 3], labels[:, 4] = 1, 0, 5
    assert name_fittable([FINDINGS, CAUSE, STAGE, AGE], labels) == {
        "findings.nodule",
        *CAUSE.targets,
    }


def test_a_subset_with_few_of_a_kind_is_read_as_all_studies_are() -> None:
    true, labels = draw_findings(400, 2)
    labels[:, 1] = np.arange(400) < 9
    patients = [str(i) for i in range(400)]
    fitted = fit_subsets([FINDINGS], {"note": true}, labels, patients, none_exactly(labels))
    assert set(fitted["note"]) == {"findings.nodule"}
    overall = TargetCalibration(temperature=2.0)
    calibration = Calibration(targets={"findings.effusion": overall}, subsets=fitted)
    assert calibration.of("findings.effusion", "note") == overall
    assert calibration.of("findings.nodule", "note") == fitted["note"]["findings.nodule"]


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=2, max_size=60),
    st.floats(-200, 200),
    st.floats(1e-3, 50),
)
def test_any_curve_rises_strictly_everywhere(
    studies: list[tuple[float, bool]], low: float, step: float
) -> None:
    logits = np.array([x for x, _ in studies])
    labels = np.array([float(y) for _, y in studies])
    fitted = _fit_curve(logits, labels)
    two = np.array([[low], [low + step]])
    task = Task(name="one", kind=TaskKind.BINARY, classes=("a",))
    read = calibrate([task], two, Calibration(targets={"one.a": fitted}))
    assert np.isfinite(read).all()
    assert read[1, 0] > read[0, 0]
    assert all(0 < expit(height) < 1 for _, height in fitted.curve)
    assert len(fitted.curve) <= max(2, round(2 * len(logits) ** (1 / 3)))
