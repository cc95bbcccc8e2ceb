"""How a cohort is checked for leaks: the section ``[check]`` of a settings file; no torch here."""

from typing import Literal

from pydantic import Field

from medfuse.config import Settings


class CheckSettings(Settings):
    """What counts as a leak, and what training does about one."""

    mode: Literal["refuse", "record", "off"] = Field(
        default="refuse",
        description="refuse: no training on a cohort that fails; record: train, and write the "
        "failed checks into checkpoint and bundle; off: do not look",
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=0.5, description="chance that a clean cohort is found to leak"
    )
    least_auroc: float = Field(
        default=0.6,
        ge=0.5,
        lt=1,
        description="what tells a label by no more than this is a warning, however certain",
    )
    acquisition: tuple[str, ...] = Field(
        default=(), description="columns that say how a study was made, beside those known by name"
    )
    clinical: tuple[str, ...] = Field(
        default=(), description="columns that say how the patient is, whatever their name"
    )
    ignore: tuple[str, ...] = Field(default=(), description="columns that are not looked at")
    label_words: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="target to words that name it in a note, beside its own name and known ones",
    )
    source_words: tuple[str, ...] = Field(
        default=(), description="words of places and sources, beside those that are known"
    )
    resamples: int = Field(default=500, ge=0, description="bootstrap resamples, by patient")
    seed: int = Field(default=0, ge=0)
