"""Answers to labelled studies and what was promised of them in, whether it was kept out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import betabinom, binom, binomtest

from medfuse.config import Settings, Task, TaskKind
from medfuse.trust.answers import Answers
from medfuse.trust.bootstrap import COVERAGE
from medfuse.trust.calibration import Calibration, answer, label_slices
from medfuse.trust.conformal import allowed_misses
from medfuse.trust.judging import judge_answers
from medfuse.trust.record import ABSENT, PRESENT, TrustRecord
from medfuse.types import SUBSETS, Judgement, subset_name

CHANCE = (1 - COVERAGE) / 2
"""Below this chance under the promise, what was seen breaks it."""

Kind = Literal["coverage", "risk", "sensitivity"]


class PromiseFigure(Settings):
    """How one promise was kept.

    Attributes:
        kind: ``coverage`` of sets or intervals, ``risk`` of sure answers, ``sensitivity`` of calls.
        subset: The modalities that the answers rest on.
        question: A finding's target, or a task's name.
        group: The class whose studies count; empty where all do.
        exact: Whether these are studies that have exactly the subset's modalities, as at the
            bedside; of the others some were taken away.
        promised: The least share, or for a risk the largest.
        studies: How many counted.
        hits: In how many the set held the truth, the sure answer was wrong, the call was positive.
        checked: On how many validation studies the promise rests.
        share: Hits by studies; None without any.
        low, high: Its exact 95 % interval (Clopper & Pearson 1934), of these studies alone.
        kept: Whether it differs from the promise, to the wrong side, by no more than chance: the
            hits are as few (or the errors as many) with chance 2.5 % or more, validation studies
            being a sample as well.
    """

    kind: Kind
    subset: str
    question: str
    group: str
    exact: bool
    promised: float
    studies: int
    hits: int
    checked: int
    share: float | None
    low: float | None
    high: float | None
    kept: bool


class SetSizes(Settings):
    """How much a question's sets leave open, and how many answers are sure.

    Attributes:
        subset: The modalities that the answers rest on.
        question: A finding's target, or a task's name.
        exact: As in `PromiseFigure`.
        studies: How many were answered.
        single: The share of sets with one class.
        sure: The share of answers that are sure.
    """

    subset: str
    question: str
    exact: bool
    studies: int
    single: float
    sure: float


def measure_promises(
    tasks: Sequence[Task], answers: Answers, record: TrustRecord
) -> tuple[tuple[PromiseFigure, ...], tuple[SetSizes, ...]]:
    """Hold every promise to labelled studies, for each subset of modalities and each class.

    Studies that have exactly the subset's modalities are counted by themselves. Those of which
    others were taken away count where the promise rests on such studies, or does not say.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated, to studies that neither the model nor its promises were fitted to.
        record: What is promised.
    """
    figures: list[PromiseFigure] = []
    sizes: list[SetSizes] = []
    for subset in SUBSETS:
        name = subset_name(subset)
        if name not in answers.logits:
            continue
        logits, exactly = answers.logits[name], answers.has_exactly(subset)
        has = ~np.isnan(logits).any(axis=1)
        for exact, rows in ((True, has & exactly), (False, has & ~exactly)):
            if not rows.any():
                continue
            judged = _judge(tasks, logits[rows], name, record)
            for question, (classes, truth) in _questions(tasks, answers.labels[rows]).items():
                trust = record.of(name, question)
                if trust is not None and trust.exact and not exact:
                    continue
                held = _Held(name, question, exact)
                figures += _hold(held, classes, truth, judged[question], record)
                if classes:
                    sizes.append(_measure_sizes(held, judged[question]))
    return tuple(figures), tuple(sizes)


@dataclass(frozen=True, slots=True)
class _Held:
    """Which promise is held to which kind of studies; named as in `PromiseFigure`."""

    subset: str
    question: str
    exact: bool


def _measure_sizes(held: _Held, judged: Sequence[Judgement]) -> SetSizes:
    return SetSizes(
        subset=held.subset,
        question=held.question,
        exact=held.exact,
        studies=len(judged),
        single=float(np.mean([len(j.possible) == 1 for j in judged])),
        sure=float(np.mean([j.sure for j in judged])),
    )


def _judge(
    tasks: Sequence[Task], logits: Float[np.ndarray, "n k"], subset: str, record: TrustRecord
) -> dict[str, list[Judgement]]:
    """Judge each study's answers, as at the bedside."""
    judged: dict[str, list[Judgement]] = {}
    for row in logits:
        for task in judge_answers(answer(tasks, row, Calibration()), subset, record):
            for own in task.judgements:
                judged.setdefault(own.question, []).append(own)
    return judged


def _questions(
    tasks: Sequence[Task], labels: Float[np.ndarray, "n c"]
) -> dict[str, tuple[tuple[str, ...], Float[np.ndarray, " n"]]]:
    """Give each question's classes, none for a quantity, and its truth by study."""
    found: dict[str, tuple[tuple[str, ...], Float[np.ndarray, " n"]]] = {}
    for task, columns in label_slices(tasks):
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            for target, truth in zip(task.targets, labels[:, columns].T, strict=True):
                found[target] = ((ABSENT, PRESENT), truth)
        else:
            classes = () if task.kind is TaskKind.REGRESSION else task.classes
            found[task.name] = (classes, labels[:, columns.start])
    return found


def _hold(
    held: _Held,
    classes: Sequence[str],
    truth: Float[np.ndarray, " n"],
    judged: Sequence[Judgement],
    record: TrustRecord,
) -> Iterator[PromiseFigure]:
    promised, known = record.settings, ~np.isnan(truth)
    trust = record.of(held.subset, held.question)
    counts = {} if trust is None else trust.studies

    def figure(
        kind: Kind, least: float, group: str, hits: Bool[np.ndarray, " n"], checked: int
    ) -> PromiseFigure:
        n, k = len(hits), int(hits.sum())
        low, high = exact_interval(k, n) if n else (None, None)
        return PromiseFigure(
            kind=kind,
            subset=held.subset,
            question=held.question,
            group=group,
            exact=held.exact,
            promised=least,
            studies=n,
            hits=k,
            checked=checked,
            share=k / n if n else None,
            low=low,
            high=high,
            kept=_is_kept(kind, k, n, least, checked),
        )

    if not classes:
        rows = [i for i in np.flatnonzero(known).tolist() if judged[i].interval is not None]
        inside = []
        for i in rows:
            low, high = judged[i].interval or (np.nan, np.nan)
            inside.append(low <= truth[i] <= high)
        hits = np.array(inside, bool)
        yield figure("coverage", promised.coverage, "", hits, sum(counts.values()))
        return
    for c, name in enumerate(classes):
        rows = np.flatnonzero(truth == c).tolist()
        hits = np.array([name in judged[i].possible for i in rows], bool)
        yield figure("coverage", promised.coverage, name, hits, counts.get(name, 0))
    sure = [i for i in np.flatnonzero(known).tolist() if judged[i].sure]
    wrong = np.array([classes[int(truth[i])] != judged[i].likeliest for i in sure], bool)
    yield figure("risk", promised.risk, "", wrong, sum(counts.values()))
    if trust is not None and trust.positive is not None:
        called = np.array(
            [bool(judged[i].positive) for i in np.flatnonzero(truth == 1).tolist()], bool
        )
        yield figure("sensitivity", promised.sensitivity, PRESENT, called, counts.get(PRESENT, 0))


def _is_kept(kind: Kind, hits: int, studies: int, promised: float, checked: int) -> bool:
    """Whether a promise that holds would look as broken as this, or more, by chance."""
    if not studies:
        return True
    if kind == "risk":
        return bool(binom.sf(hits - 1, studies, promised) >= CHANCE)
    k = allowed_misses(checked, promised)
    # Over validation studies the true share is Beta(n + 1 - k, k) (Vovk 2012, proposition 2a).
    return not k or bool(betabinom.cdf(hits, studies, checked + 1 - k, k) >= CHANCE)


def exact_interval(hits: int, studies: int) -> tuple[float, float]:
    """Give the exact 95 % interval of a chance (Clopper & Pearson 1934)."""
    found = binomtest(hits, studies).proportion_ci(COVERAGE, method="exact")
    return float(found.low), float(found.high)
