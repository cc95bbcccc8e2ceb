"""A dictated recording in, its transcript out, by the model that ``moonshine-voice`` carries."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from medfuse.config import SAMPLE_RATE, Limits
from medfuse.data.voice import decode_voice
from medfuse.dictation.record import SpokenWord, Transcript
from medfuse.dictation.speech import find_speech
from medfuse.errors import SettingsError, VoiceError

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

MODEL = "moonshine tiny-en, moonshine-voice 0.1.0"

PIECE_S = 30.0
"""Longest stretch that is written down at once; a longer one is cut where it is quietest."""

SNAP_S = 0.12
"""How far a word's edge may move to the quietest moment nearby."""

HUSH_S = 0.02
"""Loudness between two words is measured over so long."""

PAUSE_S = 0.15
"""And where a stretch is cut: longer than the closure before a t or k within a word."""


def transcribe(data: bytes, limits: Limits) -> Transcript:
    """Write down what was dictated, in English: as `follow` does, with its errors."""
    *_, said = follow(data, limits)
    assert isinstance(said, Transcript)
    return said


def follow(data: bytes, limits: Limits) -> Iterator[float | Transcript]:
    """Write down what was dictated, in English.

    Args:
        data: The recording: WAV, FLAC, OGG, MP3 or a DICOM audio waveform object.
        limits: Of what is decoded.

    Yields:
        The share of the recording that is done, again and again, and in the end what was said.
        Whoever lets go of it before ends it.

    Raises:
        LimitError: The recording is too long or too large.
        SettingsError: A package that this needs is not installed.
        VoiceError: It cannot be decoded, or there is no speech in it.
    """
    transcriber = _open()
    recording = decode_voice(data, limits)
    speech = find_speech(recording.waveform)
    if not speech:
        raise VoiceError("the recording has no speech to write down; record it again, closer")
    text = ""
    words: list[SpokenWord] = []
    for start, end in _split([(s.start_s, s.end_s) for s in speech], recording.waveform):
        piece = recording.waveform[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        # The list of floats that the library wants is 30 MB for half a minute, so pieces are short.
        for line in transcriber.transcribe_without_streaming(piece.tolist(), SAMPLE_RATE).lines:
            said = " ".join(line.text.split())
            if not said:
                continue
            text += " " if text else ""
            from_s = min(start + line.start_time, end)
            to_s = min(from_s + line.duration, end)
            words += place_words(said, len(text), recording.waveform, from_s, to_s)
            text += said
        yield end / recording.duration_s
    if not text:
        raise VoiceError("nothing that was said could be understood; record it again, closer")
    yield Transcript(
        text=text,
        words=tuple(words),
        speech=speech,
        duration_s=recording.duration_s,
        model=MODEL,
    )


def place_words(
    phrase: str, offset: int, waveform: Float32[np.ndarray, " n"], start_s: float, end_s: float
) -> Iterator[SpokenWord]:
    """Estimate when each word of a phrase was said.

    The phrase's time is shared out by the words' letters, and each edge between two words then
    moves to the quietest moment within `SNAP_S`. docs/dictation.md says how far off this is.

    Args:
        phrase: Its words, one space between them.
        offset: Of the phrase in the text.
        waveform: The recording, at `SAMPLE_RATE`.
        start_s: When the phrase begins in it.
        end_s: And ends.
    """
    words = phrase.split(" ")
    # One more than the letters: short words take longer than their letters' share.
    shares = np.cumsum([0] + [sum(map(str.isalnum, word)) + 1 for word in words], dtype=float)
    edges = start_s + (end_s - start_s) * shares / shares[-1]
    inner = []
    for left, edge, right in zip(edges, edges[1:], edges[2:], strict=False):
        low, high = max(edge - SNAP_S, (left + edge) / 2), min(edge + SNAP_S, (edge + right) / 2)
        inner.append(_quietest(waveform, low, high, HUSH_S))
    times = [float(edges[0]), *inner, float(edges[-1])]
    place = offset
    for word, (begin, end) in zip(words, pairwise(times), strict=True):
        yield SpokenWord(start=place, end=place + len(word), start_s=begin, end_s=end)
        place += len(word) + 1


def _quietest(
    waveform: Float32[np.ndarray, " n"], low_s: float, high_s: float, hush_s: float
) -> float:
    """Give the middle of the quietest ``hush_s`` between two moments."""
    hop = int(hush_s * SAMPLE_RATE)
    first, last = int(low_s * SAMPLE_RATE), int(high_s * SAMPLE_RATE)
    starts = np.arange(first, max(last - hop, first) + 1, hop // 2)
    power = [float(np.square(waveform[s : s + hop]).sum()) for s in starts]
    return float(starts[int(np.argmin(power))] + hop / 2) / SAMPLE_RATE


def _split(
    speech: list[tuple[float, float]], waveform: Float32[np.ndarray, " n"]
) -> Iterator[tuple[float, float]]:
    """Join stretches of speech to pieces of at most `PIECE_S`.

    A stretch that is longer by itself is cut at the quietest moment of the piece's second half. It
    holds no pause that is long enough to end it, so that may be in a word all the same.
    """
    start, end = speech[0]
    for next_start, next_end in [*speech[1:], (np.inf, np.inf)]:
        if next_end - start <= PIECE_S:
            end = next_end
            continue
        while end - start > PIECE_S:
            cut = _quietest(waveform, start + PIECE_S / 2, start + PIECE_S, PAUSE_S)
            yield start, cut
            start = cut
        yield start, end
        start, end = next_start, next_end


@cache
def _open() -> "Transcriber":
    try:
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber
        from moonshine_voice.utils import get_model_path
    except ImportError as error:
        raise SettingsError(
            "dictation needs the package moonshine-voice; install it with "
            "\"pip install 'medfuse[dictation]'\""
        ) from error
    folder = get_model_path("tiny-en")
    if not folder.is_dir():
        raise SettingsError(
            "the installed moonshine-voice carries no model; dictation needs version 0.1.0 exactly"
        )
    return Transcriber(folder, ModelArch.TINY)
