"""Rows of several sources in; synthetic patients, paired by label within a split, out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64

from medfuse.errors import CohortError


@dataclass(frozen=True, slots=True)
class Part:
    """One source's studies, which give one modality of a synthetic patient.

    Attributes:
        name: Of it.
        labels: Of its studies.
        splits: Of its studies: only those of one split are put together.
    """

    name: str
    labels: Bool[np.ndarray, " n"] = field(repr=False)
    splits: Sequence[str] = field(repr=False)


def pair_by_label(
    first: Part, others: Sequence[Part], seed: int
) -> tuple[Int64[np.ndarray, " n"], ...]:
    """Draw for each study of the first source one study of every other one, none of them twice.

    All of a synthetic patient's studies have one label and are of one split.

    Returns:
        For each of the others the places of its studies, in the order of the first source's.

    Raises:
        CohortError: A source has too few studies of a label in a split.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for part in others:
        places = np.full(len(first.labels), -1, dtype=np.int64)
        for split in sorted(set(first.splits)):
            for value in (True, False):
                wanted = _find(first, split, value)
                there = _find(part, split, value)
                if len(there) < len(wanted):
                    raise CohortError(
                        f"{part.name}: {len(there)} studies of a label in one split, and "
                        f"{first.name} has {len(wanted)} to be paired with"
                    )
                places[wanted] = rng.permutation(there)[: len(wanted)]
        drawn.append(places)
    return tuple(drawn)


def _find(part: Part, split: str, value: bool) -> Int64[np.ndarray, " k"]:
    own = np.array(part.splits, dtype=np.str_) == split
    return np.flatnonzero(own & (part.labels == value)).astype(np.int64)
