"""The note encoder: word pieces (B, L) to one token per piece."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.models.tokens import AttentionPool, TokenAdapter, Tokens


@runtime_checkable
class NoteBackbone(Protocol):
    """A network over word pieces that starts from a table of embeddings, where attribution ends."""

    @property
    def channels(self) -> int:
        """How many numbers a state has."""

    @property
    def pad(self) -> int:
        """The word piece that padding counts as."""

    @property
    def table(self) -> nn.Embedding:
        """The embedding of each word piece."""

    def __call__(
        self, embeddings: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"], /
    ) -> Float[Tensor, "b l c"]:
        """Give the state at each piece; no real one hears of padding, which is zero."""


class NoteEncoder(nn.Module):
    """A network over word pieces, and the layers that bring its states to the model's width.

    The network runs from word-piece embeddings, not piece numbers, so that attribution can reach
    them.

    Args:
        backbone: A module that is a `NoteBackbone`.
        width: D.
        dropout: Between the adapter's layers.
        frozen: Whether the backbone stays as it is.
        pretrained: Whether it came with weights.
    """

    stride = 1

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        dropout: float,
        *,
        frozen: bool,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        self.pretrained = pretrained
        self.adapter = TokenAdapter(self._network.channels, width, dropout)
        self.pool = AttentionPool(width)
        if frozen:
            self.backbone.requires_grad_(False)
            self.backbone.train(False)

    @property
    def _network(self) -> NoteBackbone:
        assert isinstance(self.backbone, NoteBackbone)
        return self.backbone

    @property
    def feature_shape(self) -> tuple[int]:
        """The numbers of a state."""
        return (self._network.channels,)

    def train(self, mode: bool = True) -> "NoteEncoder":
        """Set the mode, a frozen backbone excepted."""
        super().train(mode)
        if self.frozen:
            self.backbone.train(False)
        return self

    def embed(
        self, pieces: Int64[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l e"]:
        """Look up each word piece; padding counts as the padding piece."""
        network = self._network
        embeddings: Tensor = network.table(torch.where(mask, pieces, network.pad))
        return embeddings

    def contextualise(
        self, embeddings: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l c"]:
        """Run the network over word-piece embeddings; no real piece hears of padding."""
        return self._network(torch.where(mask[..., None], embeddings, 0.0), mask)

    def extract(
        self, pieces: Int64[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l c"]:
        """Return the network's state at each piece."""
        return self.contextualise(self.embed(pieces, mask), mask)

    def cover(self, mask: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """A state is as real as its piece."""
        return mask

    def forward(self, features: Float[Tensor, "b l c"], mask: Bool[Tensor, "b l"]) -> Tokens:
        """Return one token per word piece."""
        features = torch.where(mask[..., None], features, 0.0)
        tokens = torch.where(mask[..., None], self.adapter(features), 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))
