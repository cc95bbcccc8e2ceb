"""What is promised of answers: fitted by subset and class, and judged one answer at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom

from medfuse.attribution.record import BadgeRecord, CheckRecord, ExplanationRecord
from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.calibration import Calibration, TargetCalibration, calibrate
from medfuse.trust.conformal import least_probability
from medfuse.trust.fitting import fit_promises, fit_trust
from medfuse.trust.judging import judge_answers
from medfuse.trust.novelty import NoveltyModel, Usual
from medfuse.trust.record import QuestionTrust, TrustRecord, TrustSettings
from medfuse.types import Judgement, Modality, TaskPrediction
from medfuse_serving.answer import describe_judgement, format_probability, format_value, to_answer
from medfuse_serving.language import ENGLISH
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import answer_html
from tests.hand_bundle import make_bundle, make_study

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
CAUSE = Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "bacterial", "other"))
AGE = Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a")
SETTINGS = TrustSettings()


def make_answers(labels: np.ndarray, logits: dict[str, np.ndarray]) -> Answers:
    rows = tuple(
        CohortRow(number=i, patient_id=str(i), study_id=str(i), labels=tuple(own))
        for i, own in enumerate(labels)
    )
    return Answers(rows, np.ones((len(rows), 3), bool), logits)


def predict(task: Task, chances: list[float], value: float | None = None) -> TaskPrediction:
    return TaskPrediction(task, np.zeros(task.logits), np.array(chances), value)


# Fitting


def test_each_class_and_subset_has_thresholds_of_its_own_studies() -> None:
    present = np.linspace(0.1, 0.9, 9)
    absent = np.linspace(0.05, 0.95, 19)
    labels = np.concatenate([np.ones(9), np.zeros(19)])[:, None]
    chances = np.concatenate([present, absent])[:, None]
    task = Task(name="finding", kind=TaskKind.BINARY, classes=("nodule",))
    other = np.full((28, 1), np.nan)
    other[:5] = 0.0
    given = make_answers(labels, {AS_GIVEN: other, "note": logit(chances), "image": other})
    record = fit_trust([task], given, SETTINGS)
    assert set(record.subsets) == {"note", "image"}
    note = record.of("note", "finding.nodule")
    assert note is not None
    assert note.studies == {"absent": 19, "present": 9}
    # The smallest of nine, and the second smallest chance of absence of nineteen: 1 - 0.9.
    assert note.least["present"] == pytest.approx(0.1)
    assert note.least["absent"] == pytest.approx(0.1)
    assert note.positive == pytest.approx(0.1)
    # From the image alone five studies were answered, none without the finding.
    image = record.of("image", "finding.nodule")
    assert image == QuestionTrust(
        studies={"absent": 0, "present": 5}, least={"absent": 0.0, "present": 0.0}, exact=False
    )
    assert record.of("voice", "finding.nodule") is None


def test_unknown_labels_do_not_count() -> None:
    labels = np.array([[1.0, np.nan], [np.nan, 0.0], [0.0, 1.0]])
    record = fit_trust([FINDINGS], make_answers(labels, {"note": np.zeros((3, 2))}), SETTINGS)
    counts = [record.subsets["note"][t].studies for t in FINDINGS.targets]
    assert counts == [{"absent": 1, "present": 1}, {"absent": 1, "present": 1}]


def test_what_studies_are_too_few_for_is_read_as_before_and_the_rest_anew() -> None:
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.random(300) < 0.4, np.arange(300) < 3, rng.normal(50, 9, 300)])
    logits = np.column_stack([rng.normal(8 * truth[:, 0] - 4, 4), rng.normal(0, 1, (300, 2))])
    given = make_answers(truth.astype(float), {AS_GIVEN: logits, "image": logits})
    old, age = TargetCalibration(temperature=7.0), TargetCalibration(offset=50.0, scale=9.0)
    both = {"findings.nodule": old, "findings.effusion": old}
    before = Calibration(targets={**both, "age.age": age}, subsets={"image": both, "voice": both})
    fitted = fit_promises([FINDINGS, AGE], given, SETTINGS, before, bias=True)
    targets, subsets = fitted.calibration.targets, fitted.calibration.subsets
    assert (targets["findings.effusion"], targets["age.age"]) == (old, age)
    assert subsets["image"]["findings.effusion"] == old
    assert subsets["voice"] == both
    # Two normal distributions 8 apart with a spread of 4: the logit is half of what was said.
    for own in (targets["findings.nodule"], subsets["image"]["findings.nodule"]):
        assert own.temperature == pytest.approx(2.0, rel=0.3)
    # Promises are chosen on what is said then, and only of what was answered.
    assert set(fitted.trust.subsets) == {"image"}
    read = expit(calibrate([FINDINGS, AGE], logits, fitted.calibration, "image"))
    nodule = fitted.trust.of("image", "findings.nodule")
    assert nodule is not None
    assert nodule.positive == least_probability(read[truth[:, 0] == 1, 0], SETTINGS.sensitivity)


@pytest.mark.parametrize("skill", [0.0, 1.0, 3.0])
def test_sets_of_new_studies_hold_the_truth_as_often_as_promised_in_every_class(
    skill: float,
) -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = (rng.random((n, 2)) < [0.3, 0.1]).astype(float)
        cause = rng.choice(3, n, p=[0.6, 0.3, 0.1])
        said = rng.normal(skill * (truth - 0.5), 1.0)
        votes = rng.normal(0, 1, (n, 3)) + skill * np.eye(3)[cause]
        age = rng.normal(60, 15, n)
        logits = np.column_stack([said, votes, age + rng.normal(0, 5, n)])
        return logits, np.column_stack([truth, cause, age])

    tasks = (FINDINGS, CAUSE, AGE)
    logits, labels = draw(1000)
    record = fit_trust(tasks, make_answers(labels, {"note": logits}), SETTINGS)
    held: dict[tuple[str, str], list[bool]] = {}
    logits, labels = draw(3000)
    for x, y in zip(logits, labels, strict=True):
        chances = np.exp(x[2:5]) / np.exp(x[2:5]).sum()
        answers = (
            predict(FINDINGS, expit(x[:2]).tolist()),
            predict(CAUSE, chances.tolist()),
            predict(AGE, [], float(x[5])),
        )
        findings, (cause,), (age,) = (
            task.judgements for task in judge_answers(answers, "note", record)
        )
        for own, truth in zip(findings, y[:2], strict=True):
            name = "present" if truth else "absent"
            held.setdefault((own.question, name), []).append(name in own.possible)
        name = CAUSE.classes[int(y[2])]
        held.setdefault((cause.question, name), []).append(name in cause.possible)
        assert age.interval is not None
        held.setdefault(("age", ""), []).append(age.interval[0] <= y[3] <= age.interval[1])
    assert len(held) == 8
    for question, hits in held.items():
        # Validation studies vary as well: their number widens the binomial's spread.
        counts = record.subsets["note"][question[0]].studies
        n = 1 / (1 / len(hits) + 1 / counts[question[1] or "age"])
        assert np.mean(hits) >= binom.ppf(1e-4, int(n), SETTINGS.coverage) / int(n), question


def test_an_answer_as_given_is_read_by_the_modalities_that_the_study_has() -> None:
    task = Task(name="finding", kind=TaskKind.BINARY, classes=("nodule",))
    rows = make_answers(np.zeros((3, 1)), {}).rows
    present = np.array([[True, True, True], [False, True, False], [True, False, False]])
    answers = Answers(rows, present, {AS_GIVEN: np.full((3, 1), 6.0), "note": np.full((3, 1), 6.0)})
    one, two, three = (
        {"finding.nodule": TargetCalibration(temperature=t)} for t in (1.0, 2.0, 3.0)
    )
    calibration = Calibration(targets=one, subsets={"note": two, "image+note+voice": three})
    read = answers.calibrated([task], calibration).logits
    assert read[AS_GIVEN][:, 0].tolist() == [2.0, 3.0, 6.0]
    assert read["note"][:, 0].tolist() == [3.0, 3.0, 3.0]


# Judging


RECORD = TrustRecord(
    subsets={
        "note": {
            "findings.nodule": QuestionTrust(
                studies={"absent": 90, "present": 40},
                least={"absent": 0.4, "present": 0.3},
                sure=0.8,
                positive=0.25,
            ),
            "cause": QuestionTrust(
                studies={"viral": 50, "bacterial": 50, "other": 3},
                least={"viral": 0.5, "bacterial": 0.2, "other": 0.0},
            ),
            "age": QuestionTrust(studies={"age": 80}, within=7.5),
        }
    }
)


@pytest.mark.parametrize(
    ("chance", "possible", "sure", "positive"),
    [
        (0.9, ("present",), True, True),
        (0.65, ("present",), False, True),
        (0.5, ("absent", "present"), False, True),
        (0.26, ("absent",), False, True),
        (0.1, ("absent",), True, False),
    ],
)
def test_a_finding_is_judged_by_its_thresholds(
    chance: float, possible: tuple[str, ...], sure: bool, positive: bool
) -> None:
    (judged,) = judge_answers([predict(FINDINGS, [chance, 0.5])], "note", RECORD)
    nodule, effusion = judged.judgements
    likeliest = "present" if chance > 0.5 else "absent"
    assert nodule == Judgement("findings.nodule", possible, None, likeliest, sure, positive)
    # Nothing is known of the other: nothing is left out, nothing is sure.
    assert effusion == Judgement("findings.effusion", ("absent", "present"), likeliest="absent")


def test_a_set_is_never_empty_and_holds_classes_that_nothing_speaks_against() -> None:
    (judged,) = judge_answers([predict(CAUSE, [0.45, 0.15, 0.4])], "note", RECORD)
    assert judged.judgements == (Judgement("cause", ("viral", "other"), likeliest="viral"),)


def test_a_quantity_gets_its_interval_and_none_from_an_unknown_subset() -> None:
    (judged,) = judge_answers([predict(AGE, [], 60.0)], "note", RECORD)
    assert judged.judgements == (Judgement("age", interval=(52.5, 67.5)),)
    (judged,) = judge_answers([predict(AGE, [], 60.0)], "image", RECORD)
    assert judged.judgements == (Judgement("age"),)


# Serving


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    usual = Usual(
        mean=np.zeros(75, np.float32),
        whiten=np.eye(75, dtype=np.float32),
        distances=np.linspace(0, 1e-3, 199, dtype=np.float32),
    )
    own = QuestionTrust(
        studies={"absent": 50, "present": 50},
        least={"absent": 0.6, "present": 0.3},
        sure=0.5,
        positive=0.5,
    )
    trust = TrustRecord(
        settings=TrustSettings(false_alarms=0.02),
        subsets={
            "image+note+voice": {
                "findings.brightness": own,
                "loudness": QuestionTrust(studies={"loudness": 50}, within=2.0),
            }
        },
    )
    folder = tmp_path_factory.mktemp("trust") / "bundle"
    return Predictor(
        make_bundle(folder, trust=trust, novelty=NoveltyModel({Modality.VOICE: usual}))
    )


def test_every_served_answer_carries_what_is_promised_of_it(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([make_study()])
    answer = to_answer(prediction)
    assert answer.promises is not None
    assert answer.promises.false_alarms == 0.02
    brightness, wordiness = answer.tasks[0].judgements
    # expit(0.375 / 2) is 0.547: present is in the set, absent at 0.453 is not, and it is sure.
    assert brightness.possible == ("present",)
    assert (brightness.sure, brightness.positive) == (True, True)
    assert wordiness.possible == ("absent", "present")
    (loudness,) = answer.tasks[1].judgements
    assert answer.tasks[1].value is not None
    assert loudness.interval == pytest.approx(
        (answer.tasks[1].value - 2, answer.tasks[1].value + 2)
    )
    # A tone is as far as none of 199 recordings: p = 1 / 200.
    assert answer.novelty[Modality.VOICE].p_value == pytest.approx(1 / 200)
    assert answer.novelty[Modality.VOICE].novel
    assert set(answer.novelty) == {Modality.VOICE}


def test_the_page_says_what_may_be_said(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([make_study()])
    page = answer_html(ENGLISH, to_answer(replace(prediction, novelty={})))
    assert "present · sure · above the screening threshold (90% sensitivity)" in page
    assert "can&#x27;t tell · not sure" in page
    assert "(90% interval)" in page
    plain = answer_html(ENGLISH, to_answer(replace(prediction, promises=None, novelty={})))
    assert "sure" not in plain


def test_it_is_said_where_what_was_checked_are_studies_of_which_parts_were_hidden(
    predictor: Predictor,
) -> None:
    (prediction,) = predictor.predict([make_study()])
    said = "Checked on studies of which other parts were hidden"
    answers = {}
    for exact in (None, True, False):
        first, *others = prediction.tasks
        judgements = tuple(replace(own, exact=exact) for own in first.judgements)
        tasks = (replace(first, judgements=judgements), *others)
        answers[exact] = to_answer(replace(prediction, tasks=tasks, novelty={}))
        own = answers[exact].tasks[0].judgements
        assert [judgement.exact for judgement in own] == [exact] * 2
    shown = {exact: said in answer_html(ENGLISH, own) for exact, own in answers.items()}
    assert shown == {None: False, True: False, False: True}
    (judged,) = judge_answers([predict(AGE, [], 60.0)], "note", RECORD)
    assert judged.judgements[0].exact is None  # of a record that does not say


def test_no_score_is_shown_of_what_rests_on_a_novel_input(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([make_study()])
    answer = to_answer(prediction)
    page = answer_html(ENGLISH, answer)
    for said in (
        "Refer to a human.",
        "What this study has as voice is unlike what the model was trained on",
        "have it read by a specialist",
    ):
        assert page.count(said) == len(answer.tasks)
    scores = [format_probability(p) for p in answer.tasks[0].probabilities.values()]
    assert not any(score in page for score in (*scores, format_value(answer.tasks[1])))
    assert "mf-referred" in page
    # What rests on other modalities alone is answered.
    spared = answer.tasks[0].model_copy(update={"used": (Modality.IMAGE,)})
    page = answer_html(ENGLISH, answer.model_copy(update={"tasks": (spared, answer.tasks[1])}))
    assert all(score in page for score in scores)
    assert page.count("Refer to a human.") == 1
    assert "mf-referred" not in page


def test_no_score_is_shown_of_what_cannot_be_explained(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([make_study()])
    answer = to_answer(replace(prediction, novelty={}))
    brightness, wordiness = map(format_probability, answer.tasks[0].probabilities.values())
    check = CheckRecord(name="agreement", value=0.1, limit=0.3, passed=False, message="Not so.")
    badge = BadgeRecord(passed=False, checks=(check,))
    failed = [
        ExplanationRecord.model_construct(target=target, badge=badge)
        for target in ("findings.brightness", *answer.tasks[1].logits)
    ]
    page = answer_html(ENGLISH, answer, failed)
    assert brightness not in page
    assert format_value(answer.tasks[1]) not in page
    assert wordiness in page
    assert page.count("Refer to a human.") == 2


def test_other_subsets_than_those_promised_leave_everything_open(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([replace(make_study(), voice=None)])
    answer = to_answer(prediction)
    assert answer.promises is not None
    said = [describe_judgement(j, answer.promises) for t in answer.tasks for j in t.judgements]
    assert said == ["can't tell · not sure"] * 2 + ["no interval: too few studies were checked"]
    assert not answer.novelty


def test_a_bundle_without_promises_makes_none(hand_bundle: Path) -> None:
    (prediction,) = Predictor(hand_bundle).predict([make_study()])
    answer = to_answer(prediction)
    assert answer.promises is None
    assert not answer.novelty
    assert not any(task.judgements for task in answer.tasks)
