"""medfuse.data.image: frames fitted into the model's square, and maps taken back to native."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import map_coordinates

from medfuse.config import Box, ImageSettings, Limits
from medfuse.data.image import blank, fit_square, prepare_images, resize, to_native
from medfuse.errors import DicomError
from medfuse.types import FrameGeometry, Modality
from tests.dicom_files import make_file, read_file

LIMITS = Limits()
sides = st.integers(1, 700)


def fit(rows: int, columns: int, size: int = 224) -> FrameGeometry:
    return fit_square(instance=0, frame=0, rows=rows, columns=columns, size=size)


def wide(mark: int = 100, **elements: object) -> bytes:
    """A 100 x 200 frame of one value within a window from 0 to 200."""
    window = {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}
    return make_file(np.full((100, 200), mark, np.uint16), **{**window, **elements})


# --- into the square -----------------------------------------------------------------------


def test_a_wide_frame_is_centred_with_padding_above_and_below() -> None:
    prepared, remarks = prepare_images([wide()], ImageSettings(size=64), LIMITS)
    (square,), (geometry,) = prepared.values, prepared.geometry
    assert (geometry.rows, geometry.columns, geometry.size) == (100, 200, 64)
    assert (geometry.top, geometry.left, geometry.height, geometry.width) == (16, 0, 32, 64)
    np.testing.assert_allclose(square[16:48], 0.5, atol=1e-6)
    assert not square[:16].any()
    assert not square[48:].any()
    assert remarks == ()


@given(sides, sides, st.sampled_from([32, 224, 512]))
def test_the_shown_part_fits_the_square_and_fills_its_longer_side(
    rows: int, columns: int, size: int
) -> None:
    geometry = fit(rows, columns, size)
    assert max(geometry.height, geometry.width) == size
    assert 0 <= geometry.top <= size - geometry.height
    assert 0 <= geometry.left <= size - geometry.width
    # Rounding to whole pixels moves either side by half of one at most.
    assert abs(geometry.height - max(1, rows * size / max(rows, columns))) <= 0.5
    assert abs(geometry.width - max(1, columns * size / max(rows, columns))) <= 0.5


def test_shrinking_averages_and_does_not_alias() -> None:
    # Stripes finer than the model's pixels are grey to it; picking every 8th makes them bands.
    stripes = np.tile(np.array([[0.0, 1.0]], np.float32), (512, 256))
    shown = resize(stripes, 61, 61)
    assert abs(shown - 0.5).max() < 0.02


@settings(deadline=None)
@given(sides, sides, sides, sides)
def test_resizing_keeps_a_flat_image_flat(rows: int, columns: int, high: int, wide: int) -> None:
    flat = np.full((rows, columns), 0.25, np.float32)
    np.testing.assert_allclose(resize(flat, high, wide), 0.25, atol=1e-6)


def test_enlarging_agrees_with_bilinear_interpolation_of_scipy() -> None:
    image = np.random.default_rng(0).random((7, 9), dtype=np.float32)
    rows, columns = 40, 33
    row = (np.arange(rows) + 0.5) * 7 / rows - 0.5
    column = (np.arange(columns) + 0.5) * 9 / columns - 0.5
    grid = np.meshgrid(row, column, indexing="ij")
    expected = map_coordinates(image, grid, order=1, mode="nearest")
    np.testing.assert_allclose(resize(image, rows, columns), expected, atol=1e-5)


# --- and back ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(20, 900),
    columns=st.integers(20, 900),
    where=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
    size=st.sampled_from([64, 224]),
)
def test_a_spot_comes_back_to_within_a_pixel_of_where_it_was(
    rows: int, columns: int, where: tuple[float, float], size: int
) -> None:
    centre = np.array([where[0] * rows - 0.5, where[1] * columns - 0.5])
    radius = 0.05 * min(rows, columns) + max(rows, columns) / size
    row, column = np.mgrid[:rows, :columns]
    distance = np.hypot(row - centre[0], column - centre[1])
    spot = np.exp(-((distance / radius) ** 2)).astype(np.float32)
    geometry = fit(rows, columns, size)
    square = np.zeros((size, size), np.float32)
    inside = np.s_[
        geometry.top : geometry.top + geometry.height,
        geometry.left : geometry.left + geometry.width,
    ]
    square[inside] = resize(spot, geometry.height, geometry.width)
    back = to_native(square, geometry)
    assert back.shape == spot.shape
    # A pixel of whichever grid is coarser is as fine as a place can be known.
    pixel = max(1.0, max(rows, columns) / size)
    peak = np.unravel_index(back.argmax(), back.shape)
    assert np.hypot(*(np.array(peak) - centre)) <= 1.5 * pixel
    # Mass is kept as a density: the mean over the frame stays.
    assert back.mean() == pytest.approx(float(spot.mean()), rel=0.1, abs=1e-3)


def test_a_map_over_the_padding_does_not_come_back() -> None:
    geometry = fit(100, 200, 64)
    square = np.full((64, 64), 7.0)
    square[16:48] = -1.0
    np.testing.assert_allclose(to_native(square, geometry), np.full((100, 200), -1.0))


def test_one_model_pixel_comes_back_over_its_own_native_pixels() -> None:
    # 64 model pixels show 512, so pixel (10, 20) covers rows 80 to 87 and columns 160 to 167.
    square = np.zeros((64, 64))
    square[10, 20] = 1.0
    back = to_native(square, fit(512, 512, 64))
    row, column = np.mgrid[:512, :512]
    assert (row * back).sum() / back.sum() == pytest.approx(83.5, abs=1e-3)
    assert (column * back).sum() / back.sum() == pytest.approx(163.5, abs=1e-3)
    assert back.sum() == pytest.approx(64, rel=1e-4)
    assert back[80:88, 160:168].min() > 0.25


# --- studies -------------------------------------------------------------------------------


def test_frames_left_out_and_missing_windows_are_remarked_once() -> None:
    loop = np.zeros((6, 8, 8), np.uint16)
    prepared, remarks = prepare_images([make_file(loop)], ImageSettings(frames=4), LIMITS)
    assert prepared.values.shape == (4, 224, 224)
    assert [remark.code for remark in remarks] == ["window-missing", "frames-skipped"]
    assert all(remark.modality is Modality.IMAGE for remark in remarks)
    assert remarks[1].message.startswith("4 of 6 frames")


def test_views_of_different_sizes_share_one_square() -> None:
    tall = make_file(np.zeros((30, 10), np.uint8), SeriesNumber=2)
    prepared, _ = prepare_images([tall, wide(SeriesNumber=1)], ImageSettings(size=64), LIMITS)
    assert [(g.instance, g.rows, g.columns) for g in prepared.geometry] == [
        (1, 100, 200),
        (0, 30, 10),
    ]


def test_pictures_are_prepared_like_dicom_where_the_setting_allows_them() -> None:
    buffer = BytesIO()
    Image.fromarray(np.full((100, 200), 51, np.uint8)).save(buffer, "PNG")
    allowed = ImageSettings(size=64, pictures=True)
    prepared, _ = prepare_images([buffer.getvalue(), wide(SeriesNumber=1)], allowed, LIMITS)
    assert [geometry.instance for geometry in prepared.geometry] == [1, 0]
    np.testing.assert_allclose(prepared.values[1, 16:48], 0.2, atol=1e-6)
    with pytest.raises(DicomError, match=r"image\.pictures"):
        prepare_images([buffer.getvalue()], ImageSettings(), LIMITS)


def test_lossless_encodings_of_a_radiograph_are_prepared_identically() -> None:
    one, _ = prepare_images([read_file("RG1_UNCR.dcm")], ImageSettings(), LIMITS)
    other, _ = prepare_images([read_file("RG1_J2KR.dcm")], ImageSettings(), LIMITS)
    np.testing.assert_array_equal(one.values, other.values)
    # The film is a MONOCHROME1 chest: the lungs are darker than the mediastinum between them.
    chest = one.values[0]
    assert chest[90:130, 50:80].mean() < chest[90:130, 105:125].mean()


# --- parts that are never seen ---------------------------------------------------------------


def test_blanked_parts_are_black_and_the_rest_is_as_it_was() -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    window = {"WindowCenter": 32, "WindowWidth": 64, "VOILUTFunction": "LINEAR_EXACT"}
    data = make_file(pixels, **window)
    # A quarter of eight pixels is two; 0.3 of them touches a third, which goes as a whole.
    box = Box(top=0.0, left=0.25, bottom=0.3, right=0.5)
    whole, _ = prepare_images([data], ImageSettings(size=32), LIMITS)
    native = blank(np.ones((8, 8), np.float32), [box])
    assert not native[:3, 2:4].any()
    assert native.sum() == 64 - 6
    blanked, remarks = prepare_images([data], ImageSettings(size=32, blank=(box,)), LIMITS)
    assert [remark.code for remark in remarks] == ["image-blanked"]
    assert not blanked.values[0, 2:10, 10:14].any()
    np.testing.assert_array_equal(blanked.values[0, 20:], whole.values[0, 20:])
    assert blanked.geometry == whole.geometry


@given(st.integers(0, 63), st.integers(0, 63), st.integers(1, 255))
def test_what_lies_under_a_blank_box_changes_no_bit(row: int, column: int, mark: int) -> None:
    box = Box(top=row / 64, left=column / 64, bottom=(row + 1) / 64, right=(column + 1) / 64)
    pixels = np.full((64, 64), 100, np.uint16)
    marked = pixels.copy()
    marked[row, column] = mark
    window = {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}
    settings = ImageSettings(size=48, blank=(box,))
    clean, _ = prepare_images([make_file(pixels, **window)], settings, LIMITS)
    dirty, _ = prepare_images([make_file(marked, **window)], settings, LIMITS)
    np.testing.assert_array_equal(clean.values, dirty.values)


@pytest.mark.parametrize("edges", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.9, 1.0, 0.1)])
def test_a_box_without_an_area_is_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="top must be above"):
        Box(**dict(zip(("top", "left", "bottom", "right"), edges, strict=True)))
