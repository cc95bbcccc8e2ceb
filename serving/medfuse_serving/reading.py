"""A study, a reader and a model's answer in; what the reader made of them, step by step, out.

Each function gives the next step of a reading, whole; `worklist.store` keeps every one of them.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from medfuse.attribution.record import ExplanationRecord
from medfuse.config import Task, TaskKind
from medfuse.errors import InputError
from medfuse.types import Study
from medfuse_serving.answer import Answer
from medfuse_serving.language import message
from medfuse_serving.report.inputs import list_inputs
from medfuse_serving.report.record import Decision, Reading
from medfuse_serving.report.withhold import PER_FINDING, find_referrals, is_withheld, withhold
from medfuse_serving.worklist.records import ReadingStep

PRESENT, ABSENT, UNSURE = message("present"), message("absent"), message("unsure")

NOTHING_SAID = message("the impression says nothing; answer a question of it, or write a line")
NO_ANSWER = message("there is no answer to decide on; press Predict first")
NO_REASON = message("an answer that is edited or overridden needs a reason; write it down")
NO_WORDING = message("an edited answer needs its final wording; write it down, or override it")
NOTHING_LEFT = message(
    "every score of this answer is withheld, so there is nothing to accept, edit or override; note "
    "the referral"
)
SOME_LEFT = message(
    "this answer has a score, so its referral alone cannot be noted; accept, edit or override it"
)
TOO_LONG = message("a reading cannot hold so long a text; write less")


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader is asked before the answer is shown.

    Attributes:
        target: A finding such as `findings.nodule`, or a whole task.
        name: What the model calls it.
        options: What may be said; empty where a value is asked for.
        unit: Of the value.
    """

    target: str
    name: str
    options: tuple[str, ...]
    unit: str = ""


def list_questions(tasks: Sequence[Task]) -> tuple[Question, ...]:
    """List what a model is asked: each finding, or else each task as a whole."""
    questions = []
    for task in tasks:
        if task.kind in PER_FINDING:
            options = (PRESENT, ABSENT, UNSURE)
            questions += [Question(f"{task.name}.{c}", c, options) for c in task.classes]
        elif task.kind is TaskKind.REGRESSION:
            questions.append(Question(task.name, task.classes[0], (), task.unit or ""))
        else:
            questions.append(Question(task.name, task.name, (*task.classes, UNSURE)))
    return tuple(questions)


def begin(study: str | None, reader: str, opened_at: datetime | None) -> ReadingStep:
    """Begin a reading.

    Args:
        study: Its id on the worklist, if it is on one.
        reader: Who reads.
        opened_at: When it was opened; now where that is not known.
    """
    return ReadingStep(
        reading=secrets.token_hex(16),
        study=study,
        reader=reader,
        opened_at=opened_at or datetime.now(UTC),
    )


def give_impression(
    step: ReadingStep,
    study: Study,
    findings: Mapping[str, str],
    impression: str,
    reader: str,
) -> ReadingStep:
    """Take down the reader's impression, before the answer is computed.

    Raises:
        InputError: Nothing is said, or too much.
    """
    said = {target: value for target, value in findings.items() if value}
    if not said and not impression.strip():
        raise InputError(NOTHING_SAID)
    return _go_on(
        step,
        reader=reader,
        findings=said,
        impression=impression.strip(),
        impression_at=datetime.now(UTC),
        inputs=list_inputs(study),
    )


def show_answer(
    step: ReadingStep, study: Study, answer: Answer, reader: str, seen: Sequence[ExplanationRecord]
) -> ReadingStep:
    """Take down which answer is shown, without the scores of what is left to a human."""
    return _go_on(
        step,
        reader=reader,
        answered_at=step.answered_at or datetime.now(UTC),
        inputs=list_inputs(study),
        **_as_shown(answer, seen),
    )


def decide(
    step: ReadingStep,
    answer: Answer,
    seen: Sequence[ExplanationRecord],
    decision: Decision,
    wording: str,
    reason: str,
    reader: str,
) -> ReadingStep:
    """Take down what the reader decides on an answer.

    Args:
        step: The reading so far.
        answer: As the model gave it.
        seen: Its explanations that were shown.
        decision: What becomes of it.
        wording: What is to stand in its place, or beside it; not kept of what is accepted.
        reason: Why it is edited or overridden; likewise.
        reader: Who decides.

    Raises:
        InputError: The reason or the wording that the decision needs is missing, or too long; or
            it is none that can be taken on the answer, of which nothing or something is shown.
    """
    wording, reason = wording.strip(), reason.strip()
    if decision == "accept":
        wording = reason = ""  # they were written for another decision
    if decision in {"edit", "override"} and not reason:
        raise InputError(NO_REASON)
    if decision == "edit" and not wording:
        raise InputError(NO_WORDING)
    withheld = is_withheld(answer, find_referrals(answer, seen))
    if withheld and decision != "acknowledge":
        raise InputError(NOTHING_LEFT)
    if not withheld and decision == "acknowledge":
        raise InputError(SOME_LEFT)
    return _go_on(
        step,
        reader=reader,
        decision=decision,
        wording=wording,
        reason=reason,
        decided_at=datetime.now(UTC),
        **_as_shown(answer, seen),
    )


def to_reading(step: ReadingStep | None) -> Reading | None:
    """Give a report what was decided; nothing before that."""
    if step is None or step.decision is None or step.decided_at is None:
        return None
    return Reading(
        impression=step.impression,
        findings=step.findings,
        decision=step.decision,
        reason=step.reason,
        wording=step.wording,
        reader=step.reader,
        opened_at=step.opened_at,
        impression_at=step.impression_at,
        answered_at=step.answered_at,
        signed_at=step.decided_at,
    )


def _as_shown(answer: Answer, seen: Sequence[ExplanationRecord]) -> dict[str, Any]:
    referrals = find_referrals(answer, seen)
    shown = withhold(answer, referrals)
    return {"answer": shown, "referrals": referrals, "model_digest": answer.model_digest}


def _go_on(step: ReadingStep, **changes: Any) -> ReadingStep:  # noqa: ANN401 - fields of a step
    try:
        return ReadingStep.model_validate(dict(step) | changes)
    except ValidationError as error:  # its text would quote the reader
        raise InputError(TOO_LONG) from error
