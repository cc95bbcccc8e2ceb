"""A transformer over log-mel (B, T, F), learnt from nothing: one token per eight mel frames.

The audio spectrogram transformer of Gong et al. 2021 in small, with a stem of convolutions for its
patches (Xiao et al. 2021), since a cohort of patients is no AudioSet.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.config import VoiceSettings
from medfuse.data.voice import SILENCE
from medfuse.models.attention import TransformerBlock, place_waves
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Standardise, Tokens
from medfuse.models.voice.cnn import VoiceLayer
from medfuse.models.voice.pool import StatisticsPool

CHANNELS = (24, 48, 64)
LAYERS = 2


class TransformerVoiceEncoder(nn.Module):
    """Three convolutions that each halve time and pitch, then attention over all of the time.

    Args:
        bands: Mel bands, F.
        width: D.
        dropout: Within the layers.
    """

    frozen = False
    pretrained = False
    backbone: nn.Module | None = None

    def __init__(self, bands: int, width: int, dropout: float) -> None:
        super().__init__()
        self.feature_shape = (bands,)
        self.stride = 2 ** len(CHANNELS)
        self.standardise = Standardise(bands)
        layers, inputs = [], 1
        for outputs in CHANNELS:
            layers.append(VoiceLayer(inputs, outputs))
            inputs, bands = outputs, (bands + 1) // 2
        self.stem = nn.ModuleList(layers)
        self.project = nn.Linear(inputs * bands, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.pool = StatisticsPool(width, dropout)

    def extract(
        self, log_mel: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t f"]:
        """Return the log-mel itself, silent at padding: every layer of this encoder is trained."""
        return torch.where(mask[..., None], log_mel, SILENCE)

    def cover(self, mask: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """The log-mel is as real as it was."""
        return mask

    def forward(self, features: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]) -> Tokens:
        """Return one token per eight mel frames, the last of them perhaps part padding."""
        x = self.standardise(features, mask)[:, None]  # (B, 1, T, F)
        for layer in self.stem:
            x, mask = layer(x, mask)
        x = self.project(x.transpose(1, 2).flatten(2))  # (B, T/8, D)
        x = self.dropout(x + place_waves(x))
        for block in self.blocks:
            x = block(x, mask)
        tokens = torch.where(mask[..., None], self.norm(x), 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))


def build_transformer(
    settings: ModelSettings, voice: VoiceSettings, *, pretrained: bool
) -> TransformerVoiceEncoder:
    """Build the encoder; there are no weights to start from."""
    return TransformerVoiceEncoder(voice.mel_bands, settings.width, settings.dropout)
