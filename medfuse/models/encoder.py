"""What every encoder offers to the network it is a part of, to training and to export."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor, nn

from medfuse.models.tokens import Tokens


@runtime_checkable
class Encoder(Protocol):
    """One modality's way to tokens, in two steps, so that the first can be cached.

    `extract` runs the backbone, and calling the encoder does what is always trained.
    """

    @property
    def frozen(self) -> bool:
        """Whether training leaves the backbone as it is."""

    @property
    def pretrained(self) -> bool:
        """Whether the backbone came with weights, which training then changes slowly."""

    @property
    def backbone(self) -> nn.Module | None:
        """What `extract` runs; None where that has no weights."""

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of what `extract` makes of one token."""

    @property
    def stride(self) -> int:
        """How many steps of the features become one token; a frame's cells are steps."""

    def extract(self, values: Tensor, mask: Bool[Tensor, "b n"], /) -> Tensor:
        """Run the backbone; returns features (B, M, *feature_shape)."""

    def cover(self, mask: Bool[Tensor, "b n"], /) -> Bool[Tensor, "b m"]:
        """Give the mask of the features from that of the values; mostly they are the same."""

    def __call__(self, features: Tensor, mask: Bool[Tensor, "b m"], /) -> Tokens:
        """Bring features to tokens."""
