"""De-identified DICOM: nothing of Table E.1-1 is left, and the pixels are the same."""

import io

import numpy as np
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from medfuse.config import ImageSettings, Limits
from medfuse.data.dicom import decode_frames
from medfuse.deidentify.dicom import KEPT, deidentify_dicom, find_known
from medfuse.deidentify.pseudonyms import Person, Pseudonyms
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import DeidentifySettings
from medfuse.errors import BurnedInError, DicomError
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from tests.canaries import CANARIES, DOCTOR, FIRST, LAST, MRN, make_dicom, read_back
from tests.dicom_files import SECONDARY_CAPTURE, encapsulated, make_dataset, make_file, read_file

KEY = bytes(range(32))
UIDS = {"SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "SeriesInstanceUID": "1.2.5"}
PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)


def make_session(**settings: object) -> Session:
    return Session(Pseudonyms(KEY), DeidentifySettings.model_validate(settings))


def clean(data: bytes, person: Person | None = None, **settings: object) -> bytes:
    session = make_session(**settings)
    return deidentify_dicom(data, person or session.person("someone"), session)


def test_no_canary_is_left_from_any_attribute_of_the_dictionary() -> None:
    planted = make_dicom()
    assert all(
        canary.encode() in planted
        for name, canary in CANARIES.items()
        if name in ("first name", "surname", "birth", "day", "uid", "age", "mrn")
    )
    assert len(read_back(planted)) > 1_500
    cleaned = clean(planted)
    for canary in CANARIES.values():
        for form in (canary, canary.upper(), canary.lower()):
            assert form.encode() not in cleaned
            assert form.encode("utf-16-le") not in cleaned


def test_what_is_left_has_no_free_text_and_says_how_it_was_made() -> None:
    ds = read_back(clean(make_dicom(PatientSex="F")))
    texts = {
        element.keyword: element.value
        for element in ds
        if element.VR in ("LO", "SH", "LT", "ST", "UT", "UC", "AE", "PN", "UN") and element.value
    }
    pseudonym = str(ds.PatientID)
    assert texts == {
        "PatientName": pseudonym,
        "PatientID": pseudonym,
        "DeidentificationMethod": "medfuse: kept attributes only",
    }
    assert ds.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108"]
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
    assert (ds.PatientSex, ds.PatientAge) == ("F", "090Y")
    assert not any(tag.is_private for tag in ds.keys())  # noqa: SIM118
    assert ds.preamble == bytes(128)


def test_the_profiles_own_table_is_obeyed() -> None:
    """Every attribute of Table E.1-1, edition 2026c, as another project has it."""
    groups = (table.X_TAGS, table.Z_TAGS, table.D_TAGS, table.U_TAGS, table.Z_D_TAGS,
              table.X_Z_TAGS, table.X_D_TAGS, table.X_Z_D_TAGS, table.X_Z_U_STAR_TAGS)  # fmt: skip
    named = {(tag[0] << 16) + tag[1] for group in groups for tag in group if len(tag) == 2}
    listed = {keyword_for_tag(tag) for tag in named} & set(KEPT)
    # All that the profile names and we keep: replaced (U), moved (K by option) or shown by option.
    assert {KEPT[keyword] for keyword in listed} <= {"uid", "date", "age", "code"}
    assert listed == {
        *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
        *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"),
        *("PatientAge", "PatientSex"),
    }
    assert len(named) > 400
    ds = read_back(clean(make_dicom()))
    empty = {e.keyword for e in ds if e.value in ("", None) or e.VM == 0}
    told = {"PatientName", "PatientID", "DeidentificationMethod"}
    left = {keyword_for_tag(tag) for tag in named if tag in ds} - listed - empty - told
    assert not left


def test_pixels_windows_and_spacing_are_the_same() -> None:
    session = make_session()
    syntaxes = set()
    for index in range(24):
        for image in make_study(CohortOptions(seed=3), index).study.images:
            cleaned = deidentify_dicom(image, session.person("a"), session)
            syntaxes.add(read_back(image).file_meta.TransferSyntaxUID)
            (before,) = decode_frames([image], ImageSettings(), Limits())
            (after,) = decode_frames([cleaned], ImageSettings(), Limits())
            np.testing.assert_array_equal(before.image, after.image)
            assert before.spacing_mm == after.spacing_mm
    assert len(syntaxes) == 6


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small.dcm", "MR_small_RLE.dcm", "examples_palette.dcm", "emri_small.dcm"),
        *("examples_rgb_color.dcm", "JPEG2000.dcm"),
    ],
)
def test_files_as_vendors_write_them_keep_their_picture(name: str) -> None:
    data = read_file(name)
    if str(read_back(data).SOPClassUID).startswith(SECONDARY_CAPTURE):
        with pytest.raises(BurnedInError):
            clean(data)
        return
    settings = ImageSettings(frames=1)
    (before,) = decode_frames([data], settings, Limits())
    (after,) = decode_frames([clean(data)], settings, Limits())
    np.testing.assert_allclose(before.image, after.image, atol=1e-6)


def test_a_comment_inside_an_encoded_frame_goes() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, "JPEG", comment=f"{FIRST} {LAST}")
    ds = make_dataset(np.zeros((16, 16), np.uint8), **UIDS)
    data = encapsulated(ds, JPEGBaseline8Bit, [file.getvalue()])
    assert LAST.encode() in data
    assert LAST.encode() not in clean(data)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_bits_above_those_stored_go(syntax: UID | None) -> None:
    pixels = np.tile(PIXELS, (8, 8))
    overlay = pixels | 0x8000  # where old overlays hid
    ds = make_dataset(overlay, BitsStored=16, HighBit=15, **UIDS)
    if syntax is not None:
        ds.compress(syntax, generate_instance_uid=False)
    ds.BitsStored, ds.HighBit = 12, 11
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    data = file.getvalue()
    # As stored, since a reader would mask them.
    stored = np.frombuffer(read_back(clean(data)).PixelData, "<u2").reshape(pixels.shape)
    np.testing.assert_array_equal(stored, pixels)


def test_negative_values_stay_negative() -> None:
    values = np.array([[-1000, 0], [5, -1]], np.int16)
    data = make_file(values, BitsStored=12, HighBit=11, **UIDS)
    np.testing.assert_array_equal(read_back(clean(data)).pixel_array, values)


def test_bytes_beyond_the_last_frame_go() -> None:
    ds = make_dataset(PIXELS, **UIDS)
    ds.PixelData += LAST.encode()
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    cleaned = clean(file.getvalue())
    assert len(read_back(cleaned).PixelData) == PIXELS.nbytes
    assert LAST.encode() not in cleaned


@pytest.mark.parametrize(
    "elements",
    [
        {"BurnedInAnnotation": "YES"},
        {"SOPClassUID": SECONDARY_CAPTURE},
        {"ConversionType": "WSD"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ],
)
def test_what_may_have_text_burned_in_is_refused(elements: dict[str, object]) -> None:
    with pytest.raises(BurnedInError):
        clean(make_file(PIXELS, **(UIDS | elements)))


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(DicomError, match="class is not known"):
        clean(make_file(PIXELS, **(UIDS | {"SOPClassUID": "1.2.999.1"})))


def test_instances_of_one_series_stay_together_and_others_apart() -> None:
    session = make_session()
    person = session.person("a")
    made = [
        read_back(deidentify_dicom(make_file(PIXELS, **(UIDS | own)), person, session))
        for own in (
            {"SOPInstanceUID": "1.1"},
            {"SOPInstanceUID": "1.2"},
            {"SeriesInstanceUID": "9"},
        )
    ]
    assert made[0].SeriesInstanceUID == made[1].SeriesInstanceUID != made[2].SeriesInstanceUID
    assert len({ds.SOPInstanceUID for ds in made}) == 3
    assert made[0].StudyInstanceUID == made[2].StudyInstanceUID
    other = Session(Pseudonyms(bytes(32)))
    again = read_back(deidentify_dicom(make_file(PIXELS, **UIDS), person, other))
    assert again.StudyInstanceUID != made[0].StudyInstanceUID


def test_dates_move_by_the_patients_shift_or_go() -> None:
    person = Person("P1", -400)
    data = make_file(PIXELS, StudyDate="20200301", PatientAge="031Y", PatientSex="M", **UIDS)
    assert read_back(clean(data, person)).StudyDate == "20190126"
    removed = read_back(clean(data, person, dates="remove", characteristics=False))
    assert removed.StudyDate == removed.PatientSex == ""
    assert "PatientAge" not in removed
    assert [c.CodeValue for c in removed.DeidentificationMethodCodeSequence] == ["113100"]


def test_a_coded_attribute_keeps_only_values_it_may_have() -> None:
    ds = read_back(
        clean(
            make_file(
                PIXELS,
                ViewPosition="PA",
                BodyPartExamined=LAST.upper(),
                PatientOrientation=["L", LAST.upper()],
                ImageType=["ORIGINAL", "PRIMARY", LAST.upper()],
                **UIDS,
            )
        )
    )
    assert ds.ViewPosition == "PA"
    assert "BodyPartExamined" not in ds
    assert "PatientOrientation" not in ds  # half of it would say something else
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY"]


def test_an_overlong_number_does_not_stop_a_file() -> None:
    ds = make_dataset(PIXELS, **UIDS)
    ds.PixelSpacing = ["0.500000001234", "0.500000001234"]
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    # As some vendors write it: more than the 16 characters that VR DS has.
    short, overlong = (
        b"0.500000001234\\0.500000001234 ",
        b"0.5000000012345678901\\0.500000001234567 ",
    )
    data = file.getvalue()
    assert short in data
    long = data.replace(
        len(short).to_bytes(2, "little") + short, len(overlong).to_bytes(2, "little") + overlong
    )
    cleaned = read_back(clean(long))
    assert [round(float(v), 9) for v in cleaned.PixelSpacing] == [0.500000001] * 2


def test_names_are_found_at_any_depth() -> None:
    inner = Dataset()
    inner.PersonName = f"Hartigan^{DOCTOR}"
    data = make_file(PIXELS, PatientName=f"{LAST}^{FIRST}", PatientID=MRN, **UIDS)
    ds = read_back(data)
    ds.ContentSequence = [inner]
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    known = find_known(file.getvalue(), Limits())
    assert set(known.names) == {f"{LAST}^{FIRST}", f"Hartigan^{DOCTOR}"}
    assert known.identifiers == (MRN,)


@given(st.text(min_size=1), st.text(min_size=1))
def test_pseudonyms_are_one_to_one_and_say_nothing(a: str, b: str) -> None:
    names = Pseudonyms(KEY)
    assert (names.name("P", a) == names.name("P", b)) == (a == b)
    assert (names.uid(a) == names.uid(b)) == (a == b)
    assert len(names.uid(a)) <= 64
    assert -3_650 <= names.shift_days(a) <= -366


def test_a_key_shows_in_no_repr() -> None:
    assert "key" not in repr(Pseudonyms(KEY))
