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
from medfuse.data.image import prepare_images
from medfuse.data.note import load_tokenizer, prepare_note
from medfuse.data.voice import prepare_voice
from medfuse.errors import NoteError
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.overlay import (
    Word,
    draw_frame,
    draw_voice,
    mel_centres_hz,
    mel_times_s,
    native_maps,
    render_note,
    sum_words,
)
from medfuse.types import PreparedVoice
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


def test_the_note_page_shows_every_character_and_a_signed_number_under_each_read_word() -> None:
    text = "No <b>effusion</b> & no\nmass."
    words = (Word(0, 2, -0.25), Word(6, 14, 1.5), Word(25, 29, 0.004))
    assert [text[w.start : w.end] for w in words] == ["No", "effusion", "ass."]
    page = render_note(text, words, "findings.effusion")
    body = page[page.index("<p>") + 3 : page.index("</p>")]
    numbers = re.findall(r"<rt>(.*?)</rt>", body)
    assert numbers == ["\N{MINUS SIGN}0.25", "+1.50", "+0.00"]
    assert unescape(re.sub(r"<rt>.*?</rt>|<[^>]*>", "", body)) == text
    assert "<b>" not in page


def test_small_attributions_keep_their_digits_on_the_note_page() -> None:
    page = render_note("mass", (Word(0, 4, -0.00123),), "t")
    assert "<rt>\N{MINUS SIGN}0.00123</rt>" in page


def _redness(png: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    redness: np.ndarray = pixels[..., 0] - pixels[..., 2]
    return redness


def test_a_frame_is_red_where_it_speaks_for_the_target_and_blue_against() -> None:
    attribution = np.zeros((60, 100), dtype=np.float32)
    attribution[20:40, 10:30], attribution[20:40, 70:90] = 1.0, -1.0
    redness = _redness(draw_frame(np.full((60, 100), 0.5, dtype=np.float32), attribution, "t"))
    height, width = redness.shape
    picture = redness[height // 3 : 2 * height // 3, : int(0.8 * width)]  # without the scale
    assert picture.max() > 60
    assert picture.min() < -60
    assert np.argwhere(picture > 60)[:, 1].max() < np.argwhere(picture < -60)[:, 1].min()


def test_a_recording_is_red_early_and_high_where_that_speaks_for_the_target() -> None:
    chosen = VoiceSettings()
    voice = PreparedVoice(np.full((100, 64), -0.5, dtype=np.float32), 0.0125, 0.01, 1.0)
    attribution = np.zeros((100, 64))
    attribution[5:25, 50:60], attribution[70:90, 5:15] = 1.0, -1.0
    redness = _redness(draw_voice(voice, attribution, chosen, "t"))
    height, width = redness.shape
    picture = redness[: int(0.65 * height), : int(0.82 * width)]
    red, blue = (np.argwhere(x > 60).mean(axis=0) for x in (picture, -picture))
    assert red[0] < blue[0]  # rows count from the top, pitch from the bottom
    assert red[1] < blue[1]


def test_a_frame_without_any_attribution_is_shown_as_it_is() -> None:
    flat = np.zeros((20, 30), dtype=np.float32)
    redness = _redness(draw_frame(flat + 0.5, flat, "t"))
    height, width = redness.shape
    assert not redness[height // 3 : 2 * height // 3, : int(0.7 * width)].any()
