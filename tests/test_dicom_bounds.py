"""medfuse.data.dicom_bounds and codestream: real bombs are refused, at little cost in memory."""

import re
import struct
import subprocess
import sys
import tomllib
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)
from rle.rle import encode_segment

from medfuse.config import ImageSettings, Limits
from medfuse.data.codestream import Shape, check_codestream
from medfuse.data.dicom import decode_frames, read_dataset
from medfuse.data.dicom_bounds import scan_elements
from medfuse.errors import DicomError, LimitError
from tests.dicom_files import (
    PYDICOM,
    PYDICOM_DATA,
    encapsulated,
    encode,
    find_file,
    make_dataset,
    make_file,
    read_file,
)

MEMORY_MIB = 256
LIMITS = Limits()
SMALL = np.zeros((4, 4), np.uint8)

UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0"  # Referenced Image Sequence, explicit VR


def decode(data: bytes, limits: Limits = LIMITS) -> None:
    decode_frames([data], ImageSettings(), limits)


def head(syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A preamble and file meta information, with no dataset after it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO(b"")
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return buffer.getvalue()


# --- the bombs -----------------------------------------------------------------------------


def nested_undefined() -> bytes:
    """400 kB of sequences in sequences, each of undefined length, as pydicom reads at once."""
    opened = SEQUENCE + UNDEFINED + ITEM + UNDEFINED
    return head() + opened * (400_000 // len(opened))


def nested_defined() -> bytes:
    """400 kB of sequences in sequences with their lengths, which pydicom reads when asked."""
    deep = 400_000 // 20
    parts = [
        SEQUENCE + struct.pack("<L", 20 * left - 12) + ITEM + struct.pack("<L", 20 * left - 20)
        for left in range(deep, 0, -1)
    ]
    return head() + b"".join(parts)


def nested_implicit() -> bytes:
    """The same in implicit VR, in a private element that only its first item gives away."""
    opened = b"\x09\x00\x10\x10" + UNDEFINED + ITEM + UNDEFINED
    return head(ImplicitVRLittleEndian) + opened * (400_000 // len(opened))


def nested_unknown() -> bytes:
    """The same as elements of unknown VR, which pydicom takes for sequences (PS3.5 6.2.2)."""
    opened = b"\x09\x00\x10\x10UN\0\0" + UNDEFINED + ITEM + UNDEFINED
    return head() + opened * (400_000 // len(opened))


def empty_items() -> bytes:
    """24 MB of empty items, each of which costs pydicom over a kilobyte."""
    return head() + SEQUENCE + UNDEFINED + (ITEM + b"\0\0\0\0") * 3_000_000


def many_elements() -> bytes:
    """16 MB of empty elements, all different."""
    tags = np.arange(2_000_000, dtype=np.uint32)
    cells = np.zeros((len(tags), 8), np.uint8)
    cells[:, 0] = (tags >> 16) * 2 + 0x10
    cells[:, 2:4] = (tags & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)
    cells[:, 4:6] = (ord("L"), ord("O"))
    return head() + cells.tobytes()


def long_header() -> bytes:
    """A 300 MB element before the pixels."""
    ds = make_dataset(SMALL)
    ds.add_new(0x00091010, "OB", bytes(300 * 2**20))
    return encode(ds)


def deflated() -> bytes:
    """1.5 MB that become 1.5 GB (and the dataset within is a sound one but for its length)."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(2**20)
    start = encode(make_dataset(SMALL))
    body = start[start.index(b"\x08\x00\x16\x00UI") :]
    parts = [stream.compress(body)]
    parts += [stream.compress(zeros) for _ in range(1_500)]
    return head(DeflatedExplicitVRLittleEndian) + b"".join(parts) + stream.flush()


def too_wide() -> bytes:
    ds = make_dataset(SMALL)
    ds.Rows = ds.Columns = 60_000
    return encode(ds)


def too_wide_colour() -> bytes:
    ds = make_dataset(np.zeros((4, 4, 3), np.uint8), PhotometricInterpretation="RGB")
    ds.Rows = ds.Columns = 8_000  # within the limit for one sample, beyond it for three
    return encode(ds)


def too_many_frames() -> bytes:
    return make_file(SMALL, NumberOfFrames=2**31 - 1)


def missing_pixels() -> bytes:
    """A 120 MB frame declared, of which a few bytes are there."""
    ds = make_dataset(SMALL)
    ds.Rows = ds.Columns = 8_000
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    return encode(ds)


def too_much_decoded() -> bytes:
    """Frames that are each within the limit, but not together."""
    ds = make_dataset(SMALL, NumberOfFrames=32)
    ds.Rows = ds.Columns = 8_000
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    return encapsulated(ds, JPEG2000Lossless, [b"\0\0"] * 32)


def lying_jpeg_2000() -> bytes:
    """A small file whose codestream says 60000 x 60000."""
    ds = pydicom.dcmread(find_file("MR_small_jp2klossless.dcm"))
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    size = frame.index(b"\xff\x51")
    struct.pack_into(">8L", frame, size + 6, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0)
    return encapsulated(ds, JPEG2000Lossless, [bytes(frame)])


def jpeg_2000_frame() -> bytes:
    """The codestream of a 512 x 512 CT slice."""
    ds = pydicom.dcmread(find_file("693_J2KR.dcm"))
    return next(generate_frames(ds.PixelData, number_of_frames=1))


def tiled_jpeg_2000() -> bytes:
    """A codestream of the declared size, cut into tiles of one pixel."""
    ds = pydicom.dcmread(find_file("693_J2KR.dcm"))
    frame = bytearray(jpeg_2000_frame())
    size = frame.index(b"\xff\x51")
    struct.pack_into(">2L", frame, size + 22, 1, 1)
    return encapsulated(ds, JPEG2000Lossless, [bytes(frame)])


def lying_jpeg(name: str, marker: bytes, syntax: UID) -> bytes:
    ds = pydicom.dcmread(find_file(name))
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    struct.pack_into(">HH", frame, frame.index(marker) + 5, 60_000, 60_000)
    return encapsulated(ds, syntax, [bytes(frame)])


def lying_jpeg_extended() -> bytes:
    return lying_jpeg("JPGExtended.dcm", b"\xff\xc1", JPEGExtended12Bit)


def lying_jpeg_ls() -> bytes:
    return lying_jpeg("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", JPEGLSLossless)


def rle_frame(*segments: bytes) -> bytes:
    starts = np.cumsum([64, *map(len, segments)])[: len(segments)]
    offsets = [len(segments), *starts.tolist()]
    return struct.pack("<16L", *offsets, *[0] * (16 - len(offsets))) + b"".join(segments)


def rle_overflow() -> bytes:
    """20 MB of runs that expand to 1.3 GB, far beyond the 400 x 600 declared."""
    ds = make_dataset(np.zeros((400, 600), np.uint16))
    run = b"\x81\x00"
    return encapsulated(ds, RLELossless, [rle_frame(run * 10_000_000, run * 1_875)])


def rle_shortfall() -> bytes:
    """A few bytes declared to be a 120 MB frame."""
    ds = make_dataset(SMALL.astype(np.uint16))
    ds.Rows = ds.Columns = 7_900
    return encapsulated(ds, RLELossless, [rle_frame(b"\x81\x00", b"\x81\x00")])


def many_fragments() -> bytes:
    """20 MB of empty fragments."""
    ds = make_dataset(SMALL)
    data = encapsulated(ds, RLELossless, [b"\0\0"])
    return data[: -len(SEQUENCE_END)] + (ITEM + b"\0\0\0\0") * 2_500_000 + SEQUENCE_END


def long_offset_table() -> bytes:
    """A table of 25 million offsets."""
    data = encapsulated(make_dataset(SMALL), RLELossless, [b"\0\0"])
    start = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
    return data[:start] + ITEM + struct.pack("<L", 10**8) + bytes(10**8) + data[start + 12 :]


def self_referring_palette() -> bytes:
    """A segmented palette whose segments copy themselves without end."""
    ds = make_dataset(SMALL, PhotometricInterpretation="PALETTE COLOR")
    words = [0, 2, 5, 9] + [2, 65535, 0, 0] * 8_000
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [0, 0, 16])
        data = np.array(words, "<u2").tobytes()
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", data)
    return encode(ds)


def endless_jp2() -> bytes:
    """A JP2 wrapper with a box of length 0, on which pydicom's reader turns for ever."""
    wrapper = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0uuid" + b"\xff\xd9"
    return encapsulated(make_dataset(SMALL), JPEG2000Lossless, [wrapper])


def just_within_limits() -> bytes:
    """As much as the limits allow of everything that is kept before a file can be refused."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    whole = encode(make_dataset(SMALL))
    start = whole[whole.index(b"\x08\x00\x16\x00UI") : whole.index(b"\xe0\x7f\x10\x00")]
    items = SEQUENCE + UNDEFINED + (ITEM + b"\0\0\0\0") * 140_000 + SEQUENCE_END
    long = b"\x29\x00\x10\x10OB\0\0" + struct.pack("<L", 62 * 2**20) + bytes(62 * 2**20)
    pixels = b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<L", 4) + bytes(4)
    parts = [stream.compress(part) for part in (start, items, long, pixels)]
    return head(DeflatedExplicitVRLittleEndian) + b"".join(parts) + stream.flush()


def random_bytes() -> bytes:
    return np.random.default_rng(0).bytes(50 * 2**20)


BOMBS: dict[Callable[[], bytes], tuple[type[Exception], str]] = {
    nested_undefined: (LimitError, "nested more than 16 deep"),
    nested_defined: (LimitError, "nested more than 16 deep"),
    nested_implicit: (LimitError, "nested more than 16 deep"),
    nested_unknown: (LimitError, "nested more than 16 deep"),
    empty_items: (LimitError, "more than 150000 elements"),
    many_elements: (LimitError, "more than 150000 elements"),
    long_header: (LimitError, "more than 67108864 bytes before its pixel data"),
    deflated: (LimitError, "becomes more than 67108864 bytes"),
    too_wide: (LimitError, "60000 x 60000 x 1 values"),
    too_wide_colour: (LimitError, "8000 x 8000 x 3 values"),
    too_many_frames: (LimitError, "declares 2147483647 frames"),
    missing_pixels: (DicomError, "128000000 are declared"),
    too_much_decoded: (LimitError, "would be 4096000000 bytes"),
    lying_jpeg_2000: (DicomError, "60000 x 60000 x 1, but its file declares 64 x 64 x 1"),
    tiled_jpeg_2000: (LimitError, "262144 tiles"),
    lying_jpeg_extended: (DicomError, "60000 x 60000 x 1, but its file declares 1024 x 256 x 1"),
    lying_jpeg_ls: (DicomError, "60000 x 60000 x 1, but its file declares 64 x 64 x 1"),
    rle_overflow: (DicomError, "does not expand to the size"),
    rle_shortfall: (DicomError, "does not expand to the size"),
    many_fragments: (LimitError, "more than 150000 fragments"),
    long_offset_table: (LimitError, "offset table"),
    self_referring_palette: (DicomError, "segmented palette"),
    endless_jp2: (DicomError, "no codestream"),
    just_within_limits: (DicomError, "4 bytes; 16 are declared"),
    random_bytes: (DicomError, "not a DICOM file"),
}

PROBE = """
import sys
import tomllib
from pathlib import Path
from medfuse.config import ImageSettings, Limits
from medfuse.data.dicom import decode_frames
from medfuse.errors import InputError

def peak():
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

def refuse(path):
    data = Path(path).read_bytes()
    before = peak()
    try:
        decode_frames([data], ImageSettings(), Limits())
    except InputError as error:
        print(type(error).__name__, error, sep=": ")
    return (peak() - before) / 1024

refuse(sys.argv[1])
print(refuse(sys.argv[2]))
"""


@pytest.mark.parametrize("build", BOMBS, ids=lambda build: build.__name__)
def test_bomb_is_refused_with_little_memory(build: Callable[[], bytes], tmp_path: Path) -> None:
    # A process of its own, since a process's peak never falls; an ordinary file warms it up.
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(build())
    ordinary = find_file("MR_small_RLE.dcm")
    command = [sys.executable, "-c", PROBE, str(ordinary), str(bomb)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    message, extra_mib = outcome.stdout.splitlines()
    kind, expected = BOMBS[build]
    assert message.startswith(f"{kind.__name__}: ")
    assert expected in message
    assert float(extra_mib) < MEMORY_MIB


# --- each limit, on either side ------------------------------------------------------------


def nested(depth: int) -> bytes:
    opened, closed = SEQUENCE + UNDEFINED + ITEM + UNDEFINED, ITEM_END + SEQUENCE_END
    return encode(make_dataset(SMALL)).replace(
        b"\x28\x00\x02\x00US", opened * depth + closed * depth + b"\x28\x00\x02\x00US", 1
    )


@pytest.mark.parametrize(
    ("data", "limits", "tighter"),
    [
        (make_file(SMALL), {"file_bytes": len(make_file(SMALL))}, {"file_bytes": 400}),
        (make_file(SMALL), {"pixels": 16}, {"pixels": 15}),
        (make_file(SMALL), {"decoded_bytes": 16}, {"decoded_bytes": 15}),
        (make_file(np.zeros((3, 4, 4), np.uint8)), {"frames": 3}, {"frames": 2}),
        (nested(3), {"sequence_depth": 3}, {"sequence_depth": 2}),
        (make_file(SMALL), {"elements": 20}, {"elements": 9}),
        (make_file(SMALL), {"header_bytes": 400}, {"header_bytes": 100}),
        (read_file("image_dfl.dcm"), {"inflated_bytes": 2**20}, {"inflated_bytes": 2**17}),
    ],
)
def test_limit_lets_through_what_meets_it_and_refuses_what_does_not(
    data: bytes, limits: dict[str, int], tighter: dict[str, int]
) -> None:
    decode(data, Limits(**limits))
    with pytest.raises(LimitError):
        decode(data, Limits(**tighter))


def test_limits_hold_for_the_study_as_a_whole() -> None:
    files = [make_file(SMALL)] * 3
    decode_frames(files, ImageSettings(), Limits(frames=3, instances=3, decoded_bytes=48))
    for limits in (Limits(frames=2), Limits(instances=2), Limits(decoded_bytes=47)):
        with pytest.raises(LimitError):
            decode_frames(files, ImageSettings(), limits)


# --- the scan ------------------------------------------------------------------------------


def test_scan_stops_at_the_pixels_that_pydicom_finds_in_all_its_files() -> None:
    compared = 0
    for path in (*PYDICOM.glob("*.dcm"), *PYDICOM_DATA.glob("*.dcm")):
        data = path.read_bytes()
        try:
            ours = read_dataset(data, LIMITS)
        except DicomError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom remarks on what these files have wrong
            theirs = pydicom.dcmread(BytesIO(data), force=True)
            up_to_pixels = [tag for tag in theirs.keys() if tag <= 0x7FE00010]  # noqa: SIM118
            assert list(ours.keys()) == up_to_pixels, path.name
            if "PixelData" in theirs:
                assert ours.PixelData == theirs.PixelData, path.name
                compared += 1
    assert compared > 120


@settings(deadline=None)
@given(
    depths=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=4),
    implicit=st.booleans(),
)
def test_scan_finds_the_depth_that_was_written(
    depths: list[tuple[int, bool]], implicit: bool
) -> None:
    ds = pydicom.Dataset()
    for number, (depth, undefined) in enumerate(depths):
        value = pydicom.Dataset()
        for _ in range(depth):
            outer = pydicom.Dataset()
            outer.ReferencedImageSequence = [value]
            outer["ReferencedImageSequence"].is_undefined_length = undefined
            value.is_undefined_length_sequence_item = undefined
            value = outer
        ds.update({element.tag: element for element in value})
        ds.add_new(0x00091000 + number, "LO", "x")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, ds)
    # One tag holds the sequence, so the last that is not empty is the one written.
    deepest = next((depth for depth, _ in reversed(depths) if depth), 0)

    def scan(depth: int) -> None:
        scan_elements(
            buffer.getvalue(),
            0,
            implicit=implicit,
            big_endian=False,
            stop=lambda tag: False,
            limits=Limits(sequence_depth=depth),
        )

    scan(max(deepest, 1))
    if deepest > 1:
        with pytest.raises(LimitError):
            scan(deepest - 1)


# --- codestreams ---------------------------------------------------------------------------


def test_tiles_are_counted_from_the_size_marker() -> None:
    frame = bytearray(jpeg_2000_frame())
    struct.pack_into(">2L", frame, frame.index(b"\xff\x51") + 22, 256, 171)  # 2 x 3 of 512 x 512
    shape = Shape(512, 512, 1)
    check_codestream(bytes(frame), JPEG2000Lossless, shape, 16, Limits(tiles=6))
    with pytest.raises(LimitError, match="6 tiles"):
        check_codestream(bytes(frame), JPEG2000Lossless, shape, 16, Limits(tiles=5))


def with_precincts(frame: bytes, size: int) -> tuple[bytes, int]:
    """State one precinct size for each resolution; return how many resolutions there are."""
    styled = bytearray(frame)
    style = styled.index(b"\xff\x52")
    resolutions = styled[style + 9] + 1
    (length,) = struct.unpack_from(">H", styled, style + 2)
    struct.pack_into(">H", styled, style + 2, length + resolutions)
    styled[style + 4] |= 1
    styled[style + 14 : style + 14] = bytes([size]) * resolutions
    return bytes(styled), resolutions


def test_precincts_are_counted_at_every_resolution() -> None:
    frame, resolutions = with_precincts(jpeg_2000_frame(), 0x77)  # 128 samples a side
    # 512 / 128 = 4 a side at the top, then 2, then 1 for each of the rest.
    count = 16 + 4 + (resolutions - 2)
    shape = Shape(512, 512, 1)
    check_codestream(frame, JPEG2000Lossless, shape, 16, Limits(tiles=count))
    with pytest.raises(LimitError, match=f"{count} tiles or precincts"):
        check_codestream(frame, JPEG2000Lossless, shape, 16, Limits(tiles=count - 1))


def test_precincts_of_one_component_or_one_tile_are_counted_as_well() -> None:
    frame = jpeg_2000_frame()
    style = b"\0\1\x05\x04\x04\0\1" + b"\0" * 6  # component 0, 5 levels, precincts of 1 sample
    marker = b"\xff\x53" + struct.pack(">H", 2 + len(style)) + style
    shape = Shape(512, 512, 1)
    for before in (b"\xff\x90", b"\xff\x93"):  # in the main header, in the first tile's
        place = frame.index(before)
        with pytest.raises(LimitError, match="precincts"):
            check_codestream(
                frame[:place] + marker + frame[place:], JPEG2000Lossless, shape, 16, LIMITS
            )


def test_code_blocks_too_small_for_any_encoder_are_refused() -> None:
    frame = bytearray(jpeg_2000_frame())
    style = frame.index(b"\xff\x52")
    frame[style + 10 : style + 12] = b"\0\0"  # 4 x 4
    with pytest.raises(DicomError, match="code blocks"):
        check_codestream(bytes(frame), JPEG2000Lossless, Shape(512, 512, 1), 16, LIMITS)


@settings(deadline=None)
@given(st.binary(max_size=40).map(lambda data: np.frombuffer(data, np.uint8)), st.data())
def test_rle_segment_is_accepted_exactly_when_it_expands_to_the_declared_size(
    values: np.ndarray, draw: st.DataObject
) -> None:
    if len(values) == 0:
        return
    segment = bytes(encode_segment(values.tobytes(), len(values)))
    frame = rle_frame(segment)
    check_codestream(frame, RLELossless, Shape(1, len(values), 1), 8, LIMITS)
    wrong = draw.draw(st.integers(1, 80).filter(lambda size: size != len(values)))
    with pytest.raises(DicomError):
        check_codestream(frame, RLELossless, Shape(1, wrong, 1), 8, LIMITS)


@pytest.mark.parametrize(
    "name",
    ["JPGExtended.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"],
)
def test_frame_that_is_cut_off_is_refused_and_not_shown_half(name: str) -> None:
    ds = pydicom.dcmread(find_file(name))
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    data = encapsulated(ds, ds.file_meta.TransferSyntaxUID, [frame[: len(frame) // 2]])
    with pytest.raises(DicomError, match="cut off"):
        decode(data)


# --- the page in docs ----------------------------------------------------------------------


def test_page_states_the_limits_that_hold() -> None:
    page = (Path(__file__).parent.parent / "docs" / "dicom.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| `limits\.(\w+)` \| (\d+) \|", page, re.MULTILINE)
    assert len(stated) == 10
    assert {name: int(value) for name, value in stated} == {
        name: getattr(LIMITS, name) for name, _ in stated
    }


def test_page_shows_the_settings_as_they_are_by_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "dicom.md").read_text(encoding="utf-8")
    shown = page.split("```toml\n")[1].split("```")[0]
    assert ImageSettings(**tomllib.loads(shown)["image"]) == ImageSettings()


def test_the_walk_over_meta_information_ends_at_deflated_bytes_whatever_they_are() -> None:
    # Where the next element's VR would be stand bytes that are no text in UTF-8.
    deflated = bytes.fromhex("8cbd057455d7b7f67df0237b")
    element = scan_elements(
        deflated,
        0,
        implicit=False,
        big_endian=False,
        stop=lambda tag: tag >> 16 != 2,
        limits=LIMITS,
    )
    assert element is not None
    assert element.start == 0
