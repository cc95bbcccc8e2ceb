"""What was dictated, for the record: the text, and when each of its words was said."""

from pydantic import Field

from medfuse.config import Settings


class SpokenWord(Settings):
    """One word of the text and its place in the recording."""

    start: int = Field(ge=0, description="first character in the text")
    end: int = Field(ge=0, description="up to but without this one")
    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)


class Span(Settings):
    """A stretch of the recording."""

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)


class Transcript(Settings):
    """A dictated note.

    Attributes:
        text: What was understood.
        words: Its words; the phrase's beginning and end were heard, the places of the words in it
            are estimated.
        speech: Where there is speech.
        duration_s: Of the recording.
        model: What wrote it down.
    """

    text: str
    words: tuple[SpokenWord, ...]
    speech: tuple[Span, ...]
    duration_s: float
    model: str

    def find_sound(self, start: int, end: int) -> Span | None:
        """Give the stretch of sound of some characters of the text; None where no word is."""
        own = [word for word in self.words if word.start < end and word.end > start]
        if not own:
            return None
        return Span(start_s=own[0].start_s, end_s=own[-1].end_s)
