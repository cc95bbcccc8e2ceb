"""A note's bytes in; its text, its sections and its word pieces with their characters out."""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer

from medfuse.config import Limits, NoteSettings
from medfuse.errors import LimitError, NoteError, SettingsError
from medfuse.headings import PREAMBLE, SECTION_HEADINGS, section_of
from medfuse.types import Modality, PreparedNote, Remark

UNKNOWN_SHARE = 0.2
"""Above this share of unknown word pieces the reader is told that the model can't read the note."""

_BYTE_ORDER_MARKS = (  # UTF-32's little-endian mark starts with UTF-16's, so it goes first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_NOT_PLAIN_TEXT = {
    "%PDF-": "a PDF file",
    "{\\rtf": "an RTF file",
    "<?xml": "an XML file",
    "<!doctype": "an HTML file",
    "<html": "an HTML file",
}

# C0 controls that no text has; DOS's end-of-file mark (0x1A) is one that text has.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")

# Western languages do not write four letters beyond ASCII in a row; Greek, Cyrillic and Asian
# text that is read as a Western code page is little else.
_NOT_WESTERN = re.compile(r"(?!(.)\1{3})[^\x00-\x7f\s]{4}")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a note under one heading.

    Attributes:
        names: The sections its heading names; several for ``FINDINGS AND IMPRESSION:``.
        start: First character of the heading.
        body: First character after the heading and its colon.
        end: One past the last character.
    """

    names: tuple[str, ...]
    start: int
    body: int
    end: int


def decode_note(data: bytes, limits: Limits, legacy_encoding: str = "cp1252") -> str:
    """Decode a note by its byte order mark, else as UTF-8, else in the legacy encoding.

    Nothing is guessed: bytes that are not valid UTF-8 are read in the one encoding that the
    settings name, strictly.

    Raises:
        LimitError: The note has more bytes than ``limits.note_bytes``.
        NoteError: It has no text, is not plain text, or can't be decoded.
    """
    return _decode(data, limits, legacy_encoding)[0]


def find_sections(text: str, headings: Mapping[str, str] | None = None) -> tuple[Section, ...]:
    """Cut a note at its headings into sections that together cover all of it.

    A heading is one of `SECTION_HEADINGS` in any case with a colon at the start of a line, or
    capitalised and alone on its line, or in capitals with a colon anywhere after a space (notes
    are often stored with their line ends lost). What stands before the first one is `PREAMBLE`.

    Args:
        text: The decoded note.
        headings: A site's own headings and their sections.
    """
    own = headings or {}
    found: list[tuple[tuple[str, ...], int, int]] = []
    for match in _heading_pattern(tuple(sorted(own))).finditer(text):
        heading = match["line"] or match["inside"]
        if match["line"] and not match["colon"] and not heading[0].isupper():
            continue
        names = (section_of(part, own) for part in _AND.split(heading))
        known = tuple(dict.fromkeys(name for name in names if name))
        found.append((known, match.start(), match.end()))
    if not found or found[0][1] > 0:
        found.insert(0, ((PREAMBLE,), 0, 0))
    ends = [*(start for _, start, _ in found), len(text)][1:]
    return tuple(
        Section(names, start, body, end)
        for (names, start, body), end in zip(found, ends, strict=True)
    )


def mask_words(text: str, words: Sequence[str]) -> tuple[str, int]:
    """Replace whole words and phrases, in any case, by as many spaces, so that no place moves.

    Returns:
        The text, and how many times something was replaced.
    """
    if not words:
        return text, 0
    return _mask_pattern(tuple(words)).subn(lambda match: " " * len(match[0]), text)


def read_sections(data: bytes, settings: NoteSettings, limits: Limits) -> str:
    """Give the text that the model reads of a note: the sections kept, with masked words gone.

    Raises:
        LimitError: The note has more bytes than ``limits.note_bytes``.
        NoteError: It has no text, is not plain text, or can't be decoded.
    """
    text = decode_note(data, limits, settings.legacy_encoding)
    kept, _ = _select(find_sections(text, settings.headings), settings)
    masked, _ = mask_words(text, settings.mask_words)
    return "".join(masked[section.start : section.end] for section in kept)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json`` file, as `read_tokenizer` does.

    Raises:
        SettingsError: The file is missing or is not a tokenizer.
    """
    try:
        return read_tokenizer(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def read_tokenizer(data: bytes) -> Tokenizer:
    """Read a ``tokenizer.json`` and switch off the truncation and padding it may carry.

    Words such as ``[SEP]`` inside a note are read as text, not as the model's special pieces.

    Raises:
        SettingsError: The bytes are not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise SettingsError(f"not a tokenizer.json ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def prepare_note(
    data: bytes, settings: NoteSettings, limits: Limits, tokenizer: Tokenizer
) -> tuple[PreparedNote | None, tuple[Remark, ...]]:
    """Turn a note into word pieces, and say what of it the model will not see.

    Returns:
        The word pieces with their spans in the whole decoded text, None when no text is left
        after the sections that the settings leave out; and the remarks.

    Raises:
        LimitError: The note has more bytes than ``limits.note_bytes``.
        NoteError: It has no text, is not plain text, or can't be decoded.
    """
    text, encoding = _decode(data, limits, settings.legacy_encoding)
    remarks = []
    if not encoding.startswith("utf"):
        message = f"The note is not Unicode; it was read as {encoding}."
        remarks.append(Remark(Modality.NOTE, "note-legacy-encoding", message))

    kept, left_out = _select(find_sections(text, settings.headings), settings)
    if left_out:
        names = sorted({name for section in left_out for name in section.names})
        message = f"Sections of the note were left out: {', '.join(names)}."
        remarks.append(Remark(Modality.NOTE, "sections-excluded", message))
    masked, masks = mask_words(text, settings.mask_words)
    if masks:
        message = f"{masks} word(s) or phrase(s) of the note were masked, by the model's settings."
        remarks.append(Remark(Modality.NOTE, "words-masked", message))
    if not any(masked[section.body : section.end].strip() for section in kept):
        left = "the sections that are left out" + (" and masked words" if masks else "")
        message = f"Nothing of the note is left after {left}."
        remarks.append(Remark(Modality.NOTE, "note-empty", message))
        return None, tuple(remarks)

    read = "".join(masked[section.start : section.end] for section in kept)
    encoding_of_read = tokenizer.encode(read, add_special_tokens=False)
    pieces = len(encoding_of_read.ids)
    if pieces == 0:
        raise NoteError("the note has no text: nothing in it is a word or a sign")
    room = settings.word_pieces - tokenizer.num_special_tokens_to_add(False)
    encoding_of_read.truncate(room)
    if pieces > room:
        lost = len(read) - encoding_of_read.offsets[-1][1]
        message = (
            f"The note's last {pieces - room} of {pieces} word pieces ({lost} of {len(read)} "
            "characters) did not fit."
        )
        remarks.append(Remark(Modality.NOTE, "note-truncated", message))
    unknown = sum(piece == _unknown(tokenizer) for piece in encoding_of_read.tokens)
    if unknown > UNKNOWN_SHARE * len(encoding_of_read.tokens):
        message = f"The model knows too few of the note's words: {unknown} are unknown to it."
        remarks.append(Remark(Modality.NOTE, "note-unknown-words", message))

    whole = tokenizer.post_process(encoding_of_read)
    spans = _to_whole_text(np.array(whole.offsets, dtype=np.int64), kept)
    spans[np.array(whole.special_tokens_mask, dtype=bool)] = 0
    return PreparedNote(np.array(whole.ids, dtype=np.int64), spans, text), tuple(remarks)


def _decode(data: bytes, limits: Limits, legacy_encoding: str) -> tuple[str, str]:
    """Decode a note and name the encoding it was in."""
    if len(data) > limits.note_bytes:
        raise LimitError(f"the note has {len(data)} bytes; at most {limits.note_bytes} are read")
    text, encoding = _decode_marked(data) or _decode_unmarked(data, legacy_encoding)
    start = text.lstrip()[:16].lower()
    for mark, kind in _NOT_PLAIN_TEXT.items():
        if start.startswith(mark.lower()):
            raise NoteError(f"the note is {kind}; expected plain text")
    control = _CONTROL.search(text)
    if control:
        raise NoteError(
            f"the note has the control character 0x{ord(control[0]):02X}; expected plain text"
        )
    if not text.replace("\x1a", "").strip():
        raise NoteError("the note has no text; leave the note out if there is none")
    return text, encoding


def _decode_marked(data: bytes) -> tuple[str, str] | None:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), encoding
            except UnicodeDecodeError:
                # Not chained: the codec's error carries the note itself.
                raise NoteError(
                    f"the note's byte order mark says {encoding}, and its bytes are not; "
                    "save it as UTF-8"
                ) from None
    return None


def _decode_unmarked(data: bytes, legacy_encoding: str) -> tuple[str, str]:
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    advice = "save it as UTF-8, or name its encoding in the setting note.legacy_encoding"
    try:
        text = data.decode(legacy_encoding)
    except UnicodeDecodeError:
        raise NoteError(f"the note is neither UTF-8 nor {legacy_encoding}; {advice}") from None
    if legacy_encoding == "cp1252" and _NOT_WESTERN.search(text):
        raise NoteError(f"the note is neither UTF-8 nor a Western language in cp1252; {advice}")
    return text, legacy_encoding


def _select(
    sections: tuple[Section, ...], settings: NoteSettings
) -> tuple[list[Section], list[Section]]:
    """Part the sections into those the model reads and those it does not."""
    excluded = {section_of(name, settings.headings) for name in settings.exclude_sections}
    included = {section_of(name, settings.headings) for name in settings.include_sections}
    kept, left_out = [], []
    for section in sections:
        wanted = not included or not included.isdisjoint(section.names)
        if wanted and excluded.isdisjoint(section.names):
            kept.append(section)
        else:
            left_out.append(section)
    return kept, left_out


def _to_whole_text(
    spans: Int64[np.ndarray, "l 2"], kept: list[Section]
) -> Int64[np.ndarray, "l 2"]:
    """Move spans within the kept sections, put end to end, to where they stand in the note."""
    starts = np.array([section.start for section in kept])
    lengths = np.array([section.end - section.start for section in kept])
    offsets = np.cumsum(lengths) - lengths  # where each kept section starts in what was read
    section = np.searchsorted(offsets, spans[:, 0], side="right") - 1
    moved: Int64[np.ndarray, "l 2"] = spans + (starts - offsets)[section][:, None]
    return moved


def _unknown(tokenizer: Tokenizer) -> str | None:
    piece: str | None = getattr(tokenizer.model, "unk_token", None)
    return piece


# Notes come with markdown, bullets and numbers before a heading; every run is bounded or anchored,
# so that the pattern takes linear time on hostile text.
_LEAD = r"[ \t>*#_=-]{0,80}(?:\d{1,2}[.)][ \t]{0,4})?[*_]{0,2}"
_AND_PATTERN = r"[ \t]{0,4}(?:\bAND\b|[&/,+])[ \t]{0,4}"
_AND = re.compile(_AND_PATTERN, re.IGNORECASE)


@cache
def _mask_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Build the pattern of masked words, longest first; a space in one is any white space."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    one = "|".join(r"\s{1,8}".join(map(re.escape, word.split())) for word in ordered)
    return re.compile(rf"(?<!\w)(?:{one})(?!\w)", re.IGNORECASE)


@cache
def _heading_pattern(own: tuple[str, ...]) -> re.Pattern[str]:
    """Build the pattern of all headings, the table's and a site's own, longest first."""
    every = {heading for headings in SECTION_HEADINGS.values() for heading in headings}
    every |= {heading.upper() for heading in own}
    ordered = sorted(every, key=lambda heading: (-len(heading), heading))
    one = "|".join(r"[ \t]{1,4}".join(map(re.escape, heading.split())) for heading in ordered)
    some = rf"(?:{one})(?:{_AND_PATTERN}(?:{one})){{0,2}}"
    colon = r"[*_]{0,2}[ \t]{0,4}[:\uff1a][*_]{0,2}"
    return re.compile(
        rf"^{_LEAD}(?i:(?P<line>{some}))(?:(?P<colon>{colon})|[*_ \t\r]{{0,80}}$)"
        rf"|(?<=[\s.;!?)])(?P<inside>{some}){colon}",
        re.MULTILINE,
    )
