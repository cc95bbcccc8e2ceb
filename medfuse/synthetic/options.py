"""What a known-truth cohort is to be like; frozen, and stored beside it in ``cohort.json``."""

from enum import StrEnum

from pydantic import Field

from medfuse.config import Settings
from medfuse.types import Modality

SUMMARY = "cohort.json"
"""A cohort's own file with these options."""

TRUTH = "truth.jsonl"
"""Its file with a line of exact truth for each study."""


class Mechanism(StrEnum):
    """Why a study lacks a modality (Rubin 1976)."""

    COMPLETE = "complete"  # nothing is missing
    RANDOM = "random"  # missing completely at random
    FINDING = "finding"  # missing more often, or less, with a finding: not at random
    SITE = "site"  # block-wise: what a site cannot do is missing from all its studies


class Shortcut(Settings):
    """A mark that goes along with a finding without being evidence of it.

    The mark is a burned-in label in the image, a site's name in the note, or mains hum in the
    voice. It is there with chance (1 + strength) / 2 when the finding is, and (1 - strength) / 2
    when it is not: at strength 0 it tells nothing, at 1 everything.
    """

    modality: Modality
    finding: str
    strength: float = Field(default=0.8, ge=0, le=1)


class CohortOptions(Settings):
    """Everything a cohort's bytes depend on; `studies` only says where it ends."""

    studies: int = Field(default=1_000, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    missing: Mechanism = Mechanism.COMPLETE
    missing_rate: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        description="how often each modality is absent before it is made sure that one is left",
    )
    shortcuts: tuple[Shortcut, ...] = Field(default=(), description="at most one per modality")
    size: int = Field(default=384, ge=192, le=1024, description="about the images' side in pixels")
