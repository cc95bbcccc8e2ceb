"""What ``medfuse search`` looks for: the section ``[search]`` of a settings file; no torch here."""

from typing import Literal

from pydantic import Field, model_validator

from medfuse.config import Settings

Scalar = bool | int | float | str


class Range(Settings):
    """Numbers from ``low`` to ``high``, both included; whole ones where the setting is whole."""

    low: int | float
    high: int | float
    log: bool = Field(default=False, description="draw evenly in the logarithm")
    step: int | float | None = Field(default=None, gt=0, description="from low in steps of this")

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        return self


class Choices(Settings):
    """One of several values."""

    choices: tuple[Scalar, ...] = Field(min_length=1)


class SearchSettings(Settings):
    """Which settings to search, and how.

    A key of `space` is a setting's path, such as ``fit.learning_rate``.
    """

    space: dict[str, Range | Choices] = Field(min_length=1)
    objective: Literal["loss", "headline"] = Field(
        default="loss", description="validation loss, or the first task's AUROC or R squared"
    )
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup: int = Field(
        default=10, ge=1, description="trials drawn at random, and not pruned by the median"
    )
    warmup: int = Field(default=2, ge=0, description="epochs before the median prunes")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _losses_can_be_compared(self) -> "SearchSettings":
        if self.objective == "loss" and "fit.balance" in self.space:
            raise ValueError(
                "fit.balance changes what the loss means; search it with objective = 'headline'"
            )
        return self
