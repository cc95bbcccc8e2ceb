"""A study's image files in, the model's square frames out; and attribution maps the way back."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from medfuse.config import Box, ImageSettings, Limits
from medfuse.data.dicom import choose_frames, decode_frame
from medfuse.types import FrameGeometry, Modality, PreparedImage, Remark

_MESSAGES = {
    "window-missing": "A file has no usable window, so its values' own range was used.",
    "window-not-found": "A file has fewer windows than the setting asks for; its first was used.",
    "burned-in-annotation": "A file says that text is burned into its pixels.",
    "image-blanked": "Parts of every frame are black to the model, by its settings.",
}


def prepare_images(
    images: Sequence[bytes], settings: ImageSettings, limits: Limits
) -> tuple[PreparedImage, tuple[Remark, ...]]:
    """Decode a study's frames one by one and fit each into the model's square.

    Returns:
        The frames in the study's order, and what their reader should know of them.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    choice = choose_frames(images, settings, limits)
    values = np.zeros((len(choice.sources), settings.size, settings.size), dtype=np.float32)
    geometries = []
    codes: dict[str, None] = {}  # in order of first occurrence
    for square, source in zip(values, choice.sources, strict=True):
        native = decode_frame(images, source, settings, limits)
        rows, columns = native.image.shape
        geometry = fit_square(
            instance=native.instance,
            frame=native.frame,
            rows=rows,
            columns=columns,
            size=settings.size,
            spacing_mm=native.spacing_mm,
        )
        image = blank(native.image, settings.blank)
        square[_shown(geometry)] = resize(image, geometry.height, geometry.width)
        geometries.append(geometry)
        codes.update(dict.fromkeys(native.remarks))
    if settings.blank:
        codes["image-blanked"] = None
    remarks = [Remark(Modality.IMAGE, code, _MESSAGES[code]) for code in codes]
    if choice.total > len(choice.sources):
        message = f"{len(choice.sources)} of {choice.total} frames were read, evenly spread."
        remarks.append(Remark(Modality.IMAGE, "frames-skipped", message))
    return PreparedImage(values, tuple(geometries)), tuple(remarks)


def blank(
    image: Float32[np.ndarray, "rows columns"], boxes: Sequence[Box]
) -> Float32[np.ndarray, "rows columns"]:
    """Make some parts of an image black; a pixel that a box touches is black as a whole."""
    if not boxes:
        return image
    rows, columns = image.shape
    blanked = image.copy()
    for box in boxes:
        down = slice(math.floor(box.top * rows), math.ceil(box.bottom * rows))
        across = slice(math.floor(box.left * columns), math.ceil(box.right * columns))
        blanked[down, across] = 0
    return blanked


def fit_square(
    *,
    instance: int,
    frame: int,
    rows: int,
    columns: int,
    size: int,
    spacing_mm: tuple[float, float] | None = None,
) -> FrameGeometry:
    """Place a native frame in the middle of the model's square, as large as fits, shape kept."""
    scale = size / max(rows, columns)
    height = max(1, round(rows * scale))
    width = max(1, round(columns * scale))
    return FrameGeometry(
        instance=instance,
        frame=frame,
        rows=rows,
        columns=columns,
        size=size,
        top=(size - height) // 2,
        left=(size - width) // 2,
        height=height,
        width=width,
        spacing_mm=spacing_mm,
    )


def to_native(
    values: Float[np.ndarray, "h w"], geometry: FrameGeometry
) -> Float32[np.ndarray, "rows columns"]:
    """Take a map over the model's square back to native pixels, bilinearly, without the padding."""
    return resize(values[_shown(geometry)].astype(np.float32), geometry.rows, geometry.columns)


def resize(
    image: Float32[np.ndarray, "h w"], rows: int, columns: int
) -> Float32[np.ndarray, "rows columns"]:
    """Resize with a triangle filter as wide as the step, so that shrinking does not alias.

    Pixel centres lie at half-integers on both sides, so nothing shifts; enlarging is bilinear.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _shown(geometry: FrameGeometry) -> tuple[slice, slice]:
    """The part of the model's square that shows the image."""
    return (
        slice(geometry.top, geometry.top + geometry.height),
        slice(geometry.left, geometry.left + geometry.width),
    )
