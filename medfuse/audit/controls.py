"""Maps that know nothing of the model: a study in; noise, and what an edge detector sees, out.

A method whose maps score no better than these says nothing about the model (Adebayo et al. 2018,
"Sanity Checks for Saliency Maps"). The third control, the network with its weights permuted, is a
network like any other: the method itself is asked about it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import sobel

from medfuse.attribution.regions import NO_REGION
from medfuse.attribution.subject import Subject
from medfuse.types import Modality


def random_maps(subject: Subject, rng: np.random.Generator) -> dict[Modality, np.ndarray]:
    """Draw normal noise in place of a map."""
    return {m: rng.standard_normal(labels.shape) for m, labels in subject.regions.labels.items()}


def edge_maps(subject: Subject) -> dict[Modality, np.ndarray]:
    """Say how much a study changes from place to place, whatever the model makes of it.

    The magnitude of Sobel's gradient of a frame and of a spectrogram; for a note, how far each
    word piece's embedding is from its neighbours'.
    """
    maps: dict[Modality, np.ndarray] = {}
    for modality, labels in subject.regions.labels.items():
        values = subject.inputs.values[modality][0].astype(np.float64)
        if modality is Modality.NOTE:
            steps = np.linalg.norm(np.diff(values, axis=0), axis=1)
            change = np.append(steps, 0.0) + np.append(0.0, steps)
        else:
            planes = values if modality is Modality.IMAGE else values[None]
            change = np.stack([np.hypot(sobel(p, axis=0), sobel(p, axis=1)) for p in planes])
            change = change.reshape(values.shape)
        maps[modality] = np.where(labels != NO_REGION, change, 0.0)
    return maps


def edge_outputs(
    subject: Subject, subsets: Sequence[frozenset[Modality]]
) -> dict[frozenset[Modality], float]:
    """Give the edges of each subset of the modalities together, as if they were an output.

    Each modality's are relative to its own values' deviation, so that none wins by its unit.
    """
    strength: Mapping[Modality, float] = {
        m: float(edges.mean() / (subject.inputs.values[m].std() or 1.0))
        for m, edges in edge_maps(subject).items()
    }
    return {subset: sum((strength.get(m, 0.0) for m in subset), 0.0) for subset in subsets}
