"""One space for the three modalities: pooled embeddings in, comparable unit vectors out."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality

FIRST_SCALE = 1 / 0.07
"""Where CLIP's learnt temperature begins (Radford et al. 2021, section 2.5)."""

TINY = 1e-12


class Alignment(nn.Module):
    """A linear map per modality onto the unit sphere of one space (Radford et al. 2021).

    The maps stand beside the fusion, not before it: what only one modality tells must stay in its
    pooled embedding, and what is aligned is what they share.

    Args:
        width: Of the pooled embeddings, D.
        length: Of the vectors in the shared space, E.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.maps = nn.ModuleList(nn.Linear(width, length, bias=False) for _ in MODALITIES)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(self, encoded: Mapping[Modality, Tokens]) -> dict[Modality, Float[Tensor, "b e"]]:
        """Give each modality's unit vector; zero where the modality is absent."""
        vectors = {}
        for modality, project in zip(MODALITIES, self.maps, strict=True):
            vector = project(encoded[modality].pooled)
            length = (vector.square().sum(dim=1, keepdim=True) + TINY).sqrt()
            present = encoded[modality].mask.any(dim=1, keepdim=True)
            vectors[modality] = torch.where(present, vector / length, 0.0)
        return vectors
