"""One training step as every objective sees it."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from medfuse.models.fused import FusedModel
from medfuse.models.processes import sum_across
from medfuse.models.tokens import Standardise, Tokens
from medfuse.training.dataset import FeatureBatch
from medfuse.training.processes import WHOLE, Share
from medfuse.types import MODALITIES, Modality


@dataclass(frozen=True, slots=True)
class Step:
    """A batch, encoded once for all objectives.

    Attributes:
        model: What is trained.
        batch: The studies.
        features: What `FusedModel.extract` gave of them.
        masks: Of the features.
        encoded: What the encoders made of the features.
        seed: What every draw of this step comes from: the run's seed, the epoch, the step.
        share: Which part of the whole batch this process has.
    """

    model: FusedModel
    batch: FeatureBatch
    features: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]
    encoded: Mapping[Modality, Tokens]
    seed: tuple[int, int, int]
    share: Share = WHOLE

    def rng(self, name: str) -> np.random.Generator:
        """Make an objective's own generator, so that no objective changes another's draws."""
        return np.random.default_rng([*self.seed, zlib.crc32(name.encode()), self.share.index])

    def shared_rng(self, name: str) -> np.random.Generator:
        """Make one that draws alike in every process, for what is drawn for the whole batch."""
        return np.random.default_rng([*self.seed, zlib.crc32(name.encode())])

    @property
    def anywhere(self) -> tuple[bool, ...]:
        """Which modalities any study of the whole batch has."""
        return tuple((sum_across(self.present.sum(dim=0)) > 0).tolist())

    @property
    def present(self) -> Bool[Tensor, "b m"]:
        """Which modalities each study has."""
        return torch.stack([self.encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1)


def keep(
    encoded: Mapping[Modality, Tokens], kept: Bool[np.ndarray, "b m"]
) -> dict[Modality, Tokens]:
    """Take modalities away from studies, exactly as if they had never had them."""
    thinned = {}
    for m, column in zip(MODALITIES, kept.T, strict=True):
        tokens, mask, pooled = encoded[m]
        there = torch.from_numpy(np.ascontiguousarray(column)).to(mask.device)[:, None]
        thinned[m] = Tokens(
            torch.where(there[..., None], tokens, 0.0),
            mask & there,
            torch.where(there, pooled, 0.0),
        )
    return thinned


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Let features that were tampered with be standardised as they are in evaluation.

    The running statistics are of untouched studies, and stay so.
    """
    layers = [m for m in model.modules() if isinstance(m, Standardise) and m.training]
    try:
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer in layers:
            layer.train()
