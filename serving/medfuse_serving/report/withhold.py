"""An answer and its explanations in; the answer without what is left to a human, and why, out."""

from collections.abc import Sequence

from medfuse.attribution.record import ExplanationRecord
from medfuse.config import TaskKind
from medfuse_serving.answer import Answer, TaskAnswer, TextAnswer
from medfuse_serving.report.record import ReferralRecord

PER_FINDING = frozenset({TaskKind.BINARY, TaskKind.MULTILABEL})
"""Tasks of which one answer says nothing of another; the rest stand or fall whole."""


def find_referrals(
    answer: Answer, explanations: Sequence[ExplanationRecord]
) -> tuple[ReferralRecord, ...]:
    """Tell which answers are left to a human: those from novel inputs or with a failed badge.

    Args:
        answer: To one study.
        explanations: Of it.
    """
    novel = tuple(m for m, own in answer.novelty.items() if own.novel)
    referrals = [
        ReferralRecord(
            reason="badge",
            targets=concerned(answer, record.target),
            checks=tuple(check for check in record.badge.checks if not check.passed),
        )
        for record in explanations
        if not record.badge.passed
    ]
    if touched := tuple(
        target
        for task in answer.tasks
        if set(task.used) & set(novel)
        for target in list_questions(task)
    ):
        first = ReferralRecord(reason="novel", targets=touched, modalities=novel)
        referrals.insert(0, first)
    return tuple(referrals)


def concerned(answer: Answer, target: str) -> tuple[str, ...]:
    """List what a target's explanation is about: findings, or whole tasks.

    Args:
        answer: Whose tasks there are.
        target: A name of a logit, or a weighting of several.
    """
    names = {part.rpartition("=")[0].strip() or part.strip() for part in target.split(",")}
    found = []
    for task in answer.tasks:
        if task.kind in PER_FINDING:
            found += [q for q in list_questions(task) if q in names]
        elif any(name.startswith(f"{task.name}.") for name in names):
            found.append(task.name)
    return tuple(found)


def withhold(answer: Answer, referrals: Sequence[ReferralRecord]) -> Answer:
    """Leave out of an answer every number of what is left to a human, or was not answered."""
    targets = list_withheld(referrals)
    text = answer.findings_text
    return answer.model_copy(
        update={
            "tasks": tuple(_withhold_task(task, targets) for task in answer.tasks),
            "findings_text": None if text is None else _withhold_text(text, targets),
        }
    )


def is_withheld(answer: Answer, referrals: Sequence[ReferralRecord]) -> bool:
    """Say whether nothing is left of an answer that may be shown."""
    gone = list_withheld(referrals)
    return all(not task.used or set(list_questions(task)) <= gone for task in answer.tasks)


def list_withheld(referrals: Sequence[ReferralRecord]) -> frozenset[str]:
    """List what is left to a human."""
    return frozenset(target for referral in referrals for target in referral.targets)


def _withhold_task(task: TaskAnswer, targets: frozenset[str]) -> TaskAnswer:
    if task.kind not in PER_FINDING:
        return task if task.used and task.name not in targets else _empty(task)
    if not task.used:
        return _empty(task)
    gone = {target.removeprefix(f"{task.name}.") for target in targets & set(list_questions(task))}
    return task.model_copy(
        update={
            "probabilities": {k: v for k, v in task.probabilities.items() if k not in gone},
            "logits": {k: v for k, v in task.logits.items() if k not in targets},
            "judgements": tuple(j for j in task.judgements if j.question not in targets),
        }
    )


def _withhold_text(text: TextAnswer, targets: frozenset[str]) -> TextAnswer:
    return text.model_copy(
        update={
            "sentences": tuple(s for s in text.sentences if s.target not in targets),
            "left_out": tuple(target for target in text.left_out if target not in targets),
        }
    )


def _empty(task: TaskAnswer) -> TaskAnswer:
    nothing: dict[str, object] = {
        "probabilities": {},
        "logits": {},
        "value": None,
        "judgements": (),
    }
    return task.model_copy(update=nothing)


def list_questions(task: TaskAnswer) -> tuple[str, ...]:
    """List what is asked by a task: its findings, or itself."""
    if task.kind in PER_FINDING:
        return tuple(task.logits)
    return (task.name,)
