"""What every encoder returns, and the layers they share: features in, tokens out."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.processes import count_processes


class Tokens(NamedTuple):
    """One modality of a batch of studies, encoded.

    Attributes:
        tokens: Zero where the mask is false.
        mask: True where a token is real; a modality is present when any is.
        pooled: The modality's embedding; zero where it is absent.
    """

    tokens: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    pooled: Float[Tensor, "b d"]


class AttentionPool(nn.Module):
    """Average the real tokens, weighted by how telling each looks, per head.

    The gated sum of attention-based multiple-instance learning (Ilse et al. 2018, eq. 8) with
    several heads, each weighting its own slice of the embedding.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, heads)

    def forward(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b d"]:
        """Return the weighted average; zero where no token is real."""
        b, n, d = tokens.shape
        weights = self._weigh(tokens, mask)[:, :, None]  # (B, heads, 1, N)
        values = tokens.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)
        pooled = (weights @ values).reshape(b, d)
        return torch.where(mask.any(dim=1, keepdim=True), pooled, 0.0)

    def attention(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """Return each token's weight, averaged over heads: 1 in all, 0 where it is not real."""
        return torch.where(mask, self._weigh(tokens, mask).mean(dim=1), 0.0)

    def _weigh(
        self, tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b h n"]:
        scores = self.score(torch.tanh(self.hidden(tokens)))
        return hide(scores, mask[..., None]).softmax(dim=1).transpose(1, 2)


class Standardise(nn.Module):
    """Bring each channel to mean 0 and variance 1, as the training studies' real tokens have it.

    Batch norm without scale and shift (Ioffe & Szegedy 2015), whose statistics leave padding out.
    The channels of a pretrained network differ in scale by orders of magnitude and a few drown the
    rest; a norm across channels would leave that so.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)

    def forward(
        self, features: Float[Tensor, "*n c"], mask: Bool[Tensor, "*n"]
    ) -> Float[Tensor, "*n c"]:
        """Standardise the real tokens; padding becomes zero."""
        flat, real = features.flatten(0, -2), mask.flatten()
        if self.training:
            rows = real.nonzero().squeeze(1)
            normed = torch.zeros_like(flat)
            # One token has no variance, unless another process has more of them.
            if len(rows) > 1 or count_processes() > 1:
                normed = normed.index_copy(0, rows, self.norm(flat[rows]))
        else:
            normed = torch.where(real[:, None], self.norm(flat), 0.0)
        return normed.reshape(features.shape)


class TokenAdapter(nn.Module):
    """Bring features of about unit scale to the model's width, one hidden layer deep."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, features: Float[Tensor, "*n c"], position: Float[Tensor, "*m d"] | None = None
    ) -> Float[Tensor, "*n d"]:
        """Map features to tokens; a learned position is added before the norm."""
        tokens = self.layers(features)
        normed: Tensor = self.norm(tokens if position is None else tokens + position)
        return normed


def perceptron(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Build a network of one hidden layer, twice as wide as what comes out."""
    return nn.Sequential(
        nn.Linear(inputs, 2 * outputs),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * outputs, outputs),
    )


def absent(tokens: Tokens) -> Tokens:
    """Take a modality away from every study, exactly as if none had ever had it."""
    return Tokens(*(torch.zeros_like(part) for part in tokens))


def hide(scores: Tensor, mask: Bool[Tensor, "..."]) -> Tensor:
    """Make attention scores vanish where the mask is false.

    The lowest finite number rather than minus infinity, so that a row without any real token gives
    finite weights (and finite gradients), which the caller then replaces.
    """
    return torch.where(mask, scores, torch.finfo(scores.dtype).min)
