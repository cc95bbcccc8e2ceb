"""A prepared study in; the parts of it that are taken away and put back as a whole out.

Occlusion, and the curves of deletion and insertion, change a study by patches of an image, words
of a note and windows of a recording: one pixel or one mel bin says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int32

from medfuse.overlay import find_words
from medfuse.types import MODALITIES, Modality, Prepared, PreparedImage, PreparedVoice

CELLS = 14
"""Patches along each side of a frame: 16 pixels of 224."""

WINDOW_S = 0.1
BANDS = 8
"""Windows of a recording: so long, and so many over the mel bands."""

NO_REGION = -1
"""What belongs to no region: an image's padding and a note's special pieces."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Which part each element of a study belongs to.

    Attributes:
        labels: By present modality, in its attribution's axes (S, H, W), (L,), (T, F): the number
            of each element's region, from 0, or `NO_REGION`.
        counts: How many regions each modality has.
    """

    labels: Mapping[Modality, Int32[np.ndarray, "..."]]
    counts: Mapping[Modality, int]

    def total(
        self, modality: Modality, values: Float[np.ndarray, "..."]
    ) -> Float64[np.ndarray, " r"]:
        """Add up an attribution over each region of a modality."""
        labels = self.labels[modality]
        real = labels >= 0
        return np.bincount(
            labels[real], weights=values[real].astype(np.float64), minlength=self.counts[modality]
        )

    def spread(
        self, modality: Modality, totals: Float[np.ndarray, " r"]
    ) -> Float64[np.ndarray, "..."]:
        """Share out each region's number evenly among its elements; the opposite of `total`."""
        labels = self.labels[modality]
        sizes = np.bincount(labels[labels >= 0], minlength=self.counts[modality])
        each = np.append(np.asarray(totals, np.float64) / np.maximum(sizes, 1), 0.0)
        return np.asarray(each[labels])  # NO_REGION picks the 0 at the end


def find_regions(prepared: Prepared) -> Regions:
    """Divide a study: square patches, words, and windows of time by bands of pitch."""
    labels: dict[Modality, np.ndarray] = {}
    if prepared.image is not None:
        labels[Modality.IMAGE] = _patches(prepared.image)
    if prepared.note is not None:
        labels[Modality.NOTE] = find_words(prepared.note.text, prepared.note.spans)[1]
    if prepared.voice is not None:
        labels[Modality.VOICE] = _windows(prepared.voice)
    return Regions(
        labels={m: labels[m] for m in MODALITIES if m in labels},
        counts={m: int(labels[m].max(initial=NO_REGION)) + 1 for m in MODALITIES if m in labels},
    )


def _patches(image: PreparedImage) -> Int32[np.ndarray, "s h w"]:
    """Number the patches that show some of the image, frame by frame and row by row."""
    labels = np.full(image.values.shape, NO_REGION, np.int32)
    side = image.values.shape[1]
    place = np.arange(side) * CELLS // side
    grid = place[:, None] * CELLS + place
    for frame, geometry in enumerate(image.geometry):
        shown = np.zeros((side, side), bool)
        shown[
            geometry.top : geometry.top + geometry.height,
            geometry.left : geometry.left + geometry.width,
        ] = True
        labels[frame][shown] = grid[shown] + frame * CELLS * CELLS
    return _renumber(labels)


def _windows(voice: PreparedVoice) -> Int32[np.ndarray, "t f"]:
    frames, bands = voice.values.shape
    time = np.arange(frames) // max(1, round(WINDOW_S / voice.step_s))
    pitch = np.arange(bands) * min(BANDS, bands) // bands
    return np.asarray(time[:, None] * min(BANDS, bands) + pitch, np.int32)


def _renumber(labels: Int32[np.ndarray, "..."]) -> Int32[np.ndarray, "..."]:
    """Number what there is from 0 without gaps, `NO_REGION` left as it is."""
    real = labels >= 0
    labels[real] = np.unique(labels[real], return_inverse=True)[1]
    return labels
