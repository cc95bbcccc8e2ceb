"""Where a sentence was read in; shares of the modalities and places in the study's own axes out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medfuse.overlay import sum_words
from medfuse.types import (
    MODALITIES,
    FrameGeometry,
    ImagePlace,
    Modality,
    NotePlace,
    Prepared,
    PreparedImage,
    PreparedNote,
    PreparedVoice,
    SentenceEvidence,
    VoicePlace,
)

POINTED = 0.2
"""The least share of what a sentence owes for which it points to a modality."""

SPREAD = 0.5
"""A place goes on from its peak while its neighbours have so much of the peak."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a study's tokens stand in a row.

    Attributes:
        frames: Of the batch, padding included.
        pieces: Word pieces of the batch, likewise.
        cells: Of a frame.
        mel_step: Mel frames of one token of the voice.
    """

    frames: int
    pieces: int
    cells: int
    mel_step: float

    def members(self, tokens: int) -> dict[Modality, Bool[np.ndarray, " n"]]:
        """Tell which of so many tokens are each modality's."""
        place = self.split(np.arange(tokens, dtype=np.float64))
        return {m: np.isin(np.arange(tokens), own) for m, own in place.items()}

    def split(self, tokens: Float[np.ndarray, " n"]) -> dict[Modality, Float[np.ndarray, " _"]]:
        """Give each modality its part."""
        image = self.frames * self.cells
        parts = np.split(tokens, [image, image + self.pieces])
        return dict(zip(MODALITIES, parts, strict=True))


def find_evidence(
    reading: Float[np.ndarray, " n"],
    dues: Mapping[Modality, float],
    layout: Layout,
    prepared: Prepared,
) -> SentenceEvidence:
    """Say which modalities a sentence rests on, and where in each of them it was read.

    A modality with at least `POINTED` of what the sentence owes is pointed to; a sentence that
    owes nothing to any points nowhere.

    Args:
        reading: What each token added.
        dues: What the sentence owes to each present modality.
        layout: How the tokens stand.
        prepared: The study.
    """
    parts = layout.split(reading)
    total = sum(dues.values())
    shares = {m: due / total if total else 0.0 for m, due in dues.items()}
    pointed = {m for m, share in shares.items() if share >= POINTED}
    image = note = voice = None
    if Modality.IMAGE in pointed and prepared.image is not None:
        image = _find_box(parts[Modality.IMAGE], layout, prepared.image)
    if Modality.NOTE in pointed and prepared.note is not None:
        note = _find_words(parts[Modality.NOTE], prepared.note)
    if Modality.VOICE in pointed and prepared.voice is not None:
        voice = _find_moment(parts[Modality.VOICE], layout, prepared.voice)
    return SentenceEvidence(shares, image, note, voice)


def _find_box(
    reading: Float[np.ndarray, " n"], layout: Layout, image: PreparedImage
) -> ImagePlace | None:
    """Find the cell that was read most, of those that show the image and not its padding."""
    side = math.isqrt(layout.cells)
    order = np.argsort(-reading[: len(image.geometry) * layout.cells], kind="stable")
    for token in order.tolist():
        frame, cell = divmod(token, layout.cells)
        box = _to_native(image.geometry[frame], side, *divmod(cell, side))
        if box is not None:
            return box
    return None


def _to_native(place: FrameGeometry, side: int, row: int, column: int) -> ImagePlace | None:
    """Give a cell's box in native pixels, outwards to whole ones; None where it is all padding."""
    step = place.size / side
    down, across = place.rows / place.height, place.columns / place.width
    top, bottom = ((row + i) * step - place.top for i in (0, 1))
    left, right = ((column + i) * step - place.left for i in (0, 1))
    box = (
        max(0, math.floor(top * down)),
        max(0, math.floor(left * across)),
        min(place.rows, math.ceil(bottom * down)),
        min(place.columns, math.ceil(right * across)),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    return ImagePlace(place.instance, place.frame, *box)


def _find_words(reading: Float[np.ndarray, " l"], note: PreparedNote) -> NotePlace | None:
    """Find the word that was read most, with its neighbours."""
    words = sum_words(note.text, note.spans, reading[: len(note.spans)])
    if not words:
        return None
    first, last = _spread(np.array([word.value for word in words]))
    return NotePlace(words[first].start, words[last].end)


def _find_moment(
    reading: Float[np.ndarray, " n"], layout: Layout, voice: PreparedVoice
) -> VoicePlace:
    """Find the moment that was read most, with its neighbours."""
    tokens = math.ceil(len(voice.values) / layout.mel_step)
    first, last = _spread(reading[: max(tokens, 1)])
    ends = (first * layout.mel_step, (last + 1) * layout.mel_step)
    start_s, end_s = (voice.start_s + (frame - 0.5) * voice.step_s for frame in ends)
    return VoicePlace(max(start_s, 0.0), min(end_s, voice.duration_s))


def _spread(values: Float[np.ndarray, " n"]) -> tuple[int, int]:
    """Give the first and the last of the peak and its neighbours in a row."""
    peak = first = last = int(values.argmax())
    least = SPREAD * values[peak]
    while first > 0 and values[first - 1] >= least > 0:
        first -= 1
    while last + 1 < len(values) and values[last + 1] >= least > 0:
        last += 1
    return first, last
