"""What every attribution method asks: studies where gradients can reach them in, answers out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfuse.types import MODALITIES, Batch, Modality


@dataclass(frozen=True, slots=True)
class Inputs:
    """Some versions of one study (N of them), as real numbers that a gradient can be taken to.

    Attributes:
        values: Image (N, S, H, W), word-piece embeddings (N, L, E) and log-mel (N, T, F). An absent
            modality has one token (voice: `SHORTEST_VOICE`), which nothing reads.
        masks: Bool (N, S), (N, L) and (N, T): true where a token is real.
    """

    values: Mapping[Modality, Float[np.ndarray, "n ..."]]
    masks: Mapping[Modality, Bool[np.ndarray, "n _"]]

    def __len__(self) -> int:
        """How many versions there are."""
        return len(self.masks[Modality.IMAGE])

    @property
    def present(self) -> tuple[Modality, ...]:
        """The modalities that some version has, in their order."""
        return tuple(m for m in MODALITIES if self.masks[m].any())


@dataclass(frozen=True, slots=True)
class Gradients:
    """Logits, and for each version the gradient of its weighted sum of logits.

    Attributes:
        logits: All tasks' raw outputs.
        values: By wanted modality, in the shape of `Inputs.values`.
    """

    logits: Float[np.ndarray, "n k"]
    values: Mapping[Modality, Float[np.ndarray, "n ..."]]


@dataclass(frozen=True, slots=True)
class Cells:
    """The image encoder's last map: its activations, and the gradient of the weighted sum to them.

    Attributes:
        logits: All tasks' raw outputs.
        activations: One vector per cell of each frame, cells row by row.
        gradients: Likewise.
    """

    logits: Float[np.ndarray, "n k"]
    activations: Float[np.ndarray, "n s p c"]
    gradients: Float[np.ndarray, "n s p c"]


@runtime_checkable
class Network(Protocol):
    """A model that answers and differentiates; it splits what it is given as suits its memory."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The name of each logit, in order."""

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l e"]:
        """Look up word pieces."""

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n k"]:
        """Give the logits of every version."""

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n k"], wanted: Collection[Modality]
    ) -> Gradients:
        """Give the gradient of each version's weighted sum of logits to the wanted modalities."""

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n k"]) -> Cells:
        """Give the image encoder's last map with the gradient to it."""

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        """Say how much of the image's embedding comes from each frame; 1 over the real ones."""


def gather_inputs(network: Network, batch: Batch, i: int) -> Inputs:
    """Take one study out of a batch, without its padding, and look up its word pieces."""
    values: dict[Modality, np.ndarray] = {}
    masks: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        real = batch.masks[modality][i]
        # A present modality is its real tokens, which come first; an absent one keeps its padding.
        length = int(real.sum()) or len(real)
        values[modality] = batch.values[modality][i : i + 1, :length]
        masks[modality] = batch.masks[modality][i : i + 1, :length]
    values[Modality.NOTE] = network.embed(values[Modality.NOTE])
    return Inputs(values, masks)


def repeat(inputs: Inputs, count: int) -> Inputs:
    """Make that many versions of one study, as views that must not be written to."""
    return Inputs(
        values={m: np.broadcast_to(v, (count, *v.shape[1:])) for m, v in inputs.values.items()},
        masks={m: np.broadcast_to(v, (count, *v.shape[1:])) for m, v in inputs.masks.items()},
    )
