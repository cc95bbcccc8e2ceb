"""A DICOM image in; one with the same pixels and nothing that tells whose it is out.

PS3.15 Annex E asks that the attributes of Table E.1-1 are removed or replaced, and that those the
table does not know are looked at too. So this works the other way round: a new object is made of
the attributes in `KEPT`, which are what the image needs to be shown. None of them holds free text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import BytesIO
from typing import Literal, cast

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from medfuse.config import Limits
from medfuse.data.dicom import open_stored, read_header
from medfuse.data.dicom_bounds import refuse_faults
from medfuse.data.grey import StoredPixels
from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import OLDEST_AGE, DeidentifySettings
from medfuse.errors import BurnedInError, DicomError

IMPLEMENTATION_UID = UID("2.25.302043790172249692526321623266752743501")

Rule = Literal["number", "uid", "sop_class", "date", "age", "sequence", "lut", "code"]

_CODES: Mapping[str, frozenset[str]] = {
    "Modality": frozenset({"CR", "DX", "CT", "MR", "MG", "US", "PT", "NM", "XA", "RF", "PX", "IO"}),
    "ImageType": frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER"}),
    "PhotometricInterpretation": frozenset(
        {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"}
    ),
    "PatientSex": frozenset({"M", "F", "O"}),
    "BodyPartExamined": frozenset(
        {
            *("CHEST", "LUNG", "HEART", "THORAX", "RIB", "CLAVICLE", "ABDOMEN", "PELVIS", "SPINE"),
            *("CSPINE", "TSPINE", "LSPINE", "HEAD", "SKULL", "BRAIN", "NECK", "SHOULDER", "ARM"),
            *("ELBOW", "WRIST", "HAND", "HIP", "LEG", "KNEE", "ANKLE", "FOOT", "BREAST", "EYE"),
            *("WHOLEBODY", "EXTREMITY", "LIVER", "KIDNEY", "PROSTATE", "UTERUS", "BLADDER"),
        }
    ),
    "ViewPosition": frozenset(
        {
            *("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAO", "RAO", "LPO", "RPO"),
            *("LATERAL", "LAT", "CC", "MLO", "ML", "LM", "XCCL"),
        }
    ),
    "Laterality": frozenset("LRUB"),
    "ImageLaterality": frozenset("LRUB"),
    "FrameLaterality": frozenset("LRUB"),
    "PatientPosition": frozenset({"HFP", "HFS", "HFDR", "HFDL", "FFP", "FFS", "FFDR", "FFDL"}),
    "BurnedInAnnotation": frozenset({"NO"}),
    "LossyImageCompression": frozenset({"00", "01"}),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "PixelIntensityRelationship": frozenset({"LIN", "LOG", "DISP"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "RescaleType": frozenset({"HU", "US", "OD", "HU_MOD", "PCT"}),
    "PatientOrientation": frozenset(
        {a + b for a in "AHPFLR" for b in ("", *"AHPFLR") if a != b}  # PS3.3 C.7.6.1.1.1
    ),
}
"""The values that a coded attribute may keep; any other is left out, whatever it says."""

KEPT: Mapping[str, Rule] = {
    "SOPClassUID": "sop_class",
    **dict.fromkeys(
        ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), "uid"
    ),
    **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "date"),
    "PatientAge": "age",
    **dict.fromkeys(_CODES, "code"),
    **dict.fromkeys(
        (
            *("SeriesNumber", "InstanceNumber", "AcquisitionNumber", "NumberOfFrames"),
            *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
            *("PixelRepresentation", "PlanarConfiguration", "PixelAspectRatio"),
            *("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"),
            *("PixelPaddingRangeLimit", "PixelIntensityRelationshipSign"),
            *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
            *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
            *("EstimatedRadiographicMagnificationFactor", "LossyImageCompressionRatio"),
            *("SliceThickness", "SpacingBetweenSlices", "SliceLocation", "StackID"),
            *("ImagePositionPatient", "ImageOrientationPatient", "TemporalPositionIndex"),
            *("InStackPositionNumber", "DimensionIndexValues", "FrameTime", "KVP"),
            *("DistanceSourceToDetector", "DistanceSourceToPatient", "Exposure", "ExposureTime"),
            *("XRayTubeCurrent", "RecommendedDisplayFrameRate", "CineRate"),
        ),
        "number",
    ),
    **dict.fromkeys(
        (
            *("ModalityLUTSequence", "VOILUTSequence", "SharedFunctionalGroupsSequence"),
            *("PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence", "FrameContentSequence"),
            *("PlanePositionSequence", "PlaneOrientationSequence", "FrameVOILUTSequence"),
            "PixelValueTransformationSequence",
        ),
        "sequence",
    ),
    **dict.fromkeys(
        (
            *("LUTDescriptor", "LUTData"),
            *(
                f"{colour}PaletteColorLookupTable{part}"
                for colour in ("Red", "Green", "Blue")
                for part in ("Descriptor", "Data")
            ),
        ),
        "lut",
    ),
}
"""What is kept, and how; ``code`` by `_CODES`."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBER_VRS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"})
_AGE = re.compile(r"(\d{3})([DWMY])")

_IDENTIFIERS = frozenset({"PatientID", "AccessionNumber", "StudyID", "OtherPatientIDs"})

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds, .7.1 to .7.4
_CAPTURED = frozenset({"WSD", "DV", "DI", "DF", "SD", "SI", "SYN"})
"""Conversion types (PS3.3 C.8.6.1) of what was scanned, filmed, drawn or taken from a screen."""
_SCREENS = ("SCREEN", "SCREENSHOT", "SAVE")

# PS3.16 CID 7050.
_METHODS = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "characteristics": ("113108", "Retain Patient Characteristics Option"),
}


def deidentify_dicom(data: bytes, person: Person, session: Session) -> bytes:
    """Make a DICOM file with the same pixels and only the attributes in `KEPT`.

    Pixels are decoded and stored uncompressed, since an encoded frame may carry comments; bits
    beyond those stored and bytes beyond the last frame go too.

    Args:
        data: The file.
        person: Whose it is, and becomes.
        session: Replaces UIDs, so that what belonged together still does, and counts.

    Raises:
        BurnedInError: Text may be burned into the pixels, which can't be cleaned.
        DicomError: It is not an image that can be read.
        LimitError: It declares more than a limit allows.
    """
    ds, decoded = open_stored(data, session.limits)
    refuse_burned_in(ds)
    if not is_storage(str(ds.get("SOPClassUID") or "")) or not ds.get("SOPInstanceUID"):
        raise DicomError("SOPClassUID or SOPInstanceUID is missing, or the class is not known")
    frames = tuple(decoded)
    if not all(frame.bits_stored for frame in frames):
        raise DicomError("pixels in floating point are not de-identified; expected whole numbers")
    with refuse_faults("a DICOM file's attributes cannot be de-identified"):
        made = _copy(ds, person, session)
        if not session.settings.characteristics:
            for keyword in ("PatientAge", "PatientSex"):
                if keyword in made:
                    del made[keyword]
        _set_pixels(made, frames)
        _set_person(made, person, session.settings)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
        file = BytesIO()
        made.save_as(file, enforce_file_format=True)
    session.counts["DICOM files"] += 1
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Known:
    """Names of people and identifiers that a header holds, to be found in text."""

    names: tuple[str, ...] = field(default=(), repr=False)
    identifiers: tuple[str, ...] = field(default=(), repr=False)


def find_known(data: bytes, limits: Limits) -> Known:
    """List the names of people and the identifiers in a file's header, at any depth.

    Raises:
        DicomError: It is not a DICOM file, or it is damaged.
        LimitError: It declares more than a limit allows.
    """
    names: list[str] = []
    identifiers: list[str] = []
    with refuse_faults("a DICOM file's names cannot be read"):
        for element in read_header(data, limits).iterall():
            values = element.value if element.VM > 1 else [element.value]
            if element.VR == "PN":
                names += (str(value) for value in values if value)
            elif element.keyword in _IDENTIFIERS:
                identifiers += (str(value).strip() for value in values if value)
    return Known(tuple(names), tuple(identifiers))


def is_storage(uid: str) -> bool:
    """Tell whether a UID is the standard's for a stored object, and so nothing of a patient's."""
    known = UID(uid)
    return bool(known.type == "SOP Class" and "Storage" in known.name)


def refuse_burned_in(ds: Dataset) -> None:
    """Refuse what may have text in its pixels by its own account.

    Raises:
        BurnedInError: BurnedInAnnotation is YES, or it was captured from a screen, paper or film.
    """
    if str(ds.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        raise BurnedInError("BurnedInAnnotation is YES; pixels cannot be de-identified")
    kind = str(ds.get("SOPClassUID") or "")
    if kind == _SECONDARY_CAPTURE or kind.startswith(_SECONDARY_CAPTURE + "."):
        raise BurnedInError("it is a secondary capture, which may have text in its pixels")
    if str(ds.get("ConversionType") or "").strip().upper() in _CAPTURED:
        raise BurnedInError("its ConversionType says that it was captured, so it may have text")
    image_type = ds.get("ImageType") or ()
    parts = [image_type] if isinstance(image_type, str) else image_type
    if any(word in str(part).upper() for part in parts for word in _SCREENS):
        raise BurnedInError("its ImageType says that it is of a screen")


def _copy(source: Dataset, person: Person, session: Session) -> Dataset:
    """Copy the kept attributes of a dataset or of an item in a sequence."""
    made, counts = Dataset(), session.counts
    # What is not kept is not even parsed.
    for tag in source.keys():  # noqa: SIM118  # a dataset's iterator parses
        rule = None if tag.is_private else KEPT.get(keyword_for_tag(tag))
        if rule is None:
            if tag.group != 0x7FE0:
                counts["private attributes" if tag.is_private else "attributes"] += 1
            continue
        element = source[tag]
        if rule == "sequence":
            if element.VR == "SQ":
                items = [_copy(item, person, session) for item in element.value]
                setattr(made, element.keyword, items)
            continue
        value = _replace(element, rule, person, session)
        if value is None:
            counts["attributes"] += 1
        elif rule in ("number", "lut"):
            made[element.tag] = DataElement(element.tag, element.VR, value)
        else:
            setattr(made, element.keyword, value)
        if rule in ("uid", "date") and value:
            counts[f"DICOM {rule}s"] += 1
    return made


def _replace(element: DataElement, rule: Rule, person: Person, session: Session) -> object | None:
    """Give what an attribute's value becomes, None where it goes."""
    value = element.value
    if rule == "number":
        parts = value if element.VM > 1 else [value]
        if element.VR not in _NUMBER_VRS or not all(_NUMBER.fullmatch(str(p)) for p in parts):
            return None
        if element.VR == "DS":  # some writers give more digits than the 16 that are allowed
            shorter = [format_number_as_ds(float(part)) for part in parts]
            return shorter[0] if len(shorter) == 1 else shorter
        return cast(object, value)
    if rule == "lut":
        # Numbers of 16 bits, whichever way they are stored; as many as an image can have.
        kept = element.VR in ("US", "SS") or (
            element.VR == "OW" and isinstance(value, bytes) and len(value) <= 2**17
        )
        return cast(object, value) if kept else None
    text = str(value).strip()
    if rule == "uid":
        return session.pseudonyms.uid(text) if text else None
    if rule == "sop_class":
        return text if is_storage(text) else None
    if rule == "date":
        moves = session.settings.dates == "shift"
        return shift_dicom_date(text, person.shift_days) if moves else None
    if rule == "age":
        return cap_dicom_age(text)
    known = _CODES[element.keyword]
    codes = [str(part).strip().upper() for part in (value if element.VM > 1 else [value])]
    kept_codes = [code for code in codes if code in known]
    if element.keyword != "ImageType" and kept_codes != codes:
        return None
    return kept_codes[0] if len(kept_codes) == 1 else kept_codes or None


def shift_dicom_date(text: str, days: int) -> str | None:
    """Move a date of VR DA; None where it is not a date."""
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:8])) + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{day:%Y%m%d}" if len(text) == 8 else None


def cap_dicom_age(text: str) -> str | None:
    """Keep an age of VR AS, at most 90 years; None where it is not an age."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    # In days, weeks and months, three digits stay below 90 years.
    return f"{min(number, OLDEST_AGE):03d}Y" if unit == "Y" else text


def _set_pixels(ds: Dataset, frames: tuple[StoredPixels, ...]) -> None:
    """Store decoded frames, uncompressed, and describe them as they now are."""
    first = frames[0]
    values = np.stack([frame.values for frame in frames])
    bits = first.bits_stored or 8 * values.dtype.itemsize
    spare = 8 * values.dtype.itemsize - bits
    values = (values << spare) >> spare  # drops what stands above, and keeps the sign
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    ds.Rows, ds.Columns = values.shape[1:3]
    ds.SamplesPerPixel = 3 if values.ndim == 4 else 1
    if values.ndim == 4:
        ds.PlanarConfiguration = 0
    elif "PlanarConfiguration" in ds:
        del ds.PlanarConfiguration
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    ds.PhotometricInterpretation = first.photometric
    ds.BitsAllocated = 8 * values.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = int(first.signed)
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"


def _set_person(ds: Dataset, person: Person, settings: DeidentifySettings) -> None:
    """Say whose it is by pseudonym, and how it was de-identified (PS3.15 E.1.1)."""
    ds.PatientID = ds.PatientName = person.pseudonym
    # Type 2 of the modules that every image has: there, but empty.
    for keyword in ("PatientBirthDate", "StudyTime", "ReferringPhysicianName", "StudyID"):
        setattr(ds, keyword, "")
    for keyword in ("PatientSex", "StudyDate", "AccessionNumber", "Manufacturer"):
        if keyword not in ds:
            setattr(ds, keyword, "")
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "medfuse: kept attributes only"
    ds.LongitudinalTemporalInformationModified = (
        "MODIFIED" if settings.dates == "shift" else "REMOVED"
    )
    methods = [_METHODS["basic"]]
    if settings.dates == "shift":
        methods.append(_METHODS["dates"])
    if settings.characteristics:
        methods.append(_METHODS["characteristics"])
    codes = []
    for value, meaning in methods:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        codes.append(code)
    ds.DeidentificationMethodCodeSequence = codes
