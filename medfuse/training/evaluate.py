"""Evaluation: a fitted model and studies in, its answers and figures per modality subset out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.training.bootstrap import Figure, patient_weights, summarise
from medfuse.training.dataset import FeatureBatch
from medfuse.training.loop import TrainingModule, keep
from medfuse.training.metrics import Measure, auroc, measure_tasks
from medfuse.training.report import FusionGain, SubsetReport
from medfuse.training.settings import ReportSettings
from medfuse.trust.calibration import Calibration, calibrate
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

AS_GIVEN = "as given"
"""Every study with whatever it has."""

TRUTH = "truth.jsonl"
"""What a known-truth cohort has beside its table."""

LITTLE = 0.02
"""A Bayes AUROC this close to one half leaves nothing to take a share of."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of several studies.

    Attributes:
        rows: The studies.
        present: Which modalities each has once prepared; a silent recording is none.
        logits: By subset's name, and `AS_GIVEN`; NaN for a study that lacks one of the subset's
            modalities.
    """

    rows: tuple[CohortRow, ...]
    present: Bool[np.ndarray, "n 3"]
    logits: Mapping[str, Float[np.ndarray, "n k"]]

    @property
    def labels(self) -> Float[np.ndarray, "n c"]:
        """Each study's labels."""
        return np.array([row.labels for row in self.rows], dtype=np.float64)

    def having(self, subset: frozenset[Modality]) -> Bool[np.ndarray, " n"]:
        """Which studies have all of a subset's modalities."""
        needed = [i for i, m in enumerate(MODALITIES) if m in subset]
        return np.asarray(self.present[:, needed].all(axis=1))

    def calibrated(self, tasks: Sequence[Task], calibration: Calibration) -> "Answers":
        """Give the answers with calibrated logits."""
        logits = {name: calibrate(tasks, own, calibration) for name, own in self.logits.items()}
        return Answers(self.rows, self.present, logits)


def pool(parts: Sequence[Answers]) -> Answers:
    """Put the answers of several models to different studies together."""
    return Answers(
        rows=tuple(row for part in parts for row in part.rows),
        present=np.concatenate([part.present for part in parts]),
        logits={
            name: np.concatenate([part.logits[name] for part in parts]) for name in parts[0].logits
        },
    )


@torch.inference_mode()
def ask(
    module: TrainingModule, rows: Sequence[CohortRow], batches: Iterable[FeatureBatch]
) -> Answers:
    """Ask a model about studies as they are and, with modalities taken away, as every subset."""
    module.eval()
    device = next(module.parameters()).device
    present: list[np.ndarray] = []
    logits: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        there = batch.present.numpy()
        present.append(there)
        encoded = module.encode(batch.to(device))
        for subset in (None, *SUBSETS):
            only = np.array([subset is None or m in subset for m in MODALITIES])
            said = module.model.fuse(keep(encoded, there & only)).logits.double().cpu().numpy()
            if subset is not None:
                said[~there[:, only].all(axis=1)] = np.nan
            name = AS_GIVEN if subset is None else subset_name(subset)
            logits.setdefault(name, []).append(said)
    stacked = {name: np.concatenate(parts) for name, parts in logits.items()}
    return Answers(tuple(rows), np.concatenate(present), stacked)


def measure_subsets(
    tasks: Sequence[Task],
    answers: Answers,
    settings: ReportSettings,
    bayes: Mapping[str, Float[np.ndarray, "n k"]],
) -> dict[str, SubsetReport]:
    """Measure the answers from each subset on the studies that have it.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated.
        settings: How many resamples.
        bayes: By subset's name, the exact posterior of each of the first task's findings; empty
            where the truth is not known.
    """
    reports = {}
    for subset in (None, *SUBSETS):
        name = AS_GIVEN if subset is None else subset_name(subset)
        chosen = np.ones(len(answers.rows), bool) if subset is None else answers.having(subset)
        if not chosen.any():
            continue
        patients = [row.patient_id for row, yes in zip(answers.rows, chosen, strict=True) if yes]
        weights = patient_weights(patients, settings.resamples, settings.seed)
        labels = answers.labels[chosen]
        measures = measure_tasks(tasks, answers.logits[name][chosen], labels, weights)
        if name in bayes:
            measures += _measure_bayes(tasks[0], bayes[name][chosen], labels, weights, measures)
        targets: dict[str, dict[str, Figure]] = {}
        for m in measures:
            targets.setdefault(m.target, {})[m.metric] = summarise(m.values)
        reports[name] = SubsetReport(
            studies=len(patients), patients=len(set(patients)), targets=targets
        )
    return reports


def measure_gain(
    tasks: Sequence[Task], validation: Answers, test: Answers, settings: ReportSettings
) -> FusionGain | None:
    """Compare the richest subset with the best single modality on the same test studies.

    The single modality is chosen on validation studies, so that choosing favours neither side.

    Args:
        tasks: In the order of the logits; the first one is compared.
        validation: Calibrated answers.
        test: Likewise.
        settings: How many resamples.

    Returns:
        None when no test study has more than one modality.
    """
    richest = max((s for s in SUBSETS if test.having(s).any()), key=len)
    if len(richest) < 2:
        return None
    task, metric = tasks[0], headline(tasks[0])

    def score(answers: Answers, name: str, chosen: np.ndarray, resamples: int) -> np.ndarray:
        patients = [row.patient_id for row, yes in zip(answers.rows, chosen, strict=True) if yes]
        weights = patient_weights(patients, resamples, settings.seed)
        measures = measure_tasks(
            tasks, answers.logits[name][chosen], answers.labels[chosen], weights
        )
        return next(m.values for m in measures if (m.target, m.metric) == (task.name, metric))

    def on_validation(modality: Modality) -> float:
        chosen = validation.having(frozenset({modality}))
        value = score(validation, modality.value, chosen, 0)[0] if chosen.any() else np.nan
        return float(np.nan_to_num(value, nan=-np.inf))

    best = max((m for m in MODALITIES if m in richest), key=on_validation)
    chosen = test.having(richest)
    fused = score(test, subset_name(richest), chosen, settings.resamples)
    single = score(test, best.value, chosen, settings.resamples)
    return FusionGain(
        metric=f"{task.name}.{metric}",
        subset=subset_name(richest),
        best_single=best.value,
        studies=int(chosen.sum()),
        fused=summarise(fused),
        single=summarise(single),
        difference=summarise(fused - single),
    )


def headline(task: Task) -> str:
    """Name the one figure that a task is compared by."""
    return "r2" if task.kind is TaskKind.REGRESSION else "auroc"


def read_bayes(
    folder: Path, task: Task, rows: Sequence[CohortRow]
) -> dict[str, Float[np.ndarray, "n k"]]:
    """Read the exact posteriors that a known-truth cohort has beside its table.

    Args:
        folder: Of the cohort.
        task: Its findings are looked for.
        rows: The studies, whose order the result has.

    Returns:
        By subset's name, and `AS_GIVEN`; empty when the cohort's truth is not known.
    """
    path = folder / TRUTH
    if not path.is_file() or task.kind is not TaskKind.MULTILABEL:
        return {}
    truths = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        truth = json.loads(line)
        truths[truth["study_id"]] = truth["posterior"] | {AS_GIVEN: truth["delivered"]}
    if any(row.study_id not in truths for row in rows):
        return {}
    if not set(task.classes) <= set(truths[rows[0].study_id][AS_GIVEN]):
        return {}
    return {
        name: np.array([[truths[r.study_id][name][c] for c in task.classes] for r in rows])
        for name in (AS_GIVEN, *map(subset_name, SUBSETS))
    }


def _measure_bayes(
    task: Task,
    posterior: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n c"],
    weights: Float[np.ndarray, "r n"],
    measures: Sequence[Measure],
) -> tuple[Measure, ...]:
    """Measure the exact posterior on the same studies, and how much of it the model reaches.

    ``bayes_share`` is (AUROC - 0.5) / (Bayes AUROC - 0.5).
    """
    ours = {m.target: m.values for m in measures if m.metric == "auroc"}
    best = {}
    for k, target in enumerate(task.targets):
        known = ~np.isnan(labels[:, k])
        # Sums of the same chances in another order differ in the last digits, but they are ties.
        scores = np.round(posterior[known, k], 10)
        best[target] = auroc(scores, labels[known, k] == 1, weights[:, known])
    best[task.name] = np.mean(list(best.values()), axis=0)
    found = []
    for target, values in best.items():
        room = values - 0.5
        # Where the evidence says next to nothing of a finding, a share of it says nothing either.
        share = np.divide(
            ours[target] - 0.5, room, out=np.full_like(room, np.nan), where=room > LITTLE
        )
        found += [Measure(target, "bayes_auroc", values), Measure(target, "bayes_share", share)]
    return tuple(found)
