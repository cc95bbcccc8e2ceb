"""A network of yes/no variables in; its exact joint, posteriors and ROC areas out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64


@dataclass(frozen=True, slots=True)
class Variable:
    """A yes/no variable and its chance of yes for every answer of its parents.

    Attributes:
        name: Unique in its network.
        parents: Variables that come before it.
        chances: P(yes | parents), one per combination of the parents' answers, counted as binary
            digits with the first parent the most significant: (no, yes) for one parent,
            (no-no, no-yes, yes-no, yes-yes) for two.
    """

    name: str
    parents: tuple[str, ...]
    chances: tuple[float, ...]


def joint_distribution(variables: Sequence[Variable]) -> Float64[np.ndarray, "..."]:
    """Enumerate P(all variables): one axis of length 2 per variable, in the order given."""
    position = {variable.name: axis for axis, variable in enumerate(variables)}
    joint = np.ones(())
    for variable in variables:
        axes = [position[parent] for parent in variable.parents]
        yes = np.array(variable.chances).reshape((2,) * len(axes))
        yes = yes.transpose(np.argsort(axes).tolist())
        yes = yes.reshape([2 if axis in axes else 1 for axis in range(joint.ndim)])
        joint = np.stack([joint * (1 - yes), joint * yes], axis=-1)
    return joint


def draw(variables: Sequence[Variable], rng: np.random.Generator) -> dict[str, bool]:
    """Draw every variable, one uniform number each: one more at the end changes no other."""
    drawn: dict[str, bool] = {}
    for variable, uniform in zip(variables, rng.random(len(variables)), strict=True):
        row = 0
        for parent in variable.parents:
            row = 2 * row + drawn[parent]
        drawn[variable.name] = bool(uniform < variable.chances[row])
    return drawn


@dataclass(frozen=True, slots=True)
class PosteriorTable:
    """What every pattern of the evidence says about every target.

    Attributes:
        evidence: The variables that are known, in the order of the tables' axes.
        mass: P(pattern), one axis of length 2 per evidence variable.
        posterior: P(target is yes | pattern), targets first; NaN for an impossible pattern.
    """

    evidence: tuple[str, ...]
    mass: Float64[np.ndarray, "..."]
    posterior: Float64[np.ndarray, "..."]

    def look_up(self, answers: Mapping[str, bool]) -> Float64[np.ndarray, " k"]:
        """The posterior of every target for one pattern."""
        pattern = tuple(int(answers[name]) for name in self.evidence)
        return np.array([posterior[pattern] for posterior in self.posterior])


def tabulate_posterior(
    names: Sequence[str],
    joint: Float64[np.ndarray, "..."],
    targets: Sequence[str],
    evidence: Sequence[str],
) -> PosteriorTable:
    """Condition a joint distribution by summation, exactly.

    Args:
        names: The variable on each axis of ``joint``.
        joint: P(all variables), or its product with a likelihood that is to count as evidence
            too; it need not sum to one.
        targets: Variables to infer.
        evidence: Variables known; none of them is a target.
    """
    kept = [axis for axis, name in enumerate(names) if name in evidence]
    rest = tuple(axis for axis in range(joint.ndim) if axis not in kept)
    mass = np.asarray(joint.sum(axis=rest))
    posterior = np.full((len(targets), *mass.shape), np.nan)
    for row, target in enumerate(targets):
        yes = np.take(joint, [1], axis=names.index(target)).sum(axis=rest)
        np.divide(yes, mass, out=posterior[row, ...], where=mass > 0)
    return PosteriorTable(tuple(names[axis] for axis in kept), mass, posterior)


def measure_auc(
    scores: Float64[np.ndarray, " n"],
    positive: Float64[np.ndarray, " n"],
    negative: Float64[np.ndarray, " n"],
) -> float:
    """Weigh the area under the ROC curve: P(a positive outscores a negative) + half of the ties.

    Args:
        scores: One per case or per pattern; differences below 1e-10 are ties.
        positive: Weight of the positives with that score; need not sum to one.
        negative: Weight of the negatives with that score.

    Returns:
        NaN when there are no positives or no negatives.
    """
    if not (positive.sum() > 0 and negative.sum() > 0):
        return float("nan")
    _, group = np.unique(np.round(scores, 10), return_inverse=True)
    yes = np.bincount(group, weights=positive)
    no = np.bincount(group, weights=negative)
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def population_auc(tables: Sequence[PosteriorTable]) -> Float64[np.ndarray, " k"]:
    """The ROC area of each target that no reader of the evidence can beat.

    The posterior is the optimal score (Neyman-Pearson); the area is over the whole distribution.

    Args:
        tables: Disjoint cases that together are the population, such as one per set of present
            modalities; usually one.
    """
    mass = np.concatenate([table.mass.ravel() for table in tables])
    scores = np.concatenate(
        [table.posterior.reshape(len(table.posterior), -1) for table in tables], 1
    )
    possible = mass > 0
    mass, scores = mass[possible], scores[:, possible]
    return np.array([measure_auc(row, mass * row, mass * (1 - row)) for row in scores])


def cohort_auc(
    scores: Float64[np.ndarray, "n k"], labels: Bool[np.ndarray, "n k"]
) -> Float64[np.ndarray, " k"]:
    """The ROC area of each target on cases drawn; NaN where all have one label."""
    return np.array(
        [
            measure_auc(column, label.astype(np.float64), 1.0 - label)
            for column, label in zip(scores.T, labels.T, strict=True)
        ]
    )
