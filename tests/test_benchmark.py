"""The benchmarks' machinery: nothing of a test fold is known before it is judged."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from medfuse.errors import CohortError
from medfuse.training.benchmark.contest import (
    Contender,
    Learner,
    Role,
    Said,
    Split,
    deal_folds,
    deal_repeats,
    run_contest,
    weigh_patients,
)
from medfuse.training.benchmark.measure import Asked, measure_contest
from medfuse.training.benchmark.pairing import Part, pair_by_label
from medfuse.training.benchmark.report import Entry, Table, describe_baseline, describe_gains
from medfuse.training.benchmark.stacking import average, choose_best, fit_line, stack
from medfuse.trust.bootstrap import Figure
from medfuse.trust.metrics import auroc


def build(seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1))


CONTENDERS = (
    Contender("metadata", Role.METADATA, (("metadata",),)),
    Contender("image", Role.SINGLE, (("image",),)),
    Contender("note", Role.SINGLE, (("note",),)),
    Contender("stacked", Role.FUSION, (("image",), ("note",))),
    Contender("average", Role.FUSION, (("image",), ("note",)), "average"),
    Contender("best", Role.FUSION, (("image",), ("note",)), "best"),
)


def make_patients(
    patients: int, image: float, note: float, seed: int
) -> tuple[np.ndarray, tuple[str, ...], tuple[Learner, ...]]:
    """Patients with one to three studies, whose image and note tell the label so much."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, patients)
    labels = np.repeat(np.arange(patients) % 2 == 0, counts)
    ids = tuple(f"p{i}" for i in np.repeat(np.arange(patients), counts))

    def read(strength: float) -> np.ndarray:
        noise = np.repeat(rng.normal(size=(patients, 4)), counts, axis=0)
        noise[:, 0] += strength * labels
        return np.asarray(noise)

    values = {"metadata": read(0.0), "image": read(image), "note": read(note)}
    return labels, ids, tuple(Learner(name, own, build) for name, own in values.items())


def hold(
    labels: np.ndarray, patients: tuple[str, ...], learners: tuple[Learner, ...], repeats: int = 1
) -> Table:
    said = run_contest(
        learners, CONTENDERS, labels, patients, deal_repeats(labels, patients, 5, repeats, 0), 3, 0
    )
    return measure_contest(
        Asked("t", "p", "j", labels, patients, fusion="stacked"), CONTENDERS, said, 500, 0
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=12, max_size=30), st.integers(0, 5))
def test_folds_never_split_a_patient_and_test_every_study_once(
    counts: list[int], seed: int
) -> None:
    patients = [f"p{i}" for i, n in enumerate(counts) for _ in range(n)]
    labels = np.array([i % 2 == 0 for i, n in enumerate(counts) for _ in range(n)])
    folds = deal_folds(labels, patients, 3, seed)
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(patients)))
    for fold in folds:
        assert not {patients[i] for i in fold.train} & {patients[i] for i in fold.test}


def test_too_few_patients_of_a_label_are_refused_with_their_number() -> None:
    with pytest.raises(CohortError, match="1 patients have the rarer label, and 3 folds"):
        deal_folds(np.array([True, True, False, False, False]), list("aabcd"), 3, 0)


def test_a_patient_weighs_as_much_as_another_and_a_label_as_the_other() -> None:
    labels = np.array([True, True, True, False])
    weights = weigh_patients(labels, ["a", "a", "b", "c"])
    np.testing.assert_allclose(weights, [0.5, 0.5, 1.0, 2.0])


def test_labels_of_a_test_fold_do_not_change_what_is_said_of_it() -> None:
    labels, patients, learners = make_patients(40, 1.0, 1.0, 0)
    (folds,) = deal_repeats(labels, patients, 5, 1, 0)
    fold = folds[0]
    changed = labels.copy()
    changed[fold.test] = ~changed[fold.test]
    before, after = (
        run_contest(learners, CONTENDERS, own, patients, [[fold]], 3, 0)
        for own in (labels, changed)
    )
    for name, said in before.items():
        assert np.isfinite(said.scores[0, fold.test]).all()
        np.testing.assert_array_equal(said.scores, after[name].scores)
        np.testing.assert_array_equal(said.log_odds, after[name].log_odds)


def test_values_of_a_test_study_change_no_other_answer_of_its_fold() -> None:
    labels, patients, learners = make_patients(40, 1.0, 1.0, 0)
    fold = deal_folds(labels, patients, 5, 0)[0]
    moved = []
    for learner in learners:
        values = learner.values.copy()
        values[fold.test[0]] += 5
        moved.append(Learner(learner.name, values, build))
    before, after = (
        run_contest(own, CONTENDERS, labels, patients, [[fold]], 3, 0) for own in (learners, moved)
    )
    for name, said in before.items():
        np.testing.assert_array_equal(
            said.scores[0, fold.test[1:]], after[name].scores[0, fold.test[1:]]
        )


def test_labels_that_nothing_tells_are_told_by_chance() -> None:
    areas = []
    for seed in range(4):
        labels, patients, learners = make_patients(60, 0.0, 0.0, seed)
        table = hold(labels, patients, learners)
        areas.append([each.auroc.value or 0.0 for each in table.entries])
    # The mean of four has a standard error of about 0.04.
    np.testing.assert_allclose(np.mean(areas, axis=0), 0.5, atol=0.11)


def test_what_is_planted_is_found_and_its_fusion_gains() -> None:
    labels, patients, learners = make_patients(300, 1.2, 1.2, 1)
    table = hold(labels, patients, learners)
    # What was planted lies in the first number of each: the best that can be said of these.
    planted = {learner.name: learner.values[:, 0] for learner in learners}
    planted["stacked"] = planted["image"] + planted["note"]
    for name in ("image", "note", "stacked"):
        best = auroc(planted[name], labels, np.ones((1, len(labels))))[0]
        assert table.find(name).auroc.value == pytest.approx(best, abs=0.03)
    gain = table.find("stacked").over_single
    assert gain is not None
    assert gain.low is not None
    assert gain.low > 0
    assert describe_gains(table).startswith("A gain of fusion over the best single modality is")
    assert describe_baseline(table).startswith(f"`{table.best_single}` tells more than metadata")
    over = table.find("image").over_metadata
    assert over is not None
    assert over.low is not None
    assert over.low > 0


def test_noise_beside_a_telling_modality_gives_no_gain() -> None:
    table = hold(*make_patients(200, 0.0, 1.5, 2))
    gain = table.find("stacked").over_single
    assert table.best_single == "note"
    assert gain is not None
    assert gain.low is not None
    assert gain.low <= 0
    assert gain.value == pytest.approx(0, abs=0.03)
    assert "No gain" in describe_gains(table) or "Fusion loses" in describe_gains(table)


def test_a_stack_leans_to_what_tells_more_and_never_below_zero() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    telling = 2.0 * labels - 1 + rng.normal(size=400)
    against = -telling + rng.normal(size=400)
    noise = rng.normal(size=400)
    shares = stack(np.stack([telling, noise, against], axis=1), labels, np.ones(400))
    assert shares[0] > 1
    assert 0 <= shares[1] < 0.3
    assert shares[2] == 0


def test_alike_scores_are_averaged() -> None:
    scores = np.array([[1.0, 3.0], [-1.0, -3.0]])
    np.testing.assert_array_equal(average(scores, np.array([True, False]), np.ones(2)), [0.5, 0.5])
    wrong = np.stack([-scores[:, 0], scores[:, 1]], axis=1)
    best = choose_best(wrong, np.array([True, False]), np.ones(2))
    np.testing.assert_array_equal(best, [0.0, 1.0])


def test_a_line_is_never_turned_round() -> None:
    labels = np.array([True, True, False, False])
    line = fit_line(np.array([-2.0, -1.0, 1.0, 2.0]), labels, np.ones(4))
    assert line.slope == 0
    np.testing.assert_allclose(line(np.array([-5.0, 5.0])), 0, atol=1e-6)


def test_figures_are_those_worked_out_by_hand() -> None:
    labels = np.array([True, True, False, False])
    scores = {
        "metadata": [[0.0, 0.0, 0.0, 0.0]],
        "image": [[2.0, -1.0, 1.0, -2.0]],  # three of four pairs in order; two of four right
        "note": [[1.0, 1.0, -1.0, -1.0]],
        "stacked": [[3.0, 1.0, -1.0, 2.0]],
        "average": [[3.0, 1.0, -1.0, 2.0]],
        "best": [[3.0, 1.0, -1.0, 2.0]],
    }
    said = {name: Said(np.array(own), np.zeros((1, 4))) for name, own in scores.items()}
    asked = Asked("t", "p", "j", labels, ("a", "b", "c", "d"))
    table = measure_contest(asked, CONTENDERS, said, 0, 0)
    assert table.find("image").auroc.value == 0.75
    assert table.find("image").accuracy.value == 0.5
    assert table.find("image").over_metadata is not None
    assert table.find("image").over_metadata.value == 0.25  # type: ignore[union-attr]
    assert table.find("image").over_single is None
    assert table.find("stacked").over_single.value == -0.25  # type: ignore[union-attr]
    assert table.find("metadata").over_metadata is None
    assert (table.best_single, table.majority.value) == ("note", 0.5)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (
            0.0005,
            0.1,
            "A gain of fusion over the best single modality is shown (`stacked` less `note`: ",
        ),
        (0.0004, 0.1, "No gain of fusion is shown, since the interval reaches zero ("),
        (-0.1, 0.1, "No gain of fusion is shown"),
        (-0.1, -0.0005, "Fusion loses ("),
    ],
)
def test_a_gain_is_one_where_the_printed_interval_is_above_zero(
    low: float, high: float, said: str
) -> None:
    figure = Figure(value=0.05, low=low, high=high)
    one = Figure(value=0.5)

    def make(name: str, role: Literal["single", "fusion"], own: Figure) -> Entry:
        less = {"over_metadata" if role == "single" else "over_single": own}
        return Entry(
            name=name, role=role, auroc=one, accuracy=one, repeat_aurocs=(0.5,)
        ).model_copy(update=less)

    # A fusion that was not named beforehand is not what a gain is read from.
    other = make("other", "fusion", Figure(value=1, low=1, high=1))
    entries = (make("note", "single", figure), make("stacked", "fusion", figure), other)
    table = Table(
        title="t", population="p", studies=2, patients=2, positives=1, left_out={}, judged="j",
        resamples=1, majority=one, entries=entries, best_single="note", fusion="stacked",
    )  # fmt: skip
    assert describe_gains(table).startswith(said)
    shown = describe_baseline(table).startswith("`note` tells more than metadata alone")
    assert shown == (low == 0.0005)
    assert describe_gains(table.model_copy(update={"fusion": ""})).startswith("Nothing is fused")


def test_accuracy_counts_the_label_as_common_as_it_was_in_training() -> None:
    labels = np.array([True, True, True, False])
    odds = np.full((1, 4), np.log(3))
    said = {each.name: Said(np.array([[-1.0, 1.0, 1.0, -2.0]]), odds) for each in CONTENDERS}
    asked = Asked("t", "p", "j", labels, ("a", "b", "c", "d"))
    table = measure_contest(asked, CONTENDERS, said, 0, 0)
    assert table.entries[0].accuracy.value == 1.0  # -1 + log 3 > 0 > -2 + log 3
    assert table.majority.value == 0.75


def test_a_contender_of_fewer_repeats_is_measured_on_those() -> None:
    labels = np.array([True, False])
    gone = np.full((1, 2), np.nan)
    full = Said(np.array([[1.0, 0.0], [1.0, 0.0]]), np.zeros((2, 2)))
    part = Said(np.concatenate([[[0.0, 1.0]], gone]), np.zeros((2, 2)))
    said = {each.name: full for each in CONTENDERS} | {"best": part}
    table = measure_contest(Asked("t", "p", "j", labels, ("a", "b")), CONTENDERS, said, 0, 0)
    assert table.find("best").repeat_aurocs == (0.0,)
    assert table.find("stacked").repeat_aurocs == (1.0, 1.0)


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    labels, patients, learners = make_patients(24, 1.0, 1.0, 0)
    assert hold(labels, patients, learners) == hold(labels, patients, learners)
    first, second = (deal_folds(labels, patients, 5, seed)[0].test.tolist() for seed in (0, 1))
    assert first != second


def test_readings_of_one_group_are_averaged_before_groups_are_put_together() -> None:
    labels, patients, learners = make_patients(60, 1.0, 1.0, 3)
    image = next(learner for learner in learners if learner.name == "image")
    again = [Learner(f"image {i}", image.values, build) for i in range(3)]
    same = Contender("same", Role.FUSION, (tuple(each.name for each in again), ("note",)))
    fold = deal_folds(labels, patients, 4, 0)[0]
    said = run_contest((*learners, *again), (*CONTENDERS, same), labels, patients, [[fold]], 3, 0)
    # Three readings that are the same count as one.
    np.testing.assert_allclose(
        said["same"].scores[0, fold.test], said["stacked"].scores[0, fold.test], rtol=1e-3
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), min_size=1, max_size=20),
    st.integers(0, 9),
)
def test_pairs_have_one_label_and_split_and_nothing_is_used_twice(
    rows: list[tuple[bool, str]], seed: int
) -> None:
    labels, splits = np.array([row[0] for row in rows]), [row[1] for row in rows]
    order = np.random.default_rng(1).permutation(2 * len(rows))
    twice = Part("notes", np.tile(labels, 2)[order], [(2 * splits)[i] for i in order])
    (places,) = pair_by_label(Part("films", labels, splits), (twice,), seed)
    assert len(set(places.tolist())) == len(rows)
    assert (twice.labels[places] == labels).all()
    assert [twice.splits[i] for i in places] == splits


def test_pairing_refuses_to_use_a_study_twice_or_one_of_another_split() -> None:
    first = Part("sounds", np.array([True, True]), ["train", "train"])
    other = Part("films", np.array([True, True, False]), ["train", "validation", "train"])
    with pytest.raises(CohortError, match="films: 1 studies of a label in one split"):
        pair_by_label(first, (other,), 0)


def test_a_split_may_be_given_by_hand() -> None:
    labels, patients, learners = make_patients(40, 2.0, 2.0, 0)
    fold = Split(np.arange(40), np.arange(40, len(labels)))
    said = run_contest(learners, CONTENDERS[:1], labels, patients, [[fold]], 3, 0)
    assert np.isnan(said["metadata"].scores[0, :40]).all()
    assert np.isfinite(said["metadata"].scores[0, 40:]).all()
