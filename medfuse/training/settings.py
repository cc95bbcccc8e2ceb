"""What ``medfuse train`` reads: one TOML file in, frozen settings out; read without torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medfuse.config import Balance, PrepareSettings, Settings, Task, TaskKind
from medfuse.data.cohort import CohortSettings
from medfuse.data.missing import MissingSettings
from medfuse.data.sentences import findings_of
from medfuse.data.splits import SplitSettings
from medfuse.leaks.settings import CheckSettings
from medfuse.models.focus import FOCI, Focus
from medfuse.models.settings import ModelSettings
from medfuse.training.search.settings import SearchSettings
from medfuse.trust.figures import ReportSettings
from medfuse.trust.record import TrustSettings


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
    batch_size: int = Field(
        default=32, gt=0, description="studies of one step, of all processes together"
    )
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
    start: Path | None = Field(
        default=None, description="checkpoint whose encoders to begin from, such as a pre-trained"
    )
    patience: int = Field(default=8, gt=0, description="epochs without a lower validation loss")
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(default=1, gt=0, description="that train together on each machine")
    nodes: int = Field(default=1, gt=0, description="machines that train together")

    @model_validator(mode="after")
    def _every_process_has_a_study(self) -> "FitSettings":
        if self.batch_size < self.processes * self.nodes:
            raise ValueError("batch_size, of all processes together, is below their number")
        return self


class AugmentSettings(Settings):
    """How training studies are varied."""

    image: bool = Field(
        default=False, description="moved, brightened, roughened; needs freeze_image = false"
    )
    note: float = Field(default=0.0, ge=0, lt=1, description="chance of deleting each word piece")
    voice: bool = Field(default=False, description="louder or softer, spans and bands hidden")


class SupervisedSettings(Settings):
    """The tasks' own losses."""

    weight: float = Field(
        default=1.0, ge=0, description="0 to pre-train by other objectives, without labels"
    )
    loss: Literal["cross_entropy", "focal", "asymmetric"] = Field(
        default="cross_entropy", description="asymmetric: for binary and multilabel tasks alone"
    )
    task_balance: Literal["sum", "uncertainty"] = Field(
        default="sum",
        description="of several tasks; sum: by their weights alone; uncertainty: by these and by a "
        "variance that is learnt for each",
    )

    @property
    def focus(self) -> Focus:
        """How the loss weighs easy answers."""
        return FOCI[self.loss]


class ContrastiveSettings(Settings):
    """Bring what the modalities share into one space; needs ``model.shared_space``."""

    weight: float = Field(default=0.1, gt=0)


class MaskedSettings(Settings):
    """Guess hidden features from all the others; needs no labels."""

    weight: float = Field(default=1.0, gt=0)
    rate: float = Field(default=0.3, gt=0, lt=1, description="share of the tokens that are hidden")


class GenerationSettings(Settings):
    """Guess a modality's embedding from the others; needs ``model.generate_missing``."""

    weight: float = Field(default=1.0, gt=0)
    adversarial: float = Field(default=0.1, ge=0, description="weight of fooling a discriminator")


class AdversarialSettings(Settings):
    """Answer well although the features are moved against the answer."""

    weight: float = Field(default=0.5, gt=0)
    epsilon: float = Field(
        default=0.05, gt=0, description="how far, in standard deviations of each channel"
    )


class FindingsTextSettings(Settings):
    """Learn to write findings; needs ``model.findings_text`` and ``cohort.sentences``."""

    weight: float = Field(default=0.5, gt=0)
    modality_dropout: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="chance of leaving out each modality; a sentence then rests on what is left",
    )
    precision: float = Field(
        default=0.75,
        gt=0,
        lt=1,
        description="share of stated findings that shall be there, on the validation studies",
    )


class ObjectiveSettings(Settings):
    """What training strives for; a section turns its objective on."""

    supervised: SupervisedSettings = SupervisedSettings()
    contrastive: ContrastiveSettings | None = None
    masked: MaskedSettings | None = None
    generation: GenerationSettings | None = None
    adversarial: AdversarialSettings | None = None
    findings_text: FindingsTextSettings | None = None

    @model_validator(mode="after")
    def _something_is_striven_for(self) -> "ObjectiveSettings":
        others = (self.contrastive, self.masked, self.generation)
        if not self.supervised.weight and all(other is None for other in others):
            raise ValueError(
                "nothing to learn: give supervised a weight, or contrastive, masked or generation"
            )
        if not self.supervised.weight and self.adversarial is not None:
            raise ValueError("adversarial training needs labels: give supervised a weight")
        if not self.supervised.weight and self.findings_text is not None:
            raise ValueError("a finding is stated by its label's answer: give supervised a weight")
        return self


class RunReportSettings(ReportSettings):
    """How a run's models are measured."""

    attack: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(),
        description="answers are measured again with every feature moved against them so far, in "
        "standard deviations (fast gradient sign); none: not",
    )


class TrainSettings(Settings):
    """A whole training run."""

    cohort: CohortSettings
    check: CheckSettings = CheckSettings()
    split: SplitSettings = SplitSettings()
    missing: MissingSettings = MissingSettings()
    tasks: tuple[Task, ...] = Field(min_length=1)
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    features: FeatureSettings = FeatureSettings()
    fit: FitSettings = FitSettings()
    augment: AugmentSettings = AugmentSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    report: RunReportSettings = RunReportSettings()
    trust: TrustSettings = TrustSettings()
    search: SearchSettings | None = Field(
        default=None, description="what medfuse search looks for; other commands pass over it"
    )

    @model_validator(mode="after")
    def _tasks_have_names_of_their_own(self) -> "TrainSettings":
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self

    @model_validator(mode="after")
    def _the_model_has_what_its_objectives_train(self) -> "TrainSettings":
        if self.objectives.contrastive is not None and not self.model.shared_space:
            raise ValueError("objectives.contrastive needs model.shared_space, such as 64")
        if self.objectives.generation is not None and not self.model.generate_missing:
            raise ValueError("objectives.generation needs model.generate_missing = true")
        if (self.objectives.findings_text is not None) != self.model.findings_text:
            raise ValueError("objectives.findings_text goes with model.findings_text = true")
        if self.model.findings_text and self.cohort.sentences is None:
            raise ValueError("findings text is learnt from cohort.sentences: name its table")
        if self.model.findings_text and not findings_of(self.tasks):
            raise ValueError("findings text needs a binary or multilabel task")
        if self.augment.image and self.model.freeze_image:
            raise ValueError(
                "augment.image needs model.freeze_image = false: what a frozen network makes of an "
                "image is computed once"
            )
        yes_no = (TaskKind.BINARY, TaskKind.MULTILABEL)
        if self.objectives.supervised.loss == "asymmetric" and any(
            task.kind not in yes_no for task in self.tasks
        ):
            raise ValueError(
                "objectives.supervised.loss = 'asymmetric' is for binary and multilabel tasks; "
                "use 'focal' or 'cross_entropy'"
            )
        return self

    @model_validator(mode="after")
    def _missing_goes_by_a_finding_that_is_asked(self) -> "TrainSettings":
        yes_no = [
            task for task in self.tasks if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
        ]
        known = [target for task in yes_no for target in task.targets]
        if self.missing.finding and self.missing.finding not in known:
            raise ValueError(
                f"missing.finding = {self.missing.finding!r}; expected one of {', '.join(known)}"
            )
        return self
