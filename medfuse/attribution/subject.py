"""A prepared study in; the one that is explained out, where gradients can reach it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from medfuse.attribution.network import Inputs, Network, gather_inputs
from medfuse.attribution.regions import Regions, find_regions
from medfuse.attribution.target import Target
from medfuse.config import PrepareSettings
from medfuse.data.prepare import collate
from medfuse.types import Modality, Prepared

BLOCK_BYTES = 64 * 2**20
MOST_ROWS = 32
"""Bounds of the versions of a study that are made at a time; the second keeps progress moving."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The study that is explained.

    Attributes:
        prepared: As it was decoded.
        inputs: What the network reads of it; one version.
        pieces: The note's word pieces, which `inputs` has as embeddings; one zero without a note.
        regions: The parts of it that are taken away as a whole.
    """

    prepared: Prepared
    inputs: Inputs
    pieces: Int64[np.ndarray, " l"]
    regions: Regions


def take_up(network: Network, prepared: Prepared, settings: PrepareSettings) -> Subject:
    """Make a prepared study the one that is explained."""
    batch = collate([prepared], settings)
    return Subject(
        prepared=prepared,
        inputs=gather_inputs(network, batch, 0),
        # Alone in its batch, so nothing here is another study's padding.
        pieces=batch.values[Modality.NOTE][0],
        regions=find_regions(prepared),
    )


def rows_at_once(inputs: Inputs) -> int:
    """Say how many versions of a study are made at a time: few of a CT, many of a radiograph."""
    size = sum(inputs.values[m].nbytes for m in inputs.present) // len(inputs)
    return min(MOST_ROWS, max(1, BLOCK_BYTES // size))


def score(network: Network, inputs: Inputs, target: Target) -> Float64[np.ndarray, " n"]:
    """Answer a target for every version."""
    return network.answer(inputs).astype(np.float64) @ target.weights.astype(np.float64)


def weigh(target: Target, count: int) -> Float32[np.ndarray, "n k"]:
    """Give each of that many versions the target's weights, as a view."""
    return np.broadcast_to(target.weights, (count, len(target.weights)))


def to_axes(modality: Modality, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Give a map its modality's own axes; a word piece's number is the sum over its embedding."""
    return values.sum(axis=-1) if modality is Modality.NOTE else values
