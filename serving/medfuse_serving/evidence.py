"""An explanation's maps in; its pieces of evidence, each with its number, place and name, out.

One list of them is what the picture outlines, the table lists, the sentences name and the report
prints: the outlined areas of each frame, the groups of words and the outlined spans of the
recording; then, of what lies outside of outlines, the strongest ninths of frames and half seconds.
What is weaker is one piece more, the rest, so that the pieces of a modality add up to its map's
sum.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from medfuse.attribution.record import WordRecord
from medfuse.attribution.scale import DisplayScale
from medfuse.config import PrepareSettings, Settings
from medfuse.data.voice import mel_corners_hz
from medfuse.overlay import (
    NUMBERED,
    Area,
    Scale,
    find_frame_areas,
    find_voice_areas,
    mel_times_s,
    smooth,
    sum_words,
)
from medfuse.types import FrameGeometry, Modality, Prepared, PreparedNote, PreparedVoice

PHRASE_WORDS = 6
"""Most words, punctuation marks among them, of a group."""

PHRASE_CHARACTERS = 60

PHRASE_END = 0.1
"""Least share of what a group says that its first and its last word have."""

MOST_PIECES = 60
"""Of one modality, the strongest; the rest holds the others."""

THIRDS = 3

SPAN_S = 0.5
"""Length of a part of a recording."""

MOST_PARTS = 6
"""Of what no outline or group has, of one modality."""

LEAST_PART = 0.1
"""Of the strongest piece of its modality, that such a part has to have."""


class AreaPlace(Settings):
    """An outlined area of a frame, or all of a ninth of it that is in none."""

    frame: int = Field(ge=1, description="among those that were read")
    row: int = Field(ge=0, le=2, description="0: its strongest point is in the upper third")
    column: int = Field(ge=0, le=2, description="0: in the left third of the picture")
    outlined: bool = Field(default=True, description="or else it is a ninth")


class WordsPlace(Settings):
    """A group of words, by their characters in the decoded note."""

    start: int
    end: int
    text: str


class SpanPlace(Settings):
    """An outlined area of the spectrogram, or all of half a second that is in none."""

    start_s: float
    end_s: float
    low_hz: float | None = Field(description="null of half a second")
    high_hz: float | None


class Piece(Settings):
    """One piece of evidence."""

    id: str = Field(
        description="its name, such as `image-0-2`, `image-0-part-8`, `note-14`, `voice-1`, "
        "`voice-part-3`, `note-rest`"
    )
    modality: Modality
    value: float = Field(description="its sum, or its strongest value where sums mean nothing")
    share: float | None = Field(
        description="its part of its map's sum; null where sums mean nothing or are nought"
    )
    place: AreaPlace | WordsPlace | SpanPlace | None = Field(description="null: all the rest")


@dataclass(frozen=True, slots=True)
class Part:
    """A ninth of a frame, or half a second of a recording.

    Attributes:
        name: Of its piece of evidence.
        place: Where it is.
        rows: In the map's own axes; mel frames of a recording.
        columns: The same; all bands of a recording.
    """

    name: str
    place: AreaPlace | SpanPlace
    rows: slice
    columns: slice


def list_pieces(
    prepared: Prepared,
    values: Mapping[Modality, Float[np.ndarray, "..."]],
    scale: DisplayScale,
    settings: PrepareSettings,
) -> tuple[Piece, ...]:
    """List an explanation's evidence: by modality, the strongest first and the rest last.

    Args:
        prepared: The study that is explained.
        values: The maps; no pieces where there is none.
        scale: Of the pictures.
        settings: The model's.
    """
    pieces: list[Piece] = []
    for modality, own in values.items():
        part = scale.parts[modality]
        if modality is Modality.IMAGE:
            assert prepared.image is not None
            found = _list_areas(own, prepared.image.geometry, part)
        elif modality is Modality.NOTE:
            assert prepared.note is not None
            found = _list_groups(own, prepared.note, part)
        else:
            assert prepared.voice is not None
            found = _list_spans(own, prepared.voice, part, settings)
        pieces += _add_up(modality, found, own, part)
    return tuple(pieces)


def name_area(frame: int, number: int) -> str:
    """Name an outlined area of a frame; both count from 0."""
    return f"{Modality.IMAGE}-{frame}-{number}"


def name_span(number: int) -> str:
    """Name an outlined area of the spectrogram, from 0."""
    return f"{Modality.VOICE}-{number}"


def list_ninths(frame: int, geometry: FrameGeometry) -> tuple[Part, ...]:
    """Part a frame, counted from 0, into ninths of the model's square."""
    rows = _cut(geometry.top, geometry.height)
    columns = _cut(geometry.left, geometry.width)
    return tuple(
        Part(
            name=f"{Modality.IMAGE}-{frame}-part-{THIRDS * row + column}",
            place=AreaPlace(frame=frame + 1, row=row, column=column, outlined=False),
            rows=own_rows,
            columns=own_columns,
        )
        for row, own_rows in enumerate(rows)
        for column, own_columns in enumerate(columns)
    )


def _cut(start: int, size: int) -> list[slice]:
    """Cut into thirds, of which each element is in the one that `AreaPlace` says."""
    edges = [start + math.ceil(size * third / THIRDS) for third in range(THIRDS + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def list_half_seconds(voice: PreparedVoice) -> Iterator[Part]:
    """Part a recording into half seconds by the times of its mel frames."""
    spans = mel_times_s(voice) // SPAN_S
    for number, count in zip(*np.unique(spans, return_counts=True), strict=True):
        start = int(np.searchsorted(spans, number))
        yield Part(
            name=f"{Modality.VOICE}-part-{int(number)}",
            place=SpanPlace(
                start_s=float(number * SPAN_S),
                end_s=min(float((number + 1) * SPAN_S), voice.duration_s),
                low_hz=None,
                high_hz=None,
            ),
            rows=slice(start, start + int(count)),
            columns=slice(None),
        )


def find_phrase(words: Sequence[WordRecord], sign: float) -> tuple[int, int, float]:
    """Find the run of words that says most in one direction.

    Args:
        words: In the note's order.
        sign: Of what is looked for.

    Returns:
        The first word, the one after the last, and what the run says in that direction; an empty
        run where none does.
    """
    values = [word.value if sign > 0 else -word.value for word in words]
    best = (0, 0, 0.0)
    for start in range(len(values)):
        if values[start] <= 0 or not _has_letters(words[start]):
            continue
        run = 0.0
        for end in range(start, min(start + PHRASE_WORDS, len(values))):
            if words[end].end - words[start].start > PHRASE_CHARACTERS and end > start:
                break
            run += values[end]
            least = PHRASE_END * run
            if values[start] < least or values[end] < least:
                continue
            if run > best[2] and _has_letters(words[end]):
                best = (start, end + 1, run)
    return best


def group_words(words: Sequence[WordRecord], least: float) -> tuple[tuple[int, int, float], ...]:
    """Part a note's words into groups, the strongest first; no word is in two of them.

    A mark that says so much, such as a full stop or a degree sign, is one by itself where it is in
    no other.

    Args:
        words: In the note's order.
        least: What a group has to say.

    Returns:
        Of each group the first word, the one after the last, and its sum.
    """
    groups = []
    # What is not yet in a group, as runs of words in the note's order.
    waiting = [(0, len(words))]
    while waiting:
        start, end = waiting.pop()
        found = [(*find_phrase(words[start:end], sign), sign) for sign in (1.0, -1.0)]
        first, last, run, sign = max(found, key=lambda one: one[2])
        if run < least or first == last:
            alone = ((at, words[at].value) for at in range(start, end))
            groups += [(at, at + 1, value) for at, value in alone if abs(value) >= least]
            continue
        groups.append((start + first, start + last, sign * run))
        waiting += [(start, start + first), (start + last, end)]
    return tuple(sorted(groups, key=lambda group: (-abs(group[2]), group[0])))


FoundPiece = tuple[str, float, AreaPlace | WordsPlace | SpanPlace]
"""Name, number and place."""

Found = list[FoundPiece]


def _list_areas(
    values: Float[np.ndarray, "s h w"], geometry: Sequence[FrameGeometry], scale: Scale
) -> Found:
    found: Found = []
    parts: Found = []
    for frame, (own, place) in enumerate(zip(values, geometry, strict=True)):
        areas, numbers = find_frame_areas(own, place, scale)
        for number, area in enumerate(areas):
            row, column = area.peak
            where = AreaPlace(
                frame=frame + 1,
                row=THIRDS * (row - place.top) // place.height,
                column=THIRDS * (column - place.left) // place.width,
            )
            found.append((name_area(frame, number), area.value, where))
        parts += _measure(
            list_ninths(frame, place),
            own if scale.additive else smooth(Modality.IMAGE, own),
            numbers < 0,
            scale,
        )
    return found + _choose(parts, found, scale)


def _list_groups(values: Float[np.ndarray, " l"], note: PreparedNote, scale: Scale) -> Found:
    words = [
        WordRecord(start=w.start, end=w.end, text=note.text[w.start : w.end], value=w.value)
        for w in sum_words(note.text, note.spans, values)
    ]
    found = [
        _name_words(note, words[first:last], value)
        for first, last, value in group_words(words, NUMBERED * scale.full)
    ]
    # A number under a word is what makes a group, so no word of them has one.
    return found or _choose([_name_words(note, [word], word.value) for word in words], [], scale)


def _name_words(note: PreparedNote, words: Sequence[WordRecord], value: float) -> FoundPiece:
    start, end = words[0].start, words[-1].end
    text = " ".join(note.text[start:end].split())[: 2 * PHRASE_CHARACTERS]
    return f"{Modality.NOTE}-{start}", value, WordsPlace(start=start, end=end, text=text)


def _list_spans(
    values: Float[np.ndarray, "t f"],
    voice: PreparedVoice,
    scale: Scale,
    settings: PrepareSettings,
) -> Found:
    areas, numbers = find_voice_areas(values, scale)
    found: Found = [
        (name_span(number), area.value, _find_span(area, voice, settings))
        for number, area in enumerate(areas)
    ]
    shown = values if scale.additive else smooth(Modality.VOICE, values)
    parts = _measure(list_half_seconds(voice), shown, numbers < 0, scale)
    return found + _choose(parts, found, scale)


def _measure(
    parts: Iterable[Part],
    values: Float[np.ndarray, "h w"],
    outside: Bool[np.ndarray, "h w"],
    scale: Scale,
) -> Found:
    """Give each part the sum of what is outside of outlines, or its strongest value."""
    found: Found = []
    for part in parts:
        here = (part.rows, part.columns)
        found.append((part.name, _sum_up(values[here][outside[here]], scale), part.place))
    return found


def _sum_up(values: Float[np.ndarray, " n"], scale: Scale) -> float:
    if not values.size:
        return 0.0
    if scale.additive:
        return float(values.sum(dtype=np.float64))
    return float(values[np.abs(values).argmax()])


def _choose(parts: Found, found: Found, scale: Scale) -> Found:
    """Choose the parts that say something beside what was found; where sums mean nothing, none."""
    if found and not scale.additive:
        return []
    strongest = max((abs(value) for _, value, _ in found + parts), default=0.0)
    ranked = sorted(parts, key=lambda one: -abs(one[1]))[:MOST_PARTS]
    return [one for one in ranked if one[1] and abs(one[1]) >= LEAST_PART * strongest]


def _find_span(area: Area, voice: PreparedVoice, settings: PrepareSettings) -> SpanPlace:
    """Give the seconds and hertz of an area of the spectrogram; rows count from the highest."""
    first, last = (voice.start_s + voice.step_s * (column - 0.5) for column in area.columns)
    corners = mel_corners_hz(settings.voice)  # of bands, which overlap: one before, one after each
    bands = len(corners) - 2
    lowest, highest = bands - area.rows[1], bands - 1 - area.rows[0]
    return SpanPlace(
        start_s=max(0.0, first),
        end_s=min(voice.duration_s, last),
        low_hz=float(corners[lowest]),
        high_hz=float(corners[highest + 2]),
    )


def _add_up(
    modality: Modality, found: Found, values: Float[np.ndarray, "..."], scale: Scale
) -> list[Piece]:
    """Give each piece its share, and add the rest."""
    total = float(values.sum(dtype=np.float64)) if scale.additive else 0.0
    kept = sorted(found, key=lambda one: -abs(one[1]))[:MOST_PIECES]
    pieces = [
        Piece(id=name, modality=modality, value=value, share=_divide(value, total), place=place)
        for name, value, place in kept
    ]
    if scale.additive:
        rest = total - sum(piece.value for piece in pieces)
        pieces.append(
            Piece(
                id=f"{modality}-rest",
                modality=modality,
                value=rest,
                share=_divide(rest, total),
                place=None,
            )
        )
    return pieces


def _divide(value: float, total: float) -> float | None:
    return value / total if total else None


def _has_letters(word: WordRecord) -> bool:
    """Tell a word or a number from a punctuation mark, which no phrase begins or ends with."""
    return any(map(str.isalnum, word.text))
