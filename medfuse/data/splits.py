"""Splits: a cohort in, the same cohort with every patient in one part out."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64
from pydantic import Field, model_validator

from medfuse.config import Settings
from medfuse.data.cohort import Cohort, CohortRow, Split
from medfuse.errors import CohortError

MOST_CLASSES = 20
"""A label with more values than this is a quantity, which is not stratified by."""


class SplitSettings(Settings):
    """How patients are divided when the table does not say."""

    validation: float = Field(default=0.15, gt=0, lt=1, description="share for calibration")
    test: float = Field(default=0.2, gt=0, lt=1)
    folds: int = Field(default=0, ge=0, description="cross-validate by patient when 2 or more")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "SplitSettings":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no patient to train on")
        if self.folds == 1:
            raise ValueError("one fold is no cross-validation; give 0 or at least 2")
        return self


def split_cohort(cohort: Cohort, settings: SplitSettings) -> Cohort:
    """Give every row a split, by patient; a split that the table gives is kept.

    Where the table's split has no validation part, one is taken from its training patients. Studies
    without labels only train; one whose patient is validated or tested on gets no split.

    Raises:
        CohortError: The table's split has nothing to train on or to test on, or there are too
            few patients.
    """
    if cohort.rows[0].split is None:
        shares = {
            Split.TRAIN: 1 - settings.validation - settings.test,
            Split.VALIDATION: settings.validation,
            Split.TEST: settings.test,
        }
        rows = _divisible(cohort.rows)
        parts = divide_patients(rows, list(shares.values()), settings.seed)
        names = list(shares)
        cohort = _put_back(
            cohort, [replace(row, split=names[p]) for row, p in zip(rows, parts, strict=True)]
        )
    elif not cohort.part(Split.VALIDATION):
        share = settings.validation / (1 - settings.test)
        rows = _divisible(cohort.rows)
        cohort = _put_back(cohort, _carve_validation(rows, share, settings.seed))
    for split in Split:
        if not cohort.part(split):
            raise CohortError(f"the cohort has no {split} studies; give it some, or more patients")
    return cohort


def fold_cohort(cohort: Cohort, settings: SplitSettings) -> tuple[Cohort, ...]:
    """Make one cohort per fold, each tested on patients that no other fold tests on.

    Raises:
        CohortError: The table has a split of its own, or there are fewer patients than folds.
    """
    if cohort.rows[0].split is not None:
        raise CohortError(
            "the table has a split of its own, which folds would mix; set columns.split = '' to "
            "cross-validate over all its rows"
        )
    n = settings.folds
    labelled = _divisible(cohort.rows)
    parts = divide_patients(labelled, [1 / n] * n, settings.seed)
    folds = []
    for fold in range(n):
        rows = tuple(
            replace(row, split=Split.TEST if part == fold else Split.TRAIN)
            for row, part in zip(labelled, parts, strict=True)
        )
        rows = _carve_validation(rows, settings.validation, settings.seed + 1 + fold)
        folds.append(_put_back(cohort, rows))
    return tuple(folds)


def _divisible(rows: Sequence[CohortRow]) -> tuple[CohortRow, ...]:
    """Give the rows that are dealt out: those with labels, or all where none has any."""
    return tuple(row for row in rows if row.labelled) or tuple(rows)


def _put_back(cohort: Cohort, divided: Sequence[CohortRow]) -> Cohort:
    """Put divided rows into their places; the others train, unless their patient is held out."""
    splits = {row.number: row.split for row in divided}
    held = {row.patient_id for row in divided if row.split is not Split.TRAIN}
    rows = []
    for row in cohort.rows:
        other = None if row.patient_id in held else Split.TRAIN
        rows.append(replace(row, split=splits.get(row.number, other)))
    return replace(cohort, rows=tuple(rows))


def divide_patients(
    rows: Sequence[CohortRow], shares: Sequence[float], seed: int
) -> Int64[np.ndarray, " n"]:
    """Divide rows by patient so that each part has its share of studies and of every label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), with a patient as the unit:
    the label with the fewest patients left is dealt first, each patient to the part that lacks
    that label most. It depends on the seed and on the rows' content but not on their order.

    Returns:
        The index of each row's part.

    Raises:
        CohortError: There are fewer patients than parts.
    """
    patients = sorted({row.patient_id for row in rows}, key=lambda p: _seeded(seed, p))
    if len(patients) < len(shares):
        raise CohortError(
            f"{len(patients)} patients cannot be divided into {len(shares)} parts; "
            "use a larger cohort or fewer folds"
        )
    number = {patient: i for i, patient in enumerate(patients)}
    # A column per stratum, which is a value of a label, and one for all studies.
    labels = np.array([row.labels for row in rows], dtype=np.float64)
    values = [np.unique(column[~np.isnan(column)]) for column in labels.T]
    strata = np.stack(
        [
            column == value
            for column, own in zip(labels.T, values, strict=True)
            if len(own) <= MOST_CLASSES
            for value in own
        ]
        + [np.ones(len(rows), bool)],
        axis=1,
    )
    counts = np.zeros((len(patients), strata.shape[1]))
    np.add.at(counts, [number[row.patient_id] for row in rows], strata)

    wanted = np.outer(shares, counts.sum(axis=0))  # (parts, strata)
    part = np.full(len(patients), -1)
    while (left := part < 0).any():
        remaining = (counts[left] > 0).sum(axis=0)
        stratum = int(np.where(remaining > 0, remaining, np.inf).argmin())
        for patient in np.flatnonzero(left & (counts[:, stratum] > 0)):
            best = max(range(len(shares)), key=lambda p: (wanted[p, stratum], wanted[p, -1], -p))
            part[patient] = best
            wanted[best] -= counts[patient]
    return np.array([part[number[row.patient_id]] for row in rows], dtype=np.int64)


def _carve_validation(rows: Sequence[CohortRow], share: float, seed: int) -> tuple[CohortRow, ...]:
    """Make a share of the training patients validation patients."""
    train = [row for row in rows if row.split is Split.TRAIN]
    taken = {
        row.patient_id
        for row, part in zip(train, divide_patients(train, [1 - share, share], seed), strict=True)
        if part == 1
    }
    return tuple(
        replace(row, split=Split.VALIDATION) if row.patient_id in taken else row for row in rows
    )


def _seeded(seed: int, patient_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
