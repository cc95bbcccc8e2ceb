"""Which network to build, by name; read without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medfuse.config import Settings

ImageName = Literal[
    "efficientnet_lite0", "efficientnet_lite0_stage4", "densenet121", "repvgg_a0", "vit_tiny"
]

NoteName = Literal["minilm", "lstm"]

WITHOUT_WEIGHTS = ("densenet121", "repvgg_a0", "vit_tiny")
"""The image networks that start from nothing where the user gives no weights."""


class ModelSettings(Settings):
    """The parts of a `FusedModel`, each chosen by name from the table in its file."""

    image: ImageName | Path = Field(
        default="efficientnet_lite0",
        description="a network's name, or a local Hugging Face folder of one",
    )
    image_weights: Path | None = Field(
        default=None, description="state dict to start the image network from, instead of its own"
    )
    note: NoteName | Path = Field(
        default="minilm", description="a network's name, or a local Hugging Face folder of one"
    )
    voice: Literal["cnn", "transformer", "speaker"] = "cnn"
    fusion: Literal[
        "gated",
        "cross_attention",
        "concatenation",
        "late_average",
        "stacked_late",
        "bottleneck",
        "single_stream",
        "low_rank",
        "film",
        "squeeze_excite",
        "expert_mixture",
        "shared_specific",
    ] = "gated"
    width: int = Field(default=128, ge=8, multiple_of=8, description="D, the embedding's length")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    shared_space: int = Field(
        default=0,
        ge=0,
        description="length of the embeddings in a space that the modalities share; 0 for none",
    )
    generate_missing: bool = Field(
        default=False, description="guess an absent modality's embedding from the present ones"
    )
    findings_text: bool = Field(
        default=False, description="write a sentence of each finding that is stated"
    )
    freeze_image: bool = Field(default=True, description="keep the image network as it came")
    freeze_note: bool = Field(
        default=True, description="keep a pretrained note network as it came; others always learn"
    )
    freeze_voice: bool = Field(
        default=True, description="keep a pretrained voice network as it came; others always learn"
    )

    @property
    def image_has_weights(self) -> bool:
        """Whether the image network starts from weights of its own or the user's."""
        return self.image not in WITHOUT_WEIGHTS or self.image_weights is not None

    @model_validator(mode="after")
    def _frozen_networks_have_weights(self) -> "ModelSettings":
        if self.freeze_image and not self.image_has_weights:
            raise ValueError(
                f"{self.image} comes without weights, so a frozen one knows nothing: "
                "give image_weights or set freeze_image = false"
            )
        return self
