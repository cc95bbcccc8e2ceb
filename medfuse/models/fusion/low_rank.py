"""Low-rank fusion: the product of every modality's embedding with every other's, cheaply."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import Pooled, gather
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class LowRankFusion(nn.Module):
    """Low-rank multimodal fusion (Liu et al. 2018, eq. 6 and 7).

    The outer product of all embeddings, each with a 1 appended, holds every number, every product
    of two and every product of three. Its weights are a sum of ``rank`` outer products themselves,
    so the sum over the whole tensor is a product of one factor per modality, summed over the rank.
    An absent modality's factor is 1, which leaves the others' as they are. The weights of the
    appended 1 begin near 1, so that at first each modality counts alone as well as in products.
    """

    def __init__(self, width: int, dropout: float, rank: int = 8) -> None:
        super().__init__()
        self.rank = rank
        self.dropout = nn.Dropout(dropout)
        self.factors = nn.ModuleList(nn.Linear(width, rank * width) for _ in MODALITIES)
        with torch.no_grad():
            for factor in self.factors:
                assert isinstance(factor, nn.Linear)
                factor.bias.add_(1.0)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        fused: Tensor = self.norm(self.multiply(gather(encoded)))
        return fused

    def multiply(self, study: Pooled) -> Float[Tensor, "b d"]:
        """Contract the outer product of the present modalities without forming it."""
        b, _, d = study.embeddings.shape
        product = torch.ones_like(study.embeddings[:, :1])  # (B, 1, D), then (B, rank, D)
        for i, factor in enumerate(self.factors):
            factors = factor(self.dropout(study.embeddings[:, i])).reshape(b, self.rank, d)
            product = product * torch.where(study.present[:, i, None, None], factors, 1.0)
        return product.sum(dim=1)
