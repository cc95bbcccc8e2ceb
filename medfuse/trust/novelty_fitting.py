"""Descriptions of usual studies in, what tells novel inputs from them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.covariance import OAS

from medfuse.trust.novelty import PAIRS, Language, NoveltyModel, Usual, describe_note, hash_pairs
from medfuse.types import MODALITIES, Modality

FEWEST = 80
"""Patients without which a modality is not judged."""

FOLDS = 5
"""Of the cross-fitting by which each patient is judged as a new one would be."""

SHARED = 3
"""Patients that must have a word piece for it to be kept; a rare one may be a name."""


@dataclass(frozen=True, slots=True)
class Described:
    """One study: whose it is, and a description of each modality that it has."""

    patient: str
    descriptions: Mapping[Modality, np.ndarray]


def fit_novelty(studies: Sequence[Described], false_alarms: float, seed: int) -> NoveltyModel:
    """Learn what usual studies are like, and how far from it a usual study is.

    Nothing here is of the network, so studies that it was fitted to serve as well as others. One
    study of each patient counts. Each is judged by the other folds' patients, and those distances
    are what new studies are held to (cross-conformal prediction: Vovk 2015).

    A modality of which too few patients' studies are there for even the most unusual one to be
    called novel is left out.

    Args:
        studies: In training, those of training and validation.
        false_alarms: The share of usual studies that may be called novel.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    usual: dict[Modality, Usual] = {}
    language = None
    for modality in MODALITIES:
        own = _draw(studies, modality, rng)
        if len(own) < FEWEST or (len(own) + 1) * false_alarms < 1:
            continue
        folds = np.arange(len(own)) % FOLDS
        distances: list[float] = []
        for fold in range(FOLDS):
            rest = _fit(modality, [o for o, f in zip(own, folds, strict=True) if f != fold])
            out = [o for o, f in zip(own, folds, strict=True) if f == fold]
            distances += [rest.distance(modality, each) for each in out]
        whole = _fit(modality, own)
        judged = np.sort(distances).astype(np.float32)
        usual[modality] = replace(whole.usual[modality], distances=judged)
        language = whole.language or language
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


def _fit(modality: Modality, studies: Sequence[np.ndarray]) -> NoveltyModel:
    """Learn one modality of one study of each patient; no distance is known yet.

    A note's word pieces are counted over one half of them, and what the counts usually are is
    measured on the other: of a note that was itself counted, every word is known.
    """
    if modality is not Modality.NOTE:
        return NoveltyModel({modality: _measure(np.stack(studies))})
    half = len(studies) // 2
    language = count_words(studies[:half])
    told = np.stack([describe_note(pieces, language) for pieces in studies[half:]])
    return NoveltyModel({modality: _measure(told)}, language)


def _measure(own: Float64[np.ndarray, "n d"]) -> Usual:
    """Measure mean and covariance, shrunk as Chen et al. 2010 do (OAS) after scaling."""
    mean, spread = own.mean(axis=0), own.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    shrunk = OAS(assume_centered=True).fit((own - mean) / spread)
    values, vectors = np.linalg.eigh(shrunk.covariance_)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-6))).T / spread
    return Usual(mean.astype(np.float32), whiten.astype(np.float32), np.zeros(0, np.float32))
