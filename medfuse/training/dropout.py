"""Modality dropout: which modalities a study has in, which of them this step lets through out."""

import numpy as np
from jaxtyping import Bool

from medfuse.training.processes import WHOLE, Share


def step_rng(seed: int, epoch: int, step: int) -> np.random.Generator:
    """Make the generator of one training step, the same however training came to that step."""
    return np.random.default_rng([seed, epoch, step])


def drop_modalities(
    present: Bool[np.ndarray, "b m"],
    rate: float,
    rng: np.random.Generator,
    share: Share = WHOLE,
) -> Bool[np.ndarray, "b m"]:
    """Leave out each modality with chance ``rate``, but never a study's last one.

    Where all would go, one of those present stays, each as likely. What is drawn for a study is
    the same whichever process has it in its share of the batch.
    """
    studies, modalities = present.shape
    draws = rng.random((studies * share.of, modalities))[share.index :: share.of]
    kept = present & (draws >= rate)
    # The rate scales all draws alike, so the largest is a fair pick among the present ones.
    spared = np.where(present, draws, -1.0).argmax(axis=1)
    lost = present.any(axis=1) & ~kept.any(axis=1)
    kept[lost, spared[lost]] = True
    return kept
