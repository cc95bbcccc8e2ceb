"""The voice encoder: log-mel (B, T, F) to one token per eight mel frames, by a small CNN."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.data.voice import SILENCE
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import AttentionPool, TokenAdapter, Tokens


class VoiceLayer(nn.Module):
    """A convolution over time, then a norm over channels at each time.

    The norm looks at no other time, so padding can't reach a real frame through statistics.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 5, stride=stride, padding=2)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, x: Float[Tensor, "b t c"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b u c"], Bool[Tensor, "b u"]]:
        """Stride over time (rounding up); an output is real when the frame at its centre is."""
        x = self.norm(self.conv(functional.gelu(x).transpose(1, 2)).transpose(1, 2))
        # Every stride-th frame, counted by the output: mask[:, ::stride] is as long, but an
        # exporter with a symbolic length can't prove it.
        mask = mask[:, self.conv.stride[0] * torch.arange(x.shape[1], device=mask.device)]
        return torch.where(mask[..., None], x, 0.0), mask


class VoiceEncoder(nn.Module):
    """A layer across mel bands and four over time, then one token per remaining time step.

    Convolving over time alone, with every band in reach at once, learns from few recordings where
    a 2-D network of the same size does not: what tells voices apart has its place in pitch.

    Args:
        bands: Mel bands, F.
        width: D.
        dropout: Between the adapter's layers.
        channels: Of each layer.
        strides: Of each layer over time.
    """

    def __init__(
        self,
        bands: int,
        width: int,
        dropout: float,
        channels: int = 96,
        strides: tuple[int, ...] = (1, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.bands = nn.Sequential(nn.Linear(bands, channels), nn.LayerNorm(channels))
        self.layers = nn.ModuleList(VoiceLayer(channels, stride) for stride in strides)
        self.adapter = TokenAdapter(channels, width, dropout)
        self.pool = AttentionPool(width)

    def extract(
        self, log_mel: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t f"]:
        """Return the log-mel itself, silent at padding: every layer of this encoder is trained."""
        return torch.where(mask[..., None], log_mel, SILENCE)

    def forward(self, features: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]) -> Tokens:
        """Return one token per eight mel frames, the last of them perhaps part padding."""
        x = torch.where(mask[..., None], self.bands(features - SILENCE), 0.0)
        for layer in self.layers:
            x, mask = layer(x, mask)
        tokens = torch.where(mask[..., None], self.adapter(x), 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))


def build_voice_encoder(settings: ModelSettings, bands: int) -> VoiceEncoder:
    """Build the encoder for log-mel of ``bands`` bands."""
    return VOICE_NETWORKS[settings.voice](bands, settings.width, settings.dropout)


VOICE_NETWORKS = {"cnn": VoiceEncoder}
