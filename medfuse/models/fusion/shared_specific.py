"""Shared and specific features: what any modality can say, averaged; what one alone can, kept."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import apply_each, average_present, gather
from medfuse.models.tokens import Tokens, perceptron
from medfuse.types import MODALITIES, Modality


class SharedSpecificFusion(nn.Module):
    """Two views of each embedding, as in MISA (Hazarika et al. 2020).

    One projection is common to all modalities and its results are averaged over those present, so
    that what several say costs nothing when one is missing; another is each modality's own and
    stays beside the average, zero where the modality is absent. MISA adds losses that draw the
    shared views together, push the specific ones apart and rebuild the embeddings. A fusion returns
    an embedding and has no place for a loss, so they are left out: only the common weights make the
    shared view shared. A network over both takes the place of its transformer over six vectors.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.specific = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
            for _ in MODALITIES
        )
        count = len(MODALITIES)
        self.mix = perceptron((count + 1) * width + count, width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        shared = average_present(self.shared(study.embeddings), study.present)
        specific = apply_each(self.specific, study.embeddings)
        specific = torch.where(study.present[..., None], specific, 0.0)
        flags = study.present.to(shared.dtype)
        views = torch.cat([shared, specific.flatten(1), flags], dim=1)
        fused: Tensor = self.norm(self.mix(views))
        return fused
