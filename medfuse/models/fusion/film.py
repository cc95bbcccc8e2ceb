"""FiLM: each modality's embedding scaled and shifted by what the others say, then averaged."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.fusion.pooled import Pooled, apply_each, average_present, gather
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class FilmFusion(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018), of every modality by all the others.

    The scale is 1 and a learned change, as there; both come linearly from the others' embeddings
    and presence flags.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        others = (len(MODALITIES) - 1) * (width + 1)
        self.values = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for _ in MODALITIES
        )
        self.modulators = nn.ModuleList(nn.Linear(others, 2 * width) for _ in MODALITIES)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        modulated = self.dropout(functional.gelu(self.modulate(study)))
        fused: Tensor = self.norm(average_present(modulated, study.present))
        return fused

    def modulate(self, study: Pooled) -> Float[Tensor, "b m d"]:
        """Scale and shift each modality's values by what the others say."""
        flags = study.present[..., None].to(study.embeddings.dtype)
        told = torch.cat([study.embeddings, flags], dim=2)  # (B, M, D + 1)
        changes = []
        for i, modulator in enumerate(self.modulators):
            others = torch.cat([told[:, :i], told[:, i + 1 :]], dim=1)
            changes.append(modulator(others.flatten(1)))
        scale, shift = torch.stack(changes, dim=1).chunk(2, dim=2)
        return (1 + scale) * apply_each(self.values, study.embeddings) + shift
