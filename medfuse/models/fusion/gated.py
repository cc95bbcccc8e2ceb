"""Gated fusion: pooled embeddings, weighted by gates, plus what only their combination tells."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.tokens import Tokens, hide
from medfuse.types import MODALITIES, Modality


class GatedFusion(nn.Module):
    """A gated multimodal unit (Arevalo et al. 2017) with an interaction branch beside it.

    The unit is a weighted average of the present modalities, whose gates see all of them; an
    average can't express "both or neither", so a two-layer network over the concatenated
    embeddings and presence flags is added.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        joint = len(MODALITIES) * (width + 1)
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in MODALITIES)
        self.gate = nn.Linear(joint, len(MODALITIES))
        self.interaction = nn.Sequential(
            nn.Linear(joint, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        pooled = [encoded[m].pooled for m in MODALITIES]
        present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1)
        joint = torch.cat([*pooled, present.to(pooled[0].dtype)], dim=1)
        values = torch.stack(
            [torch.tanh(layer(p)) for layer, p in zip(self.values, pooled, strict=True)], dim=1
        )
        average = (self.gates(joint, present)[:, :, None] * values).sum(dim=1)
        fused: Tensor = self.norm(average + self.interaction(joint))
        return fused

    def gates(
        self, joint: Float[Tensor, "b j"], present: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b m"]:
        """Share out a weight of one among the present modalities."""
        return hide(self.gate(joint), present).softmax(dim=1)
