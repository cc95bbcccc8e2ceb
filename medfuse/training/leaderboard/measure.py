"""Every contender's answers to the same studies in; the leaderboard's figures out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from medfuse.config import Task
from medfuse.data.cohort import Cohort
from medfuse.training.leaderboard.kept import Kept
from medfuse.training.leaderboard.report import Comparison, Entry, Leaderboard
from medfuse.training.settings import TrainSettings
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import COVERAGE, Figure, patient_weights, summarise
from medfuse.trust.comparison import corrected_t_test, holm, rank
from medfuse.trust.measure import measure_subsets, read_bayes, score
from medfuse.trust.metrics import headline
from medfuse.types import SUBSETS, subset_name

Fits = Mapping[str, Sequence[Sequence[Kept]]]
"""By contender, the folds of each repeat."""

Resampled = dict[str, Float[np.ndarray, "t r"]]
"""By contender, the headline figure of each repeat (T) in each bootstrap resample (R)."""


def measure_board(
    settings: TrainSettings, cohort: Cohort, fits: Fits, baseline: str, left_out: int
) -> Leaderboard:
    """Measure every contender as a whole and by subset, and compare them in pairs.

    Args:
        settings: The run's; its first task is compared.
        cohort: The rows that the fits' studies are places of.
        fits: Of every contender on the same folds.
        baseline: The one that all others are compared with, beside the best.
        left_out: How many studies' files could not be used.
    """
    task = settings.tasks[0]
    answers = {name: [_pool(cohort, folds) for folds in own] for name, own in fits.items()}
    given = _resample(settings, answers, AS_GIVEN)
    values = {name: own.mean(axis=0) for name, own in given.items()}
    subsets = {AS_GIVEN: {name: summarise(own) for name, own in values.items()}}
    for name in map(subset_name, SUBSETS):
        by_name = _resample(settings, answers, name)
        subsets[name] = {n: summarise(own.mean(axis=0)) for n, own in by_name.items()}
    ranks = dict(zip(values, rank(np.stack(list(values.values()), axis=1)).T, strict=True))
    names = sorted(values, key=lambda name: ranks[name][0])
    folds = {name: _fold_values(settings.tasks, cohort, own) for name, own in fits.items()}
    every = [fold for own in fits[baseline] for fold in own]
    share = sum(len(fold.studies) for fold in every) / sum(fold.train for fold in every)

    def compare_with(against: str) -> tuple[Comparison, ...]:
        return _compare(values, folds, [n for n in names if n != against], against, share)

    unusable = {"files cannot be used": left_out} if left_out else {}
    return Leaderboard(
        metric=f"{task.name}.{headline(task)}",
        studies=len(cohort.rows),
        patients=len({row.patient_id for row in cohort.rows}),
        left_out=dict(cohort.excluded) | unusable,
        folds=len(fits[baseline][0]),
        repeats=len(fits[baseline]),
        resamples=settings.report.resamples,
        baseline=baseline,
        entries=tuple(
            _entry(place, name, given[name], ranks[name], subsets, fits[name])
            for place, name in enumerate(names, 1)
        ),
        against_best=compare_with(names[0]),
        against_baseline=compare_with(baseline) if baseline != names[0] else (),
        bayes=_measure_bayes(settings, answers[baseline][0]),
    )


def _pool(cohort: Cohort, folds: Sequence[Kept]) -> Answers:
    """Put a repeat's folds together, in the cohort's order; each study stands in one of them."""
    order = np.argsort(np.concatenate([fold.studies for fold in folds]))
    return Answers(
        rows=cohort.rows,
        present=np.concatenate([fold.present for fold in folds])[order],
        logits={
            name: np.concatenate([fold.logits[name] for fold in folds])[order]
            for name in folds[0].logits
        },
    )


def _resample(
    settings: TrainSettings, answers: Mapping[str, Sequence[Answers]], subset: str
) -> Resampled:
    """Measure every contender from one subset, in the same resamples of the same patients."""
    first = next(iter(answers.values()))[0]
    # NaN stands for a study that lacks one of the subset's modalities.
    chosen = ~np.isnan(first.logits[subset]).any(axis=1)
    patients = [row.patient_id for row, yes in zip(first.rows, chosen, strict=True) if yes]
    if not patients:
        none = np.full((1, 1 + settings.report.resamples), np.nan)
        return dict.fromkeys(answers, none)
    weights = patient_weights(patients, settings.report.resamples, settings.report.seed)
    return {
        name: np.stack([score(settings.tasks, one, subset, chosen, weights) for one in own])
        for name, own in answers.items()
    }


def _fold_values(
    tasks: Sequence[Task], cohort: Cohort, repeats: Sequence[Sequence[Kept]]
) -> Float[np.ndarray, " n"]:
    """Measure each fold of every repeat by itself."""
    values = []
    for fold in (fold for own in repeats for fold in own):
        rows = tuple(cohort.rows[i] for i in fold.studies)
        answers = Answers(rows, fold.present, fold.logits)
        every = np.ones(len(rows), bool)
        values.append(score(tasks, answers, AS_GIVEN, every, np.ones((1, len(rows))))[0])
    return np.array(values)


def _compare(
    values: Mapping[str, Float[np.ndarray, " r"]],
    folds: Mapping[str, Float[np.ndarray, " n"]],
    names: Sequence[str],
    against: str,
    share: float,
) -> tuple[Comparison, ...]:
    differences = [folds[name] - folds[against] for name in names]
    p_values = [corrected_t_test(own, share) for own in differences]
    return tuple(
        Comparison(
            name=name,
            against=against,
            difference=summarise(values[name] - values[against]),
            p_value=_number(p),
            p_holm=_number(corrected),
            folds=int((~np.isnan(own)).sum()),
        )
        for name, own, p, corrected in zip(
            names, differences, p_values, holm(p_values), strict=True
        )
    )


def _entry(
    place: int,
    name: str,
    repeats: Float[np.ndarray, "t r"],
    ranks: Float[np.ndarray, " r"],
    subsets: Mapping[str, Mapping[str, Figure]],
    fits: Sequence[Sequence[Kept]],
) -> Entry:
    costs = [fold.cost for own in fits for fold in own]
    resampled = ranks[1:] if len(ranks) > 1 else ranks
    low, high = np.quantile(resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Entry(
        name=name,
        rank=place,
        ranks=(float(low), float(high)),
        value=subsets[AS_GIVEN][name],
        repeat_values=tuple(_number(value) for value in repeats[:, 0]),
        subsets={subset: own[name] for subset, own in subsets.items()},
        seconds=float(np.mean([cost.seconds for cost in costs])),
        epochs=float(np.mean([cost.epochs for cost in costs])),
        parameters=costs[0].parameters,
        fusion_parameters=costs[0].fusion_parameters,
    )


def _measure_bayes(settings: TrainSettings, answers: Answers) -> dict[str, Figure]:
    """Measure the exact posterior on the same studies, where a cohort has it."""
    task = settings.tasks[0]
    bayes = read_bayes(settings.cohort.table.parent, settings.tasks, answers.rows)
    if not bayes:
        return {}
    reports = measure_subsets(settings.tasks, answers, settings.report, bayes)
    return {name: own.targets[task.name]["bayes_auroc"] for name, own in reports.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
