"""PNG and JPEG bytes in, a grey image in [0, 1] out, for research sets that have no DICOM."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image

from medfuse.config import Limits
from medfuse.data.dicom_bounds import refuse_faults
from medfuse.data.grey import LUMA
from medfuse.errors import DicomError, LimitError

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def is_picture(data: bytes) -> bool:
    """Tell a PNG or JPEG by its first bytes."""
    return data.startswith(_SIGNATURES)


def read_picture_size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Read a picture's rows and columns without decoding it.

    Raises:
        DicomError: It is damaged.
        LimitError: It has more than ``limits.pixels``.
    """
    with _open_picture(data, limits) as picture:
        columns, rows = picture.size
    return rows, columns


def read_picture(data: bytes, limits: Limits) -> Float32[np.ndarray, "rows columns"]:
    """Decode a picture and take its luminance; transparency is ignored.

    Raises:
        DicomError: It is damaged.
        LimitError: It has more than ``limits.pixels``.
    """
    with _open_picture(data, limits) as picture:
        if picture.mode.startswith("I"):  # 16-bit grey, by whatever name
            return _scale(np.asarray(picture), 65_535)
        if picture.mode in ("1", "L", "LA"):
            return _scale(np.asarray(picture.convert("L")), 255)
        colours = np.asarray(picture.convert("RGB"))
    return _scale(colours.astype(np.float32) @ LUMA, 255)


@contextmanager
def _open_picture(data: bytes, limits: Limits) -> Iterator[Image.Image]:
    """Open a picture whose declared size is within limits; its pixels are decoded on use."""
    with refuse_faults("a picture is damaged"):
        try:
            with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as picture:
                columns, rows = picture.size
                if rows * columns > limits.pixels:
                    raise LimitError(
                        f"a picture has {rows} x {columns} pixels; "
                        f"at most {limits.pixels} are accepted"
                    )
                yield picture
        except Image.DecompressionBombError as error:  # Pillow's own bound, which is higher
            raise LimitError(f"a picture has more than {limits.pixels} pixels") from error
        except SyntaxError as error:  # which Pillow raises for a broken PNG
            raise DicomError("a picture is damaged (SyntaxError)") from error


def _scale(
    values: Num[np.ndarray, "rows columns"], top: int
) -> Float32[np.ndarray, "rows columns"]:
    """Bring values from 0 to ``top`` into [0, 1]."""
    image: Float32[np.ndarray, "rows columns"] = values.astype(np.float32) / np.float32(top)
    return np.clip(image, 0, 1, out=image)
