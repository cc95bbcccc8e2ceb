"""medfuse.data.dicom: what hospitals send, in every encoding, in its right order, or refused."""

import base64
import csv
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    RLELossless,
)

from medfuse.config import ImageSettings, Limits
from medfuse.data.dicom import Identity, choose_frames, decode_frames, read_dataset, read_identity
from medfuse.errors import DicomError, InputError
from tests.dicom_files import (
    PYDICOM,
    PYDICOM_DATA,
    encapsulated,
    encode,
    find_file,
    make_dataset,
    make_file,
    read_file,
    transcode,
)

LIMITS = Limits()
SETTINGS = ImageSettings()
TABLE = Path(__file__).with_name("dicom_table.csv")
FOLDERS = {"pydicom": PYDICOM, "pydicom-data": PYDICOM_DATA}


def decode(*files: bytes, frames: int = 32) -> list[np.ndarray]:
    chosen = decode_frames(files, ImageSettings(frames=frames), LIMITS)
    return [frame.image for frame in chosen]


# --- every file that pydicom and pydicom-data bring ----------------------------------------


def describe(data: bytes) -> str:
    """The table's account of one file: frames x rows x columns, or the error's type and message."""
    try:
        choice = choose_frames([data], SETTINGS, LIMITS)
        images = decode(data, frames=2)
    except InputError as error:
        return f"{type(error).__name__}: {error}"
    assert all(np.isfinite(image).all() for image in images)
    assert all(image.min() >= 0 and image.max() <= 1 for image in images)
    assert any(image.any() for image in images), "nothing to be seen"
    return f"{choice.total} x {images[0].shape[0]} x {images[0].shape[1]}"


def test_every_file_of_pydicom_is_read_or_refused_as_the_table_says() -> None:
    with TABLE.open(newline="") as table:
        expected = {(row["package"], row["file"]): row["result"] for row in csv.DictReader(table)}
    actual = {
        (package, path.relative_to(folder).as_posix()): describe(path.read_bytes())
        for package, folder in FOLDERS.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert actual == expected


# --- one image, many encodings -------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("RG1_UNCR.dcm", "RG1_J2KR.dcm"),
        ("RG3_UNCR.dcm", "RG3_J2KR.dcm"),
        ("MR2_UNCR.dcm", "MR2_J2KR.dcm"),
        ("693_UNCR.dcm", "693_J2KR.dcm"),
        ("US1_UNCR.dcm", "US1_J2KR.dcm"),
        (
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_expb.dcm",
            "MR_small_implicit.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_padded.dcm",
        ),
        (
            "emri_small.dcm",
            "emri_small_RLE.dcm",
            "emri_small_big_endian.dcm",
            "emri_small_jpeg_2k_lossless.dcm",
            "emri_small_jpeg_ls_lossless.dcm",
        ),
        ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm"),
        ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"),
        ("SC_rgb.dcm", "SC_rgb_rle.dcm", "SC_rgb_expb.dcm", "SC_rgb_jpeg_gdcm.dcm"),
        ("SC_rgb_16bit.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_expb_16bit.dcm"),
        ("SC_rgb_32bit.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_expb_32bit.dcm"),
        ("color-pl.dcm", "color-px.dcm"),
    ],
)
def test_lossless_encodings_of_one_image_give_identical_frames(names: tuple[str, ...]) -> None:
    first, *others = (decode(read_file(name)) for name in names)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_decompressed_radiograph_equals_the_lossy_file_it_came_from() -> None:
    # UNCI is what another decoder made of J2KI; irreversible wavelets may round to the next level.
    (ours,), (theirs,) = decode(read_file("RG1_J2KI.dcm")), decode(read_file("RG1_UNCI.dcm"))
    assert np.abs(ours - theirs).max() <= 1.01 / 29999


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i2"])
def test_uncompressed_encodings_show_the_same_values(syntax: UID, dtype: str) -> None:
    pixels = np.arange(35, dtype=dtype).reshape(5, 7)
    ds = make_dataset(pixels, WindowCenter=17, WindowWidth=34, VOILUTFunction="LINEAR_EXACT")
    (image,) = decode(transcode(ds, syntax))
    np.testing.assert_allclose(image, np.clip(pixels / 34, 0, 1), atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_what_pydicom_compresses_losslessly_is_seen_unchanged(syntax: UID, dtype: type) -> None:
    pixels: np.ndarray = np.random.default_rng(0).integers(0, 99, (65, 70)).astype(dtype)
    ds = make_dataset(pixels, WindowCenter=50, WindowWidth=100)
    plain = decode(encode(ds))
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(decode(encode(ds)), plain)


# 16 x 16 values, row * 256 + column * 17, encoded by OpenJPH 0.26 (imagecodecs 2026.3.6).
HTJ2K_LOSSLESS = (
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY8"
    "6Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000e*gjhlfVEbKlTL&bN~Rr0206e"
    "696^=hjai&@&ku-0KfnfKmZef8qEO$bO0XdkpRO~0Kfnh5C8>WilQj0aDsIJe)Pi+KmNc{f$X*bzyK>?02Yt{00000"
    "=gN9|Z~}M${{8*^{r&y@{fuCH_A!C%x&Z&#"
)
HTJ2K_LOSSY = (
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A001igQUDA90ssL31q1{@0RLP7"
    "BO<pLw(7R(w!E(ZuK=#%r%b0zr(}==kOPoLm(rKgmtp^802crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000yZ{0J"
    "lfVE0IG2Fn2nTck0KfnOSO5S_<^qRw01Ed6hjakI00m3{09Aks7Kjk>0RprDyTAwR0zTjZ2DAXc02R;x1-90ziqBhH"
    "RXj3F%A0lof)auff)aufTfw~*+*`rD72E<40LKVG(76D>02Z_W0d&B&N>x{>>MB)TrTScz{FVHb{ws@n0Dj;1ec$)H"
    "cz5C5#oNWZi?@q+7jGBuA3=-?bjC0#yUDF`YCiz~*#"
)


@pytest.mark.parametrize(
    ("syntax", "codestream", "tolerance"),
    [
        (HTJ2KLossless, HTJ2K_LOSSLESS, 0),
        (HTJ2KLosslessRPCL, HTJ2K_LOSSLESS, 0),
        (HTJ2K, HTJ2K_LOSSY, 1),
    ],
)
def test_high_throughput_jpeg_2000_of_another_encoder_is_read(
    syntax: UID, codestream: str, tolerance: int
) -> None:
    row, column = np.mgrid[:16, :16]
    values = (row * 256 + column * 17).astype(np.uint16)
    ds = make_dataset(values, WindowCenter=2048, WindowWidth=4096, VOILUTFunction="LINEAR_EXACT")
    (image,) = decode(encapsulated(ds, syntax, [base64.b85decode(codestream)]))
    assert np.abs(image * 4096 - values).max() <= tolerance + 1e-3


def test_lossless_jpeg_of_any_predictor_is_read() -> None:
    # A frame of process 14 with selection value 1 is one of process 14 without that restriction.
    ds = pydicom.dcmread(find_file("JPEG-LL.dcm"))
    expected = decode(read_file("JPEG-LL.dcm"))
    ds.file_meta.TransferSyntaxUID = JPEGLossless
    np.testing.assert_array_equal(decode(encode(ds)), expected)


def test_floating_point_pixels_are_read() -> None:
    pixels = np.array([[0.5, 1.5], [2.5, np.nan]], np.float32)
    ds = make_dataset(np.zeros((2, 2), np.uint32))
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    ds.FloatPixelData = pixels.tobytes()
    (image,) = decode(encode(ds))
    assert image.tolist() == [[0, 0.5], [1, 0]]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_UNCI.dcm", "RG3_UNCR.dcm"])
def test_frame_agrees_with_pydicoms_own_pipeline(name: str) -> None:
    ds = pydicom.dcmread(find_file(name))
    values = pydicom.pixels.processing.apply_modality_lut(ds.pixel_array, ds)
    padding = ds.pixel_array == ds.get("PixelPaddingValue")
    if "WindowCenter" in ds:
        del ds.BitsStored, ds.PixelRepresentation
        ds.BitsStored, ds.PixelRepresentation = 8, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        expected = pydicom.pixels.processing.apply_windowing(values, ds) / 255
    else:
        shown = values[~padding]
        expected = np.clip((values - shown.min()) / np.ptp(shown), 0, 1)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        expected = 1 - expected
    expected[padding] = 0
    np.testing.assert_allclose(decode(read_file(name))[0], expected, atol=1e-5)


# --- files as they come --------------------------------------------------------------------


def test_dataset_is_what_pydicom_reads() -> None:
    for name in ("CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "emri_small_RLE.dcm"):
        ours, theirs = read_dataset(read_file(name), LIMITS), pydicom.dcmread(find_file(name))
        assert list(ours) == [element for element in theirs if element.tag <= 0x7FE00010]
        assert list(ours.file_meta) == list(theirs.file_meta)
        np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)


def test_file_without_preamble_or_meta_is_read_all_the_same() -> None:
    data = read_file("MR_small.dcm")
    expected = decode(data)
    np.testing.assert_array_equal(decode(data[132:]), expected)
    ds = pydicom.dcmread(find_file("MR_small.dcm"))
    for implicit in (True, False):
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
        pydicom.filewriter.write_dataset(buffer, ds)
        np.testing.assert_array_equal(decode(buffer.getvalue()), expected)


def test_identity_is_the_patients_and_the_studys() -> None:
    ds = make_dataset(np.zeros((2, 2), np.uint8), PatientID=" 4711 ", StudyInstanceUID="1.2.4")
    assert read_identity(read_dataset(encode(ds), LIMITS)) == Identity("4711", "1.2.4")
    del ds.PatientID
    ds.StudyInstanceUID = ""
    assert read_identity(read_dataset(encode(ds), LIMITS)) == Identity(None, None)


def test_spacing_is_that_of_the_patient_or_else_of_the_detector() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    for elements, expected in (
        ({"PixelSpacing": [2, 3], "ImagerPixelSpacing": [4, 5]}, (2.0, 3.0)),
        ({"ImagerPixelSpacing": [4, 5]}, (4.0, 5.0)),
        ({"PixelSpacing": [0, 0]}, None),
        ({}, None),
    ):
        (frame,) = decode_frames([make_file(pixels, **elements)], SETTINGS, LIMITS)
        assert frame.spacing_mm == expected


def test_burned_in_annotation_is_remarked_when_the_file_says_so() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    for value, expected in (("YES", True), ("NO", False)):
        file = make_file(pixels, BurnedInAnnotation=value, WindowCenter=1, WindowWidth=2)
        (frame,) = decode_frames([file], SETTINGS, LIMITS)
        assert ("burned-in-annotation" in frame.remarks) == expected


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "a segmentation, not an image"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation is not supported"),
        ({"SamplesPerPixel": 3}, "3 samples per pixel do not fit MONOCHROME2"),
        ({"Rows": 0}, "Rows is missing"),
        ({"Columns": 9}, "pixel data has 4 bytes; 18 are declared"),
        ({"BitsAllocated": 7}, "Explicit VR Little Endian cannot be decoded"),
        ({"NumberOfFrames": 2}, "pixel data has 4 bytes; 8 are declared"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_reason(
    elements: dict[str, Any], message: str
) -> None:
    ds = make_dataset(np.zeros((2, 2), np.uint8), WindowCenter=1, WindowWidth=2)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    with pytest.raises(DicomError, match=message):
        decode(encode(ds))


def test_pixels_said_to_be_subsampled_but_are_not_are_refused() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DicomError, match="not subsampled"):
        decode(make_file(pixels, PhotometricInterpretation="YBR_FULL_422"))


def test_picture_is_refused_unless_the_setting_allows_it() -> None:
    with pytest.raises(DicomError, match=r"image\.pictures"):
        decode(b"\x89PNG\r\n\x1a\n" + bytes(200))


# --- order ---------------------------------------------------------------------------------

AXIAL = [1, 0, 0, 0, 1, 0]


def slice_file(mark: int, **elements: Any) -> bytes:
    """A flat 2 x 2 slice that shows ``mark`` hundredths."""
    window = {"WindowCenter": 50, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    return make_file(np.full((2, 2), mark, np.uint16), **{**window, **elements})


def marks(*files: bytes, frames: int = 32) -> list[int]:
    return [round(100 * float(image[0, 0])) for image in decode(*files, frames=frames)]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)))
def test_order_of_the_files_does_not_change_the_order_of_the_frames(order: list[int]) -> None:
    files = [
        slice_file(
            10 * place,
            SeriesInstanceUID="1.5",
            ImageOrientationPatient=AXIAL,
            ImagePositionPatient=[0, 0, -2.5 * place],
            InstanceNumber=place,
        )
        for place in range(4)
    ]
    files += [slice_file(90 + n, SeriesInstanceUID="1.4", InstanceNumber=n) for n in (2, 1)]
    assert marks(*(files[place] for place in order)) == [91, 92, 30, 20, 10, 0]


def test_oblique_slices_go_along_their_normal() -> None:
    # The normal of this sagittal plane is (-1, 0, 0), so x falls along the stack.
    files = [
        slice_file(
            mark,
            SeriesInstanceUID="1.5",
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[x, 3, 4],
            InstanceNumber=mark,
        )
        for mark, x in ((10, -5.0), (20, 40.0), (30, 0.5))
    ]
    assert marks(*files) == [20, 30, 10]


def test_a_localiser_among_slices_leaves_the_series_to_its_numbers() -> None:
    files = [
        slice_file(
            10 * n,
            SeriesInstanceUID="1.5",
            ImageOrientationPatient=AXIAL if n > 1 else [0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[0, 0, -n],
            InstanceNumber=n,
        )
        for n in (3, 1, 2)
    ]
    assert marks(*files) == [10, 20, 30]


def test_files_with_the_same_number_go_by_uid() -> None:
    files = [
        slice_file(mark, SeriesInstanceUID="1.5", InstanceNumber=1, SOPInstanceUID=f"1.2.{uid}")
        for mark, uid in ((20, 6), (10, 5))
    ]
    assert marks(*files) == marks(*reversed(files)) == [10, 20]


def test_series_go_by_number_and_those_without_come_last() -> None:
    files = [
        slice_file(10, SeriesInstanceUID="1.1"),
        slice_file(20, SeriesInstanceUID="1.2", SeriesNumber=7),
        slice_file(30, SeriesInstanceUID="1.3", SeriesNumber=2),
        slice_file(40),
    ]
    assert marks(*files) == [30, 20, 40, 10]


def test_frames_of_an_enhanced_object_go_by_position() -> None:
    pixels = np.stack([np.full((2, 2), mark, np.uint16) for mark in (10, 20, 30)])
    ds = make_dataset(pixels, WindowCenter=50, WindowWidth=100, VOILUTFunction="LINEAR_EXACT")
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    shared.PlaneOrientationSequence = [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for z, spacing in ((5.0, 1), (-5.0, 2), (0.0, 3)):
        group, position, measures = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, z]
        measures.PixelSpacing = [spacing, spacing]
        group.PlanePositionSequence = [position]
        group.PixelMeasuresSequence = [measures]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    frames = decode_frames([encode(ds)], SETTINGS, LIMITS)
    assert [frame.frame for frame in frames] == [1, 2, 0]
    assert [frame.spacing_mm for frame in frames] == [(2.0, 2.0), (3.0, 3.0), (1.0, 1.0)]
    assert marks(encode(ds)) == [20, 30, 10]


# --- choice --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "expected"), [(1, [5]), (2, [2, 7]), (3, [1, 5, 8]), (10, list(range(10)))]
)
def test_chosen_frames_are_the_middles_of_equal_parts(kept: int, expected: list[int]) -> None:
    loop = np.stack([np.full((2, 2), mark, np.uint16) for mark in range(10)])
    file = make_file(loop)
    choice = choose_frames([file], ImageSettings(frames=kept), LIMITS)
    assert [source.frame for source in choice.sources] == expected
    assert choice.total == 10


def test_frames_that_are_not_chosen_are_not_decoded() -> None:
    pixels = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)
    ds = make_dataset(pixels, WindowCenter=24, WindowWidth=48)
    ds.compress(RLELossless, generate_instance_uid=False)
    fragments = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=3))
    file = encapsulated(ds, RLELossless, [b"damaged!", fragments[1], b"damaged!"])
    (image,) = decode(file, frames=1)
    np.testing.assert_allclose(image, (pixels[1] - 0.5 + 0.5) / 47, atol=1e-6)
    with pytest.raises(DicomError):
        decode(file, frames=3)


def test_threads_that_decode_at_once_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: decode(read_file("MR_small_RLE.dcm"))[0], range(24)))
    assert warnings.filters == before
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


# --- damage --------------------------------------------------------------------------------

SMALL = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_rle_2frame.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "nested_priv_SQ.dcm",
    "image_dfl.dcm",
    "dicomdirtests/77654033/CR1/6154",
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(SMALL),
    seed=st.integers(0, 2**32 - 1),
    changes=st.integers(1, 12),
    cut=st.booleans(),
)
def test_damaged_files_are_read_or_refused_with_a_typed_error(
    name: str, seed: int, changes: int, cut: bool
) -> None:
    rng = random.Random(seed)
    data = bytearray(read_file(name))
    for _ in range(changes):
        # Most damage goes to the header, where it does more than spoil a pixel.
        place = min(int(rng.expovariate(3 / len(data))), len(data) - 1)
        data[place] = rng.choice((0, 1, 0x7F, 0xFE, 0xFF, rng.randrange(256)))
    if cut:
        del data[rng.randrange(len(data)) :]
    try:
        images = decode(bytes(data))
    except InputError:
        return
    assert all(np.isfinite(image).all() for image in images)


@settings(deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_arbitrary_bytes_are_refused_with_a_typed_error(data: bytes, preamble: bool) -> None:
    with pytest.raises(InputError):
        decode(bytes(128) + b"DICM" + data if preamble else data)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "12345678", "WindowWidth": 2},
        {"NumberOfFrames": "12345678"},
        {"InstanceNumber": "12345678"},
        {"VOILUTFunction": "12345678", "WindowCenter": 1, "WindowWidth": 2},
    ],
)
def test_messages_hold_no_values_of_the_file(elements: dict[str, Any]) -> None:
    ds = make_dataset(np.zeros((2, 2), np.uint8), PatientName="Jekyll^Henry", **elements)
    data = encode(ds).replace(b"12345678", b"^Jekyll^")
    with pytest.raises(InputError) as caught:
        decode(data)
    assert "jekyll" not in str(caught.value).lower()
