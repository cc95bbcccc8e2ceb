"""Which network to build, by name; read without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medfuse.config import Settings


class ModelSettings(Settings):
    """The parts of a `FusedModel`, each chosen by name from the table in its file."""

    image: Literal["efficientnet_lite0", "densenet121"] = "efficientnet_lite0"
    image_weights: Path | None = Field(
        default=None, description="state dict to start the image network from, instead of its own"
    )
    note: str = Field(
        default="minilm", description="minilm, or a local Hugging Face folder of a BERT model"
    )
    voice: Literal["cnn"] = "cnn"
    fusion: Literal["gated", "cross_attention"] = "gated"
    width: int = Field(default=128, ge=8, multiple_of=8, description="D, the embedding's length")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    freeze_image: bool = Field(default=True, description="keep the image network as it came")
    freeze_note: bool = Field(default=True, description="keep the note transformer as it came")

    @model_validator(mode="after")
    def _frozen_networks_have_weights(self) -> "ModelSettings":
        if self.image == "densenet121" and self.freeze_image and self.image_weights is None:
            raise ValueError(
                "densenet121 comes without weights, so a frozen one knows nothing: "
                "give image_weights or set freeze_image = false"
            )
        return self
