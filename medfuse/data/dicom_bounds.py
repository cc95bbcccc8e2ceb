"""DICOM bytes in, where their pixel data lies out; refused before parsing when out of bounds."""

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import dictionary_VR
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from medfuse.config import Limits
from medfuse.errors import DicomError, LimitError

UNDEFINED = 0xFFFFFFFF
"""The length field of an element or item that ends at a delimiter (PS3.5 7.1.1)."""

_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_VRS = frozenset(vr.encode() for vr in VR)
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_INFLATE_STEP = 2**20

_FAULTS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,  # a bare Exception, which quotes the value
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,  # RecursionError and NotImplementedError are among them
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_FILTERS = threading.RLock()


@contextmanager
def refuse_faults(message: str) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise on bad input into a `DicomError`.

    pydicom's own messages may quote values, so they are chained but not repeated. Its warnings are
    silenced here alone, under a lock since Python keeps one list of filters for all threads.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except _FAULTS as error:
            raise DicomError(f"{message} ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class Element:
    """Where a data element lies in a file: its first byte, and its value as declared."""

    start: int
    tag: int
    vr: str | None
    value: int
    length: int


@dataclass(slots=True)
class _Level:
    """A dataset or a sequence that the scan is inside of.

    Attributes:
        is_sequence: Whether items come next, and not elements.
        end: Where it ends by its declared length, or None where a delimiter ends it.
        limit: Where reading stops whatever is declared.
        resume: Where the scan goes on after it, or None for where it then is.
        implicit: Whether its elements have implicit VR.
    """

    is_sequence: bool
    end: int | None
    limit: int
    resume: int | None
    implicit: bool


def check_file_bytes(data: bytes, limits: Limits) -> None:
    """Refuse an encoded file that is too large.

    Raises:
        LimitError: It has more than ``limits.file_bytes``.
    """
    if len(data) > limits.file_bytes:
        raise LimitError(f"a file has {len(data)} bytes; at most {limits.file_bytes} are accepted")


def inflate(deflated: memoryview, limits: Limits) -> bytes:
    """Undo the deflated transfer syntax (PS3.5 A.5) in bounded steps.

    Raises:
        DicomError: The stream is damaged.
        LimitError: It becomes more than ``limits.inflated_bytes``.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = BytesIO()
    try:
        rest: bytes | memoryview = deflated
        while rest and not stream.eof:
            plain.write(stream.decompress(rest, _INFLATE_STEP))
            rest = stream.unconsumed_tail
            if plain.tell() > limits.inflated_bytes:
                raise LimitError(
                    f"a deflated DICOM file becomes more than {limits.inflated_bytes} bytes"
                )
        plain.write(stream.flush())
    except zlib.error as error:
        raise DicomError("a deflated DICOM file is damaged") from error
    return plain.getvalue()


def scan_elements(
    data: bytes,
    start: int,
    *,
    implicit: bool,
    big_endian: bool,
    stop: Callable[[int], bool],
    limits: Limits,
) -> Element | None:
    """Walk over encoded data elements without recursion and without keeping any value.

    The walk takes the same turns as pydicom's reader, which recurses once per nested sequence and
    keeps over a kilobyte per empty item; so both are bounded here first.

    Returns:
        The first outermost element whose tag ``stop`` accepts, or None at the end.

    Raises:
        DicomError: A sequence holds something other than items, or a value has no end.
        LimitError: There are more than ``limits.elements`` elements and items, sequences are nested
            more than ``limits.sequence_depth`` deep, or more than ``limits.header_bytes`` come
            before the stop.
    """
    order = ">" if big_endian else "<"
    read_tag = struct.Struct(f"{order}HHL").unpack_from
    read_explicit = struct.Struct(f"{order}HH2sH").unpack_from
    read_length = struct.Struct(f"{order}L").unpack_from
    levels = [_Level(False, None, len(data), None, _is_implicit(data, start, implicit, True))]
    position = start
    seen = 0
    depth = 0
    while levels:
        level = levels[-1]
        if position + 8 > level.limit or (level.end is not None and position >= level.end):
            position = min(position, level.limit)
            levels.pop()
            depth -= level.is_sequence
            position = position if level.resume is None else level.resume
            continue
        seen += 1
        if seen > limits.elements:
            raise LimitError(f"a DICOM file has more than {limits.elements} elements and items")
        if level.is_sequence:
            group, number, length = read_tag(data, position)
            tag = group << 16 | number
            position += 8
            if tag == _SEQUENCE_END:
                levels.pop()
                depth -= 1
                position = position if level.resume is None else level.resume
            elif tag == _ITEM:
                end = None if length == UNDEFINED else position + length
                inner = _is_implicit(data, position, level.implicit, False)
                levels.append(_Level(False, end, level.limit, None, inner))
            else:
                raise DicomError("a DICOM sequence holds something other than items")
            continue

        first = position
        group, number, vr, length = _read_head(
            data, position, level.implicit, read_tag, read_explicit
        )
        tag = group << 16 | number
        position += 8
        if tag == _ITEM_END:
            levels.pop()
            continue
        if vr in _LONG_VRS:
            if position + 4 > level.limit:
                position = level.limit
                continue
            (length,) = read_length(data, position)
            position += 4
        if position - start > limits.header_bytes:
            raise LimitError(
                f"a DICOM file has more than {limits.header_bytes} bytes before its pixel data"
            )
        if len(levels) == 1 and stop(tag):
            # Latin-1, since what stands after the meta information may be deflated: any bytes.
            return Element(first, tag, vr.decode("latin-1") if vr else None, position, length)
        known = _known_vr(tag) if vr in (None, b"UN") else ""
        if length != UNDEFINED:
            end = min(position + length, level.limit)
            if vr == b"SQ" or known == "SQ":
                levels.append(_Level(True, end, end, end, level.implicit))
                depth += 1
            else:
                position = end
        elif (
            vr in (b"SQ", b"UN")
            or known == "SQ"
            or (vr is None and not known and _tag_at(data, position, read_tag) == _ITEM)
        ):
            levels.append(_Level(True, None, level.limit, None, level.implicit))
            depth += 1
        else:
            position = find_fragments_end(data, position, limits, big_endian=big_endian)
        if depth > limits.sequence_depth:
            raise LimitError(f"DICOM sequences are nested more than {limits.sequence_depth} deep")
    if position - start > limits.header_bytes:
        raise LimitError(f"a DICOM file has more than {limits.header_bytes} bytes of elements")
    return None


def find_fragments_end(data: bytes, start: int, limits: Limits, *, big_endian: bool = False) -> int:
    """Walk over the fragments of an encapsulated value (PS3.5 A.4) to the byte after its delimiter.

    Raises:
        DicomError: It is not made of items, or has no end.
        LimitError: There are more than ``limits.elements`` fragments.
    """
    read_tag = struct.Struct(">HHL" if big_endian else "<HHL").unpack_from
    position = start
    for _ in range(limits.elements):
        if position + 8 > len(data):
            raise DicomError("an encapsulated DICOM value ends before its delimiter")
        group, number, length = read_tag(data, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM or length == UNDEFINED:
            raise DicomError("an encapsulated DICOM value is not made of fragments")
        position += length
    raise LimitError(f"a DICOM file has more than {limits.elements} fragments")


def _read_head(
    data: bytes,
    position: int,
    implicit: bool,
    read_tag: Callable[[bytes, int], tuple[int, ...]],
    read_explicit: Callable[[bytes, int], tuple[int, int, bytes, int]],
) -> tuple[int, int, bytes | None, int]:
    """Read tag, VR (None when it is implicit) and length from an element's first eight bytes."""
    if not implicit:
        group, number, vr, length = read_explicit(data, position)
        # Some writers switch to implicit VR half-way; pydicom follows them, so the scan does.
        if vr in _VRS or b"AA" <= vr <= b"ZZ":
            return group, number, vr, length
    group, number, length = read_tag(data, position)
    return group, number, None, length


def _is_implicit(data: bytes, position: int, assumed: bool, outermost: bool) -> bool:
    """Tell whether a dataset's first element has no VR, by pydicom's rule."""
    vr = data[position + 4 : position + 6]
    if len(vr) < 2 or (assumed and not outermost):
        return assumed
    return not all(0x40 < letter < 0x5B for letter in vr)


def _known_vr(tag: int) -> str:
    """Look a tag up in the data dictionary; empty for a private or unknown one."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


def _tag_at(
    data: bytes, position: int, read_tag: Callable[[bytes, int], tuple[int, ...]]
) -> int | None:
    if position + 8 > len(data):
        return None
    group, number, _ = read_tag(data, position)
    return group << 16 | number
