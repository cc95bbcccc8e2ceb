"""Pooling over time: what stands out in a recording, and what lasts through it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.tokens import AttentionPool


class StatisticsPool(nn.Module):
    """Attention pooling, with the mean and spread of the tokens over time beside it.

    The statistics pooling of x-vectors (Snyder et al. 2018): what lasts through a recording, such
    as hoarseness, is in the spread; a cough or a wheeze is for attention to find.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = AttentionPool(width)
        self.statistics = nn.Sequential(
            nn.Linear(2 * width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b d"]:
        """Return the embedding; zero where no token is real."""
        real = mask[..., None].to(tokens.dtype)
        count = real.sum(dim=1).clamp(min=1.0)
        mean = (tokens * real).sum(dim=1) / count
        variance = ((tokens - mean[:, None]).square() * real).sum(dim=1) / count
        spread = (variance + 1e-4).sqrt()
        statistics = self.statistics(torch.cat([mean, spread], dim=1))
        pooled: Tensor = self.norm(self.attention(tokens, mask) + statistics)
        return torch.where(mask.any(dim=1, keepdim=True), pooled, 0.0)
