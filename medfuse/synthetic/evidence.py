"""Where a sign was planted: pixels, characters or seconds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """A sign's pixels in one instance.

    Attributes:
        sign: Its name, or ``image_shortcut``.
        instance: Index into the study's images.
        mask: True where the sign is, in native pixels.
    """

    sign: str
    instance: int
    mask: Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True, slots=True)
class NoteEvidence:
    """A sign's characters in the decoded note, from `start` up to but without `end`."""

    sign: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class VoiceEvidence:
    """A sign's seconds in the recording and the band of frequencies it fills."""

    sign: str
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
