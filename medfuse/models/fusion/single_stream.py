"""Single stream: one transformer over the tokens of every modality, read at a class token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.attention import TransformerBlock
from medfuse.models.fusion.pooled import gather
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class SingleStreamFusion(nn.Module):
    """All tokens in one sequence, each marked with its modality, as in ViLT (Kim et al. 2021).

    IRENE (Zhou et al. 2023) diagnoses from image and text with such a transformer as well, after
    two blocks of attention between the two. Each modality's pooled embedding stands in the sequence
    as a token of its own. Every token reads every other, so time and memory grow with the square of
    the number of tokens; the last block refines the class token alone. For a CT of many slices
    `CrossAttentionFusion` is cheaper.
    """

    def __init__(self, width: int, dropout: float, depth: int = 2) -> None:
        super().__init__()
        self.kind = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        self.pooled = nn.Parameter(0.02 * torch.randn(width))
        self.study = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        first = torch.zeros_like(study.embeddings[:, :1]) + self.study
        sequence = [first, study.embeddings + self.kind + self.pooled]
        mask = [torch.ones_like(study.present[:, :1]), study.present]
        for modality, kind in zip(MODALITIES, self.kind, strict=True):
            sequence.append(encoded[modality].tokens + kind)
            mask.append(encoded[modality].mask)
        tokens, real = torch.cat(sequence, dim=1), torch.cat(mask, dim=1)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, real)
        fused: Tensor = self.norm(last(tokens, real, first=1)[:, 0])
        return fused
