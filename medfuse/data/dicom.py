"""DICOM files in, a study's frames in their order out, each a grey image at native size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO

import numpy as np
import pydicom
from jaxtyping import Float32
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset as parse_elements
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medfuse.config import ImageSettings, Limits
from medfuse.data.codestream import Shape, check_codestream
from medfuse.data.dicom_bounds import (
    UNDEFINED,
    Element,
    check_file_bytes,
    find_fragments_end,
    inflate,
    refuse_faults,
    scan_elements,
)
from medfuse.data.grey import MONOCHROME, SUPPORTED, StoredPixels, functional_group, make_grey
from medfuse.data.picture import is_picture, read_picture, read_picture_size
from medfuse.data.series import Place, order_places, place_picture, read_place, read_vector
from medfuse.errors import DicomError, LimitError

_PIXELS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_PIXEL_VRS = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}

# Objects whose pixels are labels or doses: to look at them as an image would be a guess.
_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose study an instance says it is part of; never logged, and shown on the page alone.

    Attributes:
        patient_id: PatientID, or None where it is empty.
        study_uid: StudyInstanceUID, or None where it is empty.
        study_date: StudyDate, or None where it is empty or no date.
    """

    patient_id: str | None
    study_uid: str | None
    study_date: date | None = None


@dataclass(frozen=True, slots=True)
class NativeFrame:
    """One frame at its native size.

    Attributes:
        image: In [0, 1], after modality LUT, window and polarity; padding is 0.
        instance: Index of its file among those given.
        frame: Its number in that file, from 0.
        spacing_mm: Distance of rows and of columns where the header gives it.
        remarks: Codes of what its reader should know, such as ``window-missing``.
    """

    image: Float32[np.ndarray, "rows columns"]
    instance: int
    frame: int
    spacing_mm: tuple[float, float] | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Header:
    """A parsed file up to its pixel data, which stays where it is.

    Attributes:
        ds: All elements before the pixel data.
        body: The bytes that `pixels` points into.
        pixels: The pixel data element, or None.
    """

    ds: pydicom.Dataset
    body: bytes
    pixels: Element | None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How an image was made.

    Attributes:
        view: View Position (PS3.3 C.8.7.8 and C.8.11.5).
        scanner: Manufacturer and Manufacturer's Model Name.
    """

    view: str
    scanner: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a file declares of its pixel data."""

    shape: Shape
    frames: int
    bits_allocated: int
    photometric: str
    syntax: UID

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        shape = self.shape
        return shape.rows * shape.columns * shape.samples * max(self.bits_allocated // 8, 1)


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A frame that has been found and checked, but not decoded.

    Attributes:
        instance: Index of its file among those given.
        frame: Its number in that file, from 0.
        header: The file's header, or None for a picture.
    """

    instance: int
    frame: int
    header: _Header | None


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """The frames chosen from a study, in order, and how many it has."""

    sources: tuple[FrameSource, ...]
    total: int


def read_dataset(data: bytes, limits: Limits) -> pydicom.Dataset:
    """Parse a DICOM file, with or without its preamble, within limits.

    Returns:
        All its elements up to and including the pixel data, which is not decoded. Deflated files
        come inflated. A file without a transfer syntax gets the one it was parsed by.

    Raises:
        DicomError: It is not a DICOM file, or it is damaged.
        LimitError: It is larger, holds more elements or nests deeper than a limit allows.
    """
    header = _read_header(data, limits)
    pixels = header.pixels
    if pixels is not None:
        with refuse_faults("a DICOM file's pixel data cannot be read"):
            if pixels.length == UNDEFINED:
                end = find_fragments_end(header.body, pixels.value, limits) - 8
            else:
                end = pixels.value + pixels.length
            header.ds[pixels.tag] = DataElement(
                pixels.tag,
                pixels.vr or _PIXEL_VRS[pixels.tag],
                header.body[pixels.value : end],
                is_undefined_length=pixels.length == UNDEFINED,
            )
    return header.ds


def read_identity(ds: pydicom.Dataset) -> Identity:
    """Read whose study a dataset says it is part of.

    Raises:
        DicomError: The identifiers are damaged.
    """
    with refuse_faults("a DICOM file's identifiers cannot be read"):
        patient_id, study_uid = (
            str(ds.get(keyword) or "").strip() or None
            for keyword in ("PatientID", "StudyInstanceUID")
        )
        day = str(ds.get("StudyDate") or "").strip()
    return Identity(patient_id, study_uid, _read_day(day))


def _read_day(text: str) -> date | None:
    """Read a date as DICOM writes it, or as its forerunner did (2026.02.01); else None."""
    digits = text.replace(".", "")
    if len(digits) != 8 or not digits.isdecimal():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def read_file_identity(data: bytes, limits: Limits) -> Identity:
    """Read whose study a file says it is part of, without copying its pixel data.

    Raises:
        DicomError: It is not a DICOM file, or it is damaged.
        LimitError: It is larger, holds more elements or nests deeper than a limit allows.
    """
    return read_identity(_read_header(data, limits).ds)


def read_acquisition(data: bytes, limits: Limits) -> Acquisition:
    """Read how a file says that it was made; what it does not say is empty.

    Raises:
        DicomError: It is not a DICOM file, or it is damaged.
        LimitError: It is larger, holds more elements or nests deeper than a limit allows.
    """
    ds = read_header(data, limits)
    with refuse_faults("a DICOM file's acquisition cannot be read"):
        view, maker, name = (
            str(ds.get(keyword) or "").strip()
            for keyword in ("ViewPosition", "Manufacturer", "ManufacturerModelName")
        )
    return Acquisition(view=view, scanner=f"{maker} {name}".strip())


def decode_frames(
    images: Sequence[bytes], settings: ImageSettings, limits: Limits
) -> tuple[NativeFrame, ...]:
    """Decode the chosen frames of a study, in the study's order.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    choice = choose_frames(images, settings, limits)
    return tuple(decode_frame(images, source, settings, limits) for source in choice.sources)


def choose_frames(images: Sequence[bytes], settings: ImageSettings, limits: Limits) -> FrameChoice:
    """Put a study's frames in order and choose at most ``settings.frames`` of them, evenly.

    The order is that of `order_places`; that of the files does not matter, but for files that say
    nothing of their place.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    ordered = _order_frames(images, settings, limits)
    kept = min(settings.frames, len(ordered))
    # The middle of each of `kept` equal parts, so one frame of a stack is its middle one.
    chosen = [ordered[(2 * i + 1) * len(ordered) // (2 * kept)] for i in range(kept)]
    decoded = sum(frame_bytes for _, frame_bytes in chosen)
    if decoded > limits.decoded_bytes:
        raise LimitError(
            f"a study's chosen frames would be {decoded} bytes; "
            f"at most {limits.decoded_bytes} are accepted"
        )
    return FrameChoice(tuple(source for source, _ in chosen), len(ordered))


def list_frames(
    images: Sequence[bytes], settings: ImageSettings, limits: Limits
) -> tuple[FrameSource, ...]:
    """Put all of a study's frames in the order of `choose_frames`, to be decoded one by one.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    return tuple(source for source, _ in _order_frames(images, settings, limits))


def _order_frames(
    images: Sequence[bytes], settings: ImageSettings, limits: Limits
) -> list[tuple[FrameSource, int]]:
    """Put all frames in order, each with the bytes that it takes decoded."""
    if len(images) > limits.instances:
        raise LimitError(
            f"a study has {len(images)} files; at most {limits.instances} are accepted"
        )
    found: list[tuple[Place, FrameSource, int]] = []
    for instance, data in enumerate(images):
        check_file_bytes(data, limits)
        if is_picture(data):
            found.append(_find_picture(instance, data, settings, limits))
            continue
        header = _read_header(data, limits)
        layout = _read_layout(header, limits)
        if len(found) + layout.frames > limits.frames:
            raise LimitError(f"a study declares more than {limits.frames} frames")
        with refuse_faults("a DICOM file's place in its series cannot be read"):
            for frame in range(layout.frames):
                place = read_place(header.ds, instance, frame)
                found.append((place, FrameSource(instance, frame, header), layout.frame_bytes))
    return [found[i][1:] for i in order_places([place for place, _, _ in found])]


def decode_frame(
    images: Sequence[bytes], source: FrameSource, settings: ImageSettings, limits: Limits
) -> NativeFrame:
    """Decode one chosen frame.

    Args:
        images: The files that the frame was chosen from.
        source: Which frame.
        settings: Which window to use.
        limits: What an encoded frame's own header may state.

    Raises:
        DicomError: The frame is damaged or its encoding is not supported.
        LimitError: Its encoding is cut into more pieces than a limit allows.
    """
    header = source.header
    if header is None:
        image = read_picture(images[source.instance], limits)
        return NativeFrame(image, source.instance, 0, None)
    ds, stored = decode_stored(source, limits)
    with refuse_faults("a DICOM frame's grey values cannot be worked out"):
        grey = make_grey(stored, ds, source.frame, settings.window)
        remarks = grey.remarks
        if str(ds.get("BurnedInAnnotation") or "").strip().upper() == "YES":
            remarks = (*remarks, "burned-in-annotation")
        spacing_mm = read_spacing(ds, source.frame)
    return NativeFrame(grey.values, source.instance, source.frame, spacing_mm, remarks)


def decode_stored(source: FrameSource, limits: Limits) -> tuple[pydicom.Dataset, StoredPixels]:
    """Decode the stored values of a DICOM file's frame, and give its header with them.

    Raises:
        DicomError: The frame is damaged or its encoding is not supported, or it is a picture's.
        LimitError: Its encoding is cut into more pieces than a limit allows.
    """
    header = source.header
    if header is None:
        raise DicomError("a picture has no stored DICOM values")
    name = header.ds.file_meta.TransferSyntaxUID.name
    with refuse_faults(f"a DICOM frame in {name} cannot be decoded"):
        return header.ds, _decode_pixels(header, source.frame, limits)


def read_header(data: bytes, limits: Limits) -> pydicom.Dataset:
    """Parse a DICOM file's elements before its pixel data, within limits.

    Raises:
        DicomError: It is not a DICOM file, or it is damaged.
        LimitError: It is larger, holds more elements or nests deeper than a limit allows.
    """
    return _read_header(data, limits).ds


def open_stored(data: bytes, limits: Limits) -> tuple[pydicom.Dataset, Iterator[StoredPixels]]:
    """Read a file's header, and give its frames as stored, each decoded when it is asked for.

    Raises:
        DicomError: The file is not an image, or is damaged; the frames raise it as well.
        LimitError: It declares more than a limit allows.
    """
    header = _read_header(data, limits)
    layout = _read_layout(header, limits)
    if layout.frames * layout.frame_bytes > limits.decoded_bytes:
        raise LimitError(
            f"a file's frames would be {layout.frames * layout.frame_bytes} bytes; "
            f"at most {limits.decoded_bytes} are accepted"
        )
    return header.ds, _decode_each(header, layout, limits)


def _decode_each(header: _Header, layout: _Layout, limits: Limits) -> Iterator[StoredPixels]:
    for frame in range(layout.frames):
        with refuse_faults(f"a DICOM frame in {layout.syntax.name} cannot be decoded"):
            stored = _decode_pixels(header, frame, limits)
        yield stored


def _read_header(data: bytes, limits: Limits) -> _Header:
    """Parse a file up to its pixel data, after the bounds of its encoding are checked."""
    check_file_bytes(data, limits)
    start = 132 if data[128:132] == b"DICM" else 0
    with refuse_faults("the file is not a DICOM file, or it is damaged"):
        first = scan_elements(
            data,
            start,
            implicit=False,
            big_endian=False,
            stop=lambda tag: tag >> 16 != 2,
            limits=limits,
        )
        meta_end = len(data) if first is None else first.start
        meta = FileMetaDataset(parse_elements(BytesIO(data[start:meta_end]), False, True))
        syntax = meta.get("TransferSyntaxUID") or _guess_syntax(data[meta_end : meta_end + 6])
        body, begin = data, meta_end
        if syntax == DeflatedExplicitVRLittleEndian:
            body, begin = inflate(memoryview(data)[meta_end:], limits), 0
        implicit = syntax == ImplicitVRLittleEndian
        big_endian = syntax == ExplicitVRBigEndian
        pixels = scan_elements(
            body,
            begin,
            implicit=implicit,
            big_endian=big_endian,
            stop=lambda tag: tag in _PIXELS,
            limits=limits,
        )
        stream = BytesIO(body)  # shares the bytes, where a slice would copy them
        stream.seek(begin)
        ds = parse_elements(
            stream, implicit, not big_endian, stop_when=lambda tag, vr, length: tag in _PIXELS
        )
        if not ({"SOPClassUID", "Modality", "Rows"} & set(ds.dir()) or (start and len(ds))):
            raise DicomError("the file is not a DICOM file")
        meta.TransferSyntaxUID = syntax
        ds.file_meta = meta
    return _Header(ds, body, pixels)


def _guess_syntax(head: bytes) -> UID:
    """Tell a dataset's encoding, where it is not stated, from its first tag and VR."""
    if not head[4:6].isalpha():
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if head[1] < 4 else ExplicitVRBigEndian


def _read_layout(header: _Header, limits: Limits) -> _Layout:
    """Read what a file declares of its pixels, and refuse what is too much or not there.

    Raises:
        DicomError: There are no pixels, too few for what is declared, or they are not an image.
        LimitError: A frame has more than ``limits.pixels`` values, or there are too many frames.
    """
    ds, pixels = header.ds, header.pixels
    with refuse_faults("a DICOM file's image description is damaged"):
        kind = _NOT_IMAGES.get(str(ds.get("SOPClassUID") or ""))
        if kind is not None:
            raise DicomError(f"the file is {kind}, not an image")
        if pixels is None:
            raise DicomError("the file has no pixel data")
        rows, columns, samples, bits = (
            _read_count(ds, keyword)
            for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
        )
        frames = int(ds.get("NumberOfFrames") or 1)
        photometric = str(ds.get("PhotometricInterpretation") or "")
        syntax = UID(str(ds.file_meta.TransferSyntaxUID))
    if rows * columns * samples > limits.pixels:
        raise LimitError(
            f"a frame declares {rows} x {columns} x {samples} values; "
            f"at most {limits.pixels} are accepted"
        )
    if not 1 <= frames <= limits.frames:
        raise LimitError(f"a file declares {frames} frames; expected 1 to {limits.frames}")
    if photometric not in SUPPORTED:
        raise DicomError(
            f"PhotometricInterpretation is not supported; expected one of {', '.join(SUPPORTED)}"
        )
    if (samples == 1) != (photometric in (*MONOCHROME, "PALETTE COLOR")) or samples not in (1, 3):
        raise DicomError(f"{samples} samples per pixel do not fit {photometric}")
    layout = _Layout(Shape(rows, columns, samples), frames, bits, photometric, syntax)
    _check_length(header.body, pixels, layout, limits)
    return layout


def _check_length(body: bytes, pixels: Element, layout: _Layout, limits: Limits) -> None:
    """Refuse pixel data that cannot hold what is declared, before any array is made for it."""
    if layout.syntax.is_private or not layout.syntax.is_transfer_syntax:
        raise DicomError("the transfer syntax is not supported")
    if layout.syntax.is_encapsulated:
        if pixels.length == UNDEFINED:
            find_fragments_end(body, pixels.value, limits)
        offsets = int.from_bytes(body[pixels.value + 4 : pixels.value + 8], "little")
        if offsets > 4 * limits.frames:
            raise LimitError(f"an offset table is for more than {limits.frames} frames")
        return
    if pixels.length == UNDEFINED:
        raise DicomError("pixel data is encapsulated, but its transfer syntax is not")
    shape = layout.shape
    bits = shape.rows * shape.columns * shape.samples * layout.frames * layout.bits_allocated
    full = (bits + 7) // 8
    actual = min(pixels.length, len(body) - pixels.value)
    # Two chroma samples serve two pixels (PS3.3 C.7.6.3.1.2).
    declared = full * 2 // 3 if layout.photometric == "YBR_FULL_422" else full
    if actual < declared:
        raise DicomError(f"pixel data has {actual} bytes; {declared} are declared")
    if declared < full <= actual:
        raise DicomError("pixel data is declared as YBR_FULL_422, but is not subsampled")


def _decode_pixels(header: _Header, frame: int, limits: Limits) -> StoredPixels:
    """Decode one frame, after its own header has been compared with the file's."""
    ds, pixels = header.ds, header.pixels
    assert pixels is not None  # `_read_layout` has refused files without
    syntax = UID(str(ds.file_meta.TransferSyntaxUID))
    options = as_pixel_options(ds)
    options["pixel_keyword"] = _PIXELS[pixels.tag]
    options["pixel_vr"] = pixels.vr or _PIXEL_VRS[pixels.tag]
    source = BytesIO(header.body)
    source.seek(pixels.value)
    # One plugin for each encoding, so that the bedside decodes as training did.
    plugin = ""
    if syntax.is_encapsulated:
        plugin = "pylibjpeg"
        encoded = get_frame(
            source,
            frame,
            number_of_frames=options["number_of_frames"],
            extended_offsets=options.get("extended_offsets"),
        )
        declared = Shape(options["rows"], options["columns"], options["samples_per_pixel"])
        check_codestream(encoded, syntax, declared, options["bits_allocated"], limits)
    values, properties = get_decoder(syntax).as_array(
        source, index=frame, raw=True, decoding_plugin=plugin, **options
    )
    return StoredPixels(
        values,
        str(properties["photometric_interpretation"]),
        int(properties.get("bits_stored", 0)),
        properties.get("pixel_representation") == 1,
    )


def _find_picture(
    instance: int, data: bytes, settings: ImageSettings, limits: Limits
) -> tuple[Place, FrameSource, int]:
    if not settings.pictures:
        raise DicomError(
            "a PNG or JPEG came where DICOM is expected; give the DICOM file that it was made "
            "from, or use a model that was trained with image.pictures"
        )
    rows, columns = read_picture_size(data, limits)
    return place_picture(instance), FrameSource(instance, 0, None), 4 * rows * columns


def read_spacing(ds: pydicom.Dataset, frame: int) -> tuple[float, float] | None:
    """Read row and column spacing in mm, in the patient or at the detector (PS3.3 10.7.1.3)."""
    group = functional_group(ds, frame, "PixelMeasuresSequence")
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = read_vector(group if keyword in group else ds, keyword, 2)
        if spacing is not None and min(spacing) > 0:
            return spacing[0], spacing[1]
    return None


def _read_count(ds: pydicom.Dataset, keyword: str) -> int:
    value = ds.get(keyword)
    if not isinstance(value, int) or value < 1:
        raise DicomError(f"{keyword} is missing or not a positive number")
    return value
