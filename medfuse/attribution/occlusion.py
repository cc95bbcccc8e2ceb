"""Occlusion: a study, its baseline and a target in; what each part's absence changes out.

Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks". It asks for answers
alone, no gradient, so it is a family of its own beside the gradients.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network, repeat
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, rows_at_once, score
from medfuse.attribution.target import Target
from medfuse.types import Attribution, Modality

METHOD = "occlusion"


def occlusion(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Put the baseline in the place of one region at a time and see how far the output falls.

    A region's number is spread evenly over its elements, so they add up to it. What lies in no
    region gets none. It costs an answer per region and version of the baseline.

    Args:
        network: Answers.
        subject: The study and its regions.
        baseline: What stands in a region's place; the result is the mean over its versions.
        target: What is explained.
        settings: Not looked at: every method is asked alike.
        progress: Called with the answers done and the answers wanted.
    """
    inputs, regions = subject.inputs, subject.regions
    output = float(score(network, inputs, target)[0])
    origins = [float(score(network, version, target)[0]) for version in baseline.versions]
    done, wanted = 0, sum(regions.counts.values()) * len(origins)
    rows = rows_at_once(inputs)
    values = {}
    for modality in inputs.present:
        falls = np.zeros(regions.counts[modality])
        for version in baseline.versions:
            for at in range(0, len(falls), rows):
                chosen = np.arange(at, min(at + rows, len(falls)))
                versions = _take_away(subject, version, modality, chosen)
                falls[chosen] += output - score(network, versions, target)
                done += len(chosen)
                if progress is not None:
                    progress(done, wanted)
        spread = regions.spread(modality, falls / len(origins))
        values[modality] = spread.astype(np.float32)
    return Attribution(
        target=target.name,
        values=values,
        method=METHOD,
        baseline=baseline.name,
        completeness_gap=None,
        details={
            "output": output,
            "baseline_output": float(np.mean(origins)),
            "regions": float(sum(regions.counts.values())),
        },
    )


def _take_away(
    subject: Subject, baseline: Inputs, modality: Modality, chosen: Int64[np.ndarray, " n"]
) -> Inputs:
    """Make a version of the study for each of a modality's chosen regions, without it."""
    versions = repeat(subject.inputs, len(chosen))
    labels = subject.regions.labels[modality]
    gone = labels == chosen.reshape(-1, *[1] * labels.ndim)
    if modality is Modality.NOTE:
        gone = gone[..., None]  # the whole of a word piece's embedding
    changed = np.where(gone, baseline.values[modality], subject.inputs.values[modality])
    return Inputs({**versions.values, modality: changed}, versions.masks)
