"""A model's answers to a labelled cohort in, every figure of how far they can be trusted out."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field
from scipy.special import expit

from medfuse.bundle import NOTICE
from medfuse.config import Settings, Task, TaskKind
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import patient_weights
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.trust.decision import DecisionCurve, measure_decisions
from medfuse.trust.figures import ReportSettings, SubsetReport
from medfuse.trust.measure import measure_subsets
from medfuse.trust.metrics import BINS, auroc, calibration_error
from medfuse.trust.novelty import NoveltyModel
from medfuse.trust.promises import PromiseFigure, SetSizes, exact_interval, measure_promises
from medfuse.trust.record import TrustRecord
from medfuse.trust.subgroups import SubgroupFigure, measure_subgroups
from medfuse.types import Modality

CHANCES = 200
"""Draws of labels by which the calibration error of perfect probabilities is found."""


class Bin(Settings):
    """Studies that were told a like probability."""

    studies: int
    said: float = Field(description="mean probability")
    happened: float = Field(description="share that has the finding")


class Reliability(Settings):
    """How well the probabilities of one finding mean what they say.

    Attributes:
        target: The finding.
        subset: The modalities that the answers rest on.
        bins: Of equal width, the empty ones left out.
        by_chance: The expected calibration error that perfectly calibrated probabilities like
            these would show on as many studies, and the largest of 39 in 40 of them.
        error: The one that was seen.
    """

    target: str
    subset: str
    bins: tuple[Bin, ...]
    error: float
    by_chance: tuple[float, float]


class NoveltyFigure(Settings):
    """How often the cohort's own studies are called novel.

    Attributes:
        modality: Which one was judged.
        promised: How often studies like those of training are.
        studies: How many had it and could be judged.
        novel: How many of them were called so.
        share: Novel by studies, with its exact 95 % interval.
    """

    modality: Modality
    promised: float
    studies: int
    novel: int
    share: float
    low: float
    high: float


class WrongFigure(Settings):
    """How well inputs of a wrong kind are told from the cohort's.

    Attributes:
        modality: In whose place they stand.
        kind: What they are.
        inputs: How many.
        auroc: The chance that one of them is judged more unusual than a study of the cohort, ties
            counting half.
        novel: The share that is called novel.
    """

    modality: Modality
    kind: str
    inputs: int
    auroc: float
    novel: float


class Evaluation(Settings):
    """Everything that was measured of a model on a cohort."""

    notice: str = NOTICE
    model: str = Field(description="SHA-256 of the bundle's manifest, as hex")
    cohort: str = Field(description="SHA-256 of the cohort's rows")
    split: str = Field(description="which studies")
    studies: int
    patients: int
    left_out: dict[str, int] = Field(description="studies that were not measured, by reason")
    resamples: int
    seed: int
    subsets: dict[str, SubsetReport]
    reliability: tuple[Reliability, ...]
    promises: tuple[PromiseFigure, ...]
    sizes: tuple[SetSizes, ...]
    novelty: tuple[NoveltyFigure, ...]
    wrong: tuple[WrongFigure, ...] = ()
    subgroups: tuple[SubgroupFigure, ...]
    decisions: tuple[DecisionCurve, ...]


def measure_reliability(
    tasks: Sequence[Task], answers: Answers, seed: int
) -> tuple[Reliability, ...]:
    """Bin every finding's probabilities from every subset, beside what chance alone would show."""
    rng = np.random.default_rng(seed)
    found = []
    for subset, logits in answers.logits.items():
        for target, x, y in _yes_no(tasks, logits, answers.labels):
            known = ~np.isnan(y) & ~np.isnan(x)
            if not known.any():
                continue
            chances, there = expit(x[known]), y[known] == 1
            once = np.ones((1, len(chances)))
            draws = [
                calibration_error(chances, rng.random(len(chances)) < chances, once)[0]
                for _ in range(CHANCES)
            ]
            found.append(
                Reliability(
                    target=target,
                    subset=subset,
                    bins=bin_studies(chances, there),
                    error=float(calibration_error(chances, there, once)[0]),
                    by_chance=(float(np.mean(draws)), float(np.quantile(draws, 0.975))),
                )
            )
    return tuple(found)


def measure_novelty(
    p_values: Mapping[Modality, Sequence[float]], record: TrustRecord
) -> tuple[NoveltyFigure, ...]:
    """Count the cohort's studies that are called novel."""
    promised = record.settings.false_alarms
    found = []
    for modality, own in p_values.items():
        if len(own):
            novel = int((np.array(own) <= promised).sum())
            low, high = exact_interval(novel, len(own))
            found.append(
                NoveltyFigure(
                    modality=modality,
                    promised=promised,
                    studies=len(own),
                    novel=novel,
                    share=novel / len(own),
                    low=low,
                    high=high,
                )
            )
    return tuple(found)


def measure_wrong(
    wrong: Mapping[Modality, Mapping[str, Sequence[np.ndarray]]],
    usual: Mapping[Modality, Sequence[np.ndarray]],
    model: NoveltyModel,
    record: TrustRecord,
) -> tuple[WrongFigure, ...]:
    """Hold inputs of a wrong kind to the cohort's own.

    Args:
        wrong: Descriptions by modality and kind.
        usual: Descriptions of the cohort's studies.
        model: What is usual.
        record: From which p-value on an input is called novel.
    """
    found = []
    for modality, kinds in wrong.items():
        if modality not in model.usual or not usual[modality]:
            continue
        near = [model.distance(modality, own) for own in usual[modality]]
        for kind, own in kinds.items():
            far = [model.distance(modality, each) for each in own]
            p = [model.p_values({modality: each})[modality] for each in own]
            positive = np.arange(len(far) + len(near)) < len(far)
            area = auroc(np.array([*far, *near]), positive, np.ones((1, len(positive))))[0]
            found.append(
                WrongFigure(
                    modality=modality,
                    kind=kind,
                    inputs=len(own),
                    auroc=float(area),
                    novel=float(np.mean(np.array(p) <= record.settings.false_alarms)),
                )
            )
    return tuple(found)


def measure_all_decisions(
    tasks: Sequence[Task], answers: Answers, settings: ReportSettings
) -> tuple[DecisionCurve, ...]:
    """Draw the decision curve of every finding, each study as it was given."""
    patients = np.array([row.patient_id for row in answers.rows], dtype=np.str_)
    found = []
    for target, x, y in _yes_no(tasks, answers.logits[AS_GIVEN], answers.labels):
        known = ~np.isnan(y)
        if known.any():
            weights = patient_weights(patients[known].tolist(), settings.resamples, settings.seed)
            curve = measure_decisions(target, AS_GIVEN, expit(x[known]), y[known] == 1, weights)
            found.append(curve)
    return tuple(found)


def measure_answers(
    tasks: Sequence[Task],
    answers: Answers,
    record: TrustRecord,
    fields: Mapping[str, Sequence[str]],
    bayes: Mapping[str, Float[np.ndarray, "n k"]],
    settings: ReportSettings,
) -> dict[str, object]:
    """Measure all that needs the answers alone: the fields of `Evaluation` that do.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated.
        record: What is promised of them.
        fields: What to group studies by.
        bayes: The exact posteriors where the truth is known.
        settings: How many resamples.
    """
    promises, sizes = measure_promises(tasks, answers, record)
    return {
        "subsets": measure_subsets(tasks, answers, settings, bayes),
        "reliability": measure_reliability(tasks, answers, settings.seed),
        "promises": promises,
        "sizes": sizes,
        "subgroups": measure_subgroups(tasks, answers, fields, settings),
        "decisions": measure_all_decisions(tasks, answers, settings),
    }


def _yes_no(
    tasks: Sequence[Task], logits: Float[np.ndarray, "n k"], labels: Float[np.ndarray, "n c"]
) -> list[tuple[str, Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Give each finding's target, logits and labels."""
    found = []
    for (task, where), (_, columns) in zip(logit_slices(tasks), label_slices(tasks), strict=True):
        if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL):
            found += [
                (target, logits[:, where.start + k], labels[:, columns.start + k])
                for k, target in enumerate(task.targets)
            ]
    return found


def bin_studies(chances: Float[np.ndarray, " n"], there: Bool[np.ndarray, " n"]) -> tuple[Bin, ...]:
    """Put studies into bins of equal width by their probability; the empty ones are left out."""
    place = np.minimum((chances * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            studies=int((place == b).sum()),
            said=float(chances[place == b].mean()),
            happened=float(there[place == b].mean()),
        )
        for b in np.unique(place)
    )
