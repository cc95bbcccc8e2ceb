"""The evidence by hand: areas, groups of words and spans, and that no number is lost."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfuse.attribution.record import WordRecord
from medfuse.attribution.scale import DisplayScale
from medfuse.config import PrepareSettings, VoiceSettings
from medfuse.data.image import fit_square
from medfuse.data.voice import mel_corners_hz
from medfuse.overlay import Scale, lay_frame, lay_voice, smooth
from medfuse.types import Modality, Prepared, PreparedImage, PreparedNote, PreparedVoice
from medfuse_serving.evidence import (
    MOST_PIECES,
    AreaPlace,
    Piece,
    SpanPlace,
    WordsPlace,
    find_phrase,
    group_words,
    list_half_seconds,
    list_pieces,
)

SETTINGS = PrepareSettings(voice=VoiceSettings(mel_bands=40))
GEOMETRY = fit_square(instance=0, frame=0, rows=60, columns=120, size=64)
"""Its rows 16 to 48 show a frame of 60 x 120."""

TEXT = "no fever but crackles at the left base today ."
SAID = {"crackles": 1.0, "at": 0.2, "the": -0.1, "left": 0.5, "base": 0.6, "fever": -0.4, ".": 2.0}


def make_scale(full: float = 1.0, *, additive: bool = True) -> DisplayScale:
    part = Scale(full, "logits", additive)
    return DisplayScale(dict.fromkeys(Modality, part), measured=True)


def list_words(text: str = TEXT, said: Mapping[str, float] = SAID) -> list[WordRecord]:
    return [
        WordRecord(start=m.start(), end=m.end(), text=m[0], value=said.get(m[0], 0.0))
        for m in re.finditer(r"\S+", text)
    ]


def make_study(
    image: np.ndarray | None = None,
    words: Sequence[WordRecord] = (),
    voice: np.ndarray | None = None,
) -> tuple[Prepared, dict[Modality, np.ndarray]]:
    """A study with a map for each of its modalities."""
    values: dict[Modality, np.ndarray] = {}
    own_image = own_note = own_voice = None
    if image is not None:
        own_image = PreparedImage(np.zeros_like(image), (GEOMETRY,) * len(image))
        values[Modality.IMAGE] = image
    if words:
        spans = np.array([(0, 0), *((w.start, w.end) for w in words)], np.int64)
        own_note = PreparedNote(np.zeros(len(spans), np.int64), spans, TEXT)
        values[Modality.NOTE] = np.array([0.0, *(w.value for w in words)], np.float32)
    if voice is not None:
        own_voice = PreparedVoice(np.zeros_like(voice), 0.0125, 0.01, len(voice) / 100)
        values[Modality.VOICE] = voice
    return Prepared(own_image, own_note, own_voice, ()), values


def test_an_area_has_its_sum_its_share_and_its_ninth() -> None:
    image = np.zeros((2, 64, 64), np.float32)
    image[1, 18:30, 44:60] = 2.0  # in the upper third of rows 16 to 48, and the right third
    image[1, 40:48, 4:14] = -2.0
    prepared, values = make_study(image=image)
    for_it, against, rest = list_pieces(prepared, values, make_scale(), SETTINGS)
    assert for_it.place == AreaPlace(frame=2, row=0, column=2)
    assert against.place == AreaPlace(frame=2, row=2, column=0)
    assert (for_it.id, against.id, rest.id) == ("image-1-0", "image-1-1", "image-rest")
    # The whole block is within its outline, which runs at a quarter of it; the smoothing is 2 wide.
    assert for_it.value == pytest.approx(12 * 16 * 2, rel=1e-6)
    assert against.value == pytest.approx(-8 * 10 * 2, rel=1e-6)
    total = 12 * 16 * 2 - 8 * 10 * 2
    assert for_it.share == pytest.approx(384 / total)
    assert against.share == pytest.approx(-160 / total)
    assert rest.value == pytest.approx(0, abs=1e-3)
    assert rest.place is None


def test_the_areas_are_those_that_the_picture_outlines() -> None:
    noise = np.random.default_rng(3).normal(size=(64, 64))
    image = 40 * smooth(Modality.IMAGE, noise[None])[0]
    scale = make_scale(4.0)
    layer = lay_frame(image, GEOMETRY, scale.parts[Modality.IMAGE])
    prepared, values = make_study(image=image[None])
    pieces = [p for p in list_pieces(prepared, values, scale, SETTINGS) if "part" not in p.id][:-1]
    assert len(pieces) == len(layer.areas) > 4
    assert [piece.value for piece in pieces] == [area.value for area in layer.areas]
    for spot in layer.spots:
        assert pieces[spot.area].value == spot.value
    assert {outline.area for outline in layer.outlines} == set(range(len(pieces)))
    for outline in layer.outlines:
        area = layer.areas[outline.area]
        assert area.positive == outline.positive == (pieces[outline.area].value > 0)
        # The line is around its own area's strongest point, in native pixels.
        row, column = area.peak
        x, y = (column + 0.5) * 120 / 64, (row + 0.5 - 16) * 60 / 32
        (left, top), (right, bottom) = outline.points.min(axis=0), outline.points.max(axis=0)
        assert left <= x <= right
        assert top <= y <= bottom


def test_a_phrase_is_the_run_that_says_most() -> None:
    said = list_words()
    start, end, run = find_phrase(said[:-1], 1.0)
    assert TEXT[said[start].start : said[end - 1].end] == "crackles at the left base"
    assert run == pytest.approx(2.2)
    start, end, run = find_phrase(said, -1.0)
    assert (said[start].text, end - start) == ("fever", 1)
    assert run == pytest.approx(0.4)
    assert find_phrase(said, 1.0)[1] == 8  # no phrase ends with a full stop
    louder = [w.model_copy(update={"value": 0.05 if w.text == "but" else w.value}) for w in said]
    assert find_phrase(louder, 1.0)[0] == 3  # nor begins with a word that says next to nothing
    assert find_phrase([w.model_copy(update={"value": 0.0}) for w in said], 1.0)[2] == 0


def test_words_are_grouped_and_the_weak_are_left() -> None:
    prepared, values = make_study(words=list_words())
    strong, stop, weak, rest = list_pieces(prepared, values, make_scale(), SETTINGS)
    assert strong.place == WordsPlace(start=13, end=38, text="crackles at the left base")
    assert strong.id == "note-13"
    assert strong.value == pytest.approx(2.2)
    assert isinstance(weak.place, WordsPlace)
    assert weak.place.text == "fever"
    assert weak.value == pytest.approx(-0.4)
    # No phrase has the full stop, but its number is printed as a word's is.
    assert stop.place == WordsPlace(start=45, end=46, text=".")
    assert stop.value == pytest.approx(2.0)
    assert rest.value == pytest.approx(0, abs=1e-6)
    assert strong.share == pytest.approx(2.2 / 3.8)
    # What is weaker than a word whose number is printed is no group.
    (only, alone, _) = list_pieces(prepared, values, make_scale(5.0), SETTINGS)
    assert (only.id, alone.id) == ("note-13", "note-45")


def test_a_group_never_takes_a_word_of_another() -> None:
    said = list_words(said={"no": 1.0, "fever": -2.0, "but": 1.0, "crackles": -0.1})
    groups = group_words(said, 0.2)
    assert groups == ((1, 2, -2.0), (0, 1, 1.0), (2, 3, 1.0))


def test_every_word_whose_number_is_printed_is_in_a_group() -> None:
    said = list_words(said={"fever": 0.17, "but": 0.2, "the": 0.3, ".": -0.2, "no": 0.19})
    grouped = {n for first, last, _ in group_words(said, 0.2) for n in range(first, last)}
    assert {n for n, word in enumerate(said) if abs(word.value) >= 0.2} <= grouped


def test_what_no_outline_reaches_is_told_by_ninths_and_half_seconds() -> None:
    image, voice = np.zeros((2, 64, 64), np.float32), np.zeros((230, 40), np.float32)
    image[0, 27:37, :21] = 0.01  # rows 16 to 48 show a picture: its middle, left
    image[1, 16:26, 43:] = -0.004
    image[1, 38:48, :21] = 0.0005  # too little beside it
    voice[49:99, 5] = 0.02  # from 0.5025 s to 0.9925 s
    prepared, values = make_study(image, list_words(said={"fever": 0.05, "but": -0.04}), voice)
    pieces = list_pieces(prepared, values, make_scale(), SETTINGS)
    left, right, rest, fever, but, rest_of_note, span, rest_of_voice = pieces
    assert left.place == AreaPlace(frame=1, row=1, column=0, outlined=False)
    assert right.place == AreaPlace(frame=2, row=0, column=2, outlined=False)
    assert left.value == pytest.approx(210 * 0.01)
    assert right.value == pytest.approx(-210 * 0.004)
    assert rest.value == pytest.approx(210 * 0.0005)
    assert (left.id, right.id) == ("image-0-part-3", "image-1-part-2")
    assert isinstance(fever.place, WordsPlace)
    assert isinstance(but.place, WordsPlace)
    assert (fever.place.text, but.place.text) == ("fever", "but")
    assert rest_of_note.value == pytest.approx(0, abs=1e-6)
    assert span.place == SpanPlace(start_s=0.5, end_s=1.0, low_hz=None, high_hz=None)
    assert span.value == pytest.approx(1.0)
    assert rest_of_voice.value == pytest.approx(0, abs=1e-6)


def test_a_ninth_has_what_is_beside_its_outlines() -> None:
    image = np.zeros((1, 64, 64), np.float32)
    image[0, 18:24, 4:10] = 2.0
    image[0, 40:47, 2:62] = 0.3  # below an outline's half everywhere, and more in all
    prepared, values = make_study(image=image)
    pieces = list_pieces(prepared, values, make_scale(), SETTINGS)
    areas = [
        piece for piece in pieces if piece.id.startswith("image-0-part") or piece.place is None
    ]
    outlined = [piece for piece in pieces if piece not in areas]
    assert [piece.id for piece in outlined] == ["image-0-0"]
    lowest = {(0.3 * 7 * wide): column for column, wide in enumerate((20, 21, 19))}
    found = {p.place.column: p.value for p in areas if isinstance(p.place, AreaPlace)}
    assert all(isinstance(p.place, AreaPlace) and p.place.row == 2 for p in areas[:-1])
    assert found == pytest.approx({column: value for value, column in lowest.items()}, rel=1e-5)
    assert sum(piece.value for piece in pieces) == pytest.approx(image.sum())


def test_half_seconds_part_every_mel_frame_once() -> None:
    voice = PreparedVoice(np.zeros((230, 40), np.float32), 0.0125, 0.01, 2.31)
    parts = list(list_half_seconds(voice))
    rows = [row for part in parts for row in range(230)[part.rows]]
    assert rows == list(range(230))
    last = parts[-1].place
    assert isinstance(last, SpanPlace)
    assert (last.start_s, last.end_s) == (2.0, 2.31)


def test_a_span_has_its_seconds_and_hertz() -> None:
    voice = np.zeros((300, 40), np.float32)
    voice[100:150, 10:20] = 3.0
    prepared, values = make_study(voice=voice)
    span, rest = list_pieces(prepared, values, make_scale(), SETTINGS)
    layer = lay_voice(voice, make_scale().parts[Modality.VOICE])
    (area,) = layer.areas
    assert isinstance(span.place, SpanPlace)
    # The smoothing, 4 frames and 2 bands wide, takes an outline at a sixth of the block beyond it
    # by about a width.
    assert (span.place.start_s, span.place.end_s) == pytest.approx((1.0075, 1.5075), abs=0.045)
    corners = mel_corners_hz(SETTINGS.voice)
    first, last = 40 - area.rows[1], 40 - area.rows[0] - 1
    assert (first, last) == pytest.approx((9, 20), abs=2)
    assert (span.place.low_hz, span.place.high_hz) == (corners[first], corners[last + 2])
    assert span.value == pytest.approx(1500)
    assert span.share == pytest.approx(1)
    assert rest.share == pytest.approx(0, abs=1e-6)


def test_a_span_ends_with_the_recording() -> None:
    voice = np.full((50, 40), 3.0, np.float32)
    prepared, values = make_study(voice=voice)
    span, _ = list_pieces(prepared, values, make_scale(), SETTINGS)
    assert isinstance(span.place, SpanPlace)
    assert (span.place.start_s, span.place.end_s) == pytest.approx((0.0075, 0.5))


def test_where_numbers_do_not_add_up_there_is_no_share_and_no_rest() -> None:
    image = np.zeros((1, 64, 64), np.float32)
    image[0, 20:44, 10:40] = 0.9
    prepared, values = make_study(image=image)
    (piece,) = list_pieces(prepared, values, make_scale(additive=False), SETTINGS)
    assert piece.share is None
    assert piece.value == pytest.approx(0.9, rel=0.02)


def test_no_more_pieces_than_can_be_read_and_the_rest_holds_the_others() -> None:
    image = np.zeros((4, 64, 64), np.float32)
    image[:, 18:46:9, 2:62:12] = 60.0
    prepared, values = make_study(image=image)
    pieces = list_pieces(prepared, values, make_scale(), SETTINGS)
    assert len(pieces) == MOST_PIECES + 1
    assert sum(piece.value for piece in pieces) == pytest.approx(image.sum())
    assert pieces[-1].value == pytest.approx(4 * 20 * 60 - 60 * 60)


maps = st.integers(0, 10_000).map(np.random.default_rng)


@settings(max_examples=40, deadline=None)
@given(random=maps, full=st.sampled_from([0.05, 0.5, 3.0]))
def test_the_numbers_and_shares_of_a_modality_add_up(
    random: np.random.Generator, full: float
) -> None:
    said = {word: float(random.normal()) for word in TEXT.split()}
    prepared, values = make_study(
        image=random.normal(size=(2, 64, 64)).astype(np.float32),
        words=list_words(said=said),
        voice=random.normal(size=(60, 40)).astype(np.float32),
    )
    pieces = list_pieces(prepared, values, make_scale(full), SETTINGS)
    assert len({piece.id for piece in pieces}) == len(pieces)
    for modality, own in values.items():
        mine = [piece for piece in pieces if piece.modality is modality]
        total = float(own.sum(dtype=np.float64))
        scale = float(np.abs(own).sum())
        assert sum(piece.value for piece in mine) == pytest.approx(total, abs=1e-6 * scale)
        shares = sum(piece.share or 0.0 for piece in mine)
        assert shares == pytest.approx(1, abs=1e-6 * scale / abs(total))
        assert [piece.place is None for piece in mine] == [False] * (len(mine) - 1) + [True]
    strengths = [abs(p.value) for p in pieces if p.modality is Modality.NOTE and p.place]
    assert strengths == sorted(strengths, reverse=True)
    assert_apart([p for p in pieces if isinstance(p.place, WordsPlace)])


def assert_apart(pieces: Sequence[Piece]) -> None:
    taken: set[int] = set()
    for piece in pieces:
        assert isinstance(piece.place, WordsPlace)
        own = set(range(piece.place.start, piece.place.end))
        assert not own & taken
        taken |= own
