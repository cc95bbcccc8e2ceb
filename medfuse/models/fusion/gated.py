"""Gated fusion: pooled embeddings, weighted by gates, plus what only their combination tells."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import apply_each, gather, joint_length
from medfuse.models.tokens import Tokens, hide, perceptron
from medfuse.types import MODALITIES, Modality


class GatedFusion(nn.Module):
    """A gated multimodal unit (Arevalo et al. 2017) with an interaction branch beside it.

    The unit is a weighted average of the present modalities, whose gates see all of them; an
    average can't express "both or neither", so a two-layer network over the concatenated
    embeddings and presence flags is added.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        joint = joint_length(width)
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in MODALITIES)
        self.gate = nn.Linear(joint, len(MODALITIES))
        self.interaction = perceptron(joint, width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        values = torch.tanh(apply_each(self.values, study.embeddings))
        average = (self.gates(study.joint, study.present)[:, :, None] * values).sum(dim=1)
        fused: Tensor = self.norm(average + self.interaction(study.joint))
        return fused

    def gates(
        self, joint: Float[Tensor, "b j"], present: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b m"]:
        """Share out a weight of one among the present modalities."""
        return hide(self.gate(joint), present).softmax(dim=1)
