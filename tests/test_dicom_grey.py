"""medfuse.data.grey: hand-worked grey values, and pydicom's own functions as the second path."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
    convert_color_space,
)

from medfuse.data.grey import (
    LookupTable,
    StoredPixels,
    Window,
    apply_window,
    expand_segments,
    find_views,
    look_up,
    make_grey,
)
from medfuse.errors import DicomError
from tests.dicom_files import make_dataset

RAMP = np.arange(-3, 9, dtype=np.float32).reshape(3, 4)


def grey(pixels: np.ndarray, window: int = 0, frame: int = 0, **elements: Any) -> np.ndarray:
    return grey_and_remarks(pixels, window, frame, **elements)[0]


def grey_and_remarks(
    pixels: np.ndarray, window: int = 0, frame: int = 0, **elements: Any
) -> tuple[np.ndarray, tuple[str, ...]]:
    ds = parsed(make_dataset(pixels, **elements))
    stored = StoredPixels(
        pixels, ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation == 1
    )
    image = make_grey(stored, ds, frame, window)
    return image.values, image.remarks


def parsed(ds: Dataset) -> Dataset:
    ds.set_original_encoding(False, True)
    return ds


def item(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return parsed(ds)


def table_item(first: int, bits: int, entries: list[int]) -> Dataset:
    ds = item(LUTDescriptor=[len(entries), first, bits], LUTData=entries)
    ds["LUTData"].VR = "US"
    return ds


# --- windows -------------------------------------------------------------------------------


def test_linear_window_of_width_four_around_two() -> None:
    # c - 0.5 - (w-1)/2 = 0 is black, c - 0.5 + (w-1)/2 = 3 is white.
    values = np.array([[-1, 0, 1, 2, 3, 4]], np.float32)
    image = apply_window(values, Window(2.0, 4.0))
    np.testing.assert_allclose(image, [[0, 0, 1 / 3, 2 / 3, 1, 1]], atol=1e-6)


def test_exact_linear_window_of_width_four_around_two() -> None:
    values = np.array([[-1, 0, 1, 2, 3, 4]], np.float32)
    image = apply_window(values, Window(2.0, 4.0, "LINEAR_EXACT"))
    np.testing.assert_allclose(image, [[0, 0, 0.25, 0.5, 0.75, 1]], atol=1e-6)


def test_sigmoid_window_is_half_at_its_centre_and_symmetric() -> None:
    values = np.array([[2 - 1e6, 0, 2, 4, 2 + 1e6]], np.float32)
    image = apply_window(values, Window(2.0, 4.0, "SIGMOID"))
    high = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(image, [[0, 1 - high, 0.5, high, 1]], atol=1e-6)


def test_linear_window_of_width_one_is_a_threshold() -> None:
    values = np.array([[0, 1.4, 1.5, 1.6, 2]], np.float32)
    assert apply_window(values, Window(2.0, 1.0)).tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    "window",
    [
        Window(0.0, 0.5),
        Window(0.0, 0.0),
        Window(0.0, 0.0, "LINEAR_EXACT"),
        Window(0.0, -1.0, "SIGMOID"),
    ],
)
def test_window_too_narrow_for_its_function_is_refused(window: Window) -> None:
    with pytest.raises(DicomError, match="too narrow"):
        apply_window(RAMP, window)


@settings(deadline=None)
@given(
    center=st.floats(-50, 50),
    width=st.floats(1, 90),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_window_agrees_with_pydicom(center: float, width: float, function: str) -> None:
    values = np.linspace(-99, 99, 67, dtype=np.float64)[None]
    ds = item(
        PhotometricInterpretation="MONOCHROME2",
        BitsStored=8,
        PixelRepresentation=0,
        WindowCenter=round(center, 4),
        WindowWidth=round(width, 4),
        VOILUTFunction=function,
    )
    expected = apply_windowing(values, ds) / 255
    (view,) = find_views(ds, 0)
    assert isinstance(view, Window)
    np.testing.assert_allclose(apply_window(values, view), expected, atol=1e-5)


@settings(deadline=None)
@given(center=st.floats(-50, 50), width=st.floats(1.5, 90))
def test_undoing_a_linear_window_gives_the_values_back(center: float, width: float) -> None:
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    values = np.linspace(low, high, 32)[None]
    image = apply_window(values, Window(center, width))
    np.testing.assert_allclose(low + image * (high - low), values, atol=1e-4)


def test_setting_chooses_among_several_windows_and_falls_back_on_the_first() -> None:
    pixels = np.array([[0, 10, 20]], np.uint16)
    windows: dict[str, Any] = {"WindowCenter": [5.5, 10.5], "WindowWidth": [11, 21]}
    first, second = grey(pixels, 0, **windows), grey(pixels, 1, **windows)
    np.testing.assert_allclose(first, [[0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(second, [[0, 0.5, 1]], atol=1e-6)
    third, remarks = grey_and_remarks(pixels, 2, **windows)
    np.testing.assert_array_equal(third, first)
    assert remarks == ("window-not-found",)


def test_window_of_zero_width_counts_as_none() -> None:
    pixels = np.array([[10, 20, 30]], np.uint16)
    image, remarks = grey_and_remarks(pixels, WindowCenter=0, WindowWidth=0)
    assert image.tolist() == [[0, 0.5, 1]]
    assert remarks == ("window-missing",)


def test_unpaired_windows_and_unknown_functions_are_refused() -> None:
    pixels = np.zeros((2, 2), np.uint16)
    with pytest.raises(DicomError, match="2 WindowCenter and 1 WindowWidth"):
        grey(pixels, WindowCenter=[1, 2], WindowWidth=3)
    with pytest.raises(DicomError, match="VOILUTFunction"):
        grey(pixels, WindowCenter=1, WindowWidth=3, VOILUTFunction="CUBIC")


# --- without a window ----------------------------------------------------------------------


def test_without_a_window_the_range_of_the_frame_is_used_and_reported() -> None:
    image, remarks = grey_and_remarks(np.array([[100, 150, 300]], np.uint16))
    np.testing.assert_allclose(image, [[0, 0.25, 1]])
    assert remarks == ("window-missing",)


def test_without_a_window_eight_bits_keep_their_own_range() -> None:
    np.testing.assert_allclose(grey(np.array([[51, 102]], np.uint8)), [[0.2, 0.4]], atol=1e-6)
    signed = grey(np.array([[-128, 127]], np.int8), RescaleSlope=2, RescaleIntercept=7)
    assert signed.tolist() == [[0, 1]]


def test_a_flat_frame_without_a_window_is_black() -> None:
    assert not grey(np.full((3, 3), 700, np.uint16)).any()


# --- padding and polarity ------------------------------------------------------------------


def test_padding_is_black_and_does_not_stretch_the_range() -> None:
    pixels = np.array([[-2000, 0, 50, 100]], np.int16)
    image = grey(pixels, PixelPaddingValue=-2000)
    np.testing.assert_allclose(image, [[0, 0, 0.5, 1]])


def test_padding_is_black_in_monochrome1_as_well() -> None:
    pixels = np.array([[0, 10, 20]], np.uint16)
    image = grey(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert image.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(("first", "last"), [(1, 3), (3, 1)])
def test_padding_range_includes_both_ends_in_either_order(first: int, last: int) -> None:
    pixels = np.array([[1, 2, 3, 4, 6]], np.uint16)
    image = grey(pixels, PixelPaddingValue=first, PixelPaddingRangeLimit=last)
    assert image.tolist() == [[0, 0, 0, 0, 1]]


def test_padding_value_whose_sign_was_lost_is_found() -> None:
    pixels = np.array([[-2000, 0, 100]], np.int16)
    ds = parsed(make_dataset(pixels))
    ds.add_new("PixelPaddingValue", "US", 63536)
    image = make_grey(StoredPixels(pixels, "MONOCHROME2", 16, True), ds, 0, 0)
    assert image.values.tolist() == [[0, 0, 1]]


def test_a_frame_that_is_all_padding_is_black() -> None:
    assert not grey(np.full((2, 2), 9, np.uint16), PixelPaddingValue=9).any()


def test_what_is_not_a_number_is_treated_as_padding() -> None:
    pixels = np.array([[np.nan, 1, 2, np.inf]], np.float32)
    ds = parsed(make_dataset(np.zeros((1, 4), np.uint16)))
    image = make_grey(StoredPixels(pixels, "MONOCHROME2", 0, False), ds, 0, 0)
    assert image.values.tolist() == [[0, 0, 1, 0]]


def test_monochrome1_is_the_negative_of_monochrome2() -> None:
    pixels = np.array([[0, 100, 300, 1000]], np.uint16)
    window = {"WindowCenter": 500, "WindowWidth": 1000}
    one = grey(pixels, PhotometricInterpretation="MONOCHROME1", **window)
    two = grey(pixels, PhotometricInterpretation="MONOCHROME2", **window)
    np.testing.assert_allclose(one, 1 - two)
    assert two[0, 0] == 0
    assert one[0, 0] == 1


# --- modality ------------------------------------------------------------------------------


def test_rescale_comes_before_the_window() -> None:
    # 1024 + 40 stored is 40 HU, the centre of the window.
    pixels = np.array([[924, 1064, 1204]], np.int16)
    image = grey(
        pixels,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=40,
        WindowWidth=80,
        VOILUTFunction="LINEAR_EXACT",
    )
    np.testing.assert_allclose(image, [[0, 0.5, 1]], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8])
def test_modality_table_agrees_with_pydicom(dtype: type) -> None:
    entries = [9, 7, 8, 40, 65535, 3]
    pixels: np.ndarray = np.arange(12).astype(dtype).reshape(3, 4)
    ds = parsed(make_dataset(pixels, ModalityLUTSequence=[table_item(3, 16, entries)]))
    expected = apply_modality_lut(pixels, ds).astype(np.float64)
    image = grey(pixels, ModalityLUTSequence=[table_item(3, 16, entries)])
    np.testing.assert_allclose(image, (expected - 3) / (65535 - 3), atol=1e-6)


def test_table_repeats_its_ends_outside_its_range() -> None:
    table = LookupTable(first=-2, bits=8, entries=np.array([10, 20, 30]))
    values = np.array([-9, -2, -1, 0, 1, 9])
    assert look_up(values, table).tolist() == [10, 10, 20, 30, 30, 30]


def test_a_slope_of_zero_is_refused() -> None:
    with pytest.raises(DicomError, match="RescaleSlope is 0"):
        grey(np.zeros((2, 2), np.uint16), RescaleSlope=0, RescaleIntercept=1)


# --- VOI tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_table_agrees_with_pydicom(bits: int) -> None:
    entries = np.linspace(0, 2**bits - 1, 16).astype(int).tolist()[::-1]
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)
    elements: dict[str, Any] = {"VOILUTSequence": [table_item(5, bits, entries)], "WindowCenter": 3}
    ds = parsed(make_dataset(pixels, WindowWidth=9, **elements))
    expected = apply_voi_lut(pixels, ds) / (2**bits - 1)
    image = grey(pixels, WindowWidth=9, **elements)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_tables_come_before_windows_when_one_is_chosen() -> None:
    pixels = np.array([[0, 1, 2]], np.uint16)
    views: dict[str, Any] = {
        "VOILUTSequence": [table_item(0, 8, [255, 0, 51])],
        "WindowCenter": 1.5,
        "WindowWidth": 3,
    }
    np.testing.assert_allclose(grey(pixels, 0, **views), [[1, 0, 0.2]], atol=1e-6)
    np.testing.assert_allclose(grey(pixels, 1, **views), [[0, 0.5, 1]], atol=1e-6)


def test_table_shorter_than_declared_is_refused() -> None:
    short = table_item(0, 8, [1, 2, 3])
    short.LUTDescriptor = [300, 0, 8]
    with pytest.raises(DicomError, match="3 entries; LUTDescriptor declares 300"):
        grey(np.zeros((2, 2), np.uint16), VOILUTSequence=[short])


# --- per-frame functional groups -----------------------------------------------------------


def test_each_frame_of_an_enhanced_object_has_its_own_rescale_and_window() -> None:
    pixels = np.array([[0, 10, 20]], np.uint16)
    per_frame = [
        item(
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)],
            FrameVOILUTSequence=[
                item(WindowCenter=10, WindowWidth=20, VOILUTFunction="LINEAR_EXACT")
            ],
        )
        for slope in (1, 0.5)
    ]
    groups: dict[str, Any] = {"PerFrameFunctionalGroupsSequence": per_frame}
    np.testing.assert_allclose(grey(pixels, frame=0, **groups), [[0, 0.5, 1]])
    np.testing.assert_allclose(grey(pixels, frame=1, **groups), [[0, 0.25, 0.5]])


def test_shared_groups_hold_for_frames_that_have_none() -> None:
    pixels = np.array([[0, 10, 20]], np.uint16)
    shared = item(
        FrameVOILUTSequence=[item(WindowCenter=5, WindowWidth=10, VOILUTFunction="LINEAR_EXACT")]
    )
    image = grey(pixels, frame=1, SharedFunctionalGroupsSequence=[shared])
    np.testing.assert_allclose(image, [[0, 1, 1]])


# --- colour --------------------------------------------------------------------------------


def test_rgb_becomes_its_luminance() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    image = grey(pixels, PhotometricInterpretation="RGB")
    np.testing.assert_allclose(image, [[0.299, 0.587, 0.114, 1]], atol=1e-6)


def test_luminance_of_ybr_is_that_of_its_rgb() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    image = grey(ybr, PhotometricInterpretation="YBR_FULL")
    # One level of 255 is what rounding to 8 bits in YBR costs.
    np.testing.assert_allclose(image, grey(rgb, PhotometricInterpretation="RGB"), atol=1 / 255)


def palette(first: int, bits: int, entries: int, dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(entries)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        elements[f"{name}Descriptor"] = [entries, first, bits]
        elements[f"{name}Data"] = rng.integers(0, 2**bits, entries).astype(dtype).tobytes()
    return elements


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (16, "<u2")])
def test_palette_agrees_with_pydicom(bits: int, dtype: str) -> None:
    pixels = np.arange(240, dtype=np.uint8).reshape(12, 20)
    elements = palette(7, bits, 200, dtype)
    rgb = apply_color_lut(pixels, parsed(make_dataset(pixels, **elements)))
    expected = rgb @ np.array([0.299, 0.587, 0.114]) / (2**bits - 1)
    np.testing.assert_allclose(grey(pixels, **elements), expected, atol=1e-2 if bits == 8 else 1e-3)


def test_segmented_palette_of_discrete_linear_and_indirect_segments() -> None:
    # Discrete 5, 9; linear in 4 steps to 17; indirect: the first segment again, from word 0.
    words = [0, 2, 5, 9, 1, 4, 17, 2, 1, 0, 0]
    assert expand_segments(words, True, 8) == [5, 9, 11, 13, 15, 17, 5, 9]
    assert expand_segments([0, 2, 5, 9, 1, 4, 17, 2, 1, 0, 0, 0, 0], False, 8)[-2:] == [5, 9]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 65535), min_size=1, max_size=5).map(
                lambda entries: [0, len(entries), *entries]
            ),
            st.tuples(st.integers(1, 9), st.integers(0, 65535)).map(
                lambda pair: [1, pair[0], pair[1]]
            ),
        ),
        max_size=6,
    )
)
def test_segmented_palette_agrees_with_pydicom(segments: list[list[int]]) -> None:
    words = [0, 1, 77, *(word for segment in segments for word in segment)]
    data = np.array(words, "<u2").tobytes()
    entries = expand_segments(words, True, 65535)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = data
    pixels = np.arange(len(entries), dtype=np.uint16)[None]
    rgb = apply_color_lut(pixels, parsed(make_dataset(pixels, **elements)))
    assert rgb[0, :, 0].tolist() == entries
    np.testing.assert_allclose(grey(pixels, **elements), [np.array(entries) / 65535], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([0, 1, 5, 2, 2, 0, 0], "cannot be used"),  # an indirect segment that includes itself
        ([0, 1, 5, 2, 1, 2, 0], "readers differ"),
        ([1, 4, 17], "cannot be used"),  # nothing to start a line from
        ([0, 1, 5, 7, 1, 1], "cannot be used"),
        ([0, 1, 5, 1, 4], "ends within"),
    ],
)
def test_segmented_palette_that_makes_no_sense_is_refused(words: list[int], reason: str) -> None:
    with pytest.raises(DicomError, match=reason):
        expand_segments(words, True, 100)


def test_segmented_palette_never_grows_beyond_what_is_declared() -> None:
    again = [2, 1, 0, 0]
    assert len(expand_segments([0, 4, 1, 2, 3, 4, *again * 1000], True, 256)) == 256
