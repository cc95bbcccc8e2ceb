"""One frame of a study in; its stored values, and how a viewer makes greys of them, out.

A viewer must window true values, so nothing is rounded here: values are as stored, and beside them
stands what turns them into modality values and greys (PS3.3 C.11). `medfuse.data.grey` does the
same for the model, with the one window that it reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset

from medfuse.config import ImageSettings, Limits
from medfuse.data.dicom import FrameSource, decode_frame, decode_stored, read_spacing
from medfuse.data.dicom_bounds import refuse_faults
from medfuse.data.grey import (
    MONOCHROME,
    LookupTable,
    StoredPixels,
    Window,
    apply_modality,
    find_padding,
    find_padding_range,
    find_views,
    functional_group,
    measure_span,
    read_rescale,
)
from medfuse.data.series import read_vector

NARROW = ("uint8", "int8", "uint16", "int16")
"""Types whose every value a viewer can look up."""

PRESETS = (
    ("Lung", -600.0, 1500.0),
    ("Mediastinum", 40.0, 400.0),
    ("Bone", 400.0, 1800.0),
    ("Brain", 40.0, 80.0),
    ("Liver", 60.0, 160.0),
)
"""Usual windows of computed tomography in Hounsfield units: name, centre, width."""


Plane = Literal["patient", "calibrated", "detector", "film", "unstated"]
"""Where a spacing holds; unstated where a projection's header does not say."""

CROSS_SECTIONS = ("CT", "MR", "PT", "NM")
"""Modalities whose pixels lie in the patient."""


@dataclass(frozen=True, slots=True)
class View:
    """A VOI LUT or window by its name.

    Attributes:
        name: "Window", "Table", "Full range", or one of `PRESETS`.
        transform: From modality values to greys.
        number: Among those of the file, from 1; None of any other.
    """

    name: str
    transform: LookupTable | Window
    number: int | None = None


@dataclass(frozen=True, slots=True)
class ViewingFrame:
    """A frame's values and what makes greys of them.

    Attributes:
        values: As stored, little endian: one of `NARROW`; or float32 modality values, NaN for
            padding, where the stored ones have more than 16 bits. Colour is its 8-bit luminance.
        slope: Of the modality transform, where there is no ``table``.
        intercept: Likewise.
        table: The modality LUT.
        padding: The least and the greatest stored value that shows nothing.
        inverted: Whether low values are bright (MONOCHROME1).
        views: What the file offers, numbered, the one that the model reads first; then the usual
            windows of its modality.
        unit: Of modality values, such as ``HU``; empty where not known.
        spacing_mm: Distance of rows and of columns where the header gives it.
        plane: Where that distance holds; None where there is none.
    """

    values: Shaped[np.ndarray, "rows columns"]
    slope: float
    intercept: float
    table: LookupTable | None
    padding: tuple[float, float] | None
    inverted: bool
    views: tuple[View, ...]
    unit: str
    spacing_mm: tuple[float, float] | None
    plane: Plane | None


def read_plane(ds: Dataset, frame: int) -> Plane | None:
    """Read where the spacing that `read_spacing` gives holds (PS3.3 10.7.1.3).

    A projection's pixels are measured at the detector, behind the patient and so larger than life;
    PixelSpacing says otherwise only where it was calibrated, or differs from ImagerPixelSpacing.
    """
    group = functional_group(ds, frame, "PixelMeasuresSequence")

    def read(keyword: str) -> tuple[float, ...] | None:
        spacing = read_vector(group if keyword in group else ds, keyword, 2)
        return spacing if spacing is not None and min(spacing) > 0 else None

    pixel, imager = read("PixelSpacing"), read("ImagerPixelSpacing")
    if pixel is None:
        scanned = read("NominalScannedPixelSpacing")
        return "detector" if imager is not None else "film" if scanned is not None else None
    if str(ds.get("PixelSpacingCalibrationType") or "").strip() in ("GEOMETRY", "FIDUCIAL"):
        return "calibrated"
    if imager is not None:
        return "detector" if pixel == imager else "calibrated"
    cross_section = str(ds.get("Modality") or "").strip() in CROSS_SECTIONS
    return "patient" if cross_section else "unstated"


def read_viewing(
    images: Sequence[bytes], source: FrameSource, settings: ImageSettings, limits: Limits
) -> ViewingFrame:
    """Decode one frame for a viewer.

    Args:
        images: The files that the frame was found in.
        source: Which frame.
        settings: Which window the model reads.
        limits: What an encoded frame's own header may state.

    Raises:
        DicomError: The frame is damaged or its encoding is not supported.
        LimitError: Its encoding is cut into more pieces than a limit allows.
    """
    if source.header is None:
        return _take_grey(images, source, settings, limits, None)
    ds, stored = decode_stored(source, limits)
    with refuse_faults("a DICOM frame's grey values cannot be worked out"):
        if stored.photometric in MONOCHROME:
            return _take_stored(stored, ds, source.frame, settings.window)
        plane = read_plane(ds, source.frame)
    return _take_grey(images, source, settings, limits, plane)


def _take_stored(stored: StoredPixels, ds: Dataset, frame: int, window: int) -> ViewingFrame:
    slope, intercept, table = read_rescale(ds, frame, stored.signed)
    padding = find_padding_range(ds, stored.values)
    views = _name_views(stored, ds, frame, window)
    values = stored.values
    if values.dtype.name not in NARROW:
        modality, _ = apply_modality(stored, ds, frame)
        values = modality.astype(np.float32)
        values[find_padding(stored.values, ds)] = np.nan
        slope, intercept, table, padding = 1.0, 0.0, None, None
    return ViewingFrame(
        values=np.ascontiguousarray(values, values.dtype.newbyteorder("<")),
        slope=slope,
        intercept=intercept,
        table=table,
        padding=padding,
        inverted=stored.photometric == "MONOCHROME1",
        views=views,
        unit="HU" if _in_hounsfield(ds) else "",
        spacing_mm=read_spacing(ds, frame),
        plane=read_plane(ds, frame),
    )


def _name_views(stored: StoredPixels, ds: Dataset, frame: int, window: int) -> tuple[View, ...]:
    """Name what the file offers, the one that the model reads first; never nothing."""
    found = []
    for number, transform in enumerate(find_views(ds, frame), start=1):
        kind = "Table" if isinstance(transform, LookupTable) else "Window"
        found.append(View(kind, transform, number))
    if found:
        read = found.pop(window if window < len(found) else 0)
        found.insert(0, read)
    else:
        values, span = apply_modality(stored, ds, frame)
        low, high = span or measure_span(values, find_padding(stored.values, ds))
        found.append(View("Full range", _span_window(low, high)))
    if _in_hounsfield(ds):
        found += [View(name, Window(center, width)) for name, center, width in PRESETS]
    return tuple(found)


def _take_grey(
    images: Sequence[bytes],
    source: FrameSource,
    settings: ImageSettings,
    limits: Limits,
    plane: Plane | None,
) -> ViewingFrame:
    """Take the grey that the model reads, for what has no window of its own."""
    native = decode_frame(images, source, settings, limits)
    return ViewingFrame(
        values=np.rint(native.image * 255).astype(np.uint8),
        slope=1.0,
        intercept=0.0,
        table=None,
        padding=None,
        inverted=False,
        views=(View("Full range", _span_window(0.0, 255.0)),),
        unit="",
        spacing_mm=native.spacing_mm,
        plane=plane,
    )


def _span_window(low: float, high: float) -> Window:
    """Give the window from ``low`` to ``high``; everything is black where they are equal."""
    if not high > low:
        return Window(low + 0.5, 1.0, "LINEAR_EXACT")
    return Window((low + high) / 2, high - low, "LINEAR_EXACT")


def _in_hounsfield(ds: Dataset) -> bool:
    """Say whether values are Hounsfield units: those of CT, unless the header says otherwise."""
    return (
        str(ds.get("Modality") or "").strip() == "CT"
        and str(ds.get("RescaleType") or "HU").strip() == "HU"
    )
