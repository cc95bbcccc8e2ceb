"""medfuse.data.picture: PNG and JPEG as grey images, within limits."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medfuse.config import Limits
from medfuse.data.picture import is_picture, read_picture, read_picture_size
from medfuse.errors import DicomError, InputError, LimitError

LIMITS = Limits()


def save(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def claim(rows: int, columns: int) -> bytes:
    """A PNG whose header declares a size that its data does not have."""
    header = b"IHDR" + struct.pack(">2L5B", columns, rows, 8, 0, 0, 0, 0)
    chunk = struct.pack(">L", 13) + header + struct.pack(">L", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"\0\0")
    body = struct.pack(">L", len(data) - 4) + data + struct.pack(">L", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk + body


def test_grey_of_eight_and_sixteen_bits_spans_zero_to_one() -> None:
    eight = np.array([[0, 51, 255]], np.uint8)
    sixteen = np.array([[0, 13107, 65535]], np.uint16)
    for pixels in (eight, sixteen):
        image = read_picture(save(Image.fromarray(pixels)), LIMITS)
        np.testing.assert_allclose(image, [[0, 0.2, 1]], atol=1e-6)


def test_colour_becomes_its_luminance_and_transparency_is_ignored() -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [[0.299, 0.587, 0.114]]
    alpha = np.concatenate([rgb, np.zeros((1, 3, 1), np.uint8)], axis=2)
    for picture in (
        Image.fromarray(rgb),
        Image.fromarray(alpha),
        Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE),
    ):
        np.testing.assert_allclose(read_picture(save(picture), LIMITS), expected, atol=1e-6)


def test_one_bit_and_grey_with_transparency_are_grey() -> None:
    one_bit = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_picture(save(one_bit), LIMITS).tolist() == [[0, 1]]
    with_alpha = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("LA")
    assert read_picture(save(with_alpha), LIMITS).tolist() == [[0, 1]]


def test_jpeg_is_read_within_its_loss() -> None:
    row, column = np.mgrid[:64, :64]
    pixels = (row + 2 * column).astype(np.uint8)
    data = save(Image.fromarray(pixels), "JPEG")
    assert is_picture(data)
    assert read_picture_size(data, LIMITS) == (64, 64)
    np.testing.assert_allclose(read_picture(data, LIMITS), pixels / 255, atol=0.03)


def test_picture_that_declares_too_much_is_refused_before_it_is_decoded() -> None:
    for read in (read_picture_size, read_picture):
        with pytest.raises(LimitError, match="9000 x 8000 pixels"):
            read(claim(9_000, 8_000), LIMITS)
        with pytest.raises(LimitError, match="more than 64000000 pixels"):
            read(claim(60_000, 60_000), LIMITS)
    assert read_picture_size(claim(8, 4), Limits(pixels=32)) == (8, 4)
    with pytest.raises(LimitError):
        read_picture_size(claim(8, 4), Limits(pixels=31))


@settings(deadline=None)
@given(data=st.data())
def test_damaged_picture_is_read_or_refused_with_a_typed_error(data: st.DataObject) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    whole = save(Image.fromarray(pixels), data.draw(st.sampled_from(["PNG", "JPEG"])))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read_picture(bytes(damaged[: data.draw(st.integers(1, len(whole)))]), LIMITS)
    except InputError:
        return
    assert np.isfinite(image).all()


def test_truncated_picture_is_refused() -> None:
    data = save(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)))
    with pytest.raises(DicomError, match="damaged"):
        read_picture(data[: len(data) // 2], LIMITS)
