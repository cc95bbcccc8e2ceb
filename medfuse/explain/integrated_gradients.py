"""Integrated gradients by Captum: a study, its baseline and a target in; every modality's map out.

Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks". This is the reference that a
bundle's own explanations are held to.
"""

from collections.abc import Callable

import numpy as np
from captum.attr import IntegratedGradients

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.integrated_gradients import LEAST_CHANGE, METHOD
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject
from medfuse.attribution.target import Target
from medfuse.explain.score import Scorer, to_maps
from medfuse.models.fused import FusedModel
from medfuse.types import Attribution, Modality

INTERNAL_BATCH_SIZE = 8
"""Points of the integral in one pass; it changes the last bits, so it is recorded."""


def integrated_gradients(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
    internal_batch_size: int = INTERNAL_BATCH_SIZE,
) -> Attribution:
    """Attribute a target to every input of a study, all present modalities jointly.

    The path runs straight from the baseline to the study in all modalities at once. Its integral is
    a Gauss-Legendre sum whose number of points doubles until the completeness gap is small enough
    or ``most_steps`` is reached; the gap that remains is in the answer. Where the study's output
    differs from the baseline's by less than `LEAST_CHANGE`, the gap is relative to that. Against
    several versions of a baseline, all of it is the mean over them.

    Args:
        model: In evaluation mode; dropout would break completeness. Its precision is used.
        subject: The study.
        baseline: Where the paths start.
        target: What is explained.
        settings: Steps and tolerance.
        progress: Called with the points done and the points wanted as far as is known.
        internal_batch_size: Points in one pass.
    """
    assert not model.training
    done, wanted, steps = 0, 0, settings.steps

    def count(points: int) -> None:
        nonlocal done
        done = min(done + points, wanted)
        if progress is not None:
            progress(done, wanted)

    scorer = Scorer(model, subject.inputs, target, count)
    output = scorer.answer(subject.inputs)
    origin = float(np.mean([scorer.answer(version) for version in baseline.versions]))
    while True:
        wanted += steps * len(baseline.versions)
        values = _attribute(scorer, baseline, steps, internal_batch_size)
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
        details={
            "output": output,
            "baseline_output": origin,
            "steps": float(steps),
            "internal_batch_size": float(internal_batch_size),
        },
    )


def _attribute(
    scorer: Scorer, baseline: Baseline, steps: int, internal_batch_size: int
) -> dict[Modality, np.ndarray]:
    """Attribute at that many points, on average over the baseline's versions."""
    total: dict[Modality, np.ndarray] = {}
    for version in baseline.versions:
        parts = IntegratedGradients(scorer).attribute(
            scorer.tensors(scorer.inputs),
            scorer.tensors(version),
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=internal_batch_size,
        )
        for modality, part in to_maps(scorer, parts).items():
            total[modality] = total.get(modality, 0.0) + part / len(baseline.versions)
    return total
