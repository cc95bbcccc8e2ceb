"""Words with their times in; the same without identity, and which stretches to silence, out."""

from collections.abc import Sequence
from dataclasses import dataclass

from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.deidentify.text import Replaced, clean_text, write_span


@dataclass(frozen=True, slots=True)
class Phrase:
    """A word or phrase and when it was said."""

    text: str
    start_s: float
    end_s: float


def clean_transcript(
    phrases: Sequence[Phrase], person: Person, settings: DeidentifySettings
) -> tuple[tuple[Phrase, ...], tuple[tuple[float, float], ...], tuple[Replaced, ...]]:
    """Replace what tells who it is about, in the words read as one text.

    Returns:
        The phrases with what was replaced, a name over several of them standing in its first; the
        stretches in which something replaced was said; and what was replaced.
    """
    text = " ".join(phrase.text for phrase in phrases)
    _, spans = clean_text(text, person, settings)
    cleaned, silences = [], []
    start = 0
    for phrase in phrases:
        end = start + len(phrase.text)
        if any(span.start < end and start < span.end for span in spans):
            silences.append((phrase.start_s, phrase.end_s))
        cleaned.append(Phrase(write_span(text, start, end, spans), phrase.start_s, phrase.end_s))
        start = end + 1
    return tuple(cleaned), tuple(silences), spans
