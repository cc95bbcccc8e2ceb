import io
from collections import Counter
from functools import cache

import numpy as np
import pydicom
import pytest
import soundfile
from pydicom.pixels.processing import apply_modality_lut
from scipy.ndimage import binary_dilation

from medfuse.config import SAMPLE_RATE, ImageSettings, Limits, NoteSettings
from medfuse.data.dicom import decode_frames, read_file_identity
from medfuse.data.note import decode_note, load_tokenizer, prepare_note
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.synthetic.network import draw
from medfuse.synthetic.note import WORDINGS
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut
from medfuse.synthetic.patient import Patient, find_patient
from medfuse.synthetic.study import SyntheticStudy, make_study
from medfuse.synthetic.world import (
    FINDINGS,
    MISSING_AT,
    SIGNS,
    TARGETS,
    build_world,
    shortcut_name,
)
from medfuse.types import MODALITIES, SUBSETS, Modality

SMALL = CohortOptions(seed=7, size=256)
MARKED = SMALL.model_copy(
    update={
        "shortcuts": tuple(Shortcut(modality=m, finding="nodule", strength=1) for m in MODALITIES)
    }
)


@cache
def studies() -> tuple[SyntheticStudy, ...]:
    return tuple(make_study(SMALL, index) for index in range(40))


@cache
def marked() -> tuple[SyntheticStudy, ...]:
    return tuple(make_study(MARKED, index) for index in range(12))


def read_voice(made: SyntheticStudy) -> np.ndarray:
    assert made.study.voice is not None
    waveform, rate = soundfile.read(io.BytesIO(made.study.voice), dtype="float32")
    assert rate == SAMPLE_RATE
    return np.asarray(waveform)


def names_of(modality: Modality) -> set[str]:
    return {sign.name for sign in SIGNS[modality]}


def test_the_same_seed_and_number_give_the_same_study_in_any_order_and_company() -> None:
    larger = SMALL.model_copy(update={"studies": 5})
    for index in (17, 3):
        assert make_study(larger, index).study == studies()[index].study


def test_another_seed_gives_another_study() -> None:
    other = make_study(SMALL.model_copy(update={"seed": 8}), 3).study
    assert other.note != studies()[3].study.note
    assert other.voice != studies()[3].study.voice
    assert other.study_uid != studies()[3].study.study_uid


def test_a_missing_modality_changes_no_byte_of_the_others() -> None:
    options = SMALL.model_copy(update={"missing": Mechanism.FINDING, "missing_rate": 0.6})
    seen = set()
    for index in range(12):
        whole, part = studies()[index], make_study(options, index)
        seen.add(part.truth.present)
        has = {
            Modality.IMAGE: bool(part.study.images),
            Modality.NOTE: part.study.note is not None,
            Modality.VOICE: part.study.voice is not None,
        }
        assert frozenset(m for m in MODALITIES if has[m]) == part.truth.present != frozenset()
        assert part.study.images in ((), whole.study.images)
        assert part.study.note in (None, whole.study.note)
        assert part.study.voice in (None, whole.study.voice)
        assert part.truth.signs == whole.truth.signs
        for m, spans in zip(
            MODALITIES, (part.truth.image, part.truth.note, part.truth.voice), strict=True
        ):
            assert not spans or has[m]
    assert len(seen) > 3


def test_studies_of_a_site_lack_what_it_cannot_do() -> None:
    options = SMALL.model_copy(update={"missing": Mechanism.SITE, "missing_rate": 0.0})
    seen = set()
    for index in range(12):
        made = make_study(options, index)
        seen.add(made.patient.site)
        assert made.truth.present == frozenset(MODALITIES) - MISSING_AT[made.patient.site]
    assert seen == set(MISSING_AT)


def test_a_shortcut_leaves_the_other_modalities_as_they_are() -> None:
    options = SMALL.model_copy(
        update={"shortcuts": (Shortcut(modality=Modality.NOTE, finding="nodule", strength=1),)}
    )
    for index in range(6):
        whole, part = studies()[index], make_study(options, index)
        assert part.study.images == whole.study.images
        assert part.study.voice == whole.study.voice
        assert part.truth.signs == whole.truth.signs


def test_marks_that_are_asked_for_are_all_that_changes() -> None:
    plain, with_hum = make_study(SMALL, 3), make_study(SMALL, 3, frozenset({Modality.VOICE}))
    assert with_hum.study.voice != plain.study.voice
    assert (with_hum.study.images, with_hum.study.note) == (plain.study.images, plain.study.note)
    assert with_hum.truth.shortcuts == {Modality.VOICE}
    assert make_study(SMALL, 3, frozenset()).study == plain.study


def test_posterior_is_looked_up_from_the_studys_own_signs() -> None:
    world = build_world(SMALL)
    for made in studies()[:10]:
        answers = {s.name: s.name in made.truth.signs for m in MODALITIES for s in SIGNS[m]}
        for subset, row in enumerate(made.truth.posterior):
            assert (row == world.clinical(subset, answers)).all()
        # Nothing is missing and nothing is marked, so all that is delivered is the signs.
        assert made.truth.delivered == pytest.approx(made.truth.posterior[-1], abs=1e-12)


def test_posteriors_are_calibrated_on_the_labels_drawn() -> None:
    """Labels and posteriors come by different ways; over many draws they must agree."""
    world = build_world(SMALL)
    rng = np.random.default_rng(3)
    findings, mood = (network.variables for network in world.networks)
    drawn = [draw(findings, rng) | draw(mood, rng) for _ in range(4000)]
    labels = np.array([[answers[name] for name in TARGETS] for answers in drawn])
    for which in range(len(SUBSETS)):
        expected = np.array([world.clinical(which, answers) for answers in drawn])
        for low in (0.0, 0.3, 0.7):
            here = (expected >= low) & (expected < low + 0.4)
            error = np.sqrt((expected[here] * (1 - expected[here])).sum())
            gap = labels[here].sum() - expected[here].sum()
            assert abs(gap) < 5 * max(error, 1e-9) or not here.any(), SUBSETS[which]


def test_images_are_read_by_pydicom_and_by_medfuse_with_one_identity() -> None:
    syntaxes: Counter[str] = Counter()
    for made in studies():
        assert len(made.study.images) in (1, 2)
        frames = decode_frames(made.study.images, ImageSettings(), Limits())
        for frame, data in zip(frames, made.study.images, strict=True):
            ds = pydicom.dcmread(io.BytesIO(data))
            syntaxes[ds.file_meta.TransferSyntaxUID.name] += 1
            identity = read_file_identity(data, Limits())
            assert identity.patient_id == made.study.patient_id == ds.PatientID
            assert identity.study_uid == made.study.study_uid == ds.StudyInstanceUID
            assert ds.SOPInstanceUID.startswith("2.25.")
            assert ds.SOPInstanceUID.is_valid
            assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
            assert ds.pixel_array.max() < 2**ds.BitsStored
            assert frame.image.shape == (ds.Rows, ds.Columns)
            assert not frame.remarks
            # medfuse's grey values rise with the attenuation that pydicom reads.
            values = apply_modality_lut(ds.pixel_array, ds).astype(float)
            rising = -1 if ds.PhotometricInterpretation == "MONOCHROME1" else 1
            assert np.corrcoef(rising * values.ravel(), frame.image.ravel())[0, 1] > 0.9
            assert (ds.PatientSex, ds.PatientAge) == (made.patient.sex, f"{made.age:03d}Y")
            assert ds.StudyDate == f"{made.day:%Y%m%d}"
    assert len(syntaxes) == 6
    both = {
        pydicom.dcmread(io.BytesIO(m.study.images[0])).PhotometricInterpretation for m in studies()
    }
    assert both == {"MONOCHROME1", "MONOCHROME2"}


def test_no_two_instances_share_a_uid() -> None:
    uids = [
        pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID
        for made in studies()
        for data in made.study.images
    ]
    assert len(set(uids)) == len(uids)
    assert len({made.study.study_uid for made in studies()}) == len(studies())


def test_masks_lie_in_the_image_and_nodules_are_brighter_than_what_is_around_them() -> None:
    for made in studies():
        frames = decode_frames(made.study.images, ImageSettings(), Limits())
        assert {e.sign for e in made.truth.image if e.instance == 0} == (
            made.truth.signs & names_of(Modality.IMAGE)
        )
        for evidence in made.truth.image:
            image = frames[evidence.instance].image
            assert evidence.mask.shape == image.shape
            least = 60 if evidence.instance == 0 else 1  # in the lateral view one may hide another
            assert least <= evidence.mask.sum() < 0.3 * image.size
            if evidence.sign == "nodule_opacity" and evidence.instance == 0:
                ring = binary_dilation(evidence.mask, iterations=7)
                ring &= ~binary_dilation(evidence.mask, iterations=2)
                assert np.median(image[evidence.mask]) > np.median(image[ring]) + 0.1


def test_note_spans_hold_the_signs_words() -> None:
    for made in studies():
        assert made.study.note is not None
        text = decode_note(made.study.note, Limits())
        assert {span.sign for span in made.truth.note} == (
            made.truth.signs & names_of(Modality.NOTE)
        )
        for span in made.truth.note:
            # A misspelling swaps two letters, so the letters are still the same.
            words = sorted(text[span.start : span.end])
            assert any(sorted(phrase) == words for phrase in WORDINGS[span.sign].present)


def test_no_note_is_too_long_for_the_models_word_pieces() -> None:
    tokenizer = load_tokenizer(tokenizer_path(ModelSettings()))
    codes: Counter[str] = Counter()
    for made in (*studies(), *marked()):
        assert made.study.note is not None
        _, remarks = prepare_note(made.study.note, NoteSettings(), Limits(), tokenizer)
        codes.update(remark.code for remark in remarks)
    assert "note-truncated" not in codes
    assert codes["note-legacy-encoding"] > 0


def test_voice_spans_lie_in_the_recording() -> None:
    for made in studies():
        waveform = read_voice(made)
        assert waveform.ndim == 1
        duration_s = len(waveform) / SAMPLE_RATE
        assert 3.1 < duration_s < 9.1
        assert 0.02 < np.abs(waveform).max() < 0.99
        assert {span.sign for span in made.truth.voice} == (
            made.truth.signs & names_of(Modality.VOICE)
        )
        for span in made.truth.voice:
            assert 0 <= span.start_s < span.end_s <= duration_s
            assert 0 < span.low_hz < span.high_hz <= SAMPLE_RATE / 2


def test_a_cough_is_loud_where_its_span_says() -> None:
    for made in studies():
        waveform = read_voice(made)
        for span in made.truth.voice:
            if span.sign == "cough":
                start = int(span.start_s * SAMPLE_RATE)
                burst = waveform[start : start + SAMPLE_RATE // 20]
                before = waveform[max(start - SAMPLE_RATE // 50, 0) : start]
                assert np.sqrt(np.mean(burst**2)) > 5 * np.sqrt(np.mean(before**2))


def test_shortcuts_go_along_with_their_finding() -> None:
    for made, plain in zip(marked(), studies(), strict=False):
        nodule = bool(made.truth.labels[FINDINGS.index("nodule")])
        assert made.truth.shortcuts == (frozenset(MODALITIES) if nodule else frozenset())
        names = {e.sign for e in made.truth.image}
        names |= {e.sign for e in made.truth.note} | {e.sign for e in made.truth.voice}
        assert {shortcut_name(m) in names for m in MODALITIES} == {nodule}
        assert nodule or made.study == plain.study


def test_shortcuts_are_planted_where_they_say() -> None:
    for made, plain in zip(marked(), studies(), strict=False):
        if not made.truth.shortcuts:
            continue
        text = decode_note(made.study.note or b"", Limits())
        (site,) = (e for e in made.truth.note if e.sign == shortcut_name(Modality.NOTE))
        assert text[site.start : site.end] == f"Seen at the {made.patient.site.title()}field unit."
        frames = decode_frames(made.study.images, ImageSettings(), Limits())
        for evidence in made.truth.image:
            if evidence.sign == shortcut_name(Modality.IMAGE):
                image = frames[evidence.instance].image
                assert image[evidence.mask].min() >= np.percentile(image, 99)
        # The 50 Hz bin of a transform over eight seconds.
        hum, none = (
            np.abs(np.fft.rfft(read_voice(m), 8 * SAMPLE_RATE))[8 * 50] for m in (made, plain)
        )
        assert hum > 10 * none


def test_patients_keep_their_sex_site_and_split_from_visit_to_visit() -> None:
    known: dict[str, Patient] = {}
    visits: Counter[str] = Counter()
    for index in range(160):
        patient, visit = find_patient(SMALL, index)
        assert known.setdefault(patient.patient_id, patient) == patient
        visits[patient.patient_id] += 1
        assert visit == visits[patient.patient_id] - 1
    assert Counter(visits.values()) == {1: 60, 2: 20, 3: 20}
    assert Counter(p.split for p in known.values()) == {"train": 70, "validation": 10, "test": 20}


def test_age_is_counted_in_whole_years() -> None:
    patient, _ = find_patient(SMALL, 0)
    birthday = patient.birth_date.replace(year=2030)
    years = 2030 - patient.birth_date.year
    assert patient.age_on(birthday) == years
    assert patient.age_on(birthday.fromordinal(birthday.toordinal() - 1)) == years - 1
