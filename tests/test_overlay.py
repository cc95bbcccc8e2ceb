"""Overlays: attributions land on the native pixels, characters, seconds and hertz they are of."""

import io
import re
from html import unescape
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medfuse.config import ImageSettings, Limits, NoteSettings, VoiceSettings
from medfuse.data.image import fit_square, prepare_images
from medfuse.data.note import load_tokenizer, prepare_note
from medfuse.data.voice import prepare_voice
from medfuse.errors import NoteError
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.overlay import (
    AGAINST,
    FOR,
    OPACITY,
    SMOOTHING,
    SPOTS,
    Scale,
    Word,
    draw_frame,
    draw_voice,
    format_signed,
    lay_frame,
    lay_voice,
    map_legend,
    mel_centres_hz,
    mel_times_s,
    native_maps,
    overlay_png,
    render_note,
    smooth,
    sum_words,
    to_colours,
    words_html,
)
from medfuse.types import Modality, PreparedVoice
from tests.hand_bundle import make_dicom, make_wav

TOKENIZER = load_tokenizer(tokenizer_path(ModelSettings()))
NOTE = "Findings: pneumothorax isn't seen.\nIMPRESSION: Pneumothorax."


@pytest.mark.parametrize("shape", [(90, 150), (150, 90), (64, 64), (300, 40)])
@pytest.mark.parametrize("place", [(0.2, 0.3), (0.9, 0.5), (0.5, 0.95)])
def test_what_the_model_saw_of_a_spot_lands_on_the_spot_s_native_pixels(
    shape: tuple[int, int], place: tuple[float, float]
) -> None:
    row, column = (int(share * size) for share, size in zip(place, shape, strict=True))
    pixels = np.zeros(shape, dtype=np.uint16)
    pixels[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 4095
    image, _ = prepare_images((make_dicom(pixels),), ImageSettings(size=64), Limits())
    # What the attribution of a model that adds up pixels would be, and nothing on the padding.
    (native,) = native_maps(image.values - 1.0 * (image.values == 0), image.geometry)
    assert native.shape == shape
    found = np.argwhere(native == native.max()).mean(axis=0)
    middle = np.argwhere(pixels > 0).mean(axis=0)
    step = max(shape) / 64  # native pixels in a pixel of the model
    np.testing.assert_allclose(found, middle, atol=max(1.0, step))


def test_words_spell_the_note_and_add_up_their_pieces() -> None:
    note, _ = prepare_note(NOTE.encode(), NoteSettings(), Limits(), TOKENIZER)
    assert note is not None
    pieces = [TOKENIZER.id_to_token(i) for i in note.values]
    # pneumothorax is six pieces; what IMPRESSION says is not read.
    assert pieces == [
        "[CLS]", "findings", ":", "p", "##ne", "##um", "##otho", "##ra", "##x", "isn", "'",
        "t", "seen", ".", "[SEP]",
    ]  # fmt: skip
    values = 2.0 ** np.arange(len(pieces))
    words = sum_words(note.text, note.spans, values)
    spelled = [(note.text[w.start : w.end], w.value) for w in words]
    assert spelled == [
        ("Findings", 2.0),
        (":", 4.0),
        ("pneumothorax", 8.0 + 16 + 32 + 64 + 128 + 256),
        ("isn", 512.0),
        ("'", 1024.0),
        ("t", 2048.0),
        ("seen", 4096.0),
        (".", 8192.0),
    ]


@settings(max_examples=150, deadline=None)
@given(text=st.text(min_size=1, max_size=60), seed=st.integers(0, 9))
def test_no_attribution_is_lost_between_pieces_and_words(text: str, seed: int) -> None:
    try:
        note, _ = prepare_note(text.encode("utf-8"), NoteSettings(), Limits(), TOKENIZER)
    except (NoteError, UnicodeEncodeError):
        return
    if note is None:
        return
    values = np.random.default_rng(seed).normal(size=len(note.values))
    words = sum_words(note.text, note.spans, values)
    real = note.spans[:, 1] > note.spans[:, 0]
    assert sum(w.value for w in words) == pytest.approx(values[real].sum())
    assert all(a.end <= b.start for a, b in pairwise(words))
    assert not any(c.isspace() for w in words for c in note.text[w.start : w.end])


@pytest.mark.parametrize("hz", [200.0, 1000.0, 5000.0])
def test_a_tone_stands_at_its_seconds_and_hertz(hz: float) -> None:
    chosen = VoiceSettings()
    voice, _ = prepare_voice(make_wav(seconds=1.0, hz=hz), chosen, Limits())
    times, centres = mel_times_s(voice), mel_centres_hz(chosen)
    assert voice.values.shape == (len(times), len(centres))
    loudest = int(voice.values[len(times) // 2].argmax())
    assert loudest == np.abs(np.log(centres / hz)).argmin()
    assert times[0] == pytest.approx(chosen.window_s / 2, abs=1e-3)
    assert times[-1] == pytest.approx(1.0 - chosen.window_s / 2, abs=chosen.step_s)


def words_of(page: str) -> list[tuple[str, str, str]]:
    """Each marked word of a note's HTML, its line's style and what stands under it."""
    word = r'<span style="([^"]*)">(.*?)</span><small>(.*?)</small></span>'
    found = re.findall(rf'<span class="mf-word" data-step="\d+">{word}', page)
    return [(unescape(word), style, number) for style, word, number in found]


LOGITS = Scale(full=1.0, unit="logits per word")


def test_a_note_shows_every_character_and_the_sign_and_number_of_each_read_word() -> None:
    text = "No <b>effusion</b> & no\nmass ${x}."
    words = (Word(0, 2, -0.25), Word(6, 14, 1.5), Word(21, 23, -0.19), Word(24, 28, 0.0))
    assert [text[w.start : w.end] for w in words] == ["No", "effusion", "no", "mass"]
    body = words_html(text, words, LOGITS)
    assert [(word, number) for word, _, number in words_of(body)] == [
        ("No", "\N{MINUS SIGN}0.25"),
        ("effusion", "+1.50"),
        ("no", "\N{MINUS SIGN}"),  # weaker than a fifth of the scale: its sign alone
        ("mass", "0"),
    ]
    assert unescape(re.sub(r"<small>.*?</small>|<[^>]*>", "", body)) == text
    assert "<b>" not in body
    assert "${" not in body
    assert (
        '<span class="mf-skipped"> ${x}.</span>'.replace("$", "&#36;")
        .replace("{", "&#123;")
        .replace("}", "&#125;")
        in body
    )


def test_sign_and_strength_of_a_word_are_told_by_its_line() -> None:
    words = (Word(0, 1, 0.5), Word(2, 3, -0.5), Word(4, 5, -1.0), Word(6, 7, -9.0))
    (_, a, _), (_, b, _), (_, c, _), (_, d, number) = words_of(words_html("a b c d", words, LOGITS))
    assert "2px solid" in a
    assert "2px dashed" in b
    assert "4px dashed" in c
    assert c == d  # what is stronger than the scale looks the same
    assert "rgb(213 94 0/calc(0.25*var(--mf-opacity,1)))" in a
    # A page can hide what is weaker than a step of a twentieth.
    many = tuple(Word(i, i + 1, i / 100) for i in range(0, 120, 7))
    steps = re.findall(r'data-step="(\d+)"', words_html("x" * 120, many, LOGITS))
    for step, word in zip(map(int, steps), many, strict=True):
        for tested in range(21):
            assert (step < tested) == (min(word.value, 1) < tested / 20 - 1e-12)
    assert number == "\N{MINUS SIGN}9.00"


def test_a_word_looks_the_same_whatever_else_the_note_says() -> None:
    alone = words_of(words_html("mass", (Word(0, 4, 0.5),), LOGITS))
    beside = words_of(words_html("mass seen", (Word(0, 4, 0.5), Word(5, 9, 7.0)), LOGITS))
    assert alone == beside[:1]


def test_small_scales_keep_two_digits() -> None:
    page = render_note("mass", (Word(0, 4, -0.0012),), Scale(0.002, "logits per word"), "<t>")
    assert words_of(page)[0][2] == "\N{MINUS SIGN}0.0012"
    assert "<h1>&lt;t&gt;</h1>" in page
    assert "from 0.002 on, the same for every study" in page


@pytest.mark.parametrize("sign", [1, -1])
def test_a_point_keeps_its_sum_when_it_is_smoothed_and_is_as_wide_as_the_model_s_square_says(
    sign: int,
) -> None:
    point = np.zeros((2, 64, 64), dtype=np.float32)
    point[0, 30, 40] = sign
    found = smooth(Modality.IMAGE, point)
    width = 64 * SMOOTHING
    assert found[0].sum() == pytest.approx(sign, rel=1e-3)
    assert found[0, 30, 40] == pytest.approx(sign / (2 * np.pi * width**2), rel=0.02)
    assert not found[1].any()  # frames do not run into each other
    note = np.arange(5.0)
    np.testing.assert_array_equal(smooth(Modality.NOTE, note), note.astype(np.float32))


def test_colours_say_sign_by_hue_and_strength_by_opacity_up_to_the_scale() -> None:
    colours = to_colours(np.array([[0.0, 1.0, 2.0, 40.0, -1.0, -2.0]]), 2.0)[0]
    full = round(255 * OPACITY)
    assert colours[:, 3].tolist() == [0, round(full / 2), full, full, round(full / 2), full]
    assert (colours[1:4, :3] == FOR).all()
    assert (colours[4:, :3] == AGAINST).all()


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2),
    full=st.floats(1e-3, 1e3),
)
def test_no_stronger_value_is_drawn_weaker(values: list[float], full: float) -> None:
    weak, strong = sorted(values, key=abs)
    opacity = to_colours(np.array([[weak, strong]]), full)[0, :, 3]
    assert opacity[0] <= opacity[1]


GEOMETRY = fit_square(instance=0, frame=0, rows=60, columns=120, size=64)


def make_map(*blocks: tuple[slice, slice, float]) -> np.ndarray:
    """A map over a square of 64 pixels of which the rows 16 to 48 show a frame of 60 x 120."""
    values = np.zeros((64, 64), dtype=np.float32)
    for rows, columns, value in blocks:
        values[rows, columns] = value
    return values


BLOCK = (slice(24, 40), slice(8, 24))
"""In native pixels: rows 15 to 45, columns 15 to 45."""


def test_an_area_is_outlined_where_it_lies_in_native_pixels_and_its_sum_is_printed() -> None:
    layer = lay_frame(make_map((*BLOCK, 1.0)), GEOMETRY, Scale(1.0, "logits per pixel"))
    assert layer.colours.shape == (60, 120, 4)
    (outline,) = layer.outlines
    assert outline.positive
    edges = [*outline.points.min(axis=0), *outline.points.max(axis=0)]
    assert edges == pytest.approx([15, 15, 45, 45], abs=1.5)
    (spot,) = layer.spots
    assert spot.value == pytest.approx(256, rel=0.05)  # the rounded corners are outside
    assert (spot.top, spot.bottom) == pytest.approx((15, 45), abs=2)
    assert spot.column == pytest.approx(30, abs=1)
    opacity = layer.colours[..., 3].astype(int)
    assert opacity[30, 30] == round(255 * OPACITY)
    assert opacity[30, 15] == pytest.approx(128 * OPACITY, abs=12)
    assert opacity[:, 80:].max() == 0


def test_what_speaks_against_has_its_own_outline_and_a_minus() -> None:
    values = make_map((*BLOCK, -1.0))
    layer = lay_frame(values, GEOMETRY, Scale(1.0, "logits per pixel"))
    assert [outline.positive for outline in layer.outlines] == [False]
    assert layer.spots[0].value == pytest.approx(-256, rel=0.05)


def test_where_numbers_do_not_add_up_the_strongest_is_printed() -> None:
    scale = Scale(1.0, "logits per cell", additive=False)
    layer = lay_frame(make_map((*BLOCK, 0.9)), GEOMETRY, scale)
    assert layer.spots[0].value == pytest.approx(0.9, rel=0.02)
    assert "strongest value within its outline" in map_legend(scale)


def test_one_scale_for_every_picture_and_none_of_its_own() -> None:
    weak, strong = (
        lay_frame(make_map((*BLOCK, value)), GEOMETRY, Scale(1.0, "logits per pixel"))
        for value in (0.4, 4.0)
    )
    assert weak.colours[30, 30, 3] == round(255 * OPACITY * 0.4)
    assert weak.outlines == ()
    assert weak.spots == ()
    assert strong.colours[30, 30, 3] == round(255 * OPACITY)


def test_the_model_s_padding_has_no_part_in_a_picture() -> None:
    padding = make_map((slice(0, 16), slice(0, 64), 50.0))
    layer = lay_frame(padding, GEOMETRY, Scale(1.0, "logits per pixel"))
    assert all(outline.points[:, 1].min() > -1.5 for outline in layer.outlines)
    assert all(spot.top > -1.5 for spot in layer.spots)


def test_at_most_some_numbers_are_printed_the_strongest_and_none_over_another() -> None:
    spread = [
        (slice(r, r + 5), slice(c, c + 5), 1.5 + r / 100 + c / 1000)
        for r in range(17, 44, 9)
        for c in range(1, 60, 12)
    ]
    layer = lay_frame(make_map(*spread), GEOMETRY, Scale(1.5, "logits per pixel"))
    assert len(layer.outlines) == len(spread)
    values = [spot.value for spot in layer.spots]
    assert values == sorted(values, reverse=True)
    assert len(values) == SPOTS
    near = [(slice(20, 24), slice(20, 24), 9.0), (slice(20, 24), slice(26, 30), -9.0)]
    layer = lay_frame(make_map(*near), GEOMETRY, Scale(1.0, "logits per pixel"))
    assert len(layer.outlines) == 2
    assert len(layer.spots) == 1


def test_high_and_early_in_a_recording_is_up_and_left() -> None:
    values = np.zeros((100, 64), dtype=np.float32)
    values[10:30, 44:60] = 1.0
    layer = lay_voice(values, Scale(1.0, "logits per mel bin"))
    assert layer.colours.shape == (64, 100, 4)
    (outline,) = layer.outlines
    edges = [*outline.points.min(axis=0), *outline.points.max(axis=0)]
    assert edges == pytest.approx([10, 4, 30, 20], abs=1.5)
    assert layer.spots[0].value == pytest.approx(320, rel=0.1)


def read_png(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGBA"
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("shape", [(60, 120), (31, 77), (500, 333)])
def test_an_overlay_alone_has_the_frame_s_own_size_and_its_exact_colours(
    shape: tuple[int, int],
) -> None:
    geometry = fit_square(instance=0, frame=0, rows=shape[0], columns=shape[1], size=64)
    values = make_map((slice(28, 36), slice(28, 36), 0.4))
    layer = lay_frame(values, geometry, Scale(1.0, "logits per pixel"))
    np.testing.assert_array_equal(read_png(overlay_png(layer)), layer.colours)
    empty = lay_frame(make_map(), geometry, Scale(1.0, "logits per pixel"))
    assert not read_png(overlay_png(empty))[..., 3].any()


def test_an_overlay_alone_has_solid_lines_for_and_dashed_lines_against() -> None:
    def count(value: float) -> int:
        layer = lay_frame(make_map((*BLOCK, value)), GEOMETRY, Scale(1.0, "logits per pixel"))
        drawn = read_png(overlay_png(layer))
        changed = (drawn != layer.colours).any(axis=2)
        points = layer.outlines[0].points
        near = np.zeros_like(changed)
        for column, row in points.round().astype(int):
            near[max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] = True
        assert not (changed & ~near).any()  # nothing but lines
        return int(((drawn[..., :3] > 200).all(axis=2) & changed).sum())

    assert count(1.0) > 1.3 * count(-1.0) > 0


def redness(png: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    found: np.ndarray = pixels[..., 0] - pixels[..., 2]
    return found


def test_a_frame_is_orange_where_it_speaks_for_the_target_and_blue_against() -> None:
    against = (BLOCK[0], slice(40, 56), -1.0)
    layer = lay_frame(make_map((*BLOCK, 1.0), against), GEOMETRY, Scale(1.0, "logits per pixel"))
    drawn = redness(draw_frame(np.full((60, 120), 0.5, dtype=np.float32), layer, "t"))
    height, width = drawn.shape
    picture = drawn[height // 4 : 3 * height // 4, : int(0.78 * width)]  # without the scale
    assert picture.max() > 60
    assert picture.min() < -60
    assert np.argwhere(picture > 60)[:, 1].max() < np.argwhere(picture < -60)[:, 1].min()


def test_a_recording_is_orange_early_and_high_where_that_speaks_for_the_target() -> None:
    chosen = VoiceSettings()
    voice = PreparedVoice(np.full((100, 64), -0.5, dtype=np.float32), 0.0125, 0.01, 1.0)
    attribution = np.zeros((100, 64), dtype=np.float32)
    attribution[5:25, 50:60], attribution[70:90, 5:15] = 1.0, -1.0
    layer = lay_voice(attribution, Scale(0.5, "logits per mel bin"))
    drawn = redness(draw_voice(voice, attribution, layer, chosen, "t"))
    height, width = drawn.shape
    picture = drawn[: int(0.65 * height), : int(0.82 * width)]
    orange, blue = (np.argwhere(x > 60).mean(axis=0) for x in (picture, -picture))
    assert orange[0] < blue[0]  # rows count from the top, pitch from the bottom
    assert orange[1] < blue[1]


def test_a_frame_without_any_attribution_is_shown_as_it_is() -> None:
    layer = lay_frame(make_map(), GEOMETRY, Scale(1.0, "logits per pixel"))
    drawn = redness(draw_frame(np.full((60, 120), 0.5, dtype=np.float32), layer, "t"))
    height, width = drawn.shape
    assert not drawn[height // 4 : 3 * height // 4, : int(0.7 * width)].any()


def test_numbers_have_their_sign_and_nought_has_none() -> None:
    numbers = [format_signed(value) for value in (1.234, -0.5, 0.004, -0.004, 0.0)]
    assert numbers == ["+1.23", "\N{MINUS SIGN}0.50", "0", "0", "0"]
