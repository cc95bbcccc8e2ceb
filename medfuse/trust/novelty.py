"""What a modality usually is, and one study's in; how unusual that is out, as a chance.

The distance is Mahalanobis's over `medfuse.trust.descriptors`; a note's numbers come from how often
its word pieces and pairs of them stand in other notes. It is read as a conformal p-value
(Laxhammar & Falkman 2010): the share of usual studies that are at least as far. A usual study
has a p-value of at most x with chance about x, whatever the distances' distribution, so calling
studies up to x novel raises about that share of false alarms.

What is kept are means over patients, counts of word pieces that several patients have, and
distances; nobody's study is in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medfuse.errors import BundleError
from medfuse.types import MODALITIES, Modality

PAIRS = 2**14
"""Places into which pairs of word pieces are hashed."""


@dataclass(frozen=True, slots=True)
class Language:
    """How often word pieces, and hashed pairs of them, stand in the training notes.

    Attributes:
        pieces: By number; 0 for those that few patients' notes have.
        pairs: By hash, likewise.
    """

    pieces: Float32[np.ndarray, " v"]
    pairs: Float32[np.ndarray, " h"]


@dataclass(frozen=True, slots=True)
class Usual:
    """Where a modality's descriptions usually are.

    Attributes:
        mean: Of usual studies.
        whiten: Gives a description less the mean unit variance in every direction.
        distances: Of usual studies, each from the mean of others, rising.
    """

    mean: Float32[np.ndarray, " d"]
    whiten: Float32[np.ndarray, "d d"]
    distances: Float32[np.ndarray, " n"]

    def distance(self, description: Float64[np.ndarray, " d"]) -> float:
        """Measure how far a description is, in standard deviations per number."""
        return float(np.sqrt(np.mean((self.whiten @ (description - self.mean)) ** 2)))

    def p_value(self, description: Float64[np.ndarray, " d"]) -> float:
        """Give the share of usual studies that are at least as far, this one counted."""
        far = len(self.distances) - np.searchsorted(self.distances, self.distance(description))
        return float(far + 1) / (len(self.distances) + 1)


@dataclass(frozen=True, slots=True)
class NoveltyModel:
    """What each modality usually is; one of which too few were seen is not in it."""

    usual: Mapping[Modality, Usual]
    language: Language | None = None

    def p_values(self, descriptions: Mapping[Modality, np.ndarray]) -> dict[Modality, float]:
        """Judge every modality that is there and was seen often enough.

        Args:
            descriptions: As `medfuse.trust.descriptors.describe` gives them.
        """
        return {
            m: self.usual[m].p_value(self._locate(m, own))
            for m, own in descriptions.items()
            if m in self.usual and len(own)
        }

    def distance(self, modality: Modality, description: np.ndarray) -> float:
        """Measure how far one modality's description is from the usual."""
        return self.usual[modality].distance(self._locate(modality, description))

    def _locate(self, modality: Modality, description: np.ndarray) -> Float64[np.ndarray, " d"]:
        if modality is Modality.NOTE:
            assert self.language is not None
            return describe_note(description, self.language)
        return description


def describe_note(pieces: Int64[np.ndarray, " l"], language: Language) -> Float64[np.ndarray, " d"]:
    """Describe how usual a note's word pieces and pairs of them are, how varied and how many."""
    known = pieces[pieces < len(language.pieces)]
    seen, pairs = language.pieces[known], language.pairs[hash_pairs(pieces)]
    return np.array(
        [
            _mean_log(seen, float(language.pieces.sum()), len(language.pieces)),
            _mean_log(pairs, float(language.pairs.sum()), PAIRS),
            1 - np.count_nonzero(seen) / len(pieces),
            1 - np.count_nonzero(pairs) / max(len(pairs), 1),
            len(np.unique(pieces)) / len(pieces),
            np.log(len(pieces)),
        ]
    )


def hash_pairs(pieces: Int64[np.ndarray, " l"]) -> Int64[np.ndarray, " m"]:
    """Give each pair of neighbours a place."""
    # Knuth's multiplicative hash; the factor is the golden ratio's share of 2^32.
    return np.asarray(((pieces[:-1] * 2_654_435_761 + pieces[1:]) * 40_503 >> 7) % PAIRS)


def to_bytes(model: NoveltyModel) -> bytes:
    """Write a model as safetensors."""
    arrays = {
        f"{modality}.{name}": np.ascontiguousarray(getattr(own, name))
        for modality, own in model.usual.items()
        for name in ("mean", "whiten", "distances")
    }
    if model.language is not None:
        arrays |= {"language.pieces": model.language.pieces, "language.pairs": model.language.pairs}
    return save(arrays, {"modalities": json.dumps([m.value for m in model.usual])})


def from_bytes(data: bytes) -> NoveltyModel:
    """Read what `to_bytes` wrote.

    Raises:
        BundleError: It is something else.
    """
    wrong = BundleError(
        "what tells novel inputs is not what training wrote; copy the folder again, or train and "
        "export again"
    )
    try:
        arrays = load(data)
        parts = {
            m: [arrays[f"{m}.{name}"] for name in ("mean", "whiten", "distances")]
            for m in MODALITIES
            if f"{m}.mean" in arrays
        }
        words = [
            arrays[f"language.{name}"] for name in ("pieces", "pairs") if Modality.NOTE in parts
        ]
    except (SafetensorError, KeyError) as error:
        raise wrong from error
    fine = all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())
    for mean, whiten, distances in parts.values():
        fine &= mean.ndim == 1 and whiten.shape == (len(mean), len(mean)) and distances.ndim == 1
    if not fine or any(array.ndim != 1 for array in words):
        raise wrong
    usual = {m: Usual(*own) for m, own in parts.items()}
    return NoveltyModel(usual, Language(*words) if words else None)


def _mean_log(counts: Float32[np.ndarray, " n"], total: float, kinds: int) -> float:
    """Average the log chance of what was counted, with one added to every kind (Laplace)."""
    if not len(counts):
        return float(-np.log(total + kinds))
    return float(np.log((counts + 1.0) / (total + kinds)).mean())
