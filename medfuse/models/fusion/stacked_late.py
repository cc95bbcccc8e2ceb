"""Stacked late fusion: each modality votes alone, and a network learns what the votes mean."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import Pooled, apply_each, gather
from medfuse.models.tokens import Tokens, perceptron
from medfuse.types import MODALITIES, Modality


class StackedLateFusion(nn.Module):
    """Stacked generalisation (Wolpert 1992): a learner over the answers of other learners.

    Each modality gives a few votes between -1 and 1; an absent one gives 0 and its flag says so.
    Wolpert trains the upper learner on answers that the lower ones gave to studies they had not
    seen; here both are trained together, which needs no held-out studies. Nothing but votes crosses
    between modalities, but the upper network is not linear, so it can learn "one but not both".
    """

    def __init__(self, width: int, dropout: float, votes: int = 8) -> None:
        super().__init__()
        self.alone = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, votes)
            )
            for _ in MODALITIES
        )
        self.learner = perceptron(len(MODALITIES) * (votes + 1), width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        votes = self.votes(study)
        flags = study.present.to(votes.dtype)
        fused: Tensor = self.norm(self.learner(torch.cat([votes.flatten(1), flags], dim=1)))
        return fused

    def votes(self, study: Pooled) -> Float[Tensor, "b m v"]:
        """Let each present modality vote."""
        votes = torch.tanh(apply_each(self.alone, study.embeddings))
        return torch.where(study.present[..., None], votes, 0.0)
