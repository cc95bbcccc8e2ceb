"""Bottleneck fusion: modalities talk through a few tokens that each in turn may write and read."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.attention import TransformerBlock
from medfuse.models.fusion.pooled import average_present, gather
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class BottleneckFusion(nn.Module):
    """Attention bottlenecks (Nagrani et al. 2021): one transformer per modality, joined by tokens.

    Each modality's sequence is a class token, here begun from its pooled embedding, the bottleneck
    tokens and its own tokens. After each block the bottleneck tokens are averaged over the present
    modalities; the next block reads that. At the end the class tokens are averaged, which with
    linear heads is the paper's average of their logits; the last block refines them alone. Tokens
    of one modality read one another, so the cost grows with the square of each modality's number.
    """

    def __init__(self, width: int, dropout: float, depth: int = 2, bottleneck: int = 4) -> None:
        super().__init__()
        self.bottleneck = nn.Parameter(0.02 * torch.randn(bottleneck, width))
        self.first = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        self.layers = nn.ModuleList(
            nn.ModuleList(TransformerBlock(width, dropout) for _ in MODALITIES)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        firsts = list((study.embeddings + self.first)[:, :, None].unbind(dim=1))
        streams = [encoded[m].tokens for m in MODALITIES]
        masks = [self._reach(encoded[m].mask) for m in MODALITIES]
        common = torch.zeros_like(study.embeddings[:, :1]) + self.bottleneck
        ends = 1 + len(self.bottleneck)
        *layers, last = self.layers
        for layer in layers:
            assert isinstance(layer, nn.ModuleList)
            written = []
            for i, block in enumerate(layer):
                x = block(torch.cat([firsts[i], common, streams[i]], dim=1), masks[i])
                firsts[i], streams[i] = x[:, :1], x[:, ends:]
                written.append(x[:, 1:ends])
            common = average_present(torch.stack(written, dim=1), study.present)
        assert isinstance(last, nn.ModuleList)
        read = [
            block(torch.cat([first, common, stream], dim=1), mask, first=1)
            for block, first, stream, mask in zip(last, firsts, streams, masks, strict=True)
        ]
        return average_present(self.norm(torch.cat(read, dim=1)), study.present)

    def _reach(self, mask: Bool[Tensor, "b n"]) -> Bool[Tensor, "b k"]:
        """Extend a modality's mask to its class token and the bottleneck, which can be read."""
        ahead = mask.new_ones(mask.shape[0], 1 + len(self.bottleneck))
        return torch.cat([ahead, mask], dim=1)
