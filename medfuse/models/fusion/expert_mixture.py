"""A mixture of experts: small networks over all embeddings, weighed by study and by subset."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import gather, joint_length
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, SUBSETS, Modality


class ExpertMixtureFusion(nn.Module):
    """As many experts as subsets of modalities, shared by a gate (Shazeer et al. 2017).

    As in Flex-MoE (Yun et al. 2024) the gate knows which modalities are there: at first each subset
    favours an expert of its own, and training may change that. Both papers keep the few largest
    weights; here the gate is a softmax over all experts (Jacobs et al. 1991), so that the graph has
    no branch. At this size the experts cost less than an encoder's layer.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        joint = joint_length(width)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(joint, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in SUBSETS
        )
        self.gate = nn.Linear(joint, len(SUBSETS), bias=False)
        # The row of a subset in `SUBSETS` is its presence flags read as a binary number, less one.
        self.favour = nn.Parameter(2.0 * torch.eye(len(SUBSETS)))
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        answers = torch.stack([expert(study.joint) for expert in self.experts], dim=1)
        weights = self.weights(study.joint, study.present)
        fused: Tensor = self.norm((weights[..., None] * answers).sum(dim=1))
        return fused

    def weights(
        self, joint: Float[Tensor, "b j"], present: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b e"]:
        """Share out a weight of one among the experts."""
        bits = 2 ** torch.arange(len(MODALITIES), device=present.device)
        row = ((present * bits).sum(dim=1) - 1).clamp(min=0)
        scores: Tensor = self.gate(joint) + self.favour[row]
        return scores.softmax(dim=1)
