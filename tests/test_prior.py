"""The earlier study: who it is of, that no model reads it, and that two viewers move as one."""

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Locator, Page, expect
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from medfuse.data.dicom import Identity
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.prior import (
    Prior,
    lay_prior,
    say_dates,
    say_doubts,
    show_prior,
    turn_prior,
)
from medfuse_serving.rendering import header_html
from medfuse_serving.shelves import Shelves
from medfuse_serving.viewer import (
    Frames,
    list_identities,
    prior_html,
    shelve_frames,
    viewer_html,
)
from tests.browser import open_browser, open_page, read_greys
from tests.dicom_files import make_file
from tests.hand_bundle import SETTINGS, make_dicom
from tests.live import running
from tests.test_viewer import WEB, assert_nearest, brightness

STYLE = "body{display:flex}header{display:none}mf-viewer{flex:none;width:400px;--mf-stage:300px}"
RAMP = np.arange(6000, dtype=np.uint16).reshape(60, 100)
OLDER = np.arange(3200, dtype=np.uint16)[::-1].reshape(40, 80).copy()


# What is said of it


def of(patient: str | None, study: str | None) -> frozenset[Identity]:
    return frozenset({Identity(patient, study)})


def test_another_patient_and_the_same_study_are_told() -> None:
    assert say_doubts(ENGLISH, of("P1", "1.2"), of("P1", "1.3")) == ()
    (other,) = say_doubts(ENGLISH, of("P1", "1.2"), of("P2", "1.3"))
    assert "more than one patient" in other
    (same,) = say_doubts(ENGLISH, of("P1", "1.2"), of("P1", "1.2"))
    assert "same study" in same
    (unnamed,) = say_doubts(ENGLISH, of(None, None), of("P1", None))
    assert "Not every header" in unnamed


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_the_day_of_each_study_is_said_and_a_prior_that_is_later_is_told() -> None:
    def made(*days: str) -> frozenset[Identity]:
        files = [make_dicom(RAMP, study_date=day) for day in days]
        return list_identities(files, SETTINGS.limits)

    earlier, later = made("20250131"), made("20300101")
    assert say_dates(ENGLISH, made("20250131", "2024.02.29")) == "Study date 2024-02-29, 2025-01-31"
    for unknown in ("", "20250231", "2025"):
        assert say_dates(ENGLISH, made(unknown)) == "Study date not given"
        assert len(say_doubts(ENGLISH, later, made(unknown))) == 1
    (same,) = say_doubts(ENGLISH, earlier, later)
    assert "the same study" in same
    _, late = say_doubts(ENGLISH, later, earlier)
    assert "later than the present" in late
    prior = lay_prior(ENGLISH, (make_dicom(RAMP, study_date="20250131"),), SETTINGS, Shelves())
    assert "Study date 2025-01-31" in show_prior(ENGLISH, prior, earlier)


NAMES = st.sampled_from([None, "P1", "P2"])


@given(st.frozensets(st.builds(Identity, NAMES, NAMES)))
def test_without_a_doubt_every_header_names_the_same_patient(prior: frozenset[Identity]) -> None:
    doubts = say_doubts(ENGLISH, prior, of("P1", "P0"))
    assert (doubts == ()) == all(identity.patient_id == "P1" for identity in prior)


def test_the_headers_are_read_and_never_shown() -> None:
    shelves = Shelves()
    prior = lay_prior(ENGLISH, (make_dicom(RAMP, "PATIENT ONE", "1.9"),), SETTINGS, shelves)
    assert "mf-doubt" not in show_prior(ENGLISH, prior, of("PATIENT ONE", "1.2.3"))
    other = show_prior(ENGLISH, prior, of("PATIENT TWO", "1.2.3"))
    assert "more than one patient" in unescape(other)
    assert not re.search("PATIENT|1\\.9", other)


def test_what_cannot_be_shown_is_told_in_its_place() -> None:
    prior = lay_prior(ENGLISH, (b"no image",), SETTINGS, Shelves())
    assert prior.frames is None
    shown = show_prior(ENGLISH, prior, frozenset())
    assert 'role="alert"' in shown
    assert "not a DICOM file" in unescape(shown)
    assert show_prior(ENGLISH, Prior(), of("P1", "1.2")) == ""


def read_caption(frames: Frames) -> str:
    piece = frames.shelf.make(0)
    (length,) = struct.unpack("<I", piece[:4])
    return str(json.loads(piece[4 : 4 + length])["caption"])


def test_windows_are_named_in_the_reader_s_language() -> None:
    files = make_file(RAMP, WindowCenter=[40, 60], WindowWidth=[400, 500], Modality="CT")
    for code, named in (("en", ["Window 1", "Window 2", "Lung"]), ("zh", ["窗 1", "窗 2", "肺窗"])):
        frames = shelve_frames(find_language(code), (files,), SETTINGS, Shelves())
        piece = frames.shelf.make(0)
        (length,) = struct.unpack("<I", piece[:4])
        views = json.loads(piece[4 : 4 + length])["views"]
        assert [view["name"] for view in views][:3] == named


def test_its_captions_say_which_study_it_is_in_the_reader_s_language() -> None:
    shelves = Shelves()
    prior = lay_prior(ENGLISH, (make_dicom(RAMP),), SETTINGS, shelves)
    assert prior.frames is not None
    assert prior.frames.read == (None,)
    assert read_caption(prior.frames).startswith("Prior study, frame 1 of 1")
    turned = turn_prior(prior, find_language("zh"), SETTINGS, shelves)
    assert turned.frames is not None
    assert read_caption(turned.frames).startswith("既往检查")
    assert shelves.find(prior.frames.shelf.token, 0) is not None
    token = prior.frames.shelf.token
    del prior
    assert shelves.find(token, 0) is None


# Two viewers


@dataclass
class Two:
    """What the little page shows, for as long as it is held."""

    frames: list[Frames] = field(default_factory=list)
    shelves: Shelves = field(default_factory=Shelves)

    def lay(self, present: tuple[bytes, ...], prior: tuple[bytes, ...]) -> None:
        laid = lay_prior(ENGLISH, prior, SETTINGS, self.shelves).frames
        assert laid is not None
        self.frames[:] = [shelve_frames(ENGLISH, present, SETTINGS, self.shelves), laid]


@pytest.fixture(scope="module")
def two() -> Two:
    return Two()


@pytest.fixture(scope="module")
def url(two: Two) -> Iterator[str]:
    app = FastAPI()
    two.shelves.mount(app)
    app.mount("/web", StaticFiles(directory=WEB))

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(
            f"<!doctype html><style>{STYLE}</style>{header_html(ENGLISH)}"
            f"{viewer_html(two.frames[0], 'Present study')}"
            f"{prior_html(two.frames[1], 'Prior study')}"
            '<script type="module" src="web/viewer.js"></script>'
        )

    with running(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@contextmanager
def comparing(
    browser: Browser, two: Two, url: str, present: bytes, prior: bytes
) -> Iterator[tuple[Page, Locator, Locator]]:
    two.lay((present,), (prior,))
    with open_page(browser, url) as page:
        both = page.locator("mf-viewer:not([data-prior])"), page.locator("mf-viewer[data-prior]")
        for viewer in both:
            expect(viewer.locator(".mf-what")).to_contain_text("pixels")
        yield page, *both


def find_middle(viewer: Locator) -> tuple[float, float, float]:
    """Give the column and row in the middle of the stage, and the pixels of the screen a column."""
    found: list[float] = viewer.evaluate(
        """viewer => {
            const find = (selector) => viewer.shadowRoot.querySelector(selector);
            const [stage, layers] = [find(".mf-stage"), find(".mf-layers")];
            const { a, d, e, f } = new DOMMatrix(getComputedStyle(layers).transform);
            return [(stage.clientWidth / 2 - e) / a, (stage.clientHeight / 2 - f) / d, a];
        }"""
    )
    return found[0], found[1], found[2]


def assert_in_mm(present: Locator, prior: Locator) -> None:
    """Both show the same mm around the middle of their pictures, a mm in as many pixels."""
    column, row, scale = find_middle(present)
    own_column, own_row, own_scale = find_middle(prior)
    assert own_scale / 0.8 == pytest.approx(scale / 0.5, rel=1e-6)
    assert (own_column - 40) * 0.8 == pytest.approx((column - 50) * 0.5, abs=1e-3)
    assert (own_row - 20) * 0.8 == pytest.approx((row - 30) * 0.5, abs=1e-3)


def make_two(**elements: Any) -> tuple[bytes, bytes]:
    window = {"WindowCenter": 3000, "WindowWidth": 6000}
    return (
        make_file(RAMP, PixelSpacing=[0.5, 0.5], **window, **elements),
        make_file(OLDER, PixelSpacing=[0.8, 0.8], WindowCenter=1500, WindowWidth=2000, **elements),
    )


def test_two_studies_stay_in_step_in_mm_by_wheel_drag_and_keys(
    browser: Browser, two: Two, url: str
) -> None:
    with comparing(browser, two, url, *make_two()) as (page, present, prior):
        expect(page.locator("mf-pair .mf-how")).to_have_text("Moves with the present study, in mm")
        assert_in_mm(present, prior)
        assert find_middle(present) == pytest.approx((50, 30, 4.0), abs=1e-3)  # 400 px wide
        box = present.locator(".mf-stage").bounding_box()
        assert box
        page.mouse.move(box["x"] + 120, box["y"] + 40)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -100)
        page.mouse.wheel(0, -100)
        page.keyboard.up("Control")
        expect(present.locator(".mf-how")).to_contain_text("zoom 625 %")
        expect(prior.locator(".mf-how")).to_contain_text("zoom 1000 %")
        assert_in_mm(present, prior)
        moved = find_middle(present)
        # A hand on the earlier study moves the present one.
        prior.get_by_role("button", name="Move").click()
        box = prior.locator(".mf-stage").bounding_box()
        assert box
        page.mouse.move(box["x"] + 200, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 170, box["y"] + 160)
        page.mouse.up()
        assert_in_mm(present, prior)
        # 30 px to the left are three columns of 0.8 mm, which are 4.8 of 0.5 mm.
        expected = (moved[0] + 4.8, moved[1] - 1.6, moved[2])
        assert find_middle(present) == pytest.approx(expected, abs=1e-3)
        for key in ("+", "Shift+ArrowLeft", "-", "Shift+ArrowUp", "n"):
            present.locator(".mf-stage").press(key)
            assert_in_mm(present, prior)
        assert find_middle(present)[2] == pytest.approx(1)
        prior.locator(".mf-stage").press("r")
        assert_in_mm(present, prior)
        # And every pixel of both is still what pydicom makes of it.
        for viewer, data in zip((present, prior), make_two(), strict=True):
            assert_nearest(read_greys(viewer), brightness(data))


def test_without_both_spacings_they_go_by_their_relative_place(
    browser: Browser, two: Two, url: str
) -> None:
    present_file = make_file(RAMP, WindowCenter=3000, WindowWidth=6000)
    prior_file = make_file(OLDER, WindowCenter=1500, WindowWidth=2000, PixelSpacing=[0.8, 0.8])
    with comparing(browser, two, url, present_file, prior_file) as (page, present, prior):
        expect(page.locator("mf-pair .mf-how")).to_contain_text("by its relative place")
        assert find_middle(prior) == pytest.approx((40, 20, 5.0), abs=1e-3)
        box = present.locator(".mf-stage").bounding_box()
        assert box
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -100)
        page.keyboard.up("Control")
        column, row, scale = find_middle(present)
        assert scale == pytest.approx(5.0)
        expected = (column / 100 * 80, row / 60 * 40, 5.0 * 1.25)
        assert find_middle(prior) == pytest.approx(expected, abs=1e-3)


def test_the_link_is_taken_off_and_on_by_button_and_key(
    browser: Browser, two: Two, url: str
) -> None:
    with comparing(browser, two, url, *make_two()) as (page, present, prior):
        link = page.get_by_role("button", name="Move together")
        expect(link).to_have_attribute("aria-pressed", "true")
        link.press("Space")
        expect(link).to_have_attribute("aria-pressed", "false")
        expect(page.locator("mf-pair [role=status]")).to_have_text("Moves by itself")
        before = find_middle(prior)
        present.locator(".mf-stage").press("+")
        assert find_middle(prior) == before
        assert find_middle(present)[2] == pytest.approx(5)
        prior.locator(".mf-stage").press("l")  # the present one had the last hand on it
        expect(link).to_have_attribute("aria-pressed", "true")
        assert_in_mm(present, prior)
        assert find_middle(present)[2] == pytest.approx(5)


def test_the_same_window_is_an_option(browser: Browser, two: Two, url: str) -> None:
    first, second = make_two()
    with comparing(browser, two, url, first, second) as (page, present, prior):
        level = prior.get_by_label("Level", exact=True)
        present.locator(".mf-stage").press("ArrowDown")
        expect(present.get_by_label("Level", exact=True)).to_have_value("3300")
        expect(level).to_have_value("1500")
        present.locator(".mf-stage").press("s")
        expect(page.get_by_role("button", name="Same window")).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(level).to_have_value("3300")
        assert_nearest(read_greys(prior), brightness(second, (3300, 6000)))
        prior.get_by_label("Width", exact=True).fill("500")
        prior.get_by_label("Width", exact=True).press("Enter")
        expect(present.get_by_label("Width", exact=True)).to_have_value("500")
        assert_nearest(read_greys(present), brightness(first, (3300, 500)))
        prior.locator(".mf-stage").press("i")
        assert_nearest(read_greys(present), 255 - brightness(first, (3300, 500)))


def test_frames_are_turned_together_by_their_relative_place(
    browser: Browser, two: Two, url: str
) -> None:
    window = {"WindowCenter": 4, "WindowWidth": 9}
    stacks = [
        make_file(np.tile(np.arange(n, dtype=np.uint16)[:, None, None], (1, 6, 8)), **window)
        for n in (9, 5)
    ]
    with comparing(browser, two, url, stacks[0], stacks[1]) as (page, present, prior):
        present.locator(".mf-stage").press("End")
        expect(prior.locator(".mf-what")).to_contain_text("Prior study, frame 5 of 5")
        present.get_by_role("slider", name="Frame").fill("4")  # 3 of 8 steps: 1.5 of 4 are 2
        expect(prior.locator(".mf-what")).to_contain_text("frame 3 of 5")
        prior.locator(".mf-stage").hover()
        page.mouse.wheel(0, 100)
        expect(present.locator(".mf-what")).to_contain_text("Frame 7 of 9")
        present.locator(".mf-stage").press("l")
        present.locator(".mf-stage").press("Home")
        expect(present.locator(".mf-what")).to_contain_text("Frame 1 of 9")
        expect(prior.locator(".mf-what")).to_contain_text("frame 4 of 5")


def test_one_frame_has_no_place_among_others(browser: Browser, two: Two, url: str) -> None:
    stack = make_file(np.zeros((5, 6, 8), np.uint16))
    with comparing(browser, two, url, make_file(RAMP), stack) as (_, present, prior):
        prior.locator(".mf-stage").press("PageDown")
        expect(prior.locator(".mf-what")).to_contain_text("frame 2 of 5")
        present.locator(".mf-stage").press("+")
        expect(prior.locator(".mf-what")).to_contain_text("frame 2 of 5")


def test_who_does_not_see_them_is_told_which_is_which(browser: Browser, two: Two, url: str) -> None:
    with comparing(browser, two, url, *make_two()) as (page, present, prior):
        for viewer, name in ((present, "Present study"), (prior, "Prior study")):
            expect(page.get_by_role("group", name=name, exact=True)).to_be_visible()
            label = viewer.locator(".mf-stage").get_attribute("aria-label") or ""
            assert label.startswith(f"{name}: Image.")
            assert "L links the two studies" in label
