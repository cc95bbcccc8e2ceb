"""Missing modalities on purpose: a cohort in, which modalities each of its studies keeps out.

A model that is to answer with parts missing can be trained and tested on a complete cohort from
which parts are taken, by a mechanism that is known (Rubin 1976, "Inference and missing data").
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from jaxtyping import Bool
from pydantic import Field, model_validator

from medfuse.config import Settings, Task
from medfuse.data.cohort import CohortRow, Split
from medfuse.errors import CohortError
from medfuse.presence import choose_subset, scale_odds, subset_chances
from medfuse.types import MODALITIES, SUBSETS, Modality

ODDS = 3.0
"""By how much a finding multiplies the odds that a modality is missing, and its absence divides."""


class Removal(StrEnum):
    """Why modalities are taken from studies."""

    NONE = "none"  # none are
    RANDOM = "random"  # completely at random
    FINDING = "finding"  # more often with a finding: not at random
    SITE = "site"  # block-wise: a site lacks a modality altogether


class MissingSettings(Settings):
    """Which modalities are taken from a cohort's studies before anything else sees them."""

    mechanism: Removal = Removal.NONE
    rate: float = Field(
        default=0.3,
        ge=0,
        le=0.9,
        description="chance that a modality is taken from a study, or from a whole site, before it "
        "is made sure that something is left",
    )
    finding: str = Field(
        default="", description="what 'finding' depends on, such as findings.pneumonia"
    )
    splits: tuple[Split, ...] = Field(
        default=tuple(Split), min_length=1, description="whose studies modalities are taken from"
    )
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _finding_goes_with_its_mechanism(self) -> "MissingSettings":
        if (self.mechanism is Removal.FINDING) != bool(self.finding):
            raise ValueError("finding is given if, and only if, the mechanism is 'finding'")
        return self


def keep_modalities(
    settings: MissingSettings,
    tasks: Sequence[Task],
    rows: Sequence[CohortRow],
    present: Bool[np.ndarray, "n 3"],
) -> Bool[np.ndarray, "n 3"]:
    """Say which modalities each study keeps; it never loses the last one.

    It depends on the seed and on the study's (or the site's) name, not on the other studies.

    Args:
        settings: How.
        tasks: In the order of the rows' labels.
        rows: The studies.
        present: Which modalities each has.

    Raises:
        CohortError: A study has no site, and it is sites that lack modalities.
    """
    kept = present.copy()
    if settings.mechanism is Removal.NONE:
        return kept
    for i, row in enumerate(rows):
        if row.split not in settings.splits or not present[i].any():
            continue
        if settings.mechanism is Removal.SITE:
            if not row.site:
                raise CohortError(
                    f"row {row.number}: no site, which missing.mechanism = 'site' goes by; name "
                    "the table's column in cohort.columns.site"
                )
            rates = dict.fromkeys(MODALITIES, settings.rate)
            there = _draw(settings.seed, "site", row.site, rates) & present[i]
        else:
            rate = _study_rate(settings, tasks, row)
            rates = {m: rate if has else 1.0 for m, has in zip(MODALITIES, present[i], strict=True)}
            there = _draw(settings.seed, "study", row.study_id, rates)
        if there.any():
            kept[i] = there
    return kept


def thin_row(row: CohortRow, kept: Bool[np.ndarray, " 3"]) -> CohortRow:
    """Give a row as it would be if its study had never had the other modalities."""
    image, note, voice = kept
    return replace(
        row,
        images=row.images if image else (),
        note=row.note if note else None,
        note_text=row.note_text if note else None,
        voice=row.voice if voice else None,
    )


def _study_rate(settings: MissingSettings, tasks: Sequence[Task], row: CohortRow) -> float:
    """Give the chance that each modality of a study is taken; an unknown label changes nothing."""
    if settings.mechanism is Removal.RANDOM:
        return settings.rate
    names = [name for task in tasks for name in task.targets]
    label = row.labels[names.index(settings.finding)]
    if np.isnan(label):
        return settings.rate
    return scale_odds(settings.rate, ODDS if label else 1 / ODDS)


def _draw(
    seed: int, kind: str, name: str, rates: Mapping[Modality, float]
) -> Bool[np.ndarray, " 3"]:
    digest = hashlib.sha256(f"{seed}:{kind}:{name}".encode()).digest()
    uniform = int.from_bytes(digest[:8], "big") / 2**64
    subset = SUBSETS[choose_subset(subset_chances(rates), uniform)]
    return np.array([m in subset for m in MODALITIES])
