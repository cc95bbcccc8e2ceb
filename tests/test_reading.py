"""A reading: what may be said, when, and what is kept of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfuse.attribution.settings import AttributionSettings
from medfuse.config import Task, TaskKind
from medfuse.errors import InputError
from medfuse_serving import reading
from medfuse_serving.answer import Answer, NoveltyAnswer, to_answer
from medfuse_serving.explainer import Explainer
from medfuse_serving.explanation_view import make_view
from medfuse_serving.language import LANGUAGES
from medfuse_serving.predictor import Predictor
from medfuse_serving.reading import Question, begin, decide, give_impression, to_reading
from medfuse_serving.reading_panel import read_findings
from medfuse_serving.report.gather import ReportOptions, make_record
from medfuse_serving.report.inputs import list_inputs
from medfuse_serving.report.record import Decision
from medfuse_serving.report.render import make_report
from medfuse_serving.worklist.records import ReadingStep
from tests.hand_bundle import SETTINGS, TASKS, make_study
from tests.hand_network import MIXED, HandNetwork

STUDY = make_study()
QUICK = AttributionSettings(steps=2, most_steps=2)
OPENED = datetime.now(UTC) - timedelta(minutes=1)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture(scope="module")
def answer(predictor: Predictor) -> Answer:
    return to_answer(predictor.predict([STUDY])[0])


@pytest.fixture
def answered(answer: Answer) -> ReadingStep:
    step = begin("id", "Reader 7", OPENED)
    step = give_impression(step, STUDY, {"findings.brightness": "present"}, " Bright. ", "Reader 7")
    return reading.show_answer(step, STUDY, answer, "Reader 7", ())


def test_every_finding_class_level_and_value_is_asked_for() -> None:
    tasks = (
        *TASKS,
        Task(name="triage", kind=TaskKind.BINARY, classes=("urgent",)),
        Task(name="stage", kind=TaskKind.ORDINAL, classes=("none", "mild", "severe")),
        Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "other")),
    )
    finding = ("present", "absent", "unsure")
    assert reading.list_questions(tasks) == (
        Question("findings.brightness", "brightness", finding),
        Question("findings.wordiness", "wordiness", finding),
        Question("loudness", "loudness", (), "dB"),
        Question("triage.urgent", "urgent", finding),
        Question("stage", "stage", ("none", "mild", "severe", "unsure")),
        Question("cause", "cause", ("viral", "other", "unsure")),
    )


def test_what_is_left_open_is_not_said() -> None:
    questions = reading.list_questions(TASKS)
    said = '{"findings.brightness": "", "findings.wordiness": "absent", "loudness": "-1.5"}'
    assert read_findings(questions, said) == {"findings.wordiness": "absent", "loudness": "-1.5"}
    assert read_findings(questions, "{}") == {}


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        '{"findings.brightness": 1}',
        '{"findings.brightness": "bright"}',
        '{"findings.nodule": "absent"}',
        '{"loudness": "loud"}',
        '{"loudness": "inf"}',
    ],
)
def test_what_is_not_asked_cannot_be_said(said: str) -> None:
    with pytest.raises(InputError, match="not asked"):
        read_findings(reading.list_questions(TASKS), said)


def test_an_impression_comes_with_the_inputs_it_is_of_and_before_the_answer(
    answer: Answer, answered: ReadingStep
) -> None:
    assert answered.impression == "Bright."
    assert answered.inputs == list_inputs(STUDY)
    assert answered.impression_at is not None
    assert answered.answered_at is not None
    assert OPENED == answered.opened_at < answered.impression_at < answered.answered_at
    assert (answered.answer, answered.model_digest) == (answer, answer.model_digest)
    assert to_reading(answered) is None  # nothing is decided


def test_an_impression_that_says_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="says nothing"):
        give_impression(begin(None, "", None), STUDY, {"loudness": ""}, " \n", "")


@pytest.mark.parametrize("decision", get_args(Decision))
def test_what_is_withheld_can_only_be_acknowledged_and_nothing_else_can(
    answer: Answer, answered: ReadingStep, decision: Decision
) -> None:
    unlike = {m: NoveltyAnswer(p_value=0.0, novel=True) for m in answer.used}
    withheld = answer.model_copy(update={"novelty": unlike})
    alone = decision == "acknowledge"
    for given_answer, allowed in ((withheld, alone), (answer, not alone)):
        if not allowed:
            with pytest.raises(InputError, match="has a score" if alone else "is withheld"):
                decide(answered, given_answer, (), decision, "Bright.", "Motion.", "R")
            continue
        decided = decide(answered, given_answer, (), decision, "Bright.", "Motion.", "R")
        written = decided.model_dump_json(by_alias=True)
        assert ReadingStep.model_validate_json(written).decision == decision


def test_a_referral_that_was_noted_stands_in_the_report(
    predictor: Predictor, answer: Answer, answered: ReadingStep
) -> None:
    unlike = {m: NoveltyAnswer(p_value=0.0, novel=True) for m in answer.used}
    withheld = answer.model_copy(update={"novelty": unlike})
    decided = decide(answered, withheld, (), "acknowledge", "", "", "")
    record = make_record(predictor, STUDY, withheld, (), ReportOptions(reading=to_reading(decided)))
    document = pypdfium2.PdfDocument(make_report(record))
    text = " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())
    document.close()
    assert "withheld, and its referral noted" in text
    assert "accepted" not in text


DECISIONS = st.sampled_from(["accept", "edit", "override"])
TEXTS = st.sampled_from(["", " \n", "Motion."])


@given(decision=DECISIONS, wording=TEXTS, reason=TEXTS)
def test_a_decision_has_the_reason_and_the_wording_that_it_needs(
    answer: Answer, decision: str, wording: str, reason: str
) -> None:
    step = reading.show_answer(begin(None, "", OPENED), STUDY, answer, "", ())
    needs = {"accept": (False, False), "edit": (True, True), "override": (False, True)}[decision]
    given_texts = bool(wording.strip()), bool(reason.strip())
    allowed = all(there or not needed for needed, there in zip(needs, given_texts, strict=True))
    try:
        decided = decide(step, answer, (), decision, wording, reason, "R")  # type: ignore[arg-type]
    except InputError:
        assert not allowed
        return
    assert allowed
    kept = ("", "") if decision == "accept" else (wording.strip(), reason.strip())
    assert (decided.wording, decided.reason) == kept
    assert decided.decided_at is not None
    assert decided.reading == step.reading
    final = to_reading(decided)
    assert final is not None
    assert final.decision == decision
    assert final.signed_at == decided.decided_at


def test_a_text_that_is_too_long_is_refused_without_its_words(answered: ReadingStep) -> None:
    with pytest.raises(InputError, match="so long a text") as caught:
        give_impression(answered, STUDY, {}, "Jane " * 900, "")
    assert "Jane" not in str(caught.value)


def test_the_score_of_what_is_left_to_a_human_is_not_kept(
    predictor: Predictor, answer: Answer, answered: ReadingStep
) -> None:
    explainer = Explainer(predictor, None, HandNetwork(MIXED, slope=2.0))
    explained = explainer.explain(STUDY, "findings.brightness", QUICK)
    view = make_view(explained, SETTINGS, explainer.scales)
    assert not view.record.badge.passed
    decided = decide(answered, answer, [view.record], "override", "", "Not explained.", "")
    assert decided.answer is not None
    assert list(decided.answer.tasks[0].probabilities) == ["wordiness"]
    assert "findings.brightness" not in decided.answer.tasks[0].logits
    assert [r.targets for r in decided.referrals] == [("findings.brightness",)]


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_report_holds_all_of_a_reading(
    predictor: Predictor, answer: Answer, answered: ReadingStep, code: str
) -> None:
    decided = decide(answered, answer, (), "edit", "Bright, and loud.", "Louder than it says.", "")
    options = ReportOptions(language=code, reading=to_reading(decided))
    record = make_record(predictor, STUDY, answer, (), options)
    document = pypdfium2.PdfDocument(make_report(record))
    text = " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())
    document.close()
    expected = ["Bright.", "Bright, and loud.", "Louder than it says."]
    expected += {
        "en": ["present", "accepted with changes", "nobody had logged in", "Decided"],
        "zh": ["有", "无人登录", "最终措辞", "作出决定时间"],
    }[code]
    for moment in (decided.opened_at, decided.impression_at, decided.answered_at):
        assert moment is not None
        expected.append(f"{moment:%H:%M:%S} UTC")
    for said in expected:
        assert said in text
    assert not {"Signed", "签署时间"} & set(text.split())
