"""A prepared modality in, a few numbers out that tell what kind of thing it is.

They describe what the network reads, and not by the network: one that was trained to tell findings
apart may map a photograph to an ordinary embedding.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy.ndimage import zoom

from medfuse.types import Modality, Prepared

SIDE = 64
"""An image is described at so many pixels a side."""

GREYS, RINGS, BLOCKS = 16, 10, 4
BANDS, LAGS = 16, 8

EPSILON = 1e-6


def describe(prepared: Prepared) -> dict[Modality, np.ndarray]:
    """Describe each modality that is there; a note by its word pieces themselves."""
    parts = {
        Modality.IMAGE: prepared.image,
        Modality.NOTE: prepared.note,
        Modality.VOICE: prepared.voice,
    }
    return {m: DESCRIBERS[m](part.values) for m, part in parts.items() if part is not None}


def describe_image(frames: Float32[np.ndarray, "s h w"]) -> Float64[np.ndarray, " d"]:
    """Describe greys, layout, symmetry and the power of coarse and fine detail, over all frames."""
    return np.asarray(np.mean([_describe_frame(frame) for frame in frames], axis=0))


def describe_voice(log_mel: Float32[np.ndarray, "t f"]) -> Float64[np.ndarray, " d"]:
    """Describe each band's level and movement, how they move together, and the rhythm."""
    bands = np.array_split(log_mel.astype(np.float64), min(BANDS, log_mel.shape[1]), axis=1)
    levels = np.stack([band.mean(axis=1) for band in bands], axis=1)  # (T, bands)
    loudness = levels.mean(axis=1)
    moved = loudness - loudness.mean()
    power = (moved**2).mean() + EPSILON
    rhythm = [
        (moved[lag:] * moved[:-lag]).mean() / power if len(moved) > lag else 0.0
        for lag in 2 ** np.arange(LAGS)
    ]
    shape = levels - loudness[:, None]
    peaks = log_mel.max(axis=1) - log_mel.mean(axis=1)
    steps = np.abs(np.diff(levels, axis=0)).mean(axis=0) if len(levels) > 1 else levels[0] * 0
    return np.concatenate(
        [
            levels.mean(axis=0),
            levels.std(axis=0),
            shape.std(axis=0),
            steps,
            rhythm,
            [peaks.mean(), peaks.std(), np.log(len(log_mel))],
        ]
    )


def _describe_frame(frame: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, " d"]:
    small = zoom(frame.astype(np.float64), SIDE / np.array(frame.shape), order=1)
    greys = np.histogram(np.clip(small, 0, 1), bins=GREYS, range=(0, 1))[0] / small.size
    block = SIDE // BLOCKS
    layout = small.reshape(BLOCKS, block, BLOCKS, block).mean(axis=(1, 3)).ravel()
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2((small - small.mean()) * window))) ** 2
    far = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE // 2))
    edges = np.geomspace(1, SIDE // 2, RINGS + 1)
    rings = [np.log(spectrum[(far >= a) & (far < b)].mean() + EPSILON) for a, b in pairwise(edges)]
    down, across = np.gradient(small)
    return np.concatenate(
        [
            np.sqrt(greys),
            layout,
            rings,
            [
                _correlate(small, small[:, ::-1]),
                _correlate(small, small[::-1]),
                small.std(),
                np.log(np.abs(across).mean() + EPSILON),
                np.log(np.abs(down).mean() + EPSILON),
                np.sqrt((small <= 0.02).mean()),
                np.sqrt((small >= 0.98).mean()),
            ],
        ]
    )


def _correlate(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + EPSILON))


def _keep_pieces(pieces: Int64[np.ndarray, " l"]) -> Int64[np.ndarray, " l"]:
    return pieces


DESCRIBERS: Mapping[Modality, Callable[..., np.ndarray]] = {
    Modality.IMAGE: describe_image,
    Modality.NOTE: _keep_pieces,
    Modality.VOICE: describe_voice,
}
