"""A rendered view in, a DICOM file as one of three hospitals would write it out."""

import io
import uuid
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from jaxtyping import UInt16
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from medfuse.synthetic.patient import Patient
from medfuse.synthetic.phantom import Plane, View

STORED = 12
"""Bits stored of the sixteen allocated."""

_NAMESPACE = uuid.UUID("6d656466-7573-5e65-8000-73796e746865")

_SYNTAXES: dict[str, tuple[tuple[UID, float], ...]] = {
    "north": ((ExplicitVRLittleEndian, 0.7), (JPEG2000Lossless, 0.3)),
    "south": ((ImplicitVRLittleEndian, 0.5), (RLELossless, 0.5)),
    "east": ((DeflatedExplicitVRLittleEndian, 0.5), (ExplicitVRBigEndian, 0.5)),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says beside its pixels.

    Attributes:
        patient: Whose it is.
        age: In years.
        day: Of the study.
        study_uid: Study Instance UID.
        key: Names the instance for its UIDs, the same in every run.
        instance: From 0.
        view: ``PA`` or ``LL`` (PS3.3 C.8.11.5.1.1 names them so).
    """

    patient: Patient
    age: int
    day: date
    study_uid: str
    key: str
    instance: int
    view: str


def name_uid(key: str) -> str:
    """Derive a UID from a name, under the root 2.25 (PS3.5 B.2), the same in every run."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, key).int}"


def burn_in(view: View, sign: str | None) -> View:
    """Burn the side marker, an L, into the upper right corner, and the shortcut's bar below it.

    Args:
        view: As rendered.
        sign: The shortcut's name among the masks, or None to leave its bar out.
    """
    attenuation = view.attenuation.copy()
    unit = view.attenuation.shape[1] // 64
    right = view.attenuation.shape[1] - 2 * unit
    attenuation[2 * unit : 6 * unit, right - 3 * unit : right - 2 * unit] = 1.0
    attenuation[5 * unit : 6 * unit, right - 3 * unit : right] = 1.0
    if sign is None:
        return replace(view, attenuation=attenuation)
    mask = np.zeros(attenuation.shape, dtype=bool)
    mask[8 * unit : 10 * unit, right - 10 * unit : right] = True
    attenuation[mask] = 1.0
    return replace(view, attenuation=attenuation, masks={**view.masks, sign: mask})


def encode_radiograph(view: View, header: Header, rng: np.random.Generator) -> bytes:
    """Write a view as CR or DX, in one of its hospital's transfer syntaxes.

    The window shows all that matters: its edges leave out no more than the darkest and brightest
    hundredth, give or take.
    """
    site = header.patient.site
    inverted = rng.random() < {"north": 0.1, "south": 0.5, "east": 0.3}[site]
    digital = site == "north"
    slope, intercept = (1.0, 0.0) if digital else (float(rng.choice((0.5, 1.0, 2.0))), -100.0)
    values = np.clip(view.attenuation, -0.1, 1.1)
    top = 2**STORED - 1
    stored = np.round((values + 0.1) / 1.2 * rng.uniform(0.7, 0.98) * top)
    if inverted:
        stored = top - stored
    pixels = stored.astype(np.uint16)

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    )
    ds.SOPInstanceUID = name_uid(f"{header.key}/instance/{header.instance}")
    day = f"{header.day:%Y%m%d}"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = day
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = f"{9 + header.instance:02d}1500"
    ds.AccessionNumber = ""
    ds.Modality = "DX" if digital else "CR"
    ds.Manufacturer = "medfuse"
    ds.ManufacturerModelName = f"phantom {site}"
    ds.InstitutionName = f"{site.capitalize()}field (synthetic)"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Chest, synthetic phantom"
    ds.PatientName = f"SYNTHETIC^{header.patient.number:06d}"
    ds.PatientID = header.patient.patient_id
    ds.PatientBirthDate = f"{header.patient.birth_date:%Y%m%d}"
    ds.PatientSex = header.patient.sex
    ds.PatientAge = f"{header.age:03d}Y"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = header.view
    ds.StudyInstanceUID = header.study_uid
    ds.SeriesInstanceUID = name_uid(f"{header.key}/series/{header.instance}")
    ds.StudyID = "1"
    ds.SeriesNumber = header.instance + 1
    ds.InstanceNumber = 1
    ds.PatientOrientation = ["L", "F"] if header.view == "PA" else ["P", "F"]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    spacing = [f"{view.spacing_mm:.6f}"] * 2
    ds.ImagerPixelSpacing = spacing
    if digital:
        ds.PresentationIntentType = "FOR PRESENTATION"
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = 1 if inverted else -1
        ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
        ds.ImageLaterality = "U"
        ds.RescaleType = "US"
    else:
        ds.PixelSpacing = spacing
        ds.RescaleType = "US"
    ds.RescaleIntercept = intercept
    ds.RescaleSlope = slope
    _set_window(ds, pixels * slope + intercept, site, rng)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 16
    ds.BitsStored = STORED
    ds.HighBit = STORED - 1
    ds.PixelRepresentation = 0
    syntaxes, chances = zip(*_SYNTAXES[site], strict=True)
    return _write(ds, pixels, syntaxes[int(rng.choice(len(syntaxes), p=chances))])


def _set_window(ds: Dataset, values: Plane, site: str, rng: np.random.Generator) -> None:
    """Choose a window around the bulk of the values; one site stores two, one a sigmoid."""
    low, high = np.percentile(values, (1, 99.5))
    center = (low + high) / 2 + 0.03 * rng.uniform(-1, 1) * (high - low)
    width = (high - low) * rng.uniform(0.95, 1.3)
    if site == "south":
        ds.WindowCenter = [f"{center:.1f}", f"{center:.1f}"]
        ds.WindowWidth = [f"{width:.1f}", f"{1.4 * width:.1f}"]
        ds.WindowCenterWidthExplanation = ["NORMAL", "SOFT"]
    else:
        ds.WindowCenter, ds.WindowWidth = f"{center:.1f}", f"{width:.1f}"
    if site == "east":
        ds.VOILUTFunction = "SIGMOID"


def _write(ds: Dataset, pixels: UInt16[np.ndarray, "rows columns"], syntax: UID) -> bytes:
    big = syntax == ExplicitVRBigEndian
    ds.PixelData = pixels.astype(">u2" if big else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()
