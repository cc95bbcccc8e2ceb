"""Cross-attention fusion: a few readouts read the tokens of every modality, then each other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.attention import Attention
from medfuse.models.tokens import Tokens, perceptron
from medfuse.types import MODALITIES, Modality


class Layer(nn.Module):
    """Readouts read the tokens, then one another, then think: three pre-norm residual steps."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.read = Attention(width)
        self.mix = Attention(width)
        self.think = perceptron(width, width, dropout)

    def forward(
        self,
        readouts: Float[Tensor, "b q d"],
        present: Bool[Tensor, "b q"],
        tokens: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b q d"]:
        """Refine the readouts."""
        x: Tensor = readouts + self.read(self.norms[0](readouts), tokens, mask)
        normed = self.norms[1](x)
        x = x + self.mix(normed, normed, present)
        y: Tensor = self.think(self.norms[2](x))
        return x + y


class CrossAttentionFusion(nn.Module):
    """One readout per modality, begun from its pooled embedding, and one for the whole study.

    As in Perceiver (Jaegle et al. 2021) the cost is linear in the tokens, so a CT of many slices
    is no harder than it must be.
    """

    def __init__(self, width: int, dropout: float, depth: int = 2) -> None:
        super().__init__()
        self.kind = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        self.readout = nn.Parameter(0.02 * torch.randn(len(MODALITIES) + 1, width))
        self.token_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(depth))
        self.join = nn.Linear((len(MODALITIES) + 1) * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        parts = [encoded[m] for m in MODALITIES]
        tokens = self.token_norm(
            torch.cat([part.tokens + kind for part, kind in zip(parts, self.kind, strict=True)], 1)
        )
        mask = torch.cat([part.mask for part in parts], dim=1)
        pooled = torch.stack([part.pooled for part in parts], dim=1)
        study = torch.zeros_like(pooled[:, :1])
        readouts = torch.cat([study, pooled], dim=1) + self.readout
        present = torch.stack([mask.any(dim=1), *(part.mask.any(dim=1) for part in parts)], dim=1)
        for layer in self.layers:
            readouts = layer(readouts, present, tokens, mask)
        readouts = torch.where(present[..., None], readouts, 0.0)
        fused: Tensor = self.norm(self.join(readouts.flatten(1)))
        return fused
