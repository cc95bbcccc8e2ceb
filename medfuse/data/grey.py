"""Stored pixel values of one DICOM frame in, a grey image in [0, 1] out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Num, Shaped
from pydicom import Dataset

from medfuse.errors import DicomError

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in luminance, as in YBR_FULL (PS3.3 C.7.6.3.1.2)."""

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SUPPORTED = (*MONOCHROME, "PALETTE COLOR", *_COLOUR)
"""Photometric interpretations that become grey."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window of modality values (PS3.3 C.11.2.1.2).

    Attributes:
        center: Window Center.
        width: Window Width.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of output values for consecutive input values (PS3.3 C.11.1.1).

    Attributes:
        first: The input value that maps to the first entry; lower ones map to it as well.
        bits: Width of the output values.
        entries: The output values.
    """

    first: int
    bits: int
    entries: Num[np.ndarray, " n"]

    @property
    def top(self) -> float:
        """The output value that is full brightness.

        Some writers declare fewer bits than their entries use, so the entries have the last word.
        """
        return float(max(2**self.bits - 1, self.entries.max()))


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """One decoded frame and what the file says of its values.

    Attributes:
        values: (rows, columns) or, for colour, (rows, columns, 3).
        photometric: Photometric Interpretation after decoding.
        bits_stored: Bits that values use, or 0 for floating point.
        signed: Whether they are in two's complement.
    """

    values: Shaped[np.ndarray, "rows columns *samples"]
    photometric: str
    bits_stored: int
    signed: bool

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest value the stored bits can hold."""
        half = 2.0 ** (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0.0, 2 * half - 1)


@dataclass(frozen=True, slots=True)
class GreyImage:
    """A grey image, and whether its window came from the file.

    Attributes:
        values: In [0, 1], bright for high attenuation or signal whatever the file's polarity.
        remarks: Codes: ``window-missing``, ``window-not-found``.
    """

    values: Float32[np.ndarray, "rows columns"]
    remarks: tuple[str, ...] = ()


def make_grey(stored: StoredPixels, ds: Dataset, frame: int, window: int) -> GreyImage:
    """Turn stored pixel values into a grey image in [0, 1].

    Follows the grayscale pipeline of PS3.3 C.11 and PS3.4 N.2: padding aside, modality LUT or
    rescale, then the VOI LUT or window that ``window`` numbers (LUTs first), then the polarity of
    MONOCHROME1. Colour becomes its luminance; a window does not apply to it (PS3.3 C.11.2.1.2).

    Args:
        stored: One decoded frame.
        ds: Its file's header.
        frame: Its number in the file, from 0, for per-frame functional groups.
        window: Which of several VOI LUTs and windows to use; the first where the file has fewer.

    Raises:
        DicomError: The header's values cannot be used.
    """
    if stored.photometric == "PALETTE COLOR":
        return GreyImage(_apply_palette(stored.values, ds))
    if stored.photometric not in MONOCHROME:
        return GreyImage(_take_luminance(stored))

    padding = find_padding(stored.values, ds)
    values, span = apply_modality(stored, ds, frame)
    views = find_views(ds, frame)
    remarks: tuple[str, ...] = ()
    if views:
        if window >= len(views):
            remarks = ("window-not-found",)
        view = views[window if window < len(views) else 0]
        if isinstance(view, LookupTable):
            image = (look_up(values, view) / view.top).astype(np.float32)
        else:
            image = apply_window(values, view)
    else:
        remarks = ("window-missing",)
        low, high = span or measure_span(values, padding)
        image = apply_span(values, low, high)
    if stored.photometric == "MONOCHROME1":
        image = 1 - image
    image[padding] = 0
    return GreyImage(image, remarks)


def functional_group(ds: Dataset, frame: int, keyword: str) -> Dataset:
    """Find the functional group macro that holds for one frame (PS3.3 C.7.6.16).

    Returns:
        The macro's item of this frame, else of all frames, else (in classic objects) the dataset.
    """
    groups = []
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    if frame < len(per_frame):
        groups.append(per_frame[frame])
    groups.extend(ds.get("SharedFunctionalGroupsSequence") or [])
    for group in groups:
        if group.get(keyword):
            item: Dataset = group[keyword][0]
            return item
    return ds


def find_padding(
    values: Num[np.ndarray, "rows columns"], ds: Dataset
) -> Bool[np.ndarray, "rows columns"]:
    """Mark the pixels that show nothing: padding (PS3.3 C.7.5.1.1.2), and what is not a number."""
    empty = np.zeros(values.shape, dtype=bool)
    if values.dtype.kind == "f":
        empty |= ~np.isfinite(values)
    edges = find_padding_range(ds, values)
    if edges is None:
        return empty
    return empty | ((values >= edges[0]) & (values <= edges[1]))


def find_padding_range(
    ds: Dataset, values: Num[np.ndarray, "rows columns"]
) -> tuple[float, float] | None:
    """Give the least and the greatest stored value that is padding; None where nothing is."""
    first = _number(ds, "PixelPaddingValue")
    if first is None:
        return None
    last = _number(ds, "PixelPaddingRangeLimit")
    edges = [_as_stored(first, values), _as_stored(first if last is None else last, values)]
    return min(edges), max(edges)


def apply_modality(
    stored: StoredPixels, ds: Dataset, frame: int
) -> tuple[Float[np.ndarray, "rows columns"], tuple[float, float] | None]:
    """Map stored values to modality values (PS3.3 C.11.1): Hounsfield units, say.

    Returns:
        The values, and the range that stored values of at most 8 bits can map to, which is their
        natural window; None for more bits, of which most files use a part alone.

    Raises:
        DicomError: The rescale slope is 0, or it or the intercept is not a number.
    """
    wide = stored.values.dtype.itemsize > 2
    values: Float[np.ndarray, "rows columns"] = stored.values.astype(
        np.float64 if wide else np.float32
    )
    span = stored.span if 0 < stored.bits_stored <= 8 else None
    slope, intercept, table = read_rescale(ds, frame, stored.signed)
    if table is not None:
        return look_up(values, table), ((0.0, table.top) if table.bits <= 8 else None)
    if (slope, intercept) != (1, 0):
        values = values * slope + intercept
    if span is not None:
        edges = [edge * slope + intercept for edge in span]
        span = (min(edges), max(edges))
    return values, span


def read_rescale(ds: Dataset, frame: int, signed: bool) -> tuple[float, float, LookupTable | None]:
    """Read the modality transform of one frame: slope and intercept, or a table (PS3.3 C.11.1).

    Raises:
        DicomError: The slope is 0, or it or the intercept is not a number.
    """
    sequence = ds.get("ModalityLUTSequence")
    if sequence:
        return 1.0, 0.0, read_table(sequence[0], "LUTDescriptor", "LUTData", signed)
    group = functional_group(ds, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(group, "RescaleSlope"), _number(group, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise DicomError("RescaleSlope is 0; expected a factor that keeps values apart")
    return slope, intercept, None


def find_views(ds: Dataset, frame: int) -> list[LookupTable | Window]:
    """List the VOI LUTs, then the windows, that the file offers for one frame (PS3.3 C.11.2).

    A window too narrow for its function, which some writers leave where they have none, is skipped.

    Raises:
        DicomError: The function is unknown, or centres and widths do not pair up.
    """
    group = functional_group(ds, frame, "FrameVOILUTSequence")
    signed = ds.get("PixelRepresentation") == 1
    views: list[LookupTable | Window] = [
        read_table(item, "LUTDescriptor", "LUTData", signed)
        for item in group.get("VOILUTSequence") or []
        if item.get("LUTDescriptor") and item.get("LUTData")
    ]
    centers, widths = _numbers(group, "WindowCenter"), _numbers(group, "WindowWidth")
    if len(centers) != len(widths):
        raise DicomError(
            f"the file has {len(centers)} WindowCenter and {len(widths)} WindowWidth values"
        )
    function = str(group.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DicomError("VOILUTFunction is unknown; expected LINEAR, LINEAR_EXACT or SIGMOID")
    for center, width in zip(centers, widths, strict=True):
        if width >= 1 or (width > 0 and function != "LINEAR"):
            views.append(Window(center, width, function))
    return views


def apply_window(
    values: Float[np.ndarray, "rows columns"], window: Window
) -> Float32[np.ndarray, "rows columns"]:
    """Map a window of modality values to [0, 1], clipping outside it.

    Follows LINEAR, SIGMOID and LINEAR_EXACT of PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2.
    A LINEAR window of width 1 is a threshold at ``center - 0.5``.

    Raises:
        DicomError: The width is below 1, or for the other functions not above 0.
    """
    center, width = window.center, window.width
    if width <= 0 or (window.function == "LINEAR" and width < 1):
        raise DicomError(f"a {window.function} window is too narrow")
    if window.function == "SIGMOID":
        # The logistic function by way of tanh, which does not overflow.
        sigmoid = 0.5 + 0.5 * np.tanh(2 * (values - center) / width)
        return sigmoid.astype(np.float32)
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float32)
    return apply_span(values, center - width / 2, center + width / 2)


def apply_span(
    values: Float[np.ndarray, "rows columns"], low: float, high: float
) -> Float32[np.ndarray, "rows columns"]:
    """Map ``low`` to 0 and ``high`` to 1, clipping outside; all to 0 where they are equal."""
    if not high > low:
        return np.zeros(values.shape, dtype=np.float32)
    scaled = (values - low) / (high - low)
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def measure_span(
    values: Float[np.ndarray, "rows columns"], padding: Bool[np.ndarray, "rows columns"]
) -> tuple[float, float]:
    """Find the least and the greatest value outside padding; (0, 0) where there is nothing else."""
    shown = values[~padding]
    return (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)


def look_up(values: Num[np.ndarray, "*shape"], table: LookupTable) -> Float32[np.ndarray, "*shape"]:
    """Replace each value by its table entry, the nearest one outside the table's range."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(np.rint(values))
    lowest, highest = table.first, table.first + len(table.entries) - 1
    places = np.clip(values.astype(np.float64), lowest, highest).astype(np.intp) - lowest
    entries: Float32[np.ndarray, " n"] = table.entries.astype(np.float32)
    found: Float32[np.ndarray, "*shape"] = entries[places]
    return found


def read_table(item: Dataset, descriptor: str, data: str, signed: bool) -> LookupTable:
    """Read a lookup table from its descriptor and data (PS3.3 C.7.6.3.1.5, C.11.1.1).

    Args:
        item: The dataset that holds both.
        descriptor: Keyword of the descriptor.
        data: Keyword of the data.
        signed: Whether the first mapped value is in two's complement.

    Raises:
        DicomError: The descriptor is not three numbers, or the data has fewer entries.
    """
    count, first, bits = _read_descriptor(item, descriptor, signed)
    value = item.get(data)
    if isinstance(value, bytes):
        entries = _read_words(value, count, bits, _is_big_endian(item))
    else:
        entries = np.atleast_1d(np.asarray(value, dtype=np.int64))
    if len(entries) < count:
        raise DicomError(f"{data} has {len(entries)} entries; {descriptor} declares {count}")
    return LookupTable(first, bits, entries[:count])


def expand_segments(words: Sequence[int], wide: bool, count: int) -> list[int]:
    """Expand a segmented palette (PS3.3 C.7.9.2), never beyond ``count`` entries.

    Args:
        words: The segments, as bytes or as 16-bit words.
        wide: Whether they are 16-bit words.
        count: How many entries the descriptor declares.

    Raises:
        DicomError: A segment is unknown, ends early, or refers to one that refers on.
    """
    entries: list[int] = []
    pending = [(0, len(words), True)]  # (position, segments left, may refer)
    try:
        while pending:
            position, left, outermost = pending.pop()
            while left and position + 1 < len(words) and len(entries) < count:
                kind, length = words[position], words[position + 1]
                left -= 1
                if kind == 0:
                    entries.extend(words[position + 2 : position + 2 + length])
                    position += 2 + length
                elif kind == 1 and entries:
                    steps = np.linspace(entries[-1], words[position + 2], length + 1)[1:]
                    entries.extend(int(step) for step in np.rint(steps))
                    position += 3
                elif kind == 2 and entries and outermost:
                    size = 2 if wide else 4
                    offset = sum(
                        words[position + 2 + place] << (place * (16 if wide else 8))
                        for place in range(size)
                    )
                    if wide and offset:
                        # The standard counts bytes, pydicom and GDCM count words.
                        raise DicomError(
                            "a segmented palette refers back in a way readers differ on"
                        )
                    pending += [(position + 2 + size, left, True), (offset, length, False)]
                    break
                else:
                    raise DicomError("a segmented palette has a segment that cannot be used")
    except IndexError as error:
        raise DicomError("a segmented palette ends within a segment") from error
    return entries[:count]


def _apply_palette(
    values: Num[np.ndarray, "rows columns"], ds: Dataset
) -> Float32[np.ndarray, "rows columns"]:
    """Look colours up and take their luminance."""
    image = np.zeros(values.shape, dtype=np.float32)
    for weight, colour in zip(LUMA, ("Red", "Green", "Blue"), strict=True):
        table = _read_palette(ds, colour)
        image += weight * (look_up(values, table) / np.float32(table.top))
    return np.clip(image, 0, 1, out=image)


def _read_palette(ds: Dataset, colour: str) -> LookupTable:
    descriptor = f"{colour}PaletteColorLookupTableDescriptor"
    data = f"{colour}PaletteColorLookupTableData"
    signed = ds.get("PixelRepresentation") == 1
    if data in ds:
        return read_table(ds, descriptor, data, signed)
    segments = ds.get(f"Segmented{data}")
    if not isinstance(segments, bytes):
        raise DicomError(f"{data} is missing")
    count, first, bits = _read_descriptor(ds, descriptor, signed)
    kind = ("u1" if bits <= 8 else ">u2") if _is_big_endian(ds) else ("u1" if bits <= 8 else "<u2")
    words = np.frombuffer(
        segments[: len(segments) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind
    )
    entries = expand_segments(words.tolist(), bits > 8, count)
    if len(entries) < count:
        raise DicomError(f"Segmented{data} has {len(entries)} entries; {count} are declared")
    return LookupTable(first, bits, np.array(entries))


def _take_luminance(stored: StoredPixels) -> Float32[np.ndarray, "rows columns"]:
    """Take the luminance of colour: it is the first component of YBR_FULL as it stands."""
    top = np.float32(2**stored.bits_stored - 1)
    if stored.photometric.startswith("YBR"):
        image = stored.values[..., 0].astype(np.float32) / top
    else:
        image = (stored.values.astype(np.float32) @ LUMA) / top
    return np.clip(image, 0, 1, out=image)


def _read_descriptor(item: Dataset, keyword: str, signed: bool) -> tuple[int, int, int]:
    numbers = _numbers(item, keyword)
    if len(numbers) != 3:
        raise DicomError(f"{keyword} has {len(numbers)} values; expected 3")
    count, first, bits = (int(number) for number in numbers)
    # 0 stands for 2^16, and the writer's sign of the first value is often lost (C.7.6.3.1.5).
    count = count % 2**16 or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    if not 1 <= bits <= 16:
        raise DicomError(f"{keyword} declares {bits} bits; expected 1 to 16")
    return count, first, bits


def _read_words(value: bytes, count: int, bits: int, big_endian: bool) -> Num[np.ndarray, " n"]:
    """Read table entries of 16 bits, or of 8 where there are just enough bytes for those."""
    if bits <= 8 and len(value) <= count + count % 2:
        return np.frombuffer(value, np.uint8)
    return np.frombuffer(value[: len(value) // 2 * 2], ">u2" if big_endian else "<u2")


def _is_big_endian(ds: Dataset) -> bool:
    return ds.original_encoding[1] is False


def _as_stored(number: float, values: Num[np.ndarray, "rows columns"]) -> float:
    """Bring a padding value whose sign the writer lost into the range of the stored values."""
    if values.dtype.kind == "f" or not np.isfinite(number):
        return number
    whole = 1 << 8 * values.dtype.itemsize
    top = whole // 2 if values.dtype.kind == "i" else whole
    wrapped = int(number) % whole
    return float(wrapped if wrapped < top else wrapped - whole)


def _numbers(ds: Dataset, keyword: str) -> list[float]:
    """Read an attribute of any multiplicity as finite numbers."""
    value = ds.get(keyword)
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, int | float | str) else list(value)
    numbers = [float(number) for number in values]
    if not np.all(np.isfinite(numbers)):
        raise DicomError(f"{keyword} is not a number")
    return numbers


def _number(ds: Dataset, keyword: str) -> float | None:
    numbers = _numbers(ds, keyword)
    return numbers[0] if numbers else None
