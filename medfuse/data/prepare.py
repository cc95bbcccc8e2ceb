"""A study's bytes in; the arrays a model reads out, for one study and for a batch."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from medfuse.config import Limits, PrepareSettings
from medfuse.data.dicom import Identity, read_file_identity, read_identity
from medfuse.data.image import prepare_images
from medfuse.data.note import prepare_note
from medfuse.data.picture import is_picture
from medfuse.data.voice import is_voice_object, prepare_voice, read_voice_object
from medfuse.errors import InputError, LimitError
from medfuse.types import Batch, Modality, Prepared, Remark, Study

SHORTEST_VOICE = 16
"""Mel frames that every batch has at least, so that a network may stride over time."""


def prepare(study: Study, settings: PrepareSettings, tokenizer: Tokenizer) -> Prepared:
    """Decode and normalise what is there of a study.

    Raises:
        InputError: Nothing is there, or the parts belong to different patients or studies.
        DicomError: An image cannot be used.
        NoteError: The note cannot be used.
        VoiceError: The recording cannot be used.
        LimitError: A part declares more than the limits allow.
    """
    if len(study.images) > settings.limits.instances:
        raise LimitError(
            f"the study has {len(study.images)} images; at most {settings.limits.instances} are "
            "read"
        )
    declared = Identity(study.patient_id, study.study_uid)
    check_identities((declared, *read_identities(study, settings.limits)))
    remarks: tuple[Remark, ...] = ()
    image = note = voice = None
    if study.images:
        image, about = prepare_images(study.images, settings.image, settings.limits)
        remarks += about
    if study.note is not None:
        note, about = prepare_note(study.note, settings.note, settings.limits, tokenizer)
        remarks += about
    if study.voice is not None:
        voice, about = prepare_voice(study.voice, settings.voice, settings.limits)
        remarks += about
    prepared = Prepared(image, note, voice, remarks)
    if not prepared.present:
        reasons = "".join(f"; {remark.message}" for remark in remarks)
        raise InputError(f"the study has no image, no note and no voice to read{reasons}")
    return prepared


def collate(prepared: Sequence[Prepared], settings: PrepareSettings) -> Batch:
    """Pad studies to one batch; where a study lacks a modality its mask is all False."""
    images = [None if study.image is None else study.image.values for study in prepared]
    notes = [None if study.note is None else study.note.values for study in prepared]
    voices = [None if study.voice is None else study.voice.values for study in prepared]
    side, bands = settings.image.size, settings.voice.mel_bands
    padded = {
        Modality.IMAGE: _pad(images, np.zeros((1, side, side), dtype=np.float32)),
        Modality.NOTE: _pad(notes, np.zeros(1, dtype=np.int64)),
        Modality.VOICE: _pad(voices, np.zeros((SHORTEST_VOICE, bands), dtype=np.float32)),
    }
    return Batch(
        values={modality: values for modality, (values, _) in padded.items()},
        masks={modality: mask for modality, (_, mask) in padded.items()},
    )


def _pad(rows: Sequence[np.ndarray | None], padding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stack rows of different length, filled up with zeros to at least ``padding``'s length."""
    length = max([len(padding), *(len(row) for row in rows if row is not None)])
    values = np.zeros((len(rows), length, *padding.shape[1:]), dtype=padding.dtype)
    mask = np.zeros((len(rows), length), dtype=bool)
    for i, row in enumerate(rows):
        if row is not None:
            values[i, : len(row)] = row
            mask[i, : len(row)] = True
    return values, mask


def check_identities(identities: Iterable[Identity]) -> None:
    """Refuse parts of different patients or studies; the message names neither.

    Raises:
        InputError: They are.
    """
    patients, studies = set(), set()
    for identity in identities:
        patients.add(identity.patient_id)
        studies.add(identity.study_uid)
    for keyword, found in (("PatientID", patients), ("StudyInstanceUID", studies)):
        # Spaces around either, and a UID's trailing NUL, are padding (PS3.5 6.2).
        if len({value.strip(" \0") for value in found if value} - {""}) > 1:
            raise InputError(
                f"{keyword} differs among the parts of the study; send one patient's study at a "
                "time"
            )


def read_identities(study: Study, limits: Limits) -> Iterator[Identity]:
    """Read whose study each part says that it is of.

    Raises:
        InputError: A part cannot be read.
    """
    for image in study.images:
        if not is_picture(image):
            yield read_file_identity(image, limits)
    if study.voice is not None and is_voice_object(study.voice):
        yield read_identity(read_voice_object(study.voice, limits))
