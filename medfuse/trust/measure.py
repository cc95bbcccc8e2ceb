"""Answers and labels in, figures per modality subset out, the exact posterior's beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.synthetic.options import TRUTH
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.trust.calibration_error import error_without_chance
from medfuse.trust.figures import DEBIASED, FusionGain, ReportSettings, SubsetReport, judge
from medfuse.trust.metrics import (
    Figures,
    Measure,
    auroc,
    headline,
    measure_headline,
    measure_tasks,
)
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

LITTLE = 0.02
"""A Bayes AUROC this close to one half leaves nothing to take a share of."""


def measure_subsets(
    tasks: Sequence[Task],
    answers: Answers,
    settings: ReportSettings,
    bayes: Mapping[str, Float[np.ndarray, "n k"]],
) -> dict[str, SubsetReport]:
    """Measure the answers from each subset on the studies that were asked from it.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated.
        settings: How many resamples.
        bayes: By subset's name, the exact posterior of each target, a column per logit, NaN for a
            task whose truth is not known; empty where none is.
    """
    reports = {}
    for subset in (None, *SUBSETS):
        name = AS_GIVEN if subset is None else subset_name(subset)
        if name not in answers.logits:
            continue
        chosen = ~np.isnan(answers.logits[name]).any(axis=1)
        if not chosen.any():
            continue
        patients = [row.patient_id for row, yes in zip(answers.rows, chosen, strict=True) if yes]
        weights = patient_weights(patients, settings.resamples, settings.seed)
        labels = answers.labels[chosen]
        measures = measure_tasks(tasks, answers.logits[name][chosen], labels, weights)
        if name in bayes:
            measures += _measure_bayes(tasks, bayes[name][chosen], labels, weights, measures)
        targets: dict[str, dict[str, Figure]] = {}
        for m in measures:
            targets.setdefault(m.target, {}).update(_summarise(m))
        reports[name] = SubsetReport(
            studies=len(patients), patients=len(set(patients)), targets=targets
        )
    return reports


def measure_gains(
    tasks: Sequence[Task], validation: Answers, test: Answers, settings: ReportSettings
) -> tuple[FusionGain, ...]:
    """Compare every subset of several modalities with the best single one of them.

    Both sides answer the same test studies, which have the whole subset. The single modality is
    chosen on the validation studies that have it, so that choosing favours neither side.

    Args:
        tasks: In the order of the logits; each is compared by its headline metric.
        validation: Calibrated answers.
        test: Likewise.
        settings: How many resamples.

    Returns:
        By task and, within it, from the fewest modalities to all; without subsets that no test
        study has, and without those of whose modalities none can be scored on validation studies.
    """
    subsets = sorted((s for s in SUBSETS if len(s) > 1 and test.having(s).any()), key=len)
    gains = []
    for place, task in enumerate(tasks):
        alone = {
            m: _score(tasks, place, validation, frozenset({m}), m.value, 0, settings.seed)[0]
            for m in MODALITIES
        }
        for subset in subsets:
            singles = [m for m in MODALITIES if m in subset and not np.isnan(alone[m])]
            if not singles:
                continue
            best = max(singles, key=lambda m: alone[m]).value
            fused, single = (
                _score(tasks, place, test, subset, name, settings.resamples, settings.seed)
                for name in (subset_name(subset), best)
            )
            difference = summarise(fused - single)
            gains.append(
                FusionGain(
                    task=task.name,
                    metric=headline(task),
                    subset=subset_name(subset),
                    best_single=best,
                    studies=int(test.having(subset).sum()),
                    fused=summarise(fused),
                    single=summarise(single),
                    difference=difference,
                    verdict=judge(difference),
                )
            )
    return tuple(gains)


def _summarise(measure: Measure) -> dict[str, Figure]:
    """Give a metric's figure; of a calibration error, the one seen and the one without chance."""
    figure = summarise(measure.values)
    if measure.gaps is None:
        return {measure.metric: figure}
    # Percentiles of an error that noise makes larger say nothing of where the true one is.
    seen = Figure(value=figure.value)
    return {measure.metric: seen, DEBIASED: error_without_chance(measure.gaps)}


def _score(
    tasks: Sequence[Task],
    place: int,
    answers: Answers,
    having: frozenset[Modality],
    said_from: str,
    resamples: int,
    seed: int,
) -> Figures:
    """Give one task's headline metric in every resample, on the studies that have a subset."""
    chosen = answers.having(having)
    if not chosen.any():
        return np.full(resamples + 1, np.nan)
    task, where = list(logit_slices(tasks))[place]
    _, columns = list(label_slices(tasks))[place]
    patients = [row.patient_id for row, yes in zip(answers.rows, chosen, strict=True) if yes]
    return measure_headline(
        task,
        answers.logits[said_from][chosen][:, where],
        answers.labels[chosen][:, columns],
        patient_weights(patients, resamples, seed),
    )


def score(
    tasks: Sequence[Task],
    answers: Answers,
    name: str,
    chosen: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "r m"],
) -> Float[np.ndarray, " r"]:
    """Measure the first task's headline figure.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated.
        name: Of the subset of modalities that answered.
        chosen: The studies to measure it on.
        weights: Of those studies, in each resample.
    """
    (task, where), (_, columns) = next(zip(logit_slices(tasks), label_slices(tasks), strict=True))
    logits, labels = answers.logits[name][chosen, where], answers.labels[chosen, columns]
    return measure_headline(task, logits, labels, weights)


def read_bayes(
    folder: Path, tasks: Sequence[Task], rows: Sequence[CohortRow]
) -> dict[str, Float[np.ndarray, "n k"]]:
    """Read the exact posteriors that a known-truth cohort has beside its table.

    Args:
        folder: Of the cohort.
        tasks: Those that ask for findings of the cohort are looked for.
        rows: The studies, whose order the result has.

    Returns:
        By subset's name, and `AS_GIVEN`: a column per logit, NaN for a task that the truth does not
        know. Empty when the cohort's truth is not known, or no task asks for it. A study from
        which modalities were taken since counts, as given, by the signs of those that are left.
    """
    path = folder / TRUTH
    if not path.is_file():
        return {}
    wanted = {row.study_id: row.present for row in rows}
    truths = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        truth = json.loads(line)
        left = wanted.get(truth["study_id"])
        if left is not None:
            whole = left == {Modality(name) for name in truth["present"]}
            given = truth["delivered"] if whole else truth["posterior"][subset_name(left)]
            truths[truth["study_id"]] = truth["posterior"] | {AS_GIVEN: given}
    if len(truths) < len(wanted):
        return {}
    known = set(truths[rows[0].study_id][AS_GIVEN])
    columns: list[str | None] = []
    for task in tasks:
        yes_no = task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
        there = yes_no and set(task.classes) <= known
        columns += task.classes if there else [None] * task.logits
    if not any(columns):
        return {}
    return {
        name: np.array(
            [[np.nan if c is None else truths[r.study_id][name][c] for c in columns] for r in rows]
        )
        for name in (AS_GIVEN, *map(subset_name, SUBSETS))
    }


def _measure_bayes(
    tasks: Sequence[Task],
    posterior: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    weights: Float[np.ndarray, "r n"],
    measures: Sequence[Measure],
) -> tuple[Measure, ...]:
    """Measure the exact posterior on the same studies, and how much of it the model reaches.

    ``bayes_share`` is (AUROC - 0.5) / (Bayes AUROC - 0.5).
    """
    ours = {m.target: m.values for m in measures if m.metric == "auroc"}
    found = []
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        if np.isnan(posterior[:, where]).any():
            continue
        best = {}
        for target, chances, label in zip(
            task.targets, posterior[:, where].T, labels[:, columns].T, strict=True
        ):
            known = ~np.isnan(label)
            # Sums of the same chances in another order differ in the last digits, but are ties.
            scores = np.round(chances[known], 10)
            best[target] = auroc(scores, label[known] == 1, weights[:, known])
        best[task.name] = np.mean(list(best.values()), axis=0)
        for target, values in best.items():
            room = values - 0.5
            # Where the evidence says next to nothing of a finding, a share of it says nothing.
            share = np.divide(
                ours[target] - 0.5, room, out=np.full_like(room, np.nan), where=room > LITTLE
            )
            found += [Measure(target, "bayes_auroc", values), Measure(target, "bayes_share", share)]
    return tuple(found)
