"""A dictation that was written down in; its words on the page, each with its sound, out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medfuse.config import Limits
from medfuse.data.voice import decode_voice
from medfuse.dictation.record import Span, SpokenWord, Transcript
from medfuse.overlay import escape_text
from medfuse_serving.evidence import Piece, WordsPlace
from medfuse_serving.evidence_table import play_dictated
from medfuse_serving.language import Language
from medfuse_serving.rendering import to_wav
from medfuse_serving.shelves import Shelf, Shelves

MARGIN_S = 0.15
"""Played before and after a word, whose place in its phrase is an estimate."""


@dataclass(frozen=True, slots=True)
class Dictated:
    """What a note was written down from.

    Attributes:
        transcript: What was understood.
        sound: The recording, on its shelf.
    """

    transcript: Transcript
    sound: Shelf


def shelve_dictation(
    recording: bytes, transcript: Transcript, limits: Limits, shelves: Shelves
) -> Dictated:
    """Put a dictation's sound on a shelf, as it was heard; a recording's limits bound it.

    Raises:
        InputError: The recording cannot be read.
    """
    wav = to_wav(decode_voice(recording, limits))
    return Dictated(transcript, shelves.put(1, lambda _: wav, "audio/wav"))


def find_sounds(transcript: Transcript, pieces: Sequence[Piece]) -> Mapping[str, Span]:
    """Find what to play of each piece of evidence that is a group of words, by its name."""
    found = {}
    for piece in pieces:
        if isinstance(piece.place, WordsPlace):
            span = transcript.find_sound(piece.place.start, piece.place.end)
            if span is not None:
                found[piece.id] = _widen(transcript, span)
    return found


def dictated_html(language: Language, dictated: Dictated) -> str:
    """Show a dictated note's words as buttons that play them; `web/evidence.js` does it."""
    transcript = dictated.transcript
    words = " ".join(
        _word_html(language, transcript, word, first=number == 0)
        for number, word in enumerate(transcript.words)
    )
    summary = language.text("Written down from a dictation: check every word")
    legend = language.text(
        "Press a word to hear it. Tab goes to the words, arrows from one to the next, Enter plays. "
        "By {model}, a small model: names of findings and drugs often come out wrong, and where "
        "a word begins is estimated.",
        model=transcript.model,
    )
    player = escape_text(language.text("The whole dictation"))
    group = escape_text(language.text("Words of the dictation: each plays its sound"))
    return (
        f'<details class="mf-dictated"><summary>{escape_text(summary)}</summary>'
        f'<p class="mf-legend">{escape_text(legend)}</p>'
        f'<div class="mf-spoken-words" role="toolbar" aria-label="{group}">{words}</div>'
        f'<audio controls preload="auto" aria-label="{player}" '
        f'data-shelf="{dictated.sound.token}"></audio></details>'
    )


def _word_html(language: Language, transcript: Transcript, word: SpokenWord, *, first: bool) -> str:
    """Make a word a button; Tab stops at the first, and then at the one that was gone to last."""
    when = language.text("{start} to {end} s", start=f"{word.start_s:.2f}", end=f"{word.end_s:.2f}")
    return (
        f'<button type="button" tabindex="{0 if first else -1}" aria-pressed="false" '
        f'title="{escape_text(when)}" {play_dictated(_widen(transcript, word))}>'
        f"{escape_text(transcript.text[word.start : word.end])}</button>"
    )


def _widen(transcript: Transcript, span: Span | SpokenWord) -> Span:
    """Add what is played before and after it."""
    return Span(
        start_s=max(0.0, span.start_s - MARGIN_S),
        end_s=min(transcript.duration_s, span.end_s + MARGIN_S),
    )
