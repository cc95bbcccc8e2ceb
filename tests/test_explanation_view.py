"""The explanation's HTML: every number and sign is there without colour, and nothing unescaped."""

import base64
import html
import io
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medfuse.attribution.scale import Scales
from medfuse.attribution.settings import BASELINE_NAMES as BASELINES
from medfuse.attribution.settings import METHODS, AttributionSettings
from medfuse.overlay import OPACITY, lay_frame
from medfuse.types import Badge, Check, Explanation, Modality, Study
from medfuse_serving.answer import to_answer
from medfuse_serving.explainer import Explained, Explainer
from medfuse_serving.explanation_panel import choose_target
from medfuse_serving.explanation_view import (
    View,
    image_html,
    make_view,
    note_html,
    shelve_maps,
    summary_html,
    voice_html,
)
from medfuse_serving.language import ENGLISH
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import progress_html
from medfuse_serving.report import words
from medfuse_serving.shelves import Shelves
from tests.hand_bundle import SETTINGS, make_study
from tests.hand_network import MIXED, HandNetwork

MINUS = "\N{MINUS SIGN}"
QUICK = AttributionSettings(steps=2, most_steps=2)
STUDY = replace(make_study(), note=b"FINDINGS: cough <b>and</b> ${fever}\nIMPRESSION: fever")


@pytest.fixture(scope="module")
def explained(hand_bundle: Path) -> Explained:
    explainer = Explainer(Predictor(hand_bundle), None, HandNetwork(MIXED))
    return explainer.explain(STUDY, "findings.brightness", QUICK, band=True)


@pytest.fixture(scope="module")
def view(explained: Explained) -> View:
    return make_view(explained, SETTINGS, Scales())


def look_again(explained: Explained, explanation: Explanation) -> View:
    return make_view(replace(explained, explanation=explanation), SETTINGS, Scales())


def visible(text: str) -> str:
    """What a reader sees of HTML, colour aside."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def read_map(view: View) -> tuple[dict[str, Any], np.ndarray]:
    """Take the first frame's map from its shelf, as the browser does."""
    piece = shelve_maps(ENGLISH, view, Shelves()).make(0)
    (length,) = struct.unpack("<I", piece[:4])
    png = io.BytesIO(piece[4 + length :])
    return json.loads(piece[4 : 4 + length]), np.asarray(Image.open(png))


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r'(?:src|href)="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


@pytest.mark.parametrize(
    ("rows", "columns", "drawn"),
    [(48, 64, (48, 64)), (3000, 2000, (1024, 683)), (4000, 3, (1024, 1))],
)
def test_a_large_film_s_map_is_drawn_smaller_and_is_the_same_map(
    view: View, rows: int, columns: int, drawn: tuple[int, int]
) -> None:
    image = view.prepared.image
    assert image is not None
    large = replace(image.geometry[0], rows=rows, columns=columns)
    scale = view.scale.parts[Modality.IMAGE]
    values = np.zeros((large.size, large.size), np.float32)
    values[large.top :, large.left :][: large.height // 2, : large.width // 2] = 2 * scale.full
    image = replace(image, geometry=(large,))
    seen = replace(
        view,
        prepared=replace(view.prepared, image=image),
        values={**view.values, Modality.IMAGE: values[None]},
    )
    header, colours = read_map(seen)
    layer = lay_frame(values, replace(large, rows=drawn[0], columns=drawn[1]), scale)
    assert np.array_equal(colours, layer.colours)
    (outline,) = layer.outlines
    said = re.findall(r"(-?[\d.]+) (-?[\d.]+)", header["marks"].split(' d="')[1].split('"')[0])
    assert np.allclose(np.array(said, float), outline.points, atol=0.051)


def test_the_summary_has_every_share_with_its_sign_and_its_band(view: View) -> None:
    seen = visible(summary_html(ENGLISH, view.record, view.pieces))
    for modality, value in view.record.shares.shares.items():
        band = view.record.band[modality]
        sign = "+" if value > 0 else MINUS
        assert f"{modality.capitalize()} {sign}{abs(value):.2f} [" in seen
        assert band.lowest <= value <= band.highest
    assert "Reliable: all 4 checks passed" in seen
    for check in view.record.badge.checks:
        assert f"passed: {check.name}. {check.message}" in seen
    for text in (
        "Integrated gradients",
        "A black image, masked words, silence",
        "Steps 2",
        "over 4 baselines",
    ):
        assert text in seen


def test_a_bar_s_side_is_its_sign_and_its_length_its_share(view: View) -> None:
    shares = view.record.shares.model_copy(
        update={"shares": {Modality.IMAGE: 2.0, Modality.NOTE: -1.0}, "interactions": {}}
    )
    record = view.record.model_copy(update={"shares": shares, "band": {}})
    bars = re.findall(
        r'<i class="(mf-\w+)" style="left:(.*?)%;width:(.*?)%">',
        summary_html(ENGLISH, record, ()),
    )
    assert bars == [("mf-for", "50.00", "50.00"), ("mf-against", "25.00", "25.00")]


def test_a_failed_badge_shows_why_and_no_map(explained: Explained, view: View) -> None:
    failed = Check("agreement", 0.1, 0.3, False, "The families disagree.")
    badge = Badge((*explained.explanation.badge.checks[:3], failed))
    withheld = look_again(explained, replace(explained.explanation, badge=badge))
    text = summary_html(ENGLISH, withheld.record, withheld.pieces)
    assert "Maps withheld: 1 of 4 checks failed" in visible(text)
    assert "Refer to a human." in visible(text)
    assert "Shapley" not in text  # the shares add up to the score
    assert "logits" not in visible(text)
    assert "FAILED: agreement. The families disagree." in visible(text)
    assert "mf-mapped" not in text
    assert "mf-mapped" in summary_html(ENGLISH, view.record, view.pieces)
    maps = shelve_maps(ENGLISH, withheld, Shelves())
    assert maps.count == 0
    assert image_html(ENGLISH, withheld, maps) == ""
    assert (
        note_html(ENGLISH, withheld)
        == voice_html(ENGLISH, withheld, STUDY.voice or b"", SETTINGS)
        == ""
    )


def test_the_map_lies_over_the_frame_s_own_pixels(view: View) -> None:
    header, overlay = read_map(view)
    assert overlay.shape == (48, 64, 4)
    # The brighter the ramp, the more it says.
    opacity = overlay[24, :, 3].astype(int)
    assert (np.diff(opacity[4:-8]) >= 0).all()
    assert opacity.max() <= round(255 * OPACITY) == round(header["full"])
    scale = view.scale.parts[Modality.IMAGE]
    assert f"Colour is full from {scale.full:.2g} logits per pixel" in visible(
        image_html(ENGLISH, view, shelve_maps(ENGLISH, view, Shelves()))
    )


def test_an_outlined_area_has_its_number_and_its_kind_of_line(
    explained: Explained, view: View
) -> None:
    attribution = explained.explanation.attribution
    full = view.scale.parts[Modality.IMAGE].full
    values = np.zeros_like(attribution.values[Modality.IMAGE])
    values[0, 8:24, 2:12], values[0, 8:24, 20:30] = full, -full
    own = replace(attribution, values={Modality.IMAGE: values})
    marked = look_again(explained, replace(explained.explanation, attribution=own))
    text = read_map(marked)[0]["marks"]
    assert len(re.findall(r'<path class="mf-solid"', text)) == 1
    assert len(re.findall(r'<path class="mf-dashed"', text)) == 1
    numbers = re.findall(r'<text class="mf-number" [^>]* x="(.*?)" [^>]*>(.*?)</text>', text)
    at = {number[0]: float(x) for x, number in numbers}
    assert set(at) == {"+", MINUS}
    assert at["+"] < 32 < at[MINUS]
    assert (
        note_html(ENGLISH, marked)
        == voice_html(ENGLISH, marked, STUDY.voice or b"", SETTINGS)
        == ""
    )


def test_a_note_cannot_write_html_or_templates(view: View) -> None:
    text = note_html(ENGLISH, view)
    assert "<b>" not in text
    assert not set("${}`") & set(re.sub(r"<[^>]*>", "", text))
    (body,) = re.findall(r'<p class="mf-words"[^>]*>(.*?)</p>', text, re.DOTALL)
    written = re.sub(r"<small>.*?</small>|<[^>]*>", "", body)
    assert html.unescape(written).encode() == STUDY.note


def test_a_recording_is_shown_in_seconds_and_hertz_with_its_player(view: View) -> None:
    text = voice_html(ENGLISH, view, STUDY.voice or b"", SETTINGS)
    grey, overlay = pictures(text)
    assert grey.shape == overlay.shape[:2] == (64, 98)
    assert grey.max() == 255
    tone = grey.shape[0] - 1 - int(grey[:, 50].argmax())
    assert tone == int(view.prepared.voice.values[50].argmax())  # type: ignore[union-attr]
    seen = visible(text)
    assert " Hz" in seen
    assert "0 s" in seen
    assert "1 s" in seen
    assert "<audio controls" in text


def test_progress_is_a_number_for_those_who_do_not_see_the_bar() -> None:
    text = progress_html(0.456, "Explaining: 45 %", "It begins.")
    assert 'data-told="It begins."' in text  # once, not at every step
    assert 'value="45"' in text
    assert "45 %" in visible(text)


def test_every_method_and_baseline_has_a_name_for_the_reader() -> None:
    assert set(words.METHODS) == set(METHODS)
    assert set(words.BASELINES) == {*BASELINES, "none", "absent"}


def test_the_most_probable_finding_is_offered_first(hand_bundle: Path) -> None:
    (prediction,) = Predictor(hand_bundle).predict([Study(note=b"cough " * 30)])
    answer = to_answer(prediction)
    assert choose_target(answer) == "findings.wordiness"
    assert choose_target(answer.model_copy(update={"tasks": answer.tasks[1:]})) is None


def test_a_frame_of_several_says_how_much_of_the_attention_it_has(
    explained: Explained, view: View
) -> None:
    assert view.record.frame_attention == (1.0,)  # the only one
    assert read_map(view)[0]["said"] == ""
    shared = replace(explained.explanation, frame_attention=(0.38, 0.62))
    header, _ = read_map(look_again(explained, shared))
    assert "gives this frame 38% of its attention" in header["said"]
