"""A recording's log-mel spectrogram in; what its bands, their movement and rhythm are, out."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from medfuse.training.features import Features
from medfuse.types import Modality

BANDS = 20
"""Bands that mel bands are gathered into."""

RHYTHMS_HZ = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 31.0)
"""Edges of the rates at which a band's loudness goes up and down: breaths, beats, crackles."""


def describe_sounds(features: Features, step_s: float) -> Float[np.ndarray, "n d"]:
    """Describe every study's recording; all have one."""
    described = []
    for i in range(len(features.rows)):
        log_mel = features.get(i, Modality.VOICE)
        assert log_mel is not None  # a benchmark's studies all have the modality it reads
        described.append(describe_sound(log_mel.astype(np.float64), step_s))
    return np.stack(described)


def describe_sound(log_mel: Float[np.ndarray, "t f"], step_s: float) -> Float[np.ndarray, " d"]:
    """Describe a recording whatever its loudness, so that the microphone's gain tells nothing.

    Args:
        log_mel: Its spectrogram.
        step_s: From one of its frames to the next.

    Returns:
        For each band the mean, spread, low and high tenth of its level beside the others, how much
        it moves from frame to frame, and the power of its movement at each rhythm; then how much
        single bands stand out of all.
    """
    gathered = np.array_split(log_mel, BANDS, axis=1)
    levels = np.stack([band.mean(axis=1) for band in gathered], axis=1)  # (T, bands)
    beside = levels - levels.mean(axis=1, keepdims=True)
    moved = levels - levels.mean(axis=0)
    power = np.abs(np.fft.rfft(moved, axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(levels), step_s)
    rhythms = np.stack(
        [
            np.log(power[(hertz >= low) & (hertz < high)].mean(axis=0) + 1e-9)
            for low, high in pairwise(RHYTHMS_HZ)
        ]
    )
    peaks = log_mel.max(axis=1) - log_mel.mean(axis=1)
    return np.concatenate(
        [
            beside.mean(axis=0),
            levels.std(axis=0),
            *np.quantile(beside, [0.1, 0.9], axis=0),
            np.abs(np.diff(levels, axis=0)).mean(axis=0),
            (rhythms - rhythms.mean()).ravel(),
            [peaks.mean(), peaks.std(), np.quantile(peaks, 0.95)],
        ]
    )
