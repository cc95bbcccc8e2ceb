"""Attention in plain matrix products, which export with their gradients: tokens in, tokens out."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.tokens import hide, perceptron

LONGEST = 10_000.0
"""The longest wave of a place, in tokens (Vaswani et al. 2017, section 3.5)."""


class Attention(nn.Module):
    """Multi-head attention from queries to keys (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        keys: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b q d"]:
        """Read the real keys."""
        q, k, v = (self._split(x) for x in (self.query(queries), self.key(keys), self.value(keys)))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        weights = hide(scores, mask[:, None, None, :]).softmax(dim=3)
        read = (weights @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.out(read)
        return out

    def _split(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n e"]:
        b, n, d = x.shape
        return x.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Tokens read one another, then each thinks: two pre-norm residual steps.

    The order of norm and step is that of Xiong et al. 2020, which trains without a warm-up.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.read_norm = nn.LayerNorm(width)
        self.read = Attention(width)
        self.think_norm = nn.LayerNorm(width)
        self.think = perceptron(width, width, dropout)

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
        first: int | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Refine the tokens.

        Args:
            tokens: All of them.
            mask: True where a token can be read.
            first: Refine and return so many alone, which costs no more than reading the others.
        """
        normed = self.read_norm(tokens)
        if first is None:
            x: Tensor = tokens + self.read(normed, normed, mask)
        else:
            x = tokens[:, :first] + self.read(normed[:, :first], normed, mask)
        y: Tensor = self.think(self.think_norm(x))
        return x + y


def place_waves(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "n d"]:
    """Give each place in time sines and cosines of its own, however long the recording is."""
    _, n, d = tokens.shape
    place = torch.arange(n, device=tokens.device, dtype=tokens.dtype)
    wave = torch.arange(d // 2, device=tokens.device, dtype=tokens.dtype)
    angle = place[:, None] * LONGEST ** (-2 * wave / d)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
