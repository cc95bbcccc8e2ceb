"""An encoded DICOM frame in, its own header checked against what its file declares."""

import itertools
import struct
from dataclasses import dataclass
from math import ceil

from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from medfuse.config import Limits
from medfuse.errors import DicomError, LimitError

# Start-of-frame markers of baseline, extended, progressive and lossless JPEG, and of JPEG-LS.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
# Hierarchical and arithmetic processes, which no DICOM transfer syntax in use has.
_FOREIGN_FRAMES = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE})
_START_OF_SCAN = 0xDA
_CODING_STYLE = 0xFF52
_COMPONENT_STYLE = 0xFF53
_START_OF_DATA = b"\xff\x93"
_SMALLEST_BLOCK = (
    8  # 2^8 samples; writers use 2^10 to 2^12, and each block costs the decoder a record
)
_END = b"\xff\xd9"  # of an image in JPEG and JPEG-LS, of a codestream in JPEG 2000


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one frame, as one header states it."""

    rows: int
    columns: int
    samples: int


def check_codestream(
    frame: bytes, syntax: UID, declared: Shape, bits_allocated: int, limits: Limits
) -> None:
    """Refuse an encoded frame whose own header disagrees with the file's, before it is decoded.

    Raises:
        DicomError: Its dimensions are other than declared, or it has no header of its kind.
        LimitError: It is cut into more tiles or precincts than ``limits.tiles``.
    """
    try:
        if syntax in JPEG2000TransferSyntaxes:
            actual = _read_jpeg_2000(frame, limits)
        elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
            actual = _read_jpeg(frame)
        elif syntax == RLELossless:
            _check_rle(frame, declared, bits_allocated)
            return
        else:
            raise DicomError(f"transfer syntax {syntax.name} is not supported")
    except (struct.error, IndexError) as error:
        raise DicomError("an encoded frame ends within its header") from error
    if _END not in frame[-16:]:  # writers pad with one or more bytes of any kind
        raise DicomError("an encoded frame is cut off before its end marker")
    if actual != declared:
        raise DicomError(
            f"an encoded frame is {actual.rows} x {actual.columns} x {actual.samples}, "
            f"but its file declares {declared.rows} x {declared.columns} x {declared.samples}"
        )


def _read_jpeg(frame: bytes) -> Shape:
    """Read the frame header of ISO 10918-1 B.2.2 or ISO 14495-1 C.2.2."""
    if frame[:2] != b"\xff\xd8":
        raise DicomError("a JPEG frame does not begin with its start marker")
    shape = None
    position = 2
    while True:
        if frame[position] != 0xFF:
            raise DicomError("a JPEG frame has no marker where one is due")
        while frame[position] == 0xFF:
            position += 1
        marker = frame[position]
        (length,) = struct.unpack_from(">H", frame, position + 1)
        if marker == _START_OF_SCAN:
            break
        if marker in _FOREIGN_FRAMES or (marker in _FRAMES and shape is not None):
            raise DicomError("a JPEG frame is hierarchical or arithmetic, which is not supported")
        if marker in _FRAMES:
            _, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 3)
            shape = Shape(rows, columns, samples)
        position += 1 + max(length, 2)
    if shape is None:
        raise DicomError("a JPEG frame has no frame header")
    return shape


def _read_jpeg_2000(frame: bytes, limits: Limits) -> Shape:
    """Read the image size of ISO 15444-1 A.5.1 and bound its tiles and precincts (A.6.1)."""
    start = _find_codestream(frame)
    if frame[start : start + 4] != b"\xff\x4f\xff\x51":
        raise DicomError("a JPEG 2000 frame does not begin with its size marker")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = (
        struct.unpack_from(">8LH", frame, start + 8)
    )
    width, height = right - left, bottom - top
    if min(width, height, tile_width, tile_height) < 1:
        raise DicomError("a JPEG 2000 frame or its tiles are empty")
    if any(
        frame[start + 42 + 3 * sample + offset] != 1
        for sample in range(samples)
        for offset in (1, 2)
    ):
        raise DicomError("a JPEG 2000 frame has subsampled components, which is not supported")
    tiles = ceil((right - tile_left) / tile_width) * ceil((bottom - tile_top) / tile_height)
    pieces = max(tiles, _count_precincts(frame, start + 2, width, height))
    if pieces > limits.tiles:
        raise LimitError(
            f"a JPEG 2000 frame has {pieces} tiles or precincts; "
            f"at most {limits.tiles} are accepted"
        )
    return Shape(height, width, samples)


def _count_precincts(frame: bytes, position: int, width: int, height: int) -> int:
    """Count a component's precincts by the headers up to the first data (ISO 15444-1 A.6, B.6).

    Returns:
        The most that any coding style states, of the whole image or of one component.
    """
    most = 0
    while frame[position : position + 2] != _START_OF_DATA:
        marker, length = struct.unpack_from(">HH", frame, position)
        # Both styles hold levels, block width, block height, two flags, and precinct sizes if any.
        if marker in (_CODING_STYLE, _COMPONENT_STYLE):
            whole = marker == _CODING_STYLE
            flags = frame[position + (4 if whole else 5)]
            style = frame[position + (9 if whole else 6) : position + 2 + length]
            levels, block_width, block_height = style[0], style[1], style[2]
            if block_width + block_height + 4 < _SMALLEST_BLOCK:
                raise DicomError("a JPEG 2000 frame has code blocks of fewer than 256 samples")
            sizes = style[5:] if flags & 1 else b""
            count = 0
            for level, size in zip(range(levels, -1, -1), sizes, strict=False):
                columns = ceil(width / 2 ** (level + (size & 15)))
                rows = ceil(height / 2 ** (level + (size >> 4)))
                count += columns * rows
            most = max(most, count)
        position += 2 + max(length, 2)
    return most


def _find_codestream(frame: bytes) -> int:
    """Find where the codestream begins in a frame that some writers wrap in a JP2 file (I.5)."""
    if frame[4:8] != b"jP  ":
        return 0
    position = 0
    while position + 8 <= len(frame):
        length, kind = struct.unpack_from(">L4s", frame, position)
        if kind == b"jp2c":
            return position + 8
        # Lengths 0 and 1 are special in JP2; pydicom's own reader never ends on 0.
        if length < 8:
            break
        position += length
    raise DicomError("a JPEG 2000 frame's wrapper holds no codestream")


def _check_rle(frame: bytes, declared: Shape, bits_allocated: int) -> None:
    """Check that each segment expands to just the declared size (PS3.5 G.3 to G.5).

    The decoder writes a longer segment past its array's end and aborts, so this is not left to it.
    """
    count, *offsets = struct.unpack_from("<16L", frame)
    planes = declared.samples * max(bits_allocated // 8, 1)
    if count != planes or planes > 15:
        raise DicomError(f"an RLE frame has {count} segments; its file declares {planes}")
    plane_bits = declared.rows * declared.columns * min(bits_allocated, 8)
    plane_bytes = (plane_bits + 7) // 8
    for left, right in itertools.pairwise([*offsets[:count], len(frame)]):
        if not 64 <= left <= right <= len(frame):
            raise DicomError("an RLE frame's segments are out of order")
        if _expand_length(frame[left:right], plane_bytes) != plane_bytes:
            raise DicomError("an RLE frame does not expand to the size its file declares")


def _expand_length(segment: bytes, most: int) -> int:
    """Count the bytes that a PackBits segment becomes, and give up beyond ``most``."""
    size = len(segment)
    if size > 2 * most + 2:  # no encoder spends more than two bytes on one
        return most + 1
    total = position = 0
    while position < size and total <= most:
        head = segment[position]
        if head < 128:
            total += min(head + 1, size - position - 1)
            position += head + 2
        else:
            total += 257 - head if head > 128 and position + 1 < size else 0
            position += 2 if head > 128 else 1
    return total
