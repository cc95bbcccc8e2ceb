"""PNG and JPEG bytes in, a grey image in [0, 1] out, for research sets that have no DICOM."""

import warnings
from io import BytesIO

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image, UnidentifiedImageError

from medfuse.config import Limits
from medfuse.data.grey import LUMA
from medfuse.errors import DicomError, LimitError

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, UnidentifiedImageError)


def is_picture(data: bytes) -> bool:
    """Tell a PNG or JPEG by its first bytes."""
    return data.startswith(_SIGNATURES)


def read_picture_size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Read a picture's rows and columns without decoding it.

    Raises:
        DicomError: It is damaged.
        LimitError: It has more than ``limits.pixels``.
    """
    with _open(data) as picture:
        columns, rows = picture.size
    if rows * columns > limits.pixels:
        raise LimitError(
            f"a picture has {rows} x {columns} pixels; at most {limits.pixels} are accepted"
        )
    return rows, columns


def read_picture(data: bytes, limits: Limits) -> Float32[np.ndarray, "rows columns"]:
    """Decode a picture and take its luminance; transparency is ignored.

    Raises:
        DicomError: It is damaged.
        LimitError: It has more than ``limits.pixels``.
    """
    read_picture_size(data, limits)
    with _open(data) as picture:
        try:
            if picture.mode.startswith("I"):  # 16-bit grey, by whatever name
                return _scale(np.asarray(picture), 65_535)
            if picture.mode in ("1", "L", "LA"):
                return _scale(np.asarray(picture.convert("L")), 255)
            colours = np.asarray(picture.convert("RGB"))
        except _FAULTS as error:
            raise DicomError(f"a picture is damaged ({type(error).__name__})") from error
    return _scale(colours.astype(np.float32) @ LUMA, 255)


def _scale(
    values: Num[np.ndarray, "rows columns"], top: int
) -> Float32[np.ndarray, "rows columns"]:
    """Bring values from 0 to ``top`` into [0, 1]."""
    image: Float32[np.ndarray, "rows columns"] = values.astype(np.float32) / np.float32(top)
    return np.clip(image, 0, 1, out=image)


def _open(data: bytes) -> Image.Image:
    """Read a picture's header; Pillow's own alarm about size is ours to raise, by `Limits`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(BytesIO(data), formats=("PNG", "JPEG"))
        except _FAULTS as error:
            raise DicomError(f"a picture is damaged ({type(error).__name__})") from error
