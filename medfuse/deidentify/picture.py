"""A PNG or JPEG in; its pixels alone, as PNG, out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from medfuse.data.dicom_bounds import refuse_faults
from medfuse.data.picture import read_picture_size
from medfuse.deidentify.session import Session

_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L"})


def deidentify_picture(data: bytes, session: Session) -> bytes:
    """Write a picture anew, so that no EXIF, text chunk, comment or profile is left.

    Text that is burned into the pixels is not seen and stays.

    Raises:
        DicomError: It is damaged.
        LimitError: It has more pixels than a limit allows.
    """
    with _quiet_pillow():
        read_picture_size(data, session.limits)
    with refuse_faults("a picture is damaged"), _quiet_pillow():
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.mode in _DEEP:
                mode = "I;16"
            else:
                mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
            pixels = picture.convert(mode)
        # A new image from the bytes, since a converted one keeps what the file said of itself.
        plain = Image.frombytes(mode, pixels.size, pixels.tobytes())
        file = BytesIO()
        plain.save(file, format="PNG")
    session.counts["pictures"] += 1
    return file.getvalue()


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow from logging EXIF values, which it does where somebody logs at DEBUG."""
    logger = logging.getLogger("PIL")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
