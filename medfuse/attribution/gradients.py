"""Plain and smoothed gradients: a study and a target in; how much each input would move it out.

An image's and a recording's numbers are the signed gradient itself, logits per unit of the input. A
word piece's is the sum over its embedding of gradient times embedding, logits: a direction in the
embedding's space alone says nothing of a word.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network, repeat
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, rows_at_once, score, to_axes, weigh
from medfuse.attribution.target import Target
from medfuse.types import MODALITIES, Attribution, Modality

METHOD = "gradients"
SMOOTH_METHOD = "smooth_gradients"

NO_BASELINE = "none"


def gradients(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Take the gradient at the study (Simonyan et al. 2014), signed.

    Args:
        network: Differentiates.
        subject: The study.
        baseline: Not looked at, as the settings: every method is asked alike.
        target: What is explained.
        settings: Not looked at.
        progress: Called once.
    """
    inputs = subject.inputs
    found = network.differentiate(inputs, weigh(target, 1), inputs.present)
    if progress is not None:
        progress(1, 1)
    return Attribution(
        target=target.name,
        values=_to_maps(inputs, {m: v[0] for m, v in found.values.items()}),
        method=METHOD,
        baseline=NO_BASELINE,
        completeness_gap=None,
        details={"output": float(found.logits[0].astype(np.float64) @ target.weights)},
    )


def smooth_gradients(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Average the gradient over noisy copies of the study (SmoothGrad, Smilkov et al. 2017).

    Each modality's noise is normal with ``settings.noise`` times the standard deviation of the
    study's own values, and drawn from the seed alone, whatever else the study has.

    Args:
        network: Differentiates.
        subject: The study.
        baseline: Not looked at: every method is asked alike.
        target: What is explained.
        settings: Copies, noise and seed.
        progress: Called with the copies done and the copies wanted.
    """
    inputs, present = subject.inputs, subject.inputs.present
    total = {m: np.zeros(inputs.values[m].shape[1:]) for m in present}
    draws = {m: np.random.default_rng((settings.seed, MODALITIES.index(m))) for m in present}
    done, rows = 0, rows_at_once(inputs)
    while done < settings.samples:
        count = min(rows, settings.samples - done)
        copies = _add_noise(inputs, draws, settings.noise, count)
        found = network.differentiate(copies, weigh(target, count), present)
        for modality in present:
            total[modality] += found.values[modality].sum(axis=0, dtype=np.float64)
        done += count
        if progress is not None:
            progress(done, settings.samples)
    return Attribution(
        target=target.name,
        values=_to_maps(inputs, {m: part / settings.samples for m, part in total.items()}),
        method=SMOOTH_METHOD,
        baseline=NO_BASELINE,
        completeness_gap=None,
        details={
            "output": float(score(network, inputs, target)[0]),
            "samples": float(settings.samples),
            "noise": settings.noise,
            "seed": float(settings.seed),
        },
    )


def _add_noise(
    inputs: Inputs, draws: Mapping[Modality, np.random.Generator], noise: float, count: int
) -> Inputs:
    versions = repeat(inputs, count)
    noisy = {}
    for modality, draw in draws.items():
        values = inputs.values[modality]
        deviation = values.dtype.type(noise * values.std(dtype=np.float64))
        drawn = draw.standard_normal((count, *values.shape[1:]), dtype=np.float32)
        noisy[modality] = values + deviation * drawn
    return Inputs({**versions.values, **noisy}, versions.masks)


def _to_maps(
    inputs: Inputs, found: Mapping[Modality, Float[np.ndarray, "..."]]
) -> dict[Modality, np.ndarray]:
    """Bring one gradient per modality to its axes, a word piece's times its embedding."""
    maps = {}
    for modality, gradient in found.items():
        if modality is Modality.NOTE:
            gradient = gradient * inputs.values[modality][0]
        maps[modality] = to_axes(modality, gradient).astype(np.float32)
    return maps
