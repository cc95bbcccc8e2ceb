"""A training set's mean study: measured in training, kept in one file, a baseline of explanations.

It holds means over many patients alone, so it may travel with a model.
"""

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medfuse.data.voice import SILENCE
from medfuse.errors import BundleError

_RANKS = {"image": 2, "note": 1, "voice": 1}


@dataclass(frozen=True, slots=True)
class Background:
    """What the training set's studies are on average, where gradients can reach.

    A modality that too few patients had holds its blank value instead: black, zero, silence.

    Attributes:
        image: Mean pixel of all frames, in the model's square, in [0, 1].
        note: Mean word-piece embedding of all notes' words; special pieces are left out.
        voice: Mean log-mel energy of each band.
        studies: How many studies were measured; 0 says that every modality holds its blank value.
    """

    image: Float32[np.ndarray, "h w"]
    note: Float32[np.ndarray, " e"]
    voice: Float32[np.ndarray, " f"]
    studies: int


def blank_background(side: int, width: int, bands: int) -> Background:
    """Make what stands where no study was measured: black, a zero embedding, silence.

    Args:
        side: Of the model's square, in pixels.
        width: Of a word-piece embedding.
        bands: Of the log-mel.
    """
    return Background(
        image=np.zeros((side, side), np.float32),
        note=np.zeros(width, np.float32),
        voice=np.full(bands, SILENCE, np.float32),
        studies=0,
    )


def to_bytes(background: Background) -> bytes:
    """Write a background as safetensors, the same bytes for the same background."""
    arrays = {name: np.ascontiguousarray(getattr(background, name)) for name in _RANKS}
    return save(arrays, {"studies": str(background.studies)})


def from_bytes(data: bytes) -> Background:
    """Read what `to_bytes` wrote.

    Raises:
        BundleError: It is not safetensors, or does not hold a background's finite numbers.
    """
    try:
        arrays = load(data)
        # The library reads metadata from files alone: 8 bytes of length, then JSON.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        studies = int(header["__metadata__"]["studies"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            "the background is not a safetensors file with its number of studies; copy the folder "
            "again, or train and export again"
        ) from error
    for name, rank in _RANKS.items():
        array = arrays.get(name)
        if array is None or array.ndim != rank or array.dtype != np.float32:
            raise BundleError(
                f"the background's {name} is missing or is not float32 with {rank} axes; copy the "
                "folder again, or train and export again"
            )
        if not array.size or not np.isfinite(array).all():
            raise BundleError(f"the background's {name} is empty or not finite; train again")
    if studies < 0:
        raise BundleError(f"the background is of {studies} studies; expected 0 or more")
    return Background(arrays["image"], arrays["note"], arrays["voice"], studies)
