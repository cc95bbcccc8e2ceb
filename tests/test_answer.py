"""The JSON form of a prediction."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfuse.config import Code, Task, TaskKind
from medfuse.errors import VoiceError
from medfuse.trust.record import TrustSettings
from medfuse.types import (
    FindingsText,
    ImagePlace,
    Judgement,
    Modality,
    Prediction,
    Remark,
    Sentence,
    SentenceEvidence,
    TaskPrediction,
)
from medfuse_serving.answer import (
    Answer,
    StudyLine,
    describe_reading,
    format_probability,
    to_answer,
    to_failure,
    to_json,
)
from medfuse_serving.language import ENGLISH
from medfuse_serving.rendering import answer_html

NODULE = Code(value="27925004", scheme="SCT", meaning="Nodule")
PREDICTION = Prediction(
    tasks=(
        TaskPrediction(
            Task(
                name="findings",
                kind=TaskKind.MULTILABEL,
                classes=("nodule", "effusion"),
                codes={"nodule": NODULE},
            ),
            np.array([1.0, -2.0], dtype=np.float32),
            np.array([0.75, 0.125]),
            judgements=(
                Judgement("findings.nodule", ("absent", "present"), None, "present", False, True),
                Judgement("findings.effusion", ("absent",), None, "absent", True),
            ),
        ),
        TaskPrediction(
            Task(
                name="stage",
                kind=TaskKind.ORDINAL,
                classes=("one", "two", "three"),
                modalities=("note", "voice"),
            ),
            np.array([1.0, -1.0], dtype=np.float32),
            np.array([0.25, 0.5, 0.25]),
        ),
        TaskPrediction(
            Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a"),
            np.array([0.5], dtype=np.float32),
            np.zeros(0),
            value=61.5,
            judgements=(Judgement("age.age", interval=(50.0, 73.0)),),
        ),
    ),
    used=frozenset({Modality.VOICE, Modality.IMAGE}),
    remarks=(Remark(Modality.VOICE, "voice-silent", "The recording is silent."),),
    model_digest="ab" * 32,
    novelty={Modality.IMAGE: 0.25, Modality.VOICE: 0.01},
    promises=TrustSettings(),
)
JSON = {
    "schema": "medfuse.prediction/3",
    "model_digest": "ab" * 32,
    "used": ["image", "voice"],
    "tasks": [
        {
            "name": "findings",
            "kind": "multilabel",
            "probabilities": {"nodule": 0.75, "effusion": 0.125},
            "logits": {"findings.nodule": 1.0, "findings.effusion": -2.0},
            "value": None,
            "unit": None,
            "codes": {"nodule": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}},
            "judgements": [
                {
                    "question": "findings.nodule",
                    "possible": ["absent", "present"],
                    "interval": None,
                    "likeliest": "present",
                    "sure": False,
                    "positive": True,
                    "exact": None,
                },
                {
                    "question": "findings.effusion",
                    "possible": ["absent"],
                    "interval": None,
                    "likeliest": "absent",
                    "sure": True,
                    "positive": None,
                    "exact": None,
                },
            ],
            "reads": ["image", "note", "voice"],
            "used": ["image", "voice"],
        },
        {
            "name": "stage",
            "kind": "ordinal",
            "probabilities": {"one": 0.25, "two": 0.5, "three": 0.25},
            "logits": {"stage.at_least_two": 1.0, "stage.at_least_three": -1.0},
            "value": None,
            "unit": None,
            "codes": {},
            "judgements": [],
            "reads": ["note", "voice"],
            "used": ["voice"],
        },
        {
            "name": "age",
            "kind": "regression",
            "probabilities": {},
            "logits": {"age.age": 0.5},
            "value": 61.5,
            "unit": "a",
            "codes": {},
            "judgements": [
                {
                    "question": "age.age",
                    "possible": [],
                    "interval": [50.0, 73.0],
                    "likeliest": "",
                    "sure": False,
                    "positive": None,
                    "exact": None,
                }
            ],
            "reads": ["image", "note", "voice"],
            "used": ["image", "voice"],
        },
    ],
    "remarks": [
        {"modality": "voice", "code": "voice-silent", "message": "The recording is silent."}
    ],
    "novelty": {
        "image": {"p_value": 0.25, "novel": False},
        "voice": {"p_value": 0.01, "novel": True},
    },
    "promises": {
        "coverage": 0.9,
        "risk": 0.1,
        "confidence": 0.95,
        "sensitivity": 0.9,
        "false_alarms": 0.01,
    },
    "findings_text": None,
    "notice": "For research and evaluation. Not a medical device: not cleared or approved by any "
    "regulator, and not to be used to diagnose, treat or triage a patient.",
}


def test_the_json_form_of_a_prediction_is_this() -> None:
    # Clients depend on it: a change here needs a new schema name.
    text = to_json(to_answer(PREDICTION))
    assert json.loads(text) == JSON
    assert list(json.loads(text)) == list(JSON)


def test_a_task_says_what_it_rests_on_where_that_is_not_all_that_was_given() -> None:
    findings, stage, _ = to_answer(PREDICTION).tasks
    given = (Modality.IMAGE, Modality.VOICE)
    assert describe_reading(findings, given) == ""
    assert describe_reading(stage, given) == "from voice alone"
    alone = to_answer(replace(PREDICTION, used=frozenset({Modality.IMAGE})))
    assert alone.tasks[1].used == ()
    said = describe_reading(alone.tasks[1], alone.used)
    assert said == "not answered: this needs a note or voice and none was given"
    page = answer_html(ENGLISH, alone)
    assert "Not answered: this needs a note or voice" in page
    assert "three" not in page
    assert "three" in answer_html(ENGLISH, to_answer(replace(PREDICTION, novelty={})))


def test_the_json_form_of_findings_text_is_this() -> None:
    evidence = SentenceEvidence(
        {Modality.IMAGE: 0.75, Modality.VOICE: 0.25}, ImagePlace(0, 1, 2, 3, 4, 5), None
    )
    sentence = Sentence("findings.nodule", 0.75, 0.5, "A nodule.", 0.875, evidence)
    text = FindingsText((sentence,), ("findings.effusion",))
    said = json.loads(to_json(to_answer(replace(PREDICTION, text=text))))["findings_text"]
    assert said.pop("notice").startswith("Written by a model to support a decision")
    assert said == {
        "sentences": [
            {
                "target": "findings.nodule",
                "probability": 0.75,
                "threshold": 0.5,
                "text": "A nodule.",
                "likelihood": 0.875,
                "shares": {"image": 0.75, "voice": 0.25},
                "image": {
                    "instance": 0,
                    "frame": 1,
                    "top": 2,
                    "left": 3,
                    "bottom": 4,
                    "right": 5,
                },
                "note": None,
                "voice": None,
            }
        ],
        "left_out": ["findings.effusion"],
    }


def test_the_json_form_reads_back_as_it_was() -> None:
    answer = to_answer(PREDICTION)
    assert Answer.model_validate_json(to_json(answer)) == answer


def test_a_line_holds_an_answer_or_a_failure() -> None:
    line = StudyLine(study="s1", failure=to_failure(VoiceError("too short")))
    assert json.loads(to_json(line)) == {
        "study": "s1",
        "answer": None,
        "failure": {"error": "VoiceError", "message": "too short"},
    }
    assert json.loads(to_json(StudyLine(study="s1", answer=to_answer(PREDICTION)))) == {
        "study": "s1",
        "answer": JSON,
        "failure": None,
    }


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "< 0.1 %"), (0.001, "0.1 %"), (0.5, "50.0 %"), (0.73249, "73.2 %"), (1.0, "> 99.9 %")],
)
def test_a_percentage_never_claims_certainty(probability: float, text: str) -> None:
    assert format_probability(probability) == text


@given(st.floats(0, 1))
def test_a_percentage_is_right_to_its_last_digit(probability: float) -> None:
    sign, _, number = format_probability(probability).removesuffix(" %").rpartition(" ")
    off = abs(float(number) / 100 - probability)
    assert off <= (0.001 if sign else 0.000_501)
