"""DICOM files made for a test, and those that pydicom and pydicom-data bring."""

from io import BytesIO
from pathlib import Path
from typing import Any

import data_store
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

PYDICOM = Path(pydicom.__path__[0]) / "data" / "test_files"
PYDICOM_DATA = Path(data_store.__path__[0]) / "data"

CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def find_file(name: str) -> Path:
    """Find one of the files that pydicom or pydicom-data bring; nothing is downloaded."""
    return next(folder / name for folder in (PYDICOM, PYDICOM_DATA) if (folder / name).is_file())


def read_file(name: str) -> bytes:
    return find_file(name).read_bytes()


def make_dataset(pixels: np.ndarray, **elements: Any) -> Dataset:
    """Make a dataset of (rows, columns), (frames, rows, columns) or (..., 3) stored values."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CR
    ds.SOPInstanceUID = "1.2.3"
    colour = elements.get("PhotometricInterpretation", "MONOCHROME2") not in (
        "MONOCHROME1",
        "MONOCHROME2",
        "PALETTE COLOR",
    )
    shape = pixels.shape[:-1] if colour else pixels.shape
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    ds.Rows, ds.Columns = shape[-2:]
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = pixels.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def make_file(pixels: np.ndarray, **elements: Any) -> bytes:
    return encode(make_dataset(pixels, **elements))


def encode(ds: Dataset) -> bytes:
    """Write a dataset as a file."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encapsulated(ds: Dataset, syntax: UID, frames: list[bytes]) -> bytes:
    """Write a dataset with encoded frames in place of its pixel data."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encode(ds)


def transcode(ds: Dataset, syntax: UID) -> bytes:
    """Write a dataset in another uncompressed or deflated encoding, pixels included."""
    if syntax == DeflatedExplicitVRLittleEndian or syntax.is_little_endian:
        ds.file_meta.TransferSyntaxUID = syntax
        return encode(ds)
    words = np.frombuffer(ds.PixelData, "<u2" if ds.BitsAllocated == 16 else "u1")
    ds.PixelData = words.astype(">u2").tobytes() if ds.BitsAllocated == 16 else words.tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True, little_endian=False, implicit_vr=False)
    return buffer.getvalue()
