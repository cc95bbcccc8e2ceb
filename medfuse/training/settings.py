"""What ``medfuse train`` reads: one TOML file in, frozen settings out; read without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medfuse.config import Balance, PrepareSettings, Settings, Task
from medfuse.data.cohort import CohortSettings
from medfuse.data.splits import SplitSettings
from medfuse.models.settings import ModelSettings


class FeatureSettings(Settings):
    """How studies are prepared once and kept for every epoch and every later run."""

    cache: Path | None = Field(
        default=None, description="folder of the cache; 'features' beside the run by default"
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float16", description="what features are kept as; arithmetic is in float32"
    )
    workers: int = Field(default=0, ge=0, description="processes that prepare; 0: one per core")
    unreadable: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="what to do about a study whose files cannot be used"
    )


class FitSettings(Settings):
    """How the network is fitted."""

    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    backbone_learning_rate: float = Field(
        default=1e-4, gt=0, description="of pretrained networks that are not frozen"
    )
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of steps that warm up")
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    balance: Balance = Field(
        default="none",
        description="weight: rare labels cost more; sample: their studies are drawn more often",
    )
    modality_dropout: float = Field(
        default=0.3, ge=0, lt=1, description="chance of leaving out each modality, never the last"
    )
    dropped_weight: float = Field(
        default=1.0, ge=0, description="weight of the loss on the studies so thinned out"
    )
    single_weight: float = Field(
        default=0.3, ge=0, description="weight of the loss on each modality alone"
    )
    patience: int = Field(default=8, gt=0, description="epochs without a lower validation loss")
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ReportSettings(Settings):
    """How the trained model is measured."""

    resamples: int = Field(default=1_000, ge=0, description="bootstrap resamples, by patient")
    seed: int = Field(default=0, ge=0)


class TrainSettings(Settings):
    """A whole training run."""

    cohort: CohortSettings
    split: SplitSettings = SplitSettings()
    tasks: tuple[Task, ...] = Field(min_length=1)
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    features: FeatureSettings = FeatureSettings()
    fit: FitSettings = FitSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _tasks_have_names_of_their_own(self) -> "TrainSettings":
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self
