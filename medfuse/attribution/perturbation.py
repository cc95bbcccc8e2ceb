"""An order of a study's regions in; the output as they are taken away, and put back, in it out.

Deletion and insertion of Petsiuk et al. 2018, "RISE": a map that tells what the output rests on
names the regions whose loss lowers it soonest and whose return raises it soonest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.regions import Regions
from medfuse.attribution.subject import Subject, rows_at_once, score
from medfuse.attribution.target import Target
from medfuse.types import MODALITIES, Modality


@dataclass(frozen=True, slots=True)
class Curves:
    """The output along one order of regions, from the first stage to the last, evenly spaced.

    Attributes:
        deletion: From the whole study to none of it, the order's first regions taken away first.
        insertion: From none of it to the whole study, the order's first regions put back first.
    """

    deletion: Float64[np.ndarray, " n"]
    insertion: Float64[np.ndarray, " n"]

    @property
    def area(self) -> float:
        """The area between the curves: above 0 where the order's first regions speak for it."""
        return _area(self.insertion) - _area(self.deletion)

    @property
    def span(self) -> float:
        """How far the output moves at all."""
        both = np.concatenate([self.deletion, self.insertion])
        return float(both.max() - both.min())

    def every(self, step: int) -> "Curves":
        """Look at every so many stages alone, as if no others had been measured."""
        return Curves(self.deletion[::step], self.insertion[::step])


def list_totals(
    regions: Regions, values: Mapping[Modality, Float[np.ndarray, "..."]]
) -> Float64[np.ndarray, " r"]:
    """Add up a map over every region of the modalities it has, one modality after the other."""
    return np.concatenate([regions.total(m, values[m]) for m in MODALITIES if m in values])


def trace_curves(
    network: Network,
    subject: Subject,
    baseline: Inputs,
    target: Target,
    modalities: Sequence[Modality],
    orders: Sequence[Int64[np.ndarray, " r"]],
    stages: int,
) -> tuple[Curves, ...]:
    """Take regions away, and put them back, in each order.

    Args:
        network: Answers.
        subject: The study.
        baseline: What stands where a region was taken away; one version.
        target: What is asked.
        modalities: Whose regions the orders number, one modality after the other; the others stay
            as they are.
        orders: Permutations of the regions' numbers.
        stages: Into how many equal parts each order is divided.
    """
    count = sum(subject.regions.counts[m] for m in modalities)
    cuts = np.round(np.arange(1, stages) / stages * count).astype(int)
    gone = np.zeros((2 + len(orders) * 2 * len(cuts), count), bool)
    gone[1] = True
    rows = gone[2:].reshape(len(orders), 2, len(cuts), count)
    for row, order in zip(rows, orders, strict=True):
        for stage, cut in enumerate(cuts):
            row[0, stage, order[:cut]] = True
            row[1, stage, order[cut:]] = True
    answers = answer_without(network, subject, baseline, target, modalities, gone)
    whole, none = answers[0], answers[1]
    parts = answers[2:].reshape(len(orders), 2, len(cuts))
    return tuple(
        Curves(np.array([whole, *deleted, none]), np.array([none, *inserted, whole]))
        for deleted, inserted in parts
    )


def answer_without(
    network: Network,
    subject: Subject,
    baseline: Inputs,
    target: Target,
    modalities: Sequence[Modality],
    gone: Bool[np.ndarray, "n r"],
) -> Float64[np.ndarray, " n"]:
    """Give the output of versions of a study that lack some of its regions, few at a time."""
    block = rows_at_once(subject.inputs)
    return np.concatenate(
        [
            score(network, _without(subject, baseline, modalities, gone[at : at + block]), target)
            for at in range(0, len(gone), block)
        ]
    )


def _without(
    subject: Subject,
    baseline: Inputs,
    modalities: Sequence[Modality],
    gone: Bool[np.ndarray, "n r"],
) -> Inputs:
    n = len(gone)
    values = {
        m: np.broadcast_to(own, (n, *own.shape[1:])) for m, own in subject.inputs.values.items()
    }
    masks = {
        m: np.broadcast_to(own, (n, *own.shape[1:])) for m, own in subject.inputs.masks.items()
    }
    first = 0
    for modality in modalities:
        labels = subject.regions.labels[modality]
        last = first + subject.regions.counts[modality]
        # One more column, of what is never gone, for the label -1.
        known = np.concatenate([gone[:, first:last], np.zeros((n, 1), bool)], axis=1)
        away = known[:, labels]
        if modality is Modality.NOTE:
            away = away[..., None]
        values[modality] = np.where(away, baseline.values[modality], values[modality])
        first = last
    return Inputs(values, masks)


def _area(curve: Float64[np.ndarray, " n"]) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))
