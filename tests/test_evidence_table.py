"""The table, the sentences and the pictures say the same numbers; and in a browser they are one."""

import html
import json
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

import medfuse_serving
from medfuse.attribution.scale import Scales
from medfuse.attribution.settings import AttributionSettings
from medfuse.overlay import MINUS, format_signed
from medfuse.types import Modality, Study
from medfuse_serving.evidence import AreaPlace, Piece, SpanPlace, WordsPlace
from medfuse_serving.evidence_table import number_frames, strength_html, table_html
from medfuse_serving.explainer import Explained, Explainer
from medfuse_serving.explanation_view import (
    View,
    image_html,
    make_view,
    note_html,
    shelve_maps,
    summary_html,
    voice_html,
)
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import header_html
from medfuse_serving.report.words import say_difference, say_number, say_piece
from medfuse_serving.shelves import Shelf, Shelves
from medfuse_serving.viewer import Frames, shelve_frames, viewer_html
from tests.browser import assert_played, listen, open_browser, open_page
from tests.hand_bundle import NOTE, SETTINGS, make_dicom, make_wav
from tests.hand_network import MIXED, HandNetwork
from tests.live import running

FOLDER = Path(medfuse_serving.__file__).parent
FULL = {Modality.IMAGE: 0.04, Modality.NOTE: 0.3, Modality.VOICE: 0.004}
"""The default scale of integrated gradients; that of images is of a square of 224."""

RAMP = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
STUDY = Study(
    images=(make_dicom(RAMP), make_dicom(RAMP[:, ::-1].copy())), note=NOTE, voice=make_wav(3.0)
)
"""Of two views, both read, and three seconds of sound."""


def plant(view: View) -> dict[Modality, np.ndarray]:
    """Maps of which every piece is known: two areas, two groups of words, two spans."""
    image = np.zeros((2, 32, 32))
    full = view.scale.parts[Modality.IMAGE].full
    image[0, 8:16, 4:12] = 3 * full
    image[1, 16:26, 18:28] = -3 * full
    voice = np.zeros_like(view.values[Modality.VOICE])
    full = view.scale.parts[Modality.VOICE].full
    voice[50:100, 40:50] = 4 * full
    voice[180:230, 10:20] = -0.8 * full
    # [CLS] findings : cough and fever [SEP]
    note = np.array([0, 0.001, 0, 0.4, 0.2, -0.3, 0])
    return {Modality.IMAGE: image, Modality.NOTE: note, Modality.VOICE: voice}


@pytest.fixture(scope="module")
def explained(hand_bundle: Path) -> Explained:
    explainer = Explainer(Predictor(hand_bundle), None, HandNetwork(MIXED))
    settings = AttributionSettings(steps=2, most_steps=2)
    return explainer.explain(STUDY, "findings.brightness", settings)


def look_at(explained: Explained, values: Mapping[Modality, np.ndarray]) -> View:
    """Take up an explanation as if these were its maps."""
    maps = {m: v.astype(np.float32) for m, v in values.items()}
    attribution = replace(explained.explanation.attribution, values=maps)
    explanation = replace(explained.explanation, attribution=attribution)
    return make_view(replace(explained, explanation=explanation), SETTINGS, Scales())


@pytest.fixture(scope="module")
def view(explained: Explained) -> View:
    return look_at(explained, plant(make_view(explained, SETTINGS, Scales())))


@pytest.fixture(scope="module")
def faint(explained: Explained, view: View) -> View:
    """The same, too weak for any outline and any number of a word."""
    return look_at(explained, {m: 0.05 * values for m, values in view.values.items()})


def show_table(view: View) -> str:
    maps = Shelves().put(0, lambda _: b"")
    return table_html(ENGLISH, view.record, view.pieces, view.scale, maps, {})


def read_marks(maps: Shelf, number: int) -> str:
    """What is drawn over a frame."""
    piece = maps.make(number)
    (length,) = struct.unpack("<I", piece[:4])
    return str(json.loads(piece[4 : 4 + length])["marks"])


def visible(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def read_rows(table: str) -> list[list[str]]:
    """The cells of every row that is of a piece."""
    rows = re.findall(r'<tr[^>]*data-said="[^"]*">(.*?)</tr>', table)
    return [[visible(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_table_has_every_piece_with_its_number_and_its_part(view: View) -> None:
    places = [type(piece.place) for piece in view.pieces]
    assert places == [
        *(AreaPlace, AreaPlace, type(None)),
        *(WordsPlace, WordsPlace, type(None)),
        *(SpanPlace, SpanPlace, type(None)),
    ]
    rows = read_rows(show_table(view))
    note = rows[3:6]
    assert note == [
        ['"cough and"', "+0.60", "199 %", "Show"],
        ['"fever"', f"{MINUS}0.30", f"{MINUS}100 %", "Show"],
        ["Everything else", "0", "0 %", ""],
    ]
    seen = visible(show_table(view))
    named = "Sum of the map against a black image, masked words, silence: +0.30 logits"
    assert f"Note. {named}" in seen
    assert say_difference(ENGLISH, view.record) in seen
    assert "Evidence for and against brightness" in seen
    assert [cells[3] for cells in rows[6:]] == ["Show Play", "Show Play", ""]


def test_table_sentence_and_picture_have_the_same_numbers(view: View) -> None:
    table, shelves = show_table(view), Shelves()
    maps = shelve_maps(ENGLISH, view, shelves)
    drawn = "".join(read_marks(maps, number) for number in range(maps.count))
    drawn += voice_html(ENGLISH, view, STUDY.voice or b"", SETTINGS)
    sentences = visible(summary_html(ENGLISH, view.record, view.pieces))
    strongest: dict[Modality, Piece] = {}
    for piece, cells in zip(view.pieces, read_rows(table), strict=True):
        assert cells[1] == format_signed(piece.value)
        if isinstance(piece.place, AreaPlace | SpanPlace):
            number = rf'class="mf-number" data-evidence="{piece.id}"[^>]*>([^<]*)<'
            assert re.findall(number, drawn) == [cells[1]]
        share = view.record.shares.shares[piece.modality]
        if piece.place is not None and piece.value * share > 0:
            strongest.setdefault(piece.modality, piece)
    for modality, share in view.record.shares.shares.items():
        if view.record.sums[modality] * share > 0:
            assert f"from {say_piece(ENGLISH, strongest[modality])}." in sentences
    assert f"most of it from {say_piece(ENGLISH, strongest[Modality.NOTE])}" in sentences


def test_frames_are_counted_as_the_viewer_counts_them(view: View) -> None:
    numbered = number_frames(view.pieces, (None, 0, None, 1))
    before = [p.place.frame for p in view.pieces if isinstance(p.place, AreaPlace)]
    after = [p.place.frame for p in numbered if isinstance(p.place, AreaPlace)]
    assert sorted(before) == [1, 2]
    assert [{1: 2, 2: 4}[number] for number in before] == after
    assert [p.id for p in numbered] == [p.id for p in view.pieces]


def test_no_note_can_write_html_into_the_table(view: View) -> None:
    place = WordsPlace(start=0, end=9, text='<b>"${x}`')
    piece = Piece(id="note-0", modality=Modality.NOTE, value=1.0, share=1.0, place=place)
    maps = Shelves().put(0, lambda _: b"")
    shown = table_html(ENGLISH, view.record, (piece,), view.scale, maps, {})
    assert "<b>" not in shown
    assert not set("${}`") & set(shown)
    assert '<b>"${x}`' in visible(shown)


def test_where_sums_mean_nothing_no_part_is_shown(view: View) -> None:
    scale = replace(
        view.scale, parts={m: replace(p, additive=False) for m, p in view.scale.parts.items()}
    )
    pieces = tuple(p.model_copy(update={"share": None}) for p in view.pieces if p.place)
    maps = Shelves().put(0, lambda _: b"")
    shown = table_html(ENGLISH, view.record, pieces, scale, maps, {})
    assert "each area's strongest value, in logits per pixel" in visible(shown)
    assert "Shapley" not in visible(shown)  # there is no sum that it would differ from
    assert {cells[2] for cells in read_rows(shown)} == {""}


def test_the_table_speaks_the_reader_s_language(view: View) -> None:
    maps = Shelves().put(0, lambda _: b"")
    chinese = find_language("zh")
    shown = visible(table_html(chinese, view.record, view.pieces, view.scale, maps, {}))
    assert "依据表格" in shown
    assert "“cough and”" in shown
    assert "Show" not in shown


# In a browser


@dataclass
class Laid:
    """What the little page shows, for as long as it is held."""

    view: View
    frames: Frames
    maps: Shelf

    def page(self) -> str:
        own = self.view
        body = "".join(
            (
                header_html(ENGLISH),
                f'<div id="explanation">{summary_html(ENGLISH, own.record, own.pieces)}</div>',
                '<label id="overlays"><input type="checkbox"> Show the maps</label>',
                f'<div id="strength">{strength_html(self.maps)}</div>',
                f'<div id="image">{viewer_html(self.frames)}</div>',
                f'<div id="image-map">{image_html(ENGLISH, own, self.maps)}</div>',
                '<div id="note"><p>plain</p></div>',
                f'<div id="note-map">{note_html(ENGLISH, own)}</div>',
                '<div id="voice"></div>',
                '<div id="voice-map">'
                f"{voice_html(ENGLISH, own, STUDY.voice or b'', SETTINGS)}</div>",
                table_html(ENGLISH, own.record, own.pieces, own.scale, self.maps, {}),
            )
        )
        css = (FOLDER / "page.css").read_text(encoding="utf-8")
        scripts = "".join(
            f'<script type="module" src="web/{name}.js"></script>'
            for name in ("viewer", "evidence")
        )
        return (
            f"<!doctype html><style>{css}mf-viewer{{--mf-stage:300px}}</style>"
            f'<div class="gradio-container">{body}</div>{scripts}'
        )


@pytest.fixture(scope="module")
def url(view: View, faint: View) -> Iterator[str]:
    app, shelves = FastAPI(), Shelves()
    shelves.mount(app)
    app.mount("/web", StaticFiles(directory=FOLDER / "web"))
    frames = shelve_frames(ENGLISH, STUDY.images, SETTINGS, shelves)
    laid, weak = (Laid(own, frames, shelve_maps(ENGLISH, own, shelves)) for own in (view, faint))

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(laid.page())

    @app.get("/faint")
    def show_faint() -> HTMLResponse:
        return HTMLResponse(weak.page())

    with running(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@contextmanager
def reading(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        expect(page.locator(".mf-what")).to_contain_text("pixels")
        yield page


def find(view: View, modality: Modality, sign: int) -> Piece:
    (piece,) = (p for p in view.pieces if p.modality is modality and p.place and p.value * sign > 0)
    return piece


def row_of(page: Page, piece: Piece) -> Locator:
    return page.locator(f".mf-pieces tr[data-evidence='{piece.id}']")


def list_marked(page: Page) -> set[str]:
    """The names of all that is marked, in the viewer's shadow tree too."""
    marked = page.locator(".mf-marked").evaluate_all("all => all.map(e => e.dataset.evidence)")
    return set(marked)


def test_maps_are_off_at_first_and_the_evidence_is_plain(browser: Browser, url: str) -> None:
    with reading(browser, url) as page:
        for place in ("#note-map", "#voice-map", "#strength", ".mf-heat"):
            expect(page.locator(place)).to_be_hidden()
        expect(page.locator("#note")).to_be_visible()
        page.locator("#overlays input").check()
        for place in ("#note-map", "#voice-map", "#strength", ".mf-heat"):
            expect(page.locator(place)).to_be_visible()
        expect(page.locator("#note")).to_be_hidden()


@pytest.mark.parametrize("modality", list(Modality))
def test_to_point_at_a_row_marks_its_piece_and_the_other_way_round(
    browser: Browser, url: str, view: View, modality: Modality
) -> None:
    piece = find(view, modality, 1)
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        expect(page.locator(".mf-heat")).to_be_visible()
        page.locator(".mf-pieces summary").click()
        row = row_of(page, piece)
        row.hover()
        assert list_marked(page) == {piece.id}
        marked = page.locator(f".mf-marked[data-evidence='{piece.id}']")
        there = {Modality.IMAGE: 4, Modality.NOTE: 2, Modality.VOICE: 5}[modality]
        assert marked.count() == there  # the row; outline twice and number; the words; the button
        page.mouse.move(0, 0)
        assert list_marked(page) == set()
        # By the place itself.
        if modality is Modality.IMAGE:
            box = page.locator(".mf-stage").bounding_box()
            assert box
            page.locator(".mf-stage").scroll_into_view_if_needed()
            box = page.locator(".mf-stage").bounding_box()
            assert box
            # Rows 8 to 16 and columns 4 to 12 of the model's 32, which show 64 columns and 48 rows.
            scale = min(box["width"] / 64, box["height"] / 48)
            x = box["x"] + box["width"] / 2 + (16 - 32) * scale
            y = box["y"] + box["height"] / 2 + (2 * 12 - 8 - 24) * scale
            page.mouse.move(x, y)
        elif modality is Modality.NOTE:
            page.locator("a.mf-group", has_text="cough").hover()
        else:
            page.locator(f"rect[data-evidence='{piece.id}']").hover()
        assert list_marked(page) == {piece.id}
        expect(row).to_have_class("mf-marked")
        # And by keys.
        page.mouse.move(0, 0)
        row.get_by_role("button", name="Show").focus()
        assert list_marked(page) == {piece.id}
        page.locator("#overlays input").focus()
        assert list_marked(page) == set()


def test_a_mark_needs_no_colour(browser: Browser, url: str, view: View) -> None:
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        page.locator(".mf-pieces summary").click()
        words = page.locator("a.mf-group", has_text="cough")

        def style(place: Locator, name: str) -> str:
            return str(place.evaluate(f"e => getComputedStyle(e).{name}"))

        assert style(words, "outlineStyle") == "dotted"
        row_of(page, find(view, Modality.NOTE, 1)).hover()
        assert (style(words, "outlineStyle"), style(words, "outlineWidth")) == ("solid", "3px")
        word = words.locator(".mf-word > span").first
        assert style(word, "textDecorationLine") == "underline"
        row = row_of(page, find(view, Modality.IMAGE, 1))
        line = page.locator(f"path.mf-solid[data-evidence='{find(view, Modality.IMAGE, 1).id}']")
        before = style(line, "strokeWidth")
        row.hover()
        assert float(style(line, "strokeWidth")[:-2]) > 2 * float(before[:-2])
        assert style(row, "outlineStyle") == "solid"


def test_show_brings_up_the_frame_with_its_map_and_tells_it(
    browser: Browser, url: str, view: View
) -> None:
    piece = find(view, Modality.IMAGE, -1)  # on the second frame
    with reading(browser, url) as page:
        page.locator(".mf-pieces summary").press("Enter")
        row_of(page, piece).get_by_role("button", name="Show").press("Enter")
        expect(page.locator("#overlays input")).to_be_checked()
        expect(page.locator(".mf-what")).to_contain_text("Frame 2 of 2")
        expect(page.locator(".mf-spoken")).to_have_text(
            f"the area outlined in the lower right of frame 2 as it is shown: "
            f"{format_signed(piece.value)}"
        )
        line = page.locator(f"path.mf-dashed[data-evidence='{piece.id}']")
        expect(line).to_have_class("mf-dashed mf-marked")
        # The mark stays when the pointer leaves, until Escape.
        page.locator("#overlays input").hover()
        expect(line).to_have_class("mf-dashed mf-marked")
        page.keyboard.press("Escape")
        expect(line).to_have_class("mf-dashed")


def test_a_word_leads_to_its_row_and_its_row_to_it(browser: Browser, url: str, view: View) -> None:
    piece = find(view, Modality.NOTE, -1)
    with reading(browser, url) as page:
        page.set_viewport_size({"width": 800, "height": 300})
        page.locator("#overlays input").check()
        expect(page.locator(".mf-pieces")).not_to_have_attribute("open", "")
        word = page.locator("a.mf-group", has_text="fever")
        word.focus()
        page.keyboard.press("Enter")
        show = row_of(page, piece).get_by_role("button", name="Show")
        expect(show).to_be_focused()
        expect(show).to_be_in_viewport()
        expect(word).not_to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(word).to_be_in_viewport()
        assert page.url.endswith("/"), "the page went elsewhere"


def test_areas_are_gone_through_by_keys(browser: Browser, url: str, view: View) -> None:
    piece = find(view, Modality.IMAGE, 1)
    with reading(browser, url) as page:
        stage = page.locator(".mf-stage")
        stage.press("e")
        assert list_marked(page) == set()  # the maps are off
        page.locator("#overlays input").check()
        expect(page.locator(".mf-heat")).to_be_visible()
        assert "E goes through" in str(stage.get_attribute("aria-label"))
        stage.press("e")
        assert list_marked(page) == {piece.id}
        expect(page.locator(".mf-spoken")).to_contain_text("middle left of frame 1")
        stage.press("Enter")
        expect(row_of(page, piece).get_by_role("button", name="Show")).to_be_focused()


def now(page: Page) -> tuple[float, bool]:
    found = page.locator("#voice-map audio").evaluate("a => [a.currentTime, a.paused]")
    return found[0], found[1]


@pytest.mark.parametrize("by", ["the span", "its row by keys"])
def test_a_span_is_played_and_no_more(browser: Browser, url: str, view: View, by: str) -> None:
    piece = find(view, Modality.VOICE, -1)
    assert isinstance(piece.place, SpanPlace)
    start, end = piece.place.start_s, piece.place.end_s
    assert (start, end) == pytest.approx((1.8, 2.3), abs=0.05)
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        audio = page.locator("#voice-map audio")
        listen(audio)
        if by == "the span":
            button = page.locator(f"rect[data-evidence='{piece.id}']")
            button.click()
        else:
            page.locator(".mf-pieces summary").press("Enter")
            button = row_of(page, piece).get_by_role("button", name="Play")
            button.press("Enter")
        assert_played(button, audio, start, end)


def test_a_second_press_stops_a_span(browser: Browser, url: str, view: View) -> None:
    piece = find(view, Modality.VOICE, 1)
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        span = page.locator(f"rect[data-evidence='{piece.id}']")
        span.focus()
        page.keyboard.press("Enter")
        expect(span).to_have_attribute("aria-pressed", "true")
        page.wait_for_function("!document.querySelector('#voice-map audio').paused")
        page.keyboard.press("Space")
        expect(span).to_have_attribute("aria-pressed", "false")
        at, paused = now(page)
        assert paused
        assert isinstance(piece.place, SpanPlace)
        assert at < piece.place.end_s - 0.01


def test_a_hand_on_the_player_ends_the_watch(browser: Browser, url: str, view: View) -> None:
    piece = find(view, Modality.VOICE, 1)
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        span = page.locator(f"rect[data-evidence='{piece.id}']")
        page.locator("#voice-map audio").evaluate(  # at once, before the span can be over
            """a => {
                const look = () => {
                    if (a.paused || document.querySelector("[aria-pressed=true]") === null) return;
                    a.removeEventListener("timeupdate", look);
                    a.currentTime = 2;
                };
                a.addEventListener("timeupdate", look);
            }"""
        )
        span.click()
        page.wait_for_function("document.querySelector('#voice-map audio').currentTime >= 2")
        expect(span).to_have_attribute("aria-pressed", "false")
        page.wait_for_function("document.querySelector('#voice-map audio').currentTime > 2.3")
        assert now(page)[1] is False


def test_the_threshold_hides_weak_words_areas_and_colours(
    browser: Browser, url: str, view: View
) -> None:
    full = view.scale.parts[Modality.NOTE].full
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        expect(page.locator(".mf-heat")).to_be_visible()

        def numbers() -> list[str]:
            shown = page.locator(".mf-word small").all()
            return [s.inner_text() for s in shown if s.is_visible() and s.inner_text() != "0"]

        def opaque() -> int:
            return int(
                page.locator(".mf-heat").evaluate(
                    """c => {
                        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
                        return d.filter((value, i) => i % 4 === 3 && value > 0).length;
                    }"""
                )
            )

        every = numbers()
        assert {"+0.40", "+0.20", f"{MINUS}0.30"} <= set(every)
        whole = opaque()
        slider = page.get_by_role("slider", name="Hide what is weaker than")
        assert 0.2 / full == pytest.approx(2 / 3)
        slider.fill("70")
        assert set(numbers()) == {"+0.40", f"{MINUS}0.30"}
        assert 0 < opaque() < whole
        values = page.evaluate(
            "document.querySelector('#mf-strong feFuncA').getAttribute('tableValues').split(' ')"
        )
        # 70 % of the strongest colour's opacity, which is 0.75 of 255.
        first = next(i for i, v in enumerate(values) if float(v))
        assert first == np.ceil(0.7 * 0.75 * 255)
        assert float(values[200]) == pytest.approx(200 / 255)
        opacity = page.get_by_role("slider", name="Opacity of the map")
        opacity.fill("40")
        assert page.locator(".mf-heat").evaluate("e => getComputedStyle(e).opacity") == "0.4"
        assert page.locator(".mf-faded").evaluate("e => getComputedStyle(e).opacity") == "0.4"
        ground = page.locator(".mf-word", has_text="cough").locator("> span")
        colour = ground.evaluate("e => getComputedStyle(e).backgroundColor")
        assert float(colour.rstrip(")").split(",")[-1]) == pytest.approx(0.5 * 0.4, abs=0.01)


def test_a_weak_area_is_hidden_with_its_outline(browser: Browser, url: str, view: View) -> None:
    with reading(browser, url) as page:
        page.locator("#overlays input").check()
        piece = find(view, Modality.VOICE, -1)
        row = page.locator(f"path.mf-dashed[data-evidence='{piece.id}']")
        step = int(str(row.get_attribute("data-step")))
        assert step in (15, 16)
        slider = page.get_by_role("slider", name="Hide what is weaker than")
        slider.fill(str(5 * step))
        expect(row).to_be_visible()
        slider.fill(str(5 * (step + 1)))
        expect(row).to_be_hidden()
        expect(page.locator(f"rect[data-evidence='{piece.id}']")).to_be_hidden()


@pytest.mark.parametrize("modality", list(Modality))
def test_a_map_without_outlines_is_in_the_table_too(
    browser: Browser, url: str, faint: View, modality: Modality
) -> None:
    piece = next(p for p in faint.pieces if p.modality is modality and p.value > 0)
    assert piece.place is not None
    with reading(browser, f"{url}/faint") as page:
        assert page.locator(".mf-marks path:not(.mf-part)").count() == 0  # no outline anywhere
        page.locator(".mf-pieces summary").click()  # what comes under the pointer is not pointed at
        row = row_of(page, piece)
        number = say_number(piece.value, modality, faint.scale.parts[modality].full)
        expect(row).to_contain_text(number)
        row.get_by_role("button", name="Show").press("Enter")
        if modality is Modality.NOTE:
            expect(page.locator("#note-map a.mf-group.mf-marked")).to_have_text(re.compile("cough"))
            return
        line = page.locator(f"path.mf-solid[data-evidence='{piece.id}']")
        assert line.evaluate("e => getComputedStyle(e).stroke") == "rgb(255, 255, 255)"
        page.keyboard.press("Escape")
        assert line.evaluate("e => getComputedStyle(e).stroke") == "none"
        if modality is Modality.IMAGE:
            page.locator(".mf-stage").press("e")
            assert list_marked(page) == {piece.id}
            # Planted from row 8, column 4 on of the model's 32, which show 64 columns, 48 rows.
            assert line.evaluate("e => e.isPointInFill(new DOMPoint(12, 12))")
            return
        audio = page.locator("#voice-map audio")
        listen(audio)
        button = page.locator(f"rect[data-evidence='{piece.id}']")
        button.press("Enter")
        assert isinstance(piece.place, SpanPlace)
        assert (piece.place.start_s, piece.place.end_s) == (0.5, 1.0)
        assert_played(button, audio, 0.5, 1.0)
