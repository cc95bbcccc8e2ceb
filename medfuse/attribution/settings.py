"""How an explanation is computed: names of methods and baselines, and when enough is enough."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from medfuse.config import Settings

Method = Literal["integrated_gradients", "grad_cam", "gradients", "smooth_gradients", "occlusion"]
BaselineName = Literal["mean", "blank", "padding", "blurred", "marginal"]

METHODS: tuple[Method, ...] = get_args(Method)
BASELINE_NAMES: tuple[BaselineName, ...] = get_args(BaselineName)
"""The usual one first: the first of which all is there that it needs is used by default."""


class AttributionSettings(Settings):
    """What is computed, and against what."""

    method: Method = "integrated_gradients"
    baseline: BaselineName | None = Field(
        default=None, description="against what; the first of `BASELINE_NAMES` that can be made"
    )
    steps: int = Field(
        default=64, ge=1, description="points of the integral at first; doubled while too few"
    )
    most_steps: int = Field(default=1024, ge=1)
    gap: float = Field(default=0.005, gt=0, description="completeness gap that is small enough")
    samples: int = Field(default=16, ge=1, description="noisy copies of smoothed gradients")
    noise: float = Field(
        default=0.1,
        gt=0,
        description="deviation of their noise, as a share of each modality's own deviation",
    )
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _steps_rise(self) -> "AttributionSettings":
        if self.most_steps < self.steps:
            raise ValueError("most_steps is less than steps")
        return self
