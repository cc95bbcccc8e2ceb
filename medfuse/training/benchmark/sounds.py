"""A recording's log-mel spectrogram in; what its bands, their movement and rhythm are, out."""

import math
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from medfuse.config import VoiceSettings
from medfuse.data.voice import FLOOR, mel_corners_hz
from medfuse.training.features import Features
from medfuse.types import Modality

BANDS = 20
"""Bands, each as wide as the next in octaves, that mel bands are gathered into."""

RHYTHMS_HZ = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 31.0)
"""Edges of the rates at which a band's loudness goes up and down: breaths, beats, crackles."""

QUIET = 1e-6
"""Power, beside the recording's mean, below which nothing is told apart: -60 dB."""


def describe_sounds(features: Features, settings: VoiceSettings) -> Float[np.ndarray, "n d"]:
    """Describe every study's recording; all have one."""
    described = []
    for i in range(len(features.rows)):
        log_mel = features.get(i, Modality.VOICE)
        assert log_mel is not None  # a benchmark's studies all have the modality it reads
        described.append(describe_sound(log_mel.astype(np.float64), settings))
    return np.stack(described)


def describe_sound(
    log_mel: Float[np.ndarray, "t f"], settings: VoiceSettings
) -> Float[np.ndarray, " d"]:
    """Describe a recording whatever its loudness, so that the microphone's gain tells nothing.

    Args:
        log_mel: Its spectrogram.
        settings: It was made by.

    Returns:
        For each band the mean, spread, low and high tenth of its level beside the others, how much
        it moves from frame to frame, and the power of its movement at each rhythm; then how much
        single bands stand out of all, and how even the spectrum is.
    """
    power = np.exp((1 - log_mel) / 2 * math.log(FLOOR))  # undoes medfuse.data.voice.log_mel
    power /= power.mean()
    edges = _find_edges(settings)
    bands = [power[:, low:high].mean(axis=1) for low, high in pairwise(edges)]
    levels = np.log(np.stack(bands, axis=1) + QUIET)  # (T, bands)
    beside = levels - levels.mean(axis=1, keepdims=True)
    movement = np.abs(np.fft.rfft(levels - levels.mean(axis=0), axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(levels), settings.step_s)
    rhythms = np.stack(
        [
            np.log(movement[(hertz >= low) & (hertz < high)].mean(axis=0) + QUIET)
            for low, high in pairwise(RHYTHMS_HZ)
        ]
    )
    mean = np.log(power.mean(axis=1) + QUIET)
    peaks = np.log(power.max(axis=1) + QUIET) - mean
    evenness = np.log(power + QUIET).mean(axis=1) - mean
    return np.concatenate(
        [
            beside.mean(axis=0),
            levels.std(axis=0),
            *np.quantile(beside, [0.1, 0.9], axis=0),
            np.abs(np.diff(levels, axis=0)).mean(axis=0),
            (rhythms - rhythms.mean()).ravel(),
            [peaks.mean(), peaks.std(), np.quantile(peaks, 0.95), evenness.mean(), evenness.std()],
        ]
    )


def _find_edges(settings: VoiceSettings) -> list[int]:
    """Cut the mel bands into `BANDS` or fewer of equal width in octaves, each with one at least."""
    centres = mel_corners_hz(settings)[1:-1]
    wanted = np.geomspace(centres[0], centres[-1], BANDS + 1)[1:-1]
    inner = np.searchsorted(centres, wanted)
    return sorted({0, *inner.tolist(), len(centres)})
