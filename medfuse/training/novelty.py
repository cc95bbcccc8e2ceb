"""Descriptions of training and validation studies in, what tells novel inputs from them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.covariance import OAS

from medfuse.data.cohort import Cohort, Split
from medfuse.training.features import Features
from medfuse.trust.novelty import PAIRS, Language, NoveltyModel, Usual, describe_note, hash_pairs
from medfuse.types import MODALITIES, Modality

FEWEST = 40
"""Training patients, and likewise validation patients, without which a modality is not judged."""

SHARED = 3
"""Patients that must have a word piece for it to be kept; a rare one may be a name."""


@dataclass(frozen=True, slots=True)
class Described:
    """One study: whose it is, and a description of each modality that it has."""

    patient: str
    descriptions: Mapping[Modality, np.ndarray]


def describe_split(cohort: Cohort, features: Features, split: Split) -> list[Described]:
    """Give the descriptions of a split's studies.

    Args:
        cohort: Every row with its split.
        features: Of the same rows.
        split: Which of them.
    """
    return [
        Described(row.patient_id, features.describe(i))
        for i, row in enumerate(cohort.rows)
        if row.split is split
    ]


def fit_novelty(
    training: Sequence[Described], validation: Sequence[Described], seed: int
) -> NoveltyModel:
    """Learn what usual studies are like.

    One study of each patient counts. The notes' word pieces are counted over one half of the
    training patients, and what their counts usually are is measured on the other: of a note that
    was itself counted, every word is known.

    Args:
        training: What the model was fitted to.
        validation: What it was not.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    usual: dict[Modality, Usual] = {}
    language = None
    for modality in MODALITIES:
        own, others = (_draw(studies, modality, rng) for studies in (training, validation))
        if min(len(own), len(others)) < FEWEST:
            continue
        if modality is Modality.NOTE:
            half = len(own) // 2
            language = count_words(own[:half])
            own = [describe_note(pieces, language) for pieces in own[half:]]
            others = [describe_note(pieces, language) for pieces in others]
        usual[modality] = _fit(np.stack(own), np.stack(others))
    return NoveltyModel(usual, language)


def count_words(notes: Sequence[np.ndarray]) -> Language:
    """Count word pieces, and pairs of them, that several of the notes have."""
    size = 1 + max(int(pieces.max(initial=0)) for pieces in notes)
    pieces = _count(list(notes), size)
    return Language(pieces, _count([hash_pairs(own) for own in notes], PAIRS))


def _count(notes: Sequence[np.ndarray], size: int) -> Float32[np.ndarray, " n"]:
    counts, having = np.zeros(size), np.zeros(size, np.int64)
    for own in notes:
        counts += np.bincount(own, minlength=size)
        having[np.unique(own)] += 1
    return np.where(having >= SHARED, counts, 0).astype(np.float32)


def _draw(
    studies: Sequence[Described], modality: Modality, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw one study of each patient, in an order that is drawn as well."""
    drawn: dict[str, np.ndarray] = {}
    for i in rng.permutation(len(studies)):
        own = studies[i].descriptions.get(modality)
        if own is not None and len(own):
            drawn.setdefault(studies[i].patient, own)
    return list(drawn.values())


def _fit(own: Float64[np.ndarray, "n d"], others: Float64[np.ndarray, "m d"]) -> Usual:
    """Measure mean and covariance, shrunk as Chen et al. 2010 do (OAS) after scaling."""
    mean, spread = own.mean(axis=0), own.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    shrunk = OAS(assume_centered=True).fit((own - mean) / spread)
    values, vectors = np.linalg.eigh(shrunk.covariance_)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-6))).T / spread
    usual = Usual(mean.astype(np.float32), whiten.astype(np.float32), np.zeros(0, np.float32))
    distances = np.sort([usual.distance(row) for row in others]).astype(np.float32)
    return Usual(usual.mean, usual.whiten, distances)
