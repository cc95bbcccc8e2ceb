"""An answer and what is promised of the model's answers in; what may be said of this one out."""

from collections.abc import Sequence
from dataclasses import replace

from medfuse.config import TaskKind
from medfuse.trust.record import ABSENT, PRESENT, QuestionTrust, TrustRecord
from medfuse.types import Judgement, TaskPrediction


def judge_answers(
    predictions: Sequence[TaskPrediction], subset: str, record: TrustRecord
) -> tuple[TaskPrediction, ...]:
    """Add to each task what may be said of its answer.

    Args:
        predictions: Calibrated for the subset.
        subset: The name of the modalities that they rest on.
        record: What is promised.
    """
    return tuple(replace(p, judgements=_judge_task(p, subset, record)) for p in predictions)


def _judge_task(
    prediction: TaskPrediction, subset: str, record: TrustRecord
) -> tuple[Judgement, ...]:
    """Judge each finding, or the whole task."""
    task, chances = prediction.task, prediction.probabilities
    if task.kind is TaskKind.REGRESSION:
        own = record.of(subset, task.name)
        within = None if own is None else own.within
        assert prediction.value is not None
        span = None if within is None else (prediction.value - within, prediction.value + within)
        exact = None if own is None else own.exact
        return (Judgement(question=task.name, interval=span, exact=exact),)
    if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
        return tuple(
            _judge(target, {ABSENT: 1 - p, PRESENT: p}, record.of(subset, target))
            for target, p in zip(task.targets, chances.tolist(), strict=True)
        )
    named = dict(zip(task.classes, chances.tolist(), strict=True))
    return (_judge(task.name, named, record.of(subset, task.name)),)


def _judge(question: str, chances: dict[str, float], own: QuestionTrust | None) -> Judgement:
    """Without a promise every class is possible, and nothing is sure."""
    best = max(chances, key=lambda name: chances[name])
    if own is None:
        return Judgement(question=question, possible=tuple(chances), likeliest=best)
    possible = tuple(
        name for name, p in chances.items() if name == best or p >= own.least.get(name, 0.0)
    )
    positive = None
    if own.positive is not None:
        positive = chances[PRESENT] >= own.positive
    return Judgement(
        question=question,
        possible=possible,
        likeliest=best,
        sure=own.sure is not None and chances[best] >= own.sure,
        positive=positive,
        exact=own.exact,
    )
