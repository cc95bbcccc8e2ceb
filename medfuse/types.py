"""What a study becomes: Study -> Prepared -> Batch -> Prediction -> Attribution."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from medfuse.config import Task
from medfuse.trust.record import TrustSettings


class Modality(StrEnum):
    """A kind of evidence, in the fixed order that arrays and graphs use."""

    IMAGE = "image"
    NOTE = "note"
    VOICE = "voice"


MODALITIES: tuple[Modality, ...] = tuple(Modality)

SUBSETS: tuple[frozenset[Modality], ...] = tuple(
    frozenset(m for i, m in enumerate(MODALITIES) if bits >> i & 1) for bits in range(1, 8)
)
"""The seven non-empty combinations of present modalities."""


def subset_name(subset: frozenset[Modality]) -> str:
    """Name a combination, such as ``image+voice``, in the modalities' order."""
    return "+".join(m.value for m in MODALITIES if m in subset)


@dataclass(frozen=True, slots=True)
class Study:
    """What a hospital hands over about one patient at one time, still encoded.

    Attributes:
        images: DICOM Part 10 files (or PNG/JPEG where settings allow), in any order.
        note: The note's encoded text, or None.
        voice: An audio file or a DICOM waveform object, or None.
        patient_id: The sender's identifier if it is known beside the files; never enters a message.
        study_uid: Likewise.
    """

    images: tuple[bytes, ...] = ()
    note: bytes | None = None
    voice: bytes | None = None
    patient_id: str | None = None
    study_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something the reader of an answer must know about its input: what was cut, silent or clipped.

    Attributes:
        modality: Which part of the study it is about.
        code: A stable kebab-case name, such as ``note-truncated``.
        message: One English sentence, free of patient data.
    """

    modality: Modality
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """The way back from model pixels to the native pixels of one frame of one instance.

    The model sees the native frame resized by ``scale`` and placed with its top left corner
    at (``top``, ``left``) of a square with side ``size``; the rest is padding.

    Attributes:
        instance: Index into `Study.images`.
        frame: Frame number within that instance, from 0.
        rows: Native height in pixels.
        columns: Native width in pixels.
        size: Side of the model's square in pixels.
        top: First row of the model's square that shows the image.
        left: First column of the model's square that shows the image.
        height: Rows of the model's square that show the image.
        width: Columns of the model's square that show the image.
        spacing_mm: Native row and column spacing where the header gives it.
    """

    instance: int
    frame: int
    rows: int
    columns: int
    size: int
    top: int
    left: int
    height: int
    width: int
    spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A study's frames as the model sees them, each with its way back."""

    values: Float32[np.ndarray, "s h w"]
    geometry: tuple[FrameGeometry, ...]


@dataclass(frozen=True, slots=True)
class PreparedNote:
    """A note's word pieces and, for each, its character span in the decoded note.

    Attributes:
        values: Word piece numbers, special pieces included.
        spans: Start and end character of each piece in `text`; (0, 0) for special pieces.
        text: The note as decoded, whole, before any section was left out.
    """

    values: Int64[np.ndarray, " l"]
    spans: Int64[np.ndarray, "l 2"]
    text: str


@dataclass(frozen=True, slots=True)
class PreparedVoice:
    """A recording's log-mel spectrogram and the time of its first and of each next frame.

    Attributes:
        values: Log-mel energies.
        start_s: Centre of the first mel frame in the original recording.
        step_s: Time from one mel frame to the next.
        duration_s: Length of the original recording.
    """

    values: Float32[np.ndarray, "t f"]
    start_s: float
    step_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """One study, decoded and normalised, ready to be batched; None where a modality is absent."""

    image: PreparedImage | None
    note: PreparedNote | None
    voice: PreparedVoice | None
    remarks: tuple[Remark, ...] = ()

    @property
    def present(self) -> frozenset[Modality]:
        """The modalities that are there."""
        parts = {
            Modality.IMAGE: self.image,
            Modality.NOTE: self.note,
            Modality.VOICE: self.voice,
        }
        return frozenset(m for m, part in parts.items() if part is not None)


@dataclass(frozen=True, slots=True)
class Batch:
    """Several studies as arrays, each modality a sequence of tokens with a mask.

    Attributes:
        values: Image float32 (B, S, H, W), note int64 (B, L), voice float32 (B, T, F).
        masks: Bool (B, S), (B, L) and (B, T): true where a token is real.
    """

    values: Mapping[Modality, np.ndarray]
    masks: Mapping[Modality, np.ndarray]

    @property
    def present(self) -> Bool[np.ndarray, "b 3"]:
        """Whether each study has each modality."""
        return np.stack([self.masks[m].any(axis=1) for m in MODALITIES], axis=1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What may be said of one answer, by what validation studies showed of such answers.

    Attributes:
        question: A finding's target, or a task's name.
        possible: The classes that cannot be left out (``absent`` and ``present`` of a finding);
            empty for a quantity.
        interval: What a quantity lies in; None where that is not known, and of other tasks.
        likeliest: The most probable class; empty for a quantity.
        sure: Whether that is likely enough for the risk that is allowed.
        positive: Whether a finding is called positive at the sensitivity that is asked for; None
            where that is not known, and of other tasks.
        exact: Whether the validation studies had exactly the same modalities, or others that were
            taken away; None where that is not known.
    """

    question: str
    possible: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    likeliest: str = ""
    sure: bool = False
    positive: bool | None = None
    exact: bool | None = None


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """The answer to one task for one study.

    Attributes:
        task: The question.
        logits: One raw output per logit of the task.
        probabilities: Calibrated; one per finding or class (empty for regression).
        value: The estimate of a regression, else None.
        judgements: One per finding, or one of the whole task; none of a model without any promise.
    """

    task: Task
    logits: Float[np.ndarray, " k"]
    probabilities: Float[np.ndarray, " c"]
    value: float | None = None
    judgements: tuple[Judgement, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """A box in native pixels of one frame, up to but without `bottom` and `right`."""

    instance: int
    frame: int
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class NotePlace:
    """Characters of the decoded note, from `start` up to but without `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class VoicePlace:
    """Seconds of the recording."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class SentenceEvidence:
    """Where in a study the decoder read what it wrote.

    Attributes:
        shares: Of each present modality in what the sentence owes to them: how much less likely
            it is where the decoder cannot read it. 1 in all, or 0 where it owes nothing to any.
        image: Where the image was read most; None where the sentence does not point to it.
        note: Likewise.
        voice: Likewise.
    """

    shares: Mapping[Modality, float]
    image: ImagePlace | None = None
    note: NotePlace | None = None
    voice: VoicePlace | None = None

    @property
    def pointed(self) -> frozenset[Modality]:
        """The modalities that the sentence points to."""
        places = {
            Modality.IMAGE: self.image,
            Modality.NOTE: self.note,
            Modality.VOICE: self.voice,
        }
        return frozenset(m for m, place in places.items() if place is not None)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One stated finding in words.

    Attributes:
        target: The finding, such as ``findings.nodule``.
        probability: Of the finding, calibrated.
        threshold: From which it is stated.
        text: What the decoder wrote.
        likelihood: The geometric mean of its words' probabilities.
        evidence: Where it was read.
    """

    target: str
    probability: float
    threshold: float
    text: str
    likelihood: float
    evidence: SentenceEvidence


@dataclass(frozen=True, slots=True)
class FindingsText:
    """A study's findings in words.

    Attributes:
        sentences: Of the findings that are stated, in the model's order.
        left_out: The findings that are not, by their targets: those below their threshold, those
            that no threshold was precise enough for, and those of which no sentence came to an end.
    """

    sentences: tuple[Sentence, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer for one study.

    Attributes:
        tasks: One answer per task, in the model's order.
        used: The modalities the answer rests on.
        remarks: What the reader must know about the input.
        model_digest: The bundle's or checkpoint's SHA-256, as hex.
        text: The findings in words; None of a model that writes none.
        novelty: Of each modality that was judged, the share of usual studies that are at least as
            unusual: a p-value.
        promises: What judgements and novelty hold to; None of a model that promises nothing.
    """

    tasks: tuple[TaskPrediction, ...]
    used: frozenset[Modality]
    remarks: tuple[Remark, ...]
    model_digest: str
    text: FindingsText | None = None
    novelty: Mapping[Modality, float] = field(default_factory=dict)
    promises: TrustSettings | None = None


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much each part of a study's input moved one target, signed, in the model's own axes.

    Attributes:
        target: The finding, or the weighting of several, that is explained.
        values: Image (S, H, W), note (L,), voice (T, F); present modalities alone, and of those
            the ones the method reaches. Logits per pixel, word piece and mel bin, except for plain
            and smoothed gradients: logits per unit of the input.
        method: Such as ``integrated_gradients``.
        baseline: The name of the baseline it was measured against; ``none`` for a method that has
            none.
        completeness_gap: How far the attributions' sum is from the difference between the output
            and the output at the baseline, relative to that difference; None for a method that
            promises no completeness.
        details: Numbers for the record, such as ``output``, ``baseline_output`` and ``steps``.
    """

    target: str
    values: Mapping[Modality, Float[np.ndarray, "..."]]
    method: str
    baseline: str
    completeness_gap: float | None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModalityShares:
    """What each modality, and each pair of them, contributes to one target of one study.

    Attributes:
        target: As in `Attribution`.
        baseline: What stands in a modality's place when it is taken away: ``absent`` (its mask is
            false), or the name of a baseline.
        outputs: The target's output from every subset of the present modalities, the empty one
            included.
        shares: The Shapley value of each present modality; they add up to the output of all of
            them less that of none.
        interactions: The Shapley interaction index of each pair: above 0 where the two together
            say more than each by itself, below 0 where they say the same.
    """

    target: str
    baseline: str
    outputs: Mapping[frozenset[Modality], float]
    shares: Mapping[Modality, float]
    interactions: Mapping[frozenset[Modality], float]


@dataclass(frozen=True, slots=True)
class Check:
    """One test that an explanation had to pass.

    Attributes:
        name: ``completeness``, ``stability``, ``faithfulness`` or ``agreement``.
        value: The figure.
        limit: What it is held to.
        passed: Whether it is on the right side.
        message: One English sentence with the figure, for the reader.
    """

    name: str
    value: float
    limit: float
    passed: bool
    message: str


@dataclass(frozen=True, slots=True)
class Badge:
    """Whether an explanation can be relied on; its map is withheld when it can't."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a model gave one answer for one study.

    Attributes:
        attribution: The map of each modality.
        shares: What each modality contributes.
        badge: Whether the maps can be relied on.
        model_digest: The bundle's or checkpoint's SHA-256, as hex.
        frame_attention: How much of the image's embedding comes from each frame by the model's own
            attention, 1 in all; empty without an image. It says where the model looked, not what
            spoke for the target: for that there are the maps.
        shares_by_baseline: The same shares against every other baseline that there is, which gives
            their band; empty where it was not asked for.
    """

    attribution: Attribution
    shares: ModalityShares
    badge: Badge
    model_digest: str
    frame_attention: tuple[float, ...] = ()
    shares_by_baseline: tuple[ModalityShares, ...] = ()
