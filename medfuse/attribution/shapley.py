"""Shapley shares: a study and a target in; what each modality and each pair contributes out.

With three modalities all of their subsets are answered, so nothing is sampled.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network, repeat
from medfuse.attribution.subject import Subject, score
from medfuse.attribution.target import Target
from medfuse.types import Modality, ModalityShares

ABSENT = "absent"

Outputs = Mapping[frozenset[Modality], float]
"""The output from every subset of some modalities, the empty one included."""


def shares(
    network: Network, subject: Subject, target: Target, baseline: Baseline | None
) -> ModalityShares:
    """Answer every subset of a study's modalities and share the output out among them.

    Args:
        network: Answers, one call of 2^n versions for each version of the baseline.
        subject: The study.
        target: What is explained.
        baseline: What stands in a missing modality's place, the outputs being the mean over its
            versions; without one the modality is absent: its mask is false.
    """
    present = subject.inputs.present
    subsets = [frozenset(c) for n in range(len(present) + 1) for c in combinations(present, n)]
    if baseline is None:
        answers = score(network, _hide(subject.inputs, subsets), target)
    else:
        each = [
            score(network, _replace(subject.inputs, version, subsets), target)
            for version in baseline.versions
        ]
        answers = np.mean(each, axis=0)
    outputs = dict(zip(subsets, answers.tolist(), strict=True))
    return ModalityShares(
        target=target.name,
        baseline=ABSENT if baseline is None else baseline.name,
        outputs=outputs,
        shares=shapley_values(outputs, present),
        interactions=shapley_interactions(outputs, present),
    )


def shapley_values(outputs: Outputs, players: Sequence[Modality]) -> dict[Modality, float]:
    """Average what each adds over every order in which they could come (Shapley 1953)."""
    n = len(players)
    return {
        player: sum(
            factorial(len(before))
            * factorial(n - len(before) - 1)
            / factorial(n)
            * (outputs[before | {player}] - outputs[before])
            for before in _subsets(set(players) - {player})
        )
        for player in players
    }


def shapley_interactions(
    outputs: Outputs, players: Sequence[Modality]
) -> dict[frozenset[Modality], float]:
    """Average what each pair adds beyond what its two add alone.

    The Shapley interaction index of Grabisch & Roubens 1999, "An axiomatic approach to the concept
    of interaction among players in cooperative games", definition 2, for coalitions of two.
    """
    n = len(players)
    return {
        frozenset((a, b)): sum(
            factorial(len(before))
            * factorial(n - len(before) - 2)
            / factorial(n - 1)
            * (
                outputs[before | {a, b}]
                - outputs[before | {a}]
                - outputs[before | {b}]
                + outputs[before]
            )
            for before in _subsets(set(players) - {a, b})
        )
        for a, b in combinations(players, 2)
    }


def _subsets(of: set[Modality]) -> list[frozenset[Modality]]:
    return [frozenset(c) for n in range(len(of) + 1) for c in combinations(sorted(of), n)]


def _hide(inputs: Inputs, subsets: Sequence[frozenset[Modality]]) -> Inputs:
    """Make a version with each subset, the rest absent."""
    versions = repeat(inputs, len(subsets))
    masks = {
        m: mask & np.array([m in subset for subset in subsets])[:, None]
        for m, mask in versions.masks.items()
    }
    return Inputs(versions.values, masks)


def _replace(inputs: Inputs, baseline: Inputs, subsets: Sequence[frozenset[Modality]]) -> Inputs:
    """Make a version with each subset, the baseline in place of the rest."""
    versions = repeat(inputs, len(subsets))
    values = dict(versions.values)
    for modality in inputs.present:
        own, other = inputs.values[modality], baseline.values[modality]
        there = np.array([modality in subset for subset in subsets])
        values[modality] = np.where(there.reshape(-1, *[1] * (own.ndim - 1)), own, other)
    return Inputs(values, versions.masks)
