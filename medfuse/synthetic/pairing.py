"""Studies of a known-truth cohort in; how well one's note fits another's film, and so on, out.

The exact answer to "whose are these?", for who reads every sign and tells sex and site apart: what
no embedding that finds studies by another modality can do better.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medfuse.synthetic.options import SUMMARY, TRUTH, CohortOptions, Mechanism
from medfuse.synthetic.world import SIGN_NAMES, SIGNS, Network, World, build_world
from medfuse.types import SUBSETS, Modality


@dataclass(frozen=True, slots=True)
class Pairing:
    """What the modalities of some studies have in common.

    Film, note and voice can each give away a patient's sex and site; beside these they depend on
    each other through the findings alone.

    Attributes:
        world: That the studies were drawn from.
        signs: Which each has, in the order of `SIGN_NAMES`.
        person: Sex and site as one number, the same for studies that agree in both.
    """

    world: World
    signs: Bool[np.ndarray, "n s"]
    person: Int64[np.ndarray, " n"]

    def score(self, asked: Modality, found: Modality) -> Float64[np.ndarray, "n n"]:
        """Say how much likelier it is that two parts are of one study than of two.

        The best score to look for one by the other (Neyman and Pearson 1933).

        Args:
            asked: What is given of the study in each row.
            found: What is looked at of the study in each column.

        Returns:
            log P(a, b) / (P(a) P(b)) of their signs a and b; minus infinity where sex or site
            differ, and without what agreeing in both adds, which is alike along a row.
        """
        scores = sum(
            self._mass(network, asked, found)
            - self._mass(network, asked, None)
            - self._mass(network, None, found)
            for network in self.world.networks
        )
        return np.where(self.person[:, None] == self.person[None], scores, -np.inf)

    def _mass(
        self, network: Network, asked: Modality | None, found: Modality | None
    ) -> Float64[np.ndarray, "..."]:
        """The log-probability of a network's signs: the asked ones by row, the found by column."""
        subset = frozenset(m for m in (asked, found) if m is not None)
        table = network.clinical[SUBSETS.index(subset)]
        of_asked = {sign.name for sign in SIGNS[asked]} if asked is not None else set()
        answers = (self.signs[:, SIGN_NAMES.index(name)].astype(int) for name in table.evidence)
        index = tuple(
            answer[:, None] if name in of_asked else answer[None]
            for name, answer in zip(table.evidence, answers, strict=True)
        )
        return np.asarray(np.log(table.mass[index]))


def read_pairing(folder: Path, studies: Sequence[tuple[str, str, str]]) -> Pairing | None:
    """Read what a known-truth cohort says of some of its studies.

    Args:
        folder: Of the cohort.
        studies: The id, sex and site of each.

    Returns:
        Nothing where the truth is not known: the folder is no such cohort's, it lacks one of the
        studies, or more than findings, sex and site binds modalities together (shortcuts, or
        modalities that are missing because of a finding).
    """
    summary, truth = folder / SUMMARY, folder / TRUTH
    if not (summary.is_file() and truth.is_file()):
        return None
    options = CohortOptions.model_validate(json.loads(summary.read_bytes())["options"])
    if options.shortcuts or options.missing is Mechanism.FINDING:
        return None
    signs = {}
    for line in truth.read_text(encoding="utf-8").splitlines():
        known = json.loads(line)
        signs[known["study_id"]] = [name in known["signs"] for name in SIGN_NAMES]
    if any(name not in signs for name, _, _ in studies):
        return None
    _, person = np.unique([f"{sex} {site}" for _, sex, site in studies], return_inverse=True)
    return Pairing(build_world(options), np.array([signs[name] for name, _, _ in studies]), person)
