"""The viewer in a real browser: every pixel on its canvas is what pydicom's VOI LUT gives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import RLELossless
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

import medfuse_serving
from medfuse.config import PrepareSettings
from medfuse.data.viewing import read_plane
from medfuse_serving.language import ENGLISH
from medfuse_serving.rendering import header_html
from medfuse_serving.shelves import Shelves
from medfuse_serving.viewer import Frames, shelve_frames, viewer_html
from tests.browser import open_browser, open_page, read_greys
from tests.dicom_files import encapsulated, make_dataset, make_file, read_file
from tests.live import running

WEB = Path(medfuse_serving.__file__).parent / "web"
SETTINGS = PrepareSettings()
STYLE = "mf-viewer{display:block;width:602px;--mf-stage:400px}"


@dataclass
class Desk:
    """What the little page shows, for as long as it is held."""

    frames: list[Frames] = field(default_factory=list)
    shelves: Shelves = field(default_factory=Shelves)

    def lay(self, *images: bytes) -> None:
        self.frames[:] = [shelve_frames(ENGLISH, images, SETTINGS, self.shelves)]


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def url(desk: Desk) -> Iterator[str]:
    app = FastAPI()
    desk.shelves.mount(app)
    app.mount("/web", StaticFiles(directory=WEB))

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(
            f"<!doctype html><style>{STYLE}</style>{header_html(ENGLISH)}"
            f"{viewer_html(desk.frames[0])}"
            '<script type="module" src="web/viewer.js"></script>'
        )

    with running(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@contextmanager
def looking(browser: Browser, desk: Desk, url: str, *images: bytes) -> Iterator[Page]:
    desk.lay(*images)
    with open_page(browser, url) as page:
        expect(page.locator(".mf-what")).to_contain_text("pixels")
        yield page


def brightness(data: bytes, window: tuple[float, float] | None = None) -> np.ndarray:
    """What pydicom makes of a one-frame image, from 0 to 255 and not rounded."""
    ds = pydicom.dcmread(BytesIO(data))
    modality = np.asarray(apply_modality_lut(ds.pixel_array, ds))
    if ds.get("VOILUTSequence") and window is None:
        shown = apply_voi(modality, ds) / (2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1)
    else:
        if window is not None:
            ds.WindowCenter, ds.WindowWidth = window
        ends = apply_windowing(np.array([-1e5, 1e5]), ds, index=0)
        shown = (apply_windowing(modality.astype(np.float64), ds, index=0) - ends[0]) / (
            ends[1] - ends[0]
        )
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if "PixelPaddingValue" in ds:
        shown[ds.pixel_array == ds.PixelPaddingValue] = 0
    return np.asarray(255 * shown)


def assert_nearest(canvas: np.ndarray, expected: np.ndarray) -> None:
    """Every pixel shows the nearest of 256 greys."""
    assert canvas.shape == expected.shape
    assert np.abs(canvas - expected).max() <= 0.5 + 1e-6


NOISE = np.random.default_rng(5)
WIDE = NOISE.integers(0, 4096, (37, 53)).astype(np.uint16)
SIGNED = NOISE.integers(-2000, 2000, (37, 53)).astype(np.int16)
TABLE = Dataset()
TABLE.LUTDescriptor = [4096, 0, 12]
TABLE.LUTData = np.rint(4095 * np.linspace(0, 1, 4096) ** 2).astype(np.uint16).tobytes()
TABLE["LUTData"].VR = "OW"

MADE: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "linear": (WIDE, {"WindowCenter": 2047.5, "WindowWidth": 511, "BitsStored": 12, "HighBit": 11}),
    "exact": (WIDE, {"WindowCenter": 1000, "WindowWidth": 510, "VOILUTFunction": "LINEAR_EXACT"}),
    "sigmoid": (WIDE, {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}),
    "threshold": (WIDE, {"WindowCenter": 2000, "WindowWidth": 1}),
    "hounsfield": (
        SIGNED,
        {
            "WindowCenter": 40,
            "WindowWidth": 400,
            "RescaleSlope": "0.37",
            "RescaleIntercept": "-11.3",
        },
    ),
    "bright for low": (
        WIDE,
        {"WindowCenter": 2047, "WindowWidth": 3000, "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "padded": (
        np.where(WIDE < 600, 5, WIDE).astype(np.uint16),
        {"WindowCenter": 900, "WindowWidth": 2000, "PixelPaddingValue": 5},
    ),
    "table": (WIDE, {"VOILUTSequence": [TABLE], "BitsStored": 12, "HighBit": 11}),
    "eight bits": (WIDE.astype(np.uint8), {"WindowCenter": 100, "WindowWidth": 90}),
    "thirty-two bits": (
        WIDE.astype(np.uint32) * 9,
        {"WindowCenter": 18_000, "WindowWidth": 20_000},
    ),
}


FOUND = ("MR_small.dcm", "examples_overlay.dcm", "vlut_04.dcm", "693_J2KR.dcm")


@pytest.mark.parametrize("name", [*MADE, *FOUND])
def test_every_pixel_is_what_pydicom_makes_of_it(
    name: str, browser: Browser, desk: Desk, url: str
) -> None:
    data = read_file(name) if name in FOUND else make_file(MADE[name][0], **MADE[name][1])
    with looking(browser, desk, url, data) as page:
        canvas = read_greys(page)
    assert_nearest(canvas, brightness(data))
    assert len(np.unique(canvas)) == 2 if name == "threshold" else len(np.unique(canvas)) > 50


def test_colour_is_shown_by_its_luminance(browser: Browser, desk: Desk, url: str) -> None:
    pixels = NOISE.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    data = make_file(pixels, PhotometricInterpretation="RGB")
    with looking(browser, desk, url, data) as page:
        canvas = read_greys(page)
    assert_nearest(canvas, pixels @ np.array([0.299, 0.587, 0.114]))


def test_a_window_by_hand_by_keys_and_by_drag_is_what_pydicom_makes_of_it(
    browser: Browser, desk: Desk, url: str
) -> None:
    data = make_file(SIGNED, WindowCenter=40, WindowWidth=400, Modality="CT")
    with looking(browser, desk, url, data) as page:
        window = [page.get_by_label(name, exact=True) for name in ("Level", "Width")]

        def assert_shown() -> tuple[float, float]:
            center, width = (float(box.input_value()) for box in window)
            assert_nearest(read_greys(page), brightness(data, (center, width)))
            return center, width

        assert assert_shown() == (40, 400)
        for field, typed in zip(window, ("-125", "901"), strict=True):
            field.fill(typed)
            field.press("Enter")
        assert assert_shown() == (-125, 901)
        page.get_by_role("combobox", name="Preset").select_option("Bone")
        assert assert_shown() == (400, 1800)
        stage = page.locator(".mf-stage")
        stage.press("2")
        assert assert_shown() == (-600, 1500)
        stage.press("ArrowDown")
        stage.press("ArrowRight")
        assert assert_shown() == (-525, 1575)
        box = stage.bounding_box()
        assert box
        page.mouse.move(box["x"] + 200, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 240, box["y"] + 180)
        page.mouse.up()
        # A screen's height, 400 px, is twice the width: 40 px are a fifth of it.
        assert assert_shown() == (-525 - 157.5, 1575 + 315)
        stage.press("r")
        assert assert_shown() == (40, 400)
        stage.press("i")
        inverted = read_greys(page)
        assert_nearest(inverted, 255 - brightness(data, (40, 400)))
        expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")


def test_a_level_and_a_width_are_taken_as_typed_or_refused_with_the_reason(
    browser: Browser, desk: Desk, url: str
) -> None:
    data = make_file(SIGNED, WindowCenter=40, WindowWidth=400, Modality="CT")
    with looking(browser, desk, url, data) as page:
        boxes = {name: page.get_by_label(name, exact=True) for name in ("Level", "Width")}
        fault = page.get_by_role("alert")
        applied = (
            "() => (w => [w.center, w.width])(document.querySelector('mf-viewer').state.window)"
        )

        def type_in(name: str, typed: str, end: str = "Enter") -> object:
            boxes[name].click(click_count=3)
            for key in typed:
                page.keyboard.press(key)
            expect(boxes[name]).to_have_value(typed)
            page.keyboard.press(end)
            expect(boxes[name]).to_have_value(typed)
            return page.evaluate(applied)

        assert type_in("Level", "12.5") == [12.5, 400]
        assert type_in("Level", "1000.25", end="Tab") == [1000.25, 400]
        assert type_in("Level", "123456") == [123456, 400]
        assert type_in("Level", "-600.125") == [-600.125, 400]
        assert type_in("Width", "1500.5", end="Tab") == [-600.125, 1500.5]
        expect(fault).to_be_hidden()
        for name, typed, reason in (
            ("Width", "-5", "greater than 0"),
            ("Width", "0.75", "at least 1"),
            ("Level", "12,5", "a number"),
        ):
            assert type_in(name, typed, end="Tab") == [-600.125, 1500.5]
            expect(boxes[name]).to_have_attribute("aria-invalid", "true")
            expect(fault.filter(has_text=reason)).to_be_visible()
            boxes[name].press("Escape")
            expect(boxes[name]).not_to_have_attribute("aria-invalid", "true")
        assert [box.input_value() for box in boxes.values()] == ["-600.125", "1500.5"]


def test_distances_are_in_mm_where_the_header_allows(
    browser: Browser, desk: Desk, url: str
) -> None:
    pixels = np.zeros((100, 100), np.uint16)
    for spacing in ([0.5, 0.25], None):
        elements = {} if spacing is None else {"PixelSpacing": spacing}
        with looking(browser, desk, url, make_file(pixels, **elements)) as page:
            page.get_by_role("button", name="Measure").click()
            stage = page.locator(".mf-stage")
            box = stage.bounding_box()
            assert box
            # The picture is fitted in height: 400 px are 100 rows, so 4 px a row and, where a
            # column is half as wide as a row is tall, 2 px a column.
            start = (box["x"] + 300, box["y"] + 200)
            page.mouse.move(*start)
            page.mouse.down()
            page.mouse.move(start[0] + 40, start[1] + 120)
            page.mouse.up()
            shown = page.locator(".mf-measure text").text_content()
            expect(page.get_by_role("status")).to_have_text(shown or "nothing")
            if spacing is None:
                assert shown == f"{np.hypot(10, 30):.0f} pixels"
            else:
                assert shown == f"{np.hypot(20 * 0.25, 30 * 0.5):.1f} mm, plane not stated"
            # And by keys: from the middle, eight pixels of the screen a stroke.
            stage.press("m")
            stage.press("Enter")
            for _ in range(5):
                stage.press("ArrowDown")
            shown = page.locator(".mf-measure text").text_content()
            assert shown == ("10 pixels" if spacing is None else "5.0 mm, plane not stated")


def test_where_a_spacing_holds_is_read_and_said() -> None:
    projection = {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2], "Modality": "DX"}
    for elements, plane in (
        ({}, None),
        (projection, "detector"),
        (projection | {"PixelSpacing": [0.15, 0.15]}, "calibrated"),
        (projection | {"PixelSpacingCalibrationType": "FIDUCIAL"}, "calibrated"),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, "detector"),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, "film"),
        ({"PixelSpacing": [0.2, 0.2], "Modality": "DX"}, "unstated"),
        ({"PixelSpacing": [0.7, 0.7], "Modality": "CT"}, "patient"),
    ):
        assert read_plane(make_dataset(WIDE, **elements), 0) == plane
    uneven = make_file(WIDE, ImagerPixelSpacing=[0.4, 0.8])
    desk = Desk()
    desk.lay(uneven)
    piece = desk.frames[0].shelf.make(0)
    (length,) = np.frombuffer(piece[:4], "<u4")
    header = json.loads(piece[4 : 4 + length])
    assert header["caption"] == (
        "53 \N{MULTIPLICATION SIGN} 37 pixels of 0.8 \N{MULTIPLICATION SIGN} 0.4 mm at the detector"
    )
    assert header["length"] == "{length} mm at the detector"


def test_a_measured_line_and_its_length_stay_in_the_picture(
    browser: Browser, desk: Desk, url: str
) -> None:
    pixels = np.zeros((100, 100), np.uint16)
    data = make_file(pixels, ImagerPixelSpacing=[0.5, 0.5])
    with looking(browser, desk, url, data) as page:
        page.get_by_role("button", name="Measure").click()
        box = page.locator(".mf-stage").bounding_box()
        assert box
        # The picture is the 400 px in the middle of 602: the line ends left and right of it.
        y = box["y"] + 3
        page.mouse.move(box["x"] + 20, y)
        page.mouse.down()
        page.mouse.move(box["x"] + 590, y)
        page.mouse.up()
        said = page.locator(".mf-measure text")
        expect(said).to_have_text("50.0 mm at the detector")
        for _ in range(2):
            seen = said.bounding_box()
            assert seen
            assert box["x"] <= seen["x"]
            assert seen["x"] + seen["width"] <= box["x"] + box["width"]
            assert box["y"] <= seen["y"]
            page.get_by_role("button", name="Zoom in").click()


def test_the_wheel_over_one_frame_scrolls_the_page(browser: Browser, desk: Desk, url: str) -> None:
    with looking(browser, desk, url, make_file(WIDE)) as page:
        page.set_viewport_size({"width": 700, "height": 300})
        zoom = page.locator(".mf-how").inner_text()
        page.locator(".mf-stage").hover(position={"x": 50, "y": 20})
        page.mouse.wheel(0, 100)
        page.wait_for_function("scrollY > 50")
        assert page.locator(".mf-how").inner_text() == zoom


def test_frames_are_turned_by_wheel_keys_and_slider_and_say_what_is_read(
    browser: Browser, desk: Desk, url: str
) -> None:
    values = np.arange(40, dtype=np.uint16)
    data = make_file(np.tile(values[:, None, None], (1, 6, 8)), WindowCenter=20, WindowWidth=40)
    with looking(browser, desk, url, data) as page:
        what, stage = page.locator(".mf-what"), page.locator(".mf-stage")

        def assert_frame(number: int) -> None:
            expect(what).to_contain_text(f"Frame {number} of 40")
            page.wait_for_function(
                "grey => document.querySelector('mf-viewer').shadowRoot"
                ".querySelector('.mf-pixels').getContext('2d')"
                ".getImageData(0, 0, 1, 1).data[0] === grey",
                arg=int(np.floor(255 * ((number - 1 - 19.5) / 39 + 0.5) + 0.5)),
            )

        assert_frame(1)
        stage.hover()
        page.mouse.wheel(0, 100)
        assert_frame(2)
        stage.press("PageDown")
        assert_frame(3)
        stage.press("End")
        assert_frame(40)
        page.get_by_role("slider", name="Frame").fill("12")
        assert_frame(12)
        # 32 of 40 are read, evenly chosen; the others are shown all the same.
        assert desk.frames[0].read.count(None) == 8
        skipped = desk.frames[0].read.index(None)
        page.get_by_role("slider", name="Frame").fill(str(skipped + 1))
        expect(what).to_contain_text("not read by the model")


def test_zoom_and_pan_keep_the_point_under_the_pointer(
    browser: Browser, desk: Desk, url: str
) -> None:
    pixels = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    with looking(browser, desk, url, make_file(pixels)) as page:
        stage, point = page.locator(".mf-stage"), page.locator(".mf-point")
        box = stage.bounding_box()
        assert box
        page.mouse.move(box["x"] + 250, box["y"] + 90)
        expect(point).to_contain_text("(37, 22): 2237")
        page.keyboard.down("Control")
        page.mouse.wheel(0, -100)
        page.mouse.wheel(0, -100)
        page.keyboard.up("Control")
        expect(page.locator(".mf-how")).to_contain_text("zoom 625 %")  # 400 % times 1.25 twice
        page.mouse.move(box["x"] + 251, box["y"] + 91)
        expect(point).to_contain_text("(37, 22): 2237")
        page.get_by_role("button", name="Move").click()
        page.mouse.move(box["x"] + 250, box["y"] + 90)
        page.mouse.down()
        page.mouse.move(box["x"] + 281.25, box["y"] + 90)  # five columns at 6.25 px
        page.mouse.up()
        expect(point).to_contain_text("(37, 22): 2237")
        page.get_by_role("button", name="One pixel of the screen").click()
        expect(page.locator(".mf-how")).to_contain_text("zoom 100 %")


def test_a_frame_that_cannot_be_decoded_is_told_in_words(
    browser: Browser, desk: Desk, url: str
) -> None:
    desk.lay(encapsulated(make_dataset(WIDE), RLELossless, [b"\x07" * 100]))
    with open_page(browser, url) as page:
        expect(page.locator(".mf-what")).to_contain_text("an RLE frame has")
        expect(page.locator(".mf-layers")).to_be_hidden()


def test_nobody_else_can_ask_for_a_piece_and_none_outlives_its_desk(url: str) -> None:
    desk = Desk()
    desk.lay(make_file(WIDE))
    token = desk.frames[0].shelf.token
    assert desk.shelves.find(token, 0) is not None
    assert desk.shelves.find(token, 1) is None
    assert desk.shelves.find(token, -1) is None
    assert len(token) >= 43
    assert token not in repr(desk.frames[0].shelf)
    # Another desk's shelves do not have it, and their door says no more than that.
    for path in (f"{token}/0", "x/0", "x/x", f"{token}/0/.."):
        response = httpx.get(f"{url}/shelves/{path}")
        assert response.status_code in (404, 422)
    desk.frames.clear()
    assert desk.shelves.find(token, 0) is None


def test_a_piece_is_never_kept_by_the_browser(desk: Desk, url: str) -> None:
    desk.lay(make_file(WIDE))
    response = httpx.get(f"{url}/shelves/{desk.frames[0].shelf.token}/0")
    assert response.headers["cache-control"] == "no-store"
    (length,) = np.frombuffer(response.content[:4], "<u4")
    assert (4 + length) % 8 == 0
    values = np.frombuffer(response.content[4 + length :], "<u2").reshape(WIDE.shape)
    np.testing.assert_array_equal(values, WIDE)
