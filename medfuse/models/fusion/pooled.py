"""What fusions of pooled embeddings share: encoded modalities in, one array per study out."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class Pooled(NamedTuple):
    """Every modality's embedding, side by side.

    Attributes:
        embeddings: In the order of `MODALITIES`; zero where one is absent.
        present: Which are there.
        joint: The embeddings in a row, then the presence flags as 0 and 1.
    """

    embeddings: Float[Tensor, "b m d"]
    present: Bool[Tensor, "b m"]
    joint: Float[Tensor, "b j"]


def joint_length(width: int) -> int:
    """Count the numbers in `Pooled.joint`."""
    return len(MODALITIES) * (width + 1)


def gather(encoded: dict[Modality, Tokens]) -> Pooled:
    """Lay the embeddings and the presence flags side by side."""
    pooled = [encoded[m].pooled for m in MODALITIES]
    present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1)
    joint = torch.cat([*pooled, present.to(pooled[0].dtype)], dim=1)
    return Pooled(torch.stack(pooled, dim=1), present, joint)


def apply_each(
    networks: Iterable[nn.Module], values: Float[Tensor, "b m d"]
) -> Float[Tensor, "b m e"]:
    """Give each modality's values to its own network."""
    rows = zip(networks, values.unbind(dim=1), strict=True)
    return torch.stack([network(row) for network, row in rows], dim=1)


def average_present(
    values: Float[Tensor, "b m ..."], present: Bool[Tensor, "b m"]
) -> Float[Tensor, "b ..."]:
    """Average over the modalities that are there; zero where none is."""
    share = present.to(values.dtype)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
    wide = share.reshape(*share.shape, *(1,) * (values.ndim - 2))
    return (wide * values).sum(dim=1)
