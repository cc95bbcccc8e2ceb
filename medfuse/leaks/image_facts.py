"""A study's image files in; what their headers, formats, edges and thumbnails say of them out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16
from PIL import Image
from pydicom import Dataset

from medfuse.config import Box, ImageSettings, Limits
from medfuse.data.dicom import choose_frames, decode_frame, read_header
from medfuse.data.image import blank, resize
from medfuse.data.picture import is_picture

FRAMES = 4
"""Frames of a study that are looked at, evenly chosen."""

THUMBNAIL = 64
"""Side of a thumbnail in pixels; the whole frame fills it, whatever its shape."""

GRID = 16
"""Cells, down and across, in which sharp edges are counted."""

LONGEST = 512
"""Longer frames are shrunk to this before edges are counted."""

SHARP = 0.4
"""Step in grey over two pixels that tissue hardly makes, and print and plates do."""

FLAT = 0.01
"""Spread of grey below which a line at the border shows nothing."""

BORDER_STEPS = 50
"""The width of a border is rounded to this part of the side."""

BORDERS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "top": lambda image: image,
    "bottom": lambda image: image[::-1],
    "left": lambda image: image.T,
    "right": lambda image: image[:, ::-1].T,
}
"""The lines of an image from each side inwards."""

SCANNER = (
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "InstitutionName"),
    *("StationName", "DeviceSerialNumber", "ProtocolName", "Modality", "ViewPosition"),
)
"""Attributes that say what made an image, and where."""

ENCODING = (
    *("SOPClassUID", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "SpecificCharacterSet", "VOILUTFunction", "LossyImageCompression"),
    *("PresentationIntentType", "ImageType"),
)
"""Attributes that say how it was stored."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a study's images beside what they show.

    Attributes:
        made: `SCANNER` attributes of the first file; the absent ones are empty.
        stored: `ENCODING` attributes of it, its format, its transfer syntax and the like.
        numbers: Files, rows, columns, aspect, flat borders.
        thumbnails: Of the first frames, 0 to 255.
        edges: Pixels at sharp edges in each cell, the most of any frame.
    """

    made: Mapping[str, str]
    stored: Mapping[str, str]
    numbers: Mapping[str, float]
    thumbnails: UInt8[np.ndarray, "s 64 64"]
    edges: UInt16[np.ndarray, "16 16"]


def read_image_facts(
    images: Sequence[bytes], settings: ImageSettings, limits: Limits
) -> ImageFacts:
    """Look at a study's images as the model gets them, blanked parts black.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    few = settings.model_copy(update={"frames": min(settings.frames, FRAMES), "pictures": True})
    choice = choose_frames(images, few, limits)
    thumbnails, edges = [], np.zeros((GRID, GRID), np.uint16)
    numbers = {"files": float(len(images)), "frames": float(choice.total)}
    for source in choice.sources:
        native = decode_frame(images, source, few, limits).image
        shown = blank(native, settings.blank)
        thumbnails.append(np.round(255 * resize(shown, THUMBNAIL, THUMBNAIL)).astype(np.uint8))
        edges = np.maximum(edges, count_edges(native, settings.blank))
        if len(thumbnails) == 1:
            rows, columns = native.shape
            numbers |= {"rows": float(rows), "columns": float(columns)}
            numbers |= {"aspect": round(columns / rows, 3)}
            numbers |= measure_borders(native, settings.blank)
    made, stored = (
        _describe_picture(images[0]) if is_picture(images[0]) else _describe(images[0], limits)
    )
    return ImageFacts(made, stored, numbers, np.stack(thumbnails), edges)


def count_edges(
    image: Float32[np.ndarray, "rows columns"], blanked: Sequence[Box] = ()
) -> UInt16[np.ndarray, "16 16"]:
    """Count the pixels at sharp edges in each cell of a grid; those of blanked cells are none."""
    rows, columns = image.shape
    scale = LONGEST / max(rows, columns)
    if scale < 1:
        image = resize(image, max(3, round(rows * scale)), max(3, round(columns * scale)))
    sharp = np.zeros(image.shape, dtype=bool)
    sharp[1:-1] |= np.abs(image[2:] - image[:-2]) >= SHARP
    sharp[:, 1:-1] |= np.abs(image[:, 2:] - image[:, :-2]) >= SHARP
    y, x = np.nonzero(sharp)
    down, across = ((place + 0.5) / side for place, side in zip((y, x), image.shape, strict=True))
    seen = np.ones(len(y), dtype=bool)
    margin = 2 / max(min(image.shape), 1)  # an edge is seen from both sides
    for box in blanked:
        seen &= ~(
            (down >= box.top - margin)
            & (down <= box.bottom + margin)
            & (across >= box.left - margin)
            & (across <= box.right + margin)
        )
    cells = (down[seen] * GRID).astype(int) * GRID + (across[seen] * GRID).astype(int)
    counts = np.bincount(cells, minlength=GRID * GRID).reshape(GRID, GRID)
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def measure_borders(
    image: Float32[np.ndarray, "rows columns"], blanked: Sequence[Box] = ()
) -> dict[str, float]:
    """Measure how much of the image is a flat frame, from each side, in `BORDER_STEPS`.

    A frame that the blanked parts cover is none; where they end inside it, all of it counts.
    """
    seen = blank(np.ones_like(image), blanked) > 0
    found = {}
    for side, turn in BORDERS.items():
        lines, left = turn(image), turn(seen)
        open_ = np.asarray(left.any(axis=1))
        flat = np.ones(len(lines), dtype=bool)
        flat[open_] = lines[open_].std(axis=1, where=left[open_]) < FLAT
        width = _count_leading(flat)
        frame = width if width > _count_leading(~open_) else 0
        found[f"flat border, {side}"] = round(BORDER_STEPS * frame / len(flat)) / BORDER_STEPS
    return found


def _count_leading(yes: Bool[np.ndarray, " n"]) -> int:
    return len(yes) if yes.all() else int(yes.argmin())


def _describe(data: bytes, limits: Limits) -> tuple[dict[str, str], dict[str, str]]:
    ds = read_header(data, limits)
    made = {keyword: _text(ds, keyword) for keyword in SCANNER}
    stored = {keyword: _text(ds, keyword) for keyword in ENCODING}
    centers = ds.get("WindowCenter")
    windows = 0 if centers is None else len(centers) if hasattr(centers, "__len__") else 1
    stored |= {
        "format": "DICOM",
        "transfer syntax": str(ds.file_meta.TransferSyntaxUID),
        "windows": str(0 if isinstance(centers, str) else windows),
        "rescaled": str(ds.get("RescaleSlope", 1) != 1 or ds.get("RescaleIntercept", 0) != 0),
    }
    return made, stored


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    if value is None:
        return ""
    return str(value).strip()


def _describe_picture(data: bytes) -> tuple[dict[str, str], dict[str, str]]:
    with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as picture:
        stored = {"format": str(picture.format), "mode": picture.mode}
        tables = getattr(picture, "quantization", None)
        if tables:
            stored["JPEG tables"] = str(sum(next(iter(tables.values()))))
        stored["progressive"] = str("progressive" in picture.info)
    return {}, stored
