"""The voice encoder: log-mel (B, T, F) to one token per eight mel frames, by a small CNN."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.config import VoiceSettings
from medfuse.data.voice import SILENCE
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Standardise, TokenAdapter, Tokens
from medfuse.models.voice.pool import StatisticsPool


class VoiceLayer(nn.Module):
    """A 3x3 convolution that halves time and pitch, then a norm over channels at each place.

    The norm looks at no other time, so padding can't reach a real frame through statistics.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(outputs)

    def forward(
        self, x: Float[Tensor, "b c t f"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d u g"], Bool[Tensor, "b u"]]:
        """Halve time (rounding up); an output is real when the frame at its centre is."""
        if self.training:  # the norm then reads what the convolution wrote: a fifth faster
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv(x)
        x = functional.gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        # Every second frame, counted by the output: mask[:, ::2] is as long, but an exporter with
        # a symbolic length can't prove it.
        mask = mask[:, 2 * torch.arange(x.shape[2], device=mask.device)]
        return torch.where(mask[:, None, :, None], x, 0.0), mask


class CnnVoiceEncoder(nn.Module):
    """Three layers over time and mel band, then one token per remaining time step.

    Reads each band standardised, and beside it the change since the frame before, where the cycles
    of a hoarse voice and the onset of a cough stand out.

    Args:
        bands: Mel bands, F.
        width: D.
        dropout: Between the adapter's layers.
        channels: Of each layer.
    """

    frozen = False
    pretrained = False
    backbone: nn.Module | None = None

    def __init__(
        self, bands: int, width: int, dropout: float, channels: tuple[int, ...] = (24, 48, 64)
    ) -> None:
        super().__init__()
        self.feature_shape = (bands,)
        self.standardise = Standardise(bands)
        self.stride = 2 ** len(channels)
        layers, inputs = [], 2
        for outputs in channels:
            layers.append(VoiceLayer(inputs, outputs))
            inputs, bands = outputs, (bands + 1) // 2
        self.layers = nn.ModuleList(layers)
        self.adapter = TokenAdapter(inputs * bands, width, dropout)
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
        x = self.standardise(features, mask)
        before = functional.pad(x, (0, 0, 1, 0))[:, :-1]
        change = torch.where(mask[..., None], 2 * (x - before), 0.0)
        x = torch.stack([x, change], dim=1)  # (B, 2, T, F)
        for layer in self.layers:
            x, mask = layer(x, mask)
        x = x.transpose(1, 2).flatten(2)  # (B, T/8, C * F/8)
        tokens = torch.where(mask[..., None], self.adapter(x), 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))


def build_cnn(
    settings: ModelSettings, voice: VoiceSettings, *, pretrained: bool
) -> CnnVoiceEncoder:
    """Build the encoder; there are no weights to start from."""
    return CnnVoiceEncoder(voice.mel_bands, settings.width, settings.dropout)
