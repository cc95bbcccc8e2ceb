"""How an attribution is computed; read without torch."""

from typing import Literal

from pydantic import Field, model_validator

from medfuse.config import Settings


class ExplainSettings(Settings):
    """Steps of integrated gradients, and when they suffice."""

    baseline: Literal["blank"] = "blank"
    steps: int = Field(default=64, ge=1, description="steps at first; doubled while too few")
    most_steps: int = Field(default=1024, ge=1)
    gap: float = Field(default=0.005, gt=0, description="completeness gap that is small enough")
    internal_batch_size: int = Field(
        default=8,
        ge=1,
        description="steps in one pass; it changes the last bits, so it is recorded",
    )

    @model_validator(mode="after")
    def _steps_rise(self) -> "ExplainSettings":
        if self.most_steps < self.steps:
            raise ValueError("most_steps is less than steps")
        return self
