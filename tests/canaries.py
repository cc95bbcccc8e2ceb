"""Unmistakable identities, places to plant them in, and a search that finds any that is left."""

import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from pydicom import DataElement, Dataset, dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.sequence import Sequence
from pydicom.uid import UID

from tests.dicom_files import make_dataset

FIRST = "Xanthippe"
LAST = "Quillfeather"
DOCTOR = "Zebulon"
HOSPITAL = "Ravenscroft"
STREET = "Wobblethorpe"
EMAIL = "xanthippe.q@ravenscroft-mail.example"
PHONE = "+44 20 7946 0958"
MRN = "MRN-83649127"
ACCESSION = "ACC5550173"
BIRTH = "19370611"
DAY = "20191123"
DAY_ISO = "2019-11-23"
DAY_WORDS = "23 November 2019"
UID_ROOT = "1.2.999.31337"

CANARIES: Mapping[str, str] = {
    "first name": FIRST,
    "surname": LAST,
    "doctor": DOCTOR,
    "hospital": HOSPITAL,
    "street": STREET,
    "email": EMAIL,
    "phone": PHONE,
    "phone end": "7946 0958",
    "mrn": "83649127",
    "accession": ACCESSION,
    "birth": BIRTH,
    "day": DAY,
    "day, ISO": DAY_ISO,
    "day, in words": DAY_WORDS,
    "uid": UID_ROOT,
    "age": "093Y",
}

NOTE = (
    f"Patient: {FIRST} {LAST}, {MRN}, accession {ACCESSION}. Seen by Dr. {DOCTOR} Hartigan at "
    f"{HOSPITAL} Hospital on {DAY_ISO} and {DAY_WORDS}. Lives at 14 {STREET} Street, tel {PHONE}, "
    f"{EMAIL}. {LAST.upper()} has a productive cough and fever of 38.5 C; ms {LAST.lower()} denies "
    "calf swelling."
)

_TEXT_VRS = {"LO", "SH", "LT", "ST", "UT", "UC", "AE", "CS", "PN", "UR", "UN", "OB"}
_NEEDED = {"PhotometricInterpretation", "PixelData", "SpecificCharacterSet"}


def search(root: Path, canaries: Iterable[str] = tuple(CANARIES.values())) -> list[str]:
    """List what is found in names and bytes below a folder, also in UTF-16, gzip and zlib."""
    found = []
    for path in sorted(root.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        views = [content, str(path.relative_to(root)).encode(), *_unpacked(content)]
        for canary in canaries:
            forms = {canary, canary.upper(), canary.lower()}
            needles = [f.encode(e) for f in forms for e in ("utf-8", "utf-16-le", "utf-16-be")]
            if any(needle in view for needle in needles for view in views):
                found.append(canary)
    return found


def _unpacked(content: bytes) -> list[bytes]:
    views = []
    if content.startswith(b"\x1f\x8b"):
        views.append(gzip.decompress(content))
    if content.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            views.append(repr(picture.info).encode())
    for match in re.finditer(rb"\x78[\x01\x9c\xda]", content[:4096]):
        try:
            views.append(zlib.decompressobj().decompress(content[match.start() :], 2**16))
        except zlib.error:
            continue
    return views


def fill_dataset(ds: Dataset) -> Dataset:
    """Plant a canary in every attribute of the dictionary that can hold one, private ones too."""
    _fill(ds)
    inner = Dataset()
    _fill(inner)
    for tag, (vr, _, _, retired, _) in DicomDictionary.items():
        if vr == "SQ" and not retired:
            item = Dataset()
            item.PatientName = f"{LAST}^{FIRST}"
            item.TextValue = f"Dr {DOCTOR}"
            deep = Dataset()
            deep.PersonName = f"{LAST}^{FIRST}"
            item.ContentSequence = Sequence([deep])
            ds[tag] = DataElement(tag, "SQ", Sequence([item]))
    ds.RequestAttributesSequence = Sequence([inner])
    block = ds.private_block(0x0029, f"{HOSPITAL} PACS", create=True)
    block.add_new(1, "LO", f"{FIRST} {LAST}")
    block.add_new(2, "OB", f"{FIRST} {LAST}".encode("utf-16-le"))
    block.add_new(3, "SQ", [inner])
    return ds


def _fill(ds: Dataset) -> None:
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if retired or keyword in _NEEDED or group in (0, 2, 4, 0xFFFE, 0x7FE0) or keyword in ds:
            continue
        if vr in _TEXT_VRS:
            text = f"{LAST}^{FIRST}" if vr == "PN" else LAST
            if vr == "CS":
                text = LAST.upper()
            value: object = text.encode() if vr in ("UN", "OB") else text
        elif vr == "DA":
            value = BIRTH
        elif vr == "DT":
            value = f"{DAY}101500"
        elif vr == "UI":
            value = f"{UID_ROOT}.{tag}"
        elif vr == "AS":
            value = "093Y"
        else:
            continue
        ds[tag] = DataElement(tag, vr, value)


def make_dicom(**elements: object) -> bytes:
    """Write a radiograph with canaries in its preamble, file meta and every attribute."""
    pixels = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
    ds = make_dataset(pixels, BitsStored=12, HighBit=11)
    ds.PatientName = f"{LAST}^{FIRST}"
    ds.PatientID = MRN
    ds.AccessionNumber = ACCESSION
    ds.ReferringPhysicianName = f"Hartigan^{DOCTOR}"
    ds.InstitutionName = f"{HOSPITAL} Hospital"
    ds.PatientBirthDate = BIRTH
    ds.StudyDate = DAY
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(ds, keyword, f"{UID_ROOT}.{len(keyword)}")
    fill_dataset(ds)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.file_meta.SourceApplicationEntityTitle = LAST
    ds.file_meta.ImplementationVersionName = LAST
    ds.file_meta.PrivateInformationCreatorUID = UID(f"{UID_ROOT}.1")
    ds.file_meta.PrivateInformation = LAST.encode()
    ds.preamble = f"{FIRST} {LAST}".encode().ljust(128, b"\0")
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def tag_wav(data: bytes) -> bytes:
    """Add INFO and ID3 chunks to a WAV file."""
    info = b"INFOIART" + struct.pack("<I", 24) + f"{FIRST} {LAST}".encode().ljust(24, b"\0")
    extra = b"LIST" + struct.pack("<I", len(info)) + info
    extra += b"id3 " + struct.pack("<I", 24) + f"{FIRST} {LAST}".encode().ljust(24, b"\0")
    whole = data + extra
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def tag_mp3(data: bytes) -> bytes:
    """Put ID3v2.3 tags, in UTF-16 and Latin-1 and with a picture, before an MP3 file."""
    frames = b"".join(
        name + struct.pack(">IH", len(content), 0) + content
        for name, content in (
            (b"TPE1", b"\1" + f"{FIRST} {LAST}".encode("utf-16")),
            (b"TIT2", b"\0" + f"Dictation {DAY_ISO}".encode("latin-1")),
            (b"COMM", b"\0eng\0" + f"{HOSPITAL} {MRN}".encode("latin-1")),
            (b"APIC", b"\0image/png\0\3\0" + LAST.encode("latin-1")),
        )
    )
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frames + data


def make_png() -> bytes:
    """Write a picture with canaries in text chunks, plain and packed, and in EXIF."""
    picture = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Patient", f"{FIRST} {LAST}")
    chunks.add_text("Comment", f"{HOSPITAL} {DAY_ISO}", zip=True)
    exif = Image.Exif()
    exif[0x010E] = f"{FIRST} {LAST}"
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=chunks, exif=exif, icc_profile=f"{FIRST} {LAST}".encode())
    return file.getvalue()


def make_jpeg() -> bytes:
    """Write a JPEG with a comment and EXIF."""
    picture = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    exif = Image.Exif()
    exif[0x013B] = f"{FIRST} {LAST}"
    file = io.BytesIO()
    profile = f"{FIRST} {LAST}".encode()
    picture.save(file, "JPEG", comment=f"{HOSPITAL} {MRN}", exif=exif, icc_profile=profile)
    return file.getvalue()


def read_back(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))
