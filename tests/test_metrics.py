import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from medfuse.config import Task, TaskKind
from medfuse.training.metrics import (
    auprc,
    calibration_error,
    headline,
    measure_headline,
    measure_tasks,
    quadratic_kappa,
)
from medfuse.trust.area import auroc
from medfuse.trust.bootstrap import Figure, patient_weights, summarise

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
CAUSE = Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "bacterial", "other"))
STAGE = Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "moderate", "severe"))
AGE = Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a")

ONCE = np.ones((1, 4))
SCORES = np.array([0.9, 0.8, 0.7, 0.1])
POSITIVE = np.array([True, False, True, False])


def figures(task: Task, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict:  # type: ignore[type-arg]
    return {(m.target, m.metric): m.values for m in measure_tasks([task], logits, labels, weights)}


def test_areas_match_those_counted_by_hand() -> None:
    assert auroc(SCORES, POSITIVE, ONCE) == pytest.approx([3 / 4])
    assert auprc(SCORES, POSITIVE, ONCE) == pytest.approx([(1 + 2 / 3) / 2])
    tied = np.array([0.5, 0.5, 0.5, 0.1])
    assert auroc(tied, POSITIVE, ONCE) == pytest.approx([(0.5 + 1 + 0.5 + 1) / 4])
    assert auprc(tied, POSITIVE, ONCE) == pytest.approx([2 / 3])


def test_calibration_error_matches_that_counted_by_hand() -> None:
    # Alone in their bins: 0.85 and 0.05. Together: 0.9 and 1.0, of which one happened.
    chances = np.array([0.85, 0.9, 1.0, 0.05])
    happened = np.array([False, True, False, False])
    assert calibration_error(chances, happened, ONCE) == pytest.approx([(0.85 + 0.9 + 0.05) / 4])


def test_figures_without_positives_are_undefined() -> None:
    nobody = np.zeros(4, dtype=bool)
    assert np.isnan(auroc(SCORES, nobody, ONCE)).all()
    assert np.isnan(auprc(SCORES, nobody, ONCE)).all()
    assert np.isnan(auroc(SCORES[:0], nobody[:0], ONCE[:, :0])).all()


@settings(deadline=None, max_examples=60)
@given(
    scores=arrays(np.float64, 25, elements=st.sampled_from([0.0, 0.2, 0.2000001, 0.5, 0.8, 1.0])),
    positive=arrays(np.bool_, 25),
    weights=arrays(np.int64, (3, 25), elements=st.integers(0, 3)),
)
def test_weighted_figures_agree_with_scikit_learn(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> None:
    ours = (auroc(scores, positive, weights * 1.0), auprc(scores, positive, weights * 1.0))
    for r, w in enumerate(weights):
        if not (w[positive].sum() and w[~positive].sum()):
            assert np.isnan(ours[0][r])
            continue
        theirs = (
            sk.roc_auc_score(positive, scores, sample_weight=w),
            sk.average_precision_score(positive, scores, sample_weight=w),
        )
        assert (ours[0][r], ours[1][r]) == pytest.approx(theirs, abs=1e-9)


def test_findings_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (200, 2)), rng.integers(0, 2, (200, 2)).astype(float)
    labels[rng.random((200, 2)) < 0.2] = np.nan
    weights = np.ones((1, 200))
    found = figures(FINDINGS, logits, labels, weights)
    recalls = []
    for k, name in enumerate(("findings.nodule", "findings.effusion")):
        known = ~np.isnan(labels[:, k])
        y, said = labels[known, k], logits[known, k] >= 0
        chances = 1 / (1 + np.exp(-logits[known, k]))
        recalls.append(sk.recall_score(y, said))
        theirs = {
            "accuracy": sk.accuracy_score(y, said),
            "recall": recalls[-1],
            "precision": sk.precision_score(y, said),
            "f1": sk.f1_score(y, said),
            "auroc": sk.roc_auc_score(y, chances),
            "auprc": sk.average_precision_score(y, chances),
            "brier": sk.brier_score_loss(y, chances),
        }
        for metric, value in theirs.items():
            assert found[name, metric] == pytest.approx([value]), metric
    assert found["findings", "recall"] == pytest.approx([np.mean(recalls)])


def test_classes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    logits, true = rng.normal(0, 2, (150, 3)), rng.integers(0, 3, 150)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = chances.argmax(axis=1)
    found = figures(CAUSE, logits, true[:, None].astype(float), np.ones((1, 150)))
    assert found["cause", "accuracy"] == pytest.approx([sk.accuracy_score(true, said)])
    assert found["cause", "f1"] == pytest.approx([sk.f1_score(true, said, average="macro")])
    area = sk.roc_auc_score(true, chances, multi_class="ovr")
    assert found["cause", "auroc"] == pytest.approx([area])
    assert found["cause.other", "precision"] == pytest.approx(
        [sk.precision_score(true, said, average=None)[2]]
    )


def test_levels_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (150, 1)) - [0.0, 1.0]
    true = rng.integers(0, 3, 150)
    said = (logits >= 0).sum(axis=1)
    found = figures(STAGE, logits, true[:, None].astype(float), np.ones((1, 150)))
    kappa = sk.cohen_kappa_score(true, said, weights="quadratic")
    assert found["stage", "kappa"] == pytest.approx([kappa])
    assert found["stage", "mae"] == pytest.approx([np.abs(true - said).mean()])
    area = sk.roc_auc_score(true >= 2, logits[:, 1])
    assert found["stage.at_least_severe", "auroc"] == pytest.approx([area])


@pytest.mark.parametrize("task", [FINDINGS, CAUSE, STAGE, AGE], ids=lambda task: task.name)
def test_the_headline_alone_is_the_headline_among_all(task: Task) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(50, task.logits))
    labels = rng.integers(0, 2, (50, task.label_columns)).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    weights = rng.integers(0, 3, (4, 50)).astype(float)
    expected = figures(task, logits, labels, weights)[task.name, headline(task)]
    np.testing.assert_allclose(measure_headline(task, logits, labels, weights), expected)


def test_perfect_agreement_has_kappa_one_and_chance_has_zero() -> None:
    true = np.array([0, 1, 2, 2])
    assert quadratic_kappa(true, true, 3, ONCE) == pytest.approx([1.0])
    assert quadratic_kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, ONCE) == (
        pytest.approx([0.0])
    )


def test_a_quantity_is_measured_in_its_own_unit() -> None:
    found = figures(
        AGE, np.array([[50.0], [62.0], [9.0]]), np.array([[52], [60], [np.nan]]), np.ones((1, 3))
    )
    assert found["age.age", "mae"] == pytest.approx([2.0])
    assert found["age", "rmse"] == pytest.approx([2.0])
    assert found["age", "r2"] == pytest.approx([1 - 4 / 16])


def test_a_study_that_counts_twice_is_as_two_studies() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(0, 1, (40, 2)), rng.integers(0, 2, (40, 2)).astype(float)
    weights = rng.integers(0, 3, (1, 40))
    again = np.repeat(np.arange(40), weights[0])
    weighted = figures(FINDINGS, logits, labels, weights.astype(float))
    repeated = figures(FINDINGS, logits[again], labels[again], np.ones((1, len(again))))
    for key, values in weighted.items():
        assert values == pytest.approx(repeated[key]), key


def test_studies_of_one_patient_are_always_drawn_together() -> None:
    weights = patient_weights(["a", "b", "a", "c", "c"], 500, seed=0)
    assert (weights[0] == 1).all()
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 4])
    assert (weights[1:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_interval_of_a_mean_is_the_one_theory_gives() -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    weights = patient_weights([str(i) for i in range(400)], 4_000, seed=1)
    figure = summarise(weights @ values / weights.sum(axis=1))
    assert figure.value == pytest.approx(values.mean())
    assert figure.low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.01)
    assert figure.high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.01)


def test_repeated_films_do_not_make_an_interval_narrower() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100)
    patients = [str(i) for i in range(100)]

    def width(n: int) -> float:
        weights = patient_weights(patients * n, 2_000, seed=1)
        figure = summarise(weights @ np.tile(values, n) / weights.sum(axis=1))
        assert figure.low is not None
        assert figure.high is not None
        return figure.high - figure.low

    assert width(10) == pytest.approx(width(1))


def test_a_figure_reads_as_value_and_interval() -> None:
    assert str(summarise(np.array([0.5, 0.1, np.nan, 0.9]))) == "0.500 [0.120, 0.880]"
    assert str(Figure(value=0.25)) == "0.250"
    assert str(summarise(np.array([np.nan, 0.1]))) == "-"
