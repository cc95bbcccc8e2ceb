"""Embeddings of one space in; which studies' other modality is nearest, and how often rightly, out.

An embedding is a unit vector, so nearness is the cosine; a study that lacks a modality has zeros
there and is neither asked about nor found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.types import MODALITIES, Modality

RANKS = (1, 10)
"""How many of the nearest are looked at for recall."""

SAME_DIGITS = 9
"""Scores of known truth that differ after so many decimals are equal but for rounding."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Several studies in the shared space.

    Attributes:
        vectors: (N, E) by modality.
        present: Which modalities each study has, in the order of `MODALITIES`.
    """

    vectors: Mapping[Modality, Float[np.ndarray, "n e"]]
    present: Bool[np.ndarray, "n 3"]

    def having(self, *modalities: Modality) -> Bool[np.ndarray, " n"]:
        """Which studies have all of some modalities."""
        columns = [MODALITIES.index(m) for m in modalities]
        return np.asarray(self.present[:, columns].all(axis=1))


def nearest(
    query: Float[np.ndarray, " e"], gallery: Embeddings, modality: Modality, most: int
) -> tuple[Int64[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Find the studies whose modality is nearest to a query.

    Args:
        query: A unit vector, of any modality.
        gallery: Where to look.
        modality: What of each study is compared.
        most: How many to find.

    Returns:
        Their places in the gallery, the nearest first and the earlier of equals, and the cosines.
    """
    there = np.flatnonzero(gallery.having(modality))
    cosines = gallery.vectors[modality][there] @ query
    order = np.argsort(-cosines, kind="stable")[:most]
    return there[order], cosines[order]


@dataclass(frozen=True, slots=True)
class Recall:
    """How well one modality finds another of the same study.

    Attributes:
        asked: What is given.
        found: What is looked for.
        studies: That have both, and are looked through.
        recall: By `RANKS`: how often the study's own is among so many nearest.
        chance: The same for a random order.
        median_rank: Of the study's own, from 1.
        best: The same as `recall`, without intervals, for who knows all that can be known.
        best_rank: The median rank then.
    """

    asked: Modality
    found: Modality
    studies: int
    recall: Mapping[int, Figure]
    chance: Mapping[int, float]
    median_rank: float
    best: Mapping[int, float] | None = None
    best_rank: float | None = None


Scores = Float[np.ndarray, "n n"]
"""How well the found modality of each column's study fits the asked one of each row's."""


def measure_recall(
    gallery: Embeddings,
    patients: Sequence[str],
    *,
    truth: Callable[[Modality, Modality], Scores] | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> tuple[Recall, ...]:
    """Ask for every study's other modality, in all six directions.

    Equally near ones share the ranks between them, so vectors that are all alike are at chance.

    Args:
        gallery: The studies.
        patients: Whose they are; intervals draw patients.
        truth: Gives the best scores there are for what is asked and what is found, where the truth
            is known.
        resamples: For the intervals.
        seed: Likewise.
    """
    measured = []
    for asked, found in permutations(MODALITIES, 2):
        both = np.flatnonzero(gallery.having(asked, found))
        if len(both) < 2:
            continue
        nearer, alike = _rank(gallery.vectors[asked][both] @ gallery.vectors[found][both].T)
        weights = patient_weights([patients[i] for i in both.tolist()], resamples, seed)
        recall = {
            k: summarise(weights @ _hits(nearer, alike, k) / weights.sum(axis=1)) for k in RANKS
        }
        best = best_rank = None
        if truth is not None:
            known = _rank(np.round(truth(asked, found)[np.ix_(both, both)], SAME_DIGITS))
            best, best_rank = {k: float(_hits(*known, k).mean()) for k in RANKS}, _median(*known)
        measured.append(
            Recall(
                asked=asked,
                found=found,
                studies=len(both),
                recall=recall,
                chance={k: min(1.0, k / len(both)) for k in RANKS},
                median_rank=_median(nearer, alike),
                best=best,
                best_rank=best_rank,
            )
        )
    return tuple(measured)


def _rank(scores: Scores) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each row: how many columns score above its own, and how many as it does, with its own."""
    own = np.diag(scores)[:, None]
    return (scores > own).sum(axis=1), (scores == own).sum(axis=1)


def _hits(
    nearer: Int64[np.ndarray, " n"], alike: Int64[np.ndarray, " n"], k: int
) -> Float[np.ndarray, " n"]:
    """The chance that one of those alike, in random order, is among the places left of k."""
    return np.asarray(np.clip((k - nearer) / alike, 0.0, 1.0))


def _median(nearer: Int64[np.ndarray, " n"], alike: Int64[np.ndarray, " n"]) -> float:
    return float(np.median(nearer + (alike + 1) / 2))
