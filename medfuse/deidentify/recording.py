"""A recording in; the same sound as plain WAV, with named stretches silenced, out."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import soundfile

from medfuse.config import SAMPLE_RATE
from medfuse.data.voice import decode_voice
from medfuse.deidentify.session import Session


def deidentify_recording(
    data: bytes, session: Session, silences_s: Sequence[tuple[float, float]] = ()
) -> bytes:
    """Write a recording anew, so that no tag, picture or note in its file is left.

    The voice itself stays, and with it who may know it; so does every word that is not silenced.

    Args:
        data: WAV, FLAC, OGG or MP3, with whatever tags, or a DICOM audio object.
        session: Limits, and the counts.
        silences_s: Stretches to silence, from and to, such as a spoken name.

    Returns:
        16-bit WAV, mono at `SAMPLE_RATE`, which is what medfuse hears.

    Raises:
        VoiceError: It is not a recording that can be read.
        LimitError: It is longer than a limit allows.
    """
    waveform = decode_voice(data, session.limits).waveform.copy()
    for start, end in silences_s:
        first, last = (round(max(edge, 0.0) * SAMPLE_RATE) for edge in (start, end))
        waveform[first:last] = 0.0
    file = BytesIO()
    clipped = np.clip(waveform, -1.0, 1.0)
    soundfile.write(file, clipped, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    session.counts["recordings"] += 1
    session.counts["silenced stretches"] += len(silences_s)
    return file.getvalue()
