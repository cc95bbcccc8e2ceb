"""Concatenation: pooled embeddings and presence flags in one row, through one network."""

from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import gather, joint_length
from medfuse.models.tokens import Tokens, perceptron
from medfuse.types import Modality


class ConcatenationFusion(nn.Module):
    """A shared layer over all modalities at once (Ngiam et al. 2011).

    As there, an absent modality is fed as zeros; flags beside the embeddings tell it from one whose
    embedding is zero.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.mix = perceptron(joint_length(width), width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        fused: Tensor = self.norm(self.mix(gather(encoded).joint))
        return fused
