"""Integrated gradients: a study, its baseline and a target in; a map of every modality out.

Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks".
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network, repeat
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, rows_at_once, score, to_axes, weigh
from medfuse.attribution.target import Target
from medfuse.types import Attribution, Modality

METHOD = "integrated_gradients"

LEAST_CHANGE = 0.01
"""Change of the output below which the completeness gap is relative to this instead: it is no
change that an answer shows, and a ratio to nearly nothing says nothing."""


def integrated_gradients(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Attribute a target to every input of a study, all present modalities jointly.

    The path runs straight from the baseline to the study in all modalities at once. Its integral is
    a Gauss-Legendre sum, node for node Captum's ``gausslegendre``, whose number of points doubles
    until the completeness gap is small enough or ``most_steps`` is reached; the gap that remains is
    in the answer. Against several versions of a baseline the attribution, the baseline's output and
    the gap are those of the mean over them.

    Args:
        network: Answers and differentiates.
        subject: The study.
        baseline: Where the paths start.
        target: What is explained.
        settings: Steps and tolerance.
        progress: Called with the points done and the points wanted as far as is known; both rise
            when the number of points doubles.
    """
    output = float(score(network, subject.inputs, target)[0])
    origins = [float(score(network, version, target)[0]) for version in baseline.versions]
    origin = float(np.mean(origins))
    steps, done, wanted = settings.steps, 0, 0

    def count(points: int) -> None:
        nonlocal done
        done += points
        if progress is not None:
            progress(done, wanted)

    while True:
        wanted += steps * len(origins)
        values = _attribute(network, subject.inputs, baseline, target, steps, count)
        total = sum(float(part.sum()) for part in values.values())
        gap = abs(total - (output - origin)) / max(abs(output - origin), LEAST_CHANGE)
        if gap <= settings.gap or 2 * steps > settings.most_steps:
            break
        steps *= 2
    return Attribution(
        target=target.name,
        values={m: part.astype(np.float32) for m, part in values.items()},
        method=METHOD,
        baseline=baseline.name,
        completeness_gap=gap,
        details={"output": output, "baseline_output": origin, "steps": float(steps)},
    )


def _attribute(
    network: Network,
    study: Inputs,
    baseline: Baseline,
    target: Target,
    steps: int,
    count: Callable[[int], None],
) -> dict[Modality, Float64[np.ndarray, "..."]]:
    """Attribute at that many points, on average over the baseline's versions."""
    total: dict[Modality, np.ndarray] = {}
    for start in baseline.versions:
        found = _integrate(network, start, study, target, steps, count)
        for modality, gradient in found.items():
            way = study.values[modality][0] - start.values[modality][0]
            part = to_axes(modality, gradient * way) / len(baseline.versions)
            total[modality] = total.get(modality, 0.0) + part
    return total


def _integrate(
    network: Network,
    start: Inputs,
    end: Inputs,
    target: Target,
    steps: int,
    count: Callable[[int], None],
) -> dict[Modality, Float64[np.ndarray, "..."]]:
    """Average the gradient along the straight path from one version of a study to another."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    shares, weights = (1 + nodes) / 2, weights / 2
    present = end.present
    total = {m: np.zeros(end.values[m].shape[1:]) for m in present}
    rows = rows_at_once(end)
    for at in range(0, steps, rows):
        points = _walk(start, end, shares[at : at + rows])
        found = network.differentiate(points, weigh(target, len(points)), present)
        for modality in present:
            gradients = found.values[modality]
            for gradient, weight in zip(gradients, weights[at : at + rows], strict=True):
                total[modality] += weight * gradient.astype(np.float64)
        count(len(points))
    return total


def _walk(start: Inputs, end: Inputs, shares: Float64[np.ndarray, " n"]) -> Inputs:
    """Give the versions of a study that lie at those shares of the way."""
    versions = repeat(end, len(shares))
    moved = {}
    for modality in end.present:
        first, last = start.values[modality], end.values[modality]
        # In the values' own precision, as Captum walks.
        share = shares.astype(last.dtype).reshape(-1, *[1] * (last.ndim - 1))
        moved[modality] = share * (last - first)
        moved[modality] += first  # in place: a block of a long study is large
    return Inputs({**versions.values, **moved}, versions.masks)
