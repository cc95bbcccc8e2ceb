"""What a model says of several studies, from all that each has and from every subset of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medfuse.config import Task
from medfuse.data.cohort import CohortRow
from medfuse.trust.calibration import Calibration, calibrate
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

AS_GIVEN = "as given"
"""Every study with whatever it has."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of several studies.

    Attributes:
        rows: The studies.
        present: Which modalities each has once prepared; a silent recording is none.
        logits: By subset's name, and `AS_GIVEN`; NaN for a study that lacks one of the subset's
            modalities.
    """

    rows: tuple[CohortRow, ...]
    present: Bool[np.ndarray, "n 3"]
    logits: Mapping[str, Float[np.ndarray, "n k"]]

    @property
    def labels(self) -> Float[np.ndarray, "n c"]:
        """Each study's labels."""
        return np.array([row.labels for row in self.rows], dtype=np.float64)

    def having(self, subset: frozenset[Modality]) -> Bool[np.ndarray, " n"]:
        """Which studies have all of a subset's modalities."""
        needed = [i for i, m in enumerate(MODALITIES) if m in subset]
        return np.asarray(self.present[:, needed].all(axis=1))

    def calibrated(self, tasks: Sequence[Task], calibration: Calibration) -> "Answers":
        """Give the answers with calibrated logits, each by the modalities it rests on."""
        logits = {
            name: calibrate(tasks, own, calibration, None if name == AS_GIVEN else name)
            for name, own in self.logits.items()
        }
        if AS_GIVEN in self.logits:
            given = self.logits[AS_GIVEN]
            logits[AS_GIVEN] = calibrate(tasks, given, calibration)
            for subset in SUBSETS:
                rows = self.has_exactly(subset)
                if rows.any():
                    own = calibrate(tasks, given[rows], calibration, subset_name(subset))
                    logits[AS_GIVEN][rows] = own
        return Answers(self.rows, self.present, logits)

    def has_exactly(self, subset: frozenset[Modality]) -> Bool[np.ndarray, " n"]:
        """Which studies have a subset's modalities and no others."""
        wanted = [m in subset for m in MODALITIES]
        return np.asarray((self.present == wanted).all(axis=1))


def pool(parts: Sequence[Answers]) -> Answers:
    """Put the answers of several models to different studies together."""
    return Answers(
        rows=tuple(row for part in parts for row in part.rows),
        present=np.concatenate([part.present for part in parts]),
        logits={
            name: np.concatenate([part.logits[name] for part in parts]) for name in parts[0].logits
        },
    )
