"""Options and a number in; one study as a hospital would hand it over, and all its truth, out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from jaxtyping import Bool, Float64

from medfuse.presence import choose_subset
from medfuse.synthetic.evidence import ImageEvidence, NoteEvidence, VoiceEvidence
from medfuse.synthetic.network import draw
from medfuse.synthetic.note import write_note
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.patient import Patient, Stream, date_visit, find_patient, open_stream
from medfuse.synthetic.phantom import draw_lesions, make_body, render_frontal, render_lateral
from medfuse.synthetic.radiograph import Header, burn_in, encode_radiograph, name_uid
from medfuse.synthetic.voice import make_speaker, record_voice
from medfuse.synthetic.world import (
    SIGN_NAMES,
    as_array,
    build_world,
    presence_chances,
    shortcut_name,
)
from medfuse.types import MODALITIES, SUBSETS, Modality, Study

LATERAL_SHARE = 0.3
"""How many studies have a lateral view beside the frontal one."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about a study because it was made.

    Attributes:
        labels: In the order of `TARGETS`; the posteriors have the same order.
        signs: The signs it has, also those of modalities that are absent.
        shortcuts: The modalities that carry their shortcut, absent ones included.
        present: The modalities delivered.
        posterior: P(target | the subset's signs), for every subset of `SUBSETS`, also for those
            with a modality that was not delivered.
        delivered: P(target | everything delivered): the signs and shortcuts of the present
            modalities, and that the others are missing. No reader of the study can know more.
        image: Where the delivered images show the signs; likewise for note and voice.
    """

    labels: Bool[np.ndarray, " k"]
    signs: frozenset[str]
    shortcuts: frozenset[Modality]
    present: frozenset[Modality]
    posterior: Float64[np.ndarray, "7 k"]
    delivered: Float64[np.ndarray, " k"]
    image: tuple[ImageEvidence, ...]
    note: tuple[NoteEvidence, ...]
    voice: tuple[VoiceEvidence, ...]


@dataclass(frozen=True, slots=True)
class SyntheticStudy:
    """One study of the known-truth cohort, with its line of the cohort's table."""

    study_id: str
    study: Study
    truth: Truth
    patient: Patient
    age: int
    day: date


def make_study(
    options: CohortOptions, index: int, marks: frozenset[Modality] | None = None
) -> SyntheticStudy:
    """Make study number ``index``; its bytes depend on it and the options' content alone.

    Args:
        options: What the cohort is like.
        index: The study's number.
        marks: The modalities that carry a shortcut's mark, whatever the options and the study's
            findings say; `Truth.delivered` then counts none of them.

    Raises:
        CohortError: The options' shortcuts do not fit the findings.
    """
    world = build_world(options)
    answers = draw_answers(options, index)
    signs = frozenset(name for name in SIGN_NAMES if answers[name])
    shortcuts = frozenset(m for m in MODALITIES if answers.get(shortcut_name(m), False))
    if marks is not None:
        shortcuts = marks
    patient, visit = find_patient(options, index)
    present, delivered = _draw_presence(options, index, answers, patient.site)
    day = date_visit(patient, visit)
    key = f"medfuse/{options.seed}/{index}"
    study_uid = name_uid(f"{key}/study")

    images: tuple[bytes, ...] = ()
    image_evidence: tuple[ImageEvidence, ...] = ()
    if Modality.IMAGE in present:
        header = Header(patient, patient.age_on(day), day, study_uid, key, 0, "PA")
        images, image_evidence = _make_images(
            options, index, header, signs, Modality.IMAGE in shortcuts
        )
    note = voice = None
    note_evidence: tuple[NoteEvidence, ...] = ()
    voice_evidence: tuple[VoiceEvidence, ...] = ()
    if Modality.NOTE in present:
        rng = open_stream(options, Stream.NOTE, index)
        note, note_evidence = write_note(
            signs, Modality.NOTE in shortcuts, patient, patient.age_on(day), rng
        )
    if Modality.VOICE in present:
        speaker = make_speaker(patient, open_stream(options, Stream.SPEAKER, patient.number))
        rng = open_stream(options, Stream.VOICE, index)
        voice, voice_evidence = record_voice(signs, Modality.VOICE in shortcuts, speaker, rng)

    truth = Truth(
        labels=as_array(answers),
        signs=signs,
        shortcuts=shortcuts,
        present=present,
        posterior=np.stack([world.clinical(i, answers) for i in range(len(SUBSETS))]),
        delivered=delivered,
        image=image_evidence,
        note=note_evidence,
        voice=voice_evidence,
    )
    study = Study(images, note, voice, patient.patient_id, study_uid)
    return SyntheticStudy(f"S{index:06d}", study, truth, patient, patient.age_on(day), day)


def draw_answers(options: CohortOptions, index: int) -> dict[str, bool]:
    """Draw a study's targets, signs and shortcuts; each network has a stream of its own."""
    networks = zip(build_world(options).networks, (Stream.NETWORK, Stream.MOOD), strict=True)
    answers: dict[str, bool] = {}
    for network, stream in networks:
        answers |= draw(network.variables, open_stream(options, stream, index))
    return answers


def _draw_presence(
    options: CohortOptions, index: int, answers: Mapping[str, bool], site: str
) -> tuple[frozenset[Modality], Float64[np.ndarray, " k"]]:
    """Draw which modalities are delivered, and look up what the whole delivery tells."""
    uniform = open_stream(options, Stream.PRESENCE, index).random()
    which = choose_subset(presence_chances(options, answers, site), uniform)
    return SUBSETS[which], build_world(options).delivered(which, answers)


def _make_images(
    options: CohortOptions, index: int, header: Header, signs: frozenset[str], mark: bool
) -> tuple[tuple[bytes, ...], tuple[ImageEvidence, ...]]:
    """Render and encode the frontal view and, in some studies, the lateral one."""
    rng = open_stream(options, Stream.IMAGE, index)
    body = make_body(header.patient, open_stream(options, Stream.BODY, header.patient.number))
    lesions = draw_lesions(body, rng)
    with_lateral = rng.random() < LATERAL_SHARE
    views = [render_frontal(signs, body, lesions, options.size, rng)]
    if with_lateral:
        views.append(render_lateral(signs, body, lesions, options.size, rng))
    images = []
    evidence = []
    for instance, (view, position) in enumerate(zip(views, ("PA", "LL"), strict=False)):
        burnt = burn_in(view, shortcut_name(Modality.IMAGE) if mark else None)
        images.append(
            encode_radiograph(burnt, replace(header, instance=instance, view=position), rng)
        )
        evidence += [
            ImageEvidence(sign, instance, mask)
            for sign, mask in burnt.masks.items()
            if mask.any()  # in the lateral view one sign may hide another
        ]
    return tuple(images), tuple(evidence)
