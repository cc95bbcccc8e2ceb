"""Figures for the record: what a report says of a subset of modalities, and of what fusion adds."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from medfuse.config import Settings, Task, TaskKind
from medfuse.trust.bootstrap import Figure

DEBIASED = "ece_debiased"
"""The metric that is the expected calibration error, ``ece``, without what chance adds to it."""

_ERROR = ("ece", DEBIASED)
_YES_NO = ("auroc", "auprc", "accuracy", "recall", "precision", "f1", "brier", *_ERROR)

COLUMNS = {
    TaskKind.BINARY: _YES_NO,
    TaskKind.MULTILABEL: _YES_NO,
    TaskKind.MULTICLASS: ("auroc", "auprc", "accuracy", "recall", "precision", "f1", *_ERROR),
    TaskKind.ORDINAL: ("auroc", "auprc", "accuracy", "kappa", "mae", *_ERROR),
    TaskKind.REGRESSION: ("mae", "rmse", "r2"),
}
"""What a readable table shows of a task; the JSON file beside it has everything."""


class ReportSettings(Settings):
    """How the trained model is measured."""

    resamples: int = Field(default=1_000, ge=0, description="bootstrap resamples, by patient")
    seed: int = Field(default=0, ge=0)


class SubsetReport(Settings):
    """Figures from one subset of modalities, on the studies that have it.

    `targets` maps a target's name, and the task's for the mean over its targets, to its metrics.
    """

    studies: int
    patients: int
    targets: dict[str, dict[str, Figure]]


Verdict = Literal["harm", "gain", "undecided"]


class FusionGain(Settings):
    """What fusion adds to the best single modality of a subset, on the same test studies.

    Attributes:
        task: Which one.
        metric: By which it is compared; more is better.
        subset: Of two or more modalities.
        best_single: The one of them that is best on validation studies.
        studies: On how many test studies, all of which have the whole subset.
        fused: From the subset.
        single: From that modality alone.
        difference: Fused less single, resample by resample.
        verdict: ``harm`` where the whole interval lies below zero, ``gain`` where it lies above.
    """

    task: str
    metric: str
    subset: str
    best_single: str
    studies: int
    fused: Figure
    single: Figure
    difference: Figure
    verdict: Verdict


def judge(difference: Figure) -> Verdict:
    """Say what a difference's interval shows; without one it shows nothing."""
    if difference.high is not None and difference.high < 0:
        return "harm"
    if difference.low is not None and difference.low > 0:
        return "gain"
    return "undecided"


def shown_columns(task: Task, reports: Iterable[SubsetReport]) -> tuple[str, ...]:
    """Name the metrics that a table shows of a task, the exact posterior's where it is known."""
    columns = COLUMNS[task.kind]
    known = any("bayes_auroc" in report.targets[task.name] for report in reports)
    return (columns[0], "bayes_auroc", "bayes_share", *columns[1:]) if known else columns
