"""A prediction in, the JSON form out that the command line and the HTTP door share."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, Literal

from pydantic import Field

from medfuse.bundle import NOTICE
from medfuse.config import Code, Settings, TaskKind
from medfuse.errors import MedfuseError
from medfuse.types import MODALITIES, FindingsText, Modality, Prediction, Sentence, TaskPrediction
from medfuse_serving.language import ENGLISH, Language

SCHEMA: Final = "medfuse.prediction/3"


GENERATED = (
    "Written by a model to support a decision, not by a reader. A sentence says where the decoder "
    "read, which is not proof of what is there; a finding that is left out is not excluded."
)


class RemarkAnswer(Settings):
    """Something the reader must know about the input."""

    modality: Modality
    code: str = Field(description="stable, such as `note-truncated`")
    message: str


class JudgementAnswer(Settings):
    """What may be said of one answer, by what validation studies showed of such answers."""

    question: str = Field(description="a finding's target, or the task's name")
    possible: tuple[str, ...] = Field(
        description="classes that cannot be left out at the promised coverage: `absent`, `present` "
        "or both for a finding; empty for a regression"
    )
    interval: tuple[float, float] | None = Field(
        description="what a regression's value lies in at the promised coverage"
    )
    likeliest: str = Field(description="the most probable class; empty for a regression")
    sure: bool = Field(description="likely enough for the promised risk of error")
    positive: bool | None = Field(
        description="above the screening threshold, which keeps the promised sensitivity; null "
        "where not known"
    )
    exact: bool | None = Field(
        default=None,
        description="whether the studies that were checked had exactly these modalities; false "
        "where others were taken away from some, so that this holds where a modality is missing "
        "for no reason that has to do with the patient; null where not known",
    )


class PromiseAnswer(Settings):
    """What judgements and novelty hold to, over studies like those that were checked."""

    coverage: float = Field(description="share of studies whose set or interval holds the truth")
    risk: float = Field(description="share of sure answers that may be wrong")
    confidence: float = Field(description="with which that risk is kept")
    sensitivity: float = Field(description="of `positive`")
    false_alarms: float = Field(description="share of usual inputs that are called novel")


class NoveltyAnswer(Settings):
    """How unlike the training studies a modality is."""

    p_value: float = Field(description="share of usual studies that are at least as unlike")
    novel: bool = Field(description="too few for the answer to be relied on")


class TaskAnswer(Settings):
    """The answer to one task."""

    name: str
    kind: TaskKind
    probabilities: dict[str, float] = Field(
        description="calibrated, by finding, class or level; empty for a regression"
    )
    logits: dict[str, float] = Field(description="the model's raw outputs, by target")
    value: float | None = Field(description="a regression's estimate, else null")
    unit: str | None = Field(description="the unit of `value`")
    codes: dict[str, Code] = Field(description="coded concepts, by finding, class or level")
    judgements: tuple[JudgementAnswer, ...] = Field(
        description="one per finding, or one of the whole task; empty where nothing is promised"
    )
    reads: tuple[Modality, ...] = Field(description="the modalities it may rest on")
    used: tuple[Modality, ...] = Field(
        description="those of them that were given; where none was, the numbers are the same for "
        "every such study and say nothing of this patient"
    )


class ImagePlaceAnswer(Settings):
    """A box in native pixels of one frame, up to but without `bottom` and `right`."""

    instance: int = Field(description="which of the study's images, from 0")
    frame: int
    top: int
    left: int
    bottom: int
    right: int


class NotePlaceAnswer(Settings):
    """Characters of the decoded note, from `start` up to but without `end`."""

    start: int
    end: int


class VoicePlaceAnswer(Settings):
    """Seconds of the recording."""

    start_s: float
    end_s: float


class SentenceAnswer(Settings):
    """One stated finding in words, and where the decoder read it."""

    target: str = Field(description="the finding, such as `findings.nodule`")
    probability: float = Field(description="of the finding, calibrated")
    threshold: float = Field(description="from which it is stated")
    text: str
    likelihood: float = Field(description="geometric mean of the words' probabilities")
    shares: dict[Modality, float] = Field(
        description="of each modality in what the sentence rests on; 1 in all, or 0"
    )
    image: ImagePlaceAnswer | None = Field(description="null where it does not point there")
    note: NotePlaceAnswer | None
    voice: VoicePlaceAnswer | None


class TextAnswer(Settings):
    """The findings in words."""

    sentences: tuple[SentenceAnswer, ...]
    left_out: tuple[str, ...] = Field(description="findings that are not stated, by target")
    notice: str = GENERATED


class Answer(Settings):
    """What a model answers for one study."""

    schema_name: Literal["medfuse.prediction/3"] = Field(default=SCHEMA, alias="schema")
    model_digest: str = Field(description="SHA-256 of the bundle's manifest, as hex")
    used: tuple[Modality, ...] = Field(description="the modalities the answer rests on")
    tasks: tuple[TaskAnswer, ...]
    remarks: tuple[RemarkAnswer, ...]
    novelty: dict[Modality, NoveltyAnswer] = Field(
        description="of each modality that was given and could be judged"
    )
    promises: PromiseAnswer | None = Field(description="null of a model that promises nothing")
    findings_text: TextAnswer | None = Field(
        default=None, description="null of a model that writes none"
    )
    notice: str = NOTICE


class Failure(Settings):
    """Why a study has no answer."""

    error: str = Field(description="the kind of error, such as `DicomError`")
    message: str = Field(description="what was expected, what came and what to do")


class StudyLine(Settings):
    """One line about one study of a folder: an answer or a failure, the other null."""

    study: str = Field(description="the study's folder name, or its study_id in the table")
    answer: Answer | None = None
    failure: Failure | None = None


def to_answer(prediction: Prediction) -> Answer:
    """Give a prediction its JSON form."""
    promises = prediction.promises
    least = None if promises is None else promises.false_alarms
    return Answer(
        schema=SCHEMA,
        model_digest=prediction.model_digest,
        used=tuple(m for m in MODALITIES if m in prediction.used),
        tasks=tuple(_to_task_answer(task, prediction.used) for task in prediction.tasks),
        remarks=tuple(
            RemarkAnswer(modality=r.modality, code=r.code, message=r.message)
            for r in prediction.remarks
        ),
        novelty={
            m: NoveltyAnswer(p_value=p, novel=least is not None and p <= least)
            for m, p in prediction.novelty.items()
        },
        promises=(
            None if promises is None else PromiseAnswer.model_validate(promises.model_dump())
        ),
        findings_text=None if prediction.text is None else _to_text_answer(prediction.text),
    )


def to_failure(error: MedfuseError) -> Failure:
    """Give an expected error its JSON form."""
    return Failure(error=type(error).__name__, message=str(error))


def to_json(answer: Settings, indent: int | None = None) -> str:
    """Write any of these records as JSON with its documented keys."""
    return answer.model_dump_json(by_alias=True, indent=indent)


def format_probability(probability: float) -> str:
    """Write a probability as a percentage that never claims certainty: ``> 99.9 %``."""
    if probability < 0.001:
        return "< 0.1 %"
    if probability > 0.999:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def describe_reading(
    task: TaskAnswer, given: Sequence[Modality], language: Language = ENGLISH
) -> str:
    """Say what an answer rests on where that is not all that was given; else nothing."""
    if not task.used:
        needed = language.text(" or ").join(language.name(m) for m in task.reads)
        return language.text(
            "not answered: this needs a {modalities} and none was given", modalities=needed
        )
    if set(task.used) != set(given):
        used = language.text(" and ").join(language.name(m) for m in task.used)
        return language.text("from {modalities} alone", modalities=used)
    return ""


def describe_judgement(
    judgement: JudgementAnswer, promises: PromiseAnswer, language: Language = ENGLISH
) -> str:
    """Say what may be said of one answer, in a line for the reader."""
    if judgement.interval is not None:
        low, high = judgement.interval
        return language.text(
            "{low} to {high} ({coverage} interval)",
            low=f"{low:.4g}",
            high=f"{high:.4g}",
            coverage=f"{promises.coverage:.0%}",
        )
    if not judgement.possible:
        return language.text("no interval: too few studies were checked")
    if set(judgement.possible) == {"absent", "present"}:
        said = language.text("can't tell")
    else:
        said = language.text(" or ").join(language.name(c) for c in judgement.possible)
    parts = [said, language.text("sure") if judgement.sure else language.text("not sure")]
    if judgement.positive:
        sensitivity = f"{promises.sensitivity:.0%}"
        parts.append(
            language.text(
                "above the screening threshold ({sensitivity} sensitivity)", sensitivity=sensitivity
            )
        )
    return " · ".join(parts)


def describe_promises(promises: PromiseAnswer, language: Language = ENGLISH) -> str:
    """Say what the words of `describe_judgement` mean."""
    return language.text(
        "What is named is what cannot be left out; the truth is among it in {coverage} of studies "
        "like those checked. Sure: at most {risk} of such answers are wrong. Of studies with "
        "a finding, {sensitivity} lie above its screening threshold; those without it may lie "
        "above it too, so it confirms nothing.",
        coverage=f"{promises.coverage:.0%}",
        risk=f"{promises.risk:.0%}",
        sensitivity=f"{promises.sensitivity:.0%}",
    )


def describe_basis(answer: Answer, language: Language = ENGLISH) -> str:
    """Say so where what is said was checked on studies of which parts were hidden; else nothing."""
    if all(own.exact is not False for task in answer.tasks for own in task.judgements):
        return ""
    return language.text(
        "Checked on studies of which other parts were hidden from the model: it holds where a part "
        "is missing for no reason that has to do with the patient."
    )


def describe_novelty(answer: Answer, language: Language = ENGLISH) -> list[str]:
    """Say which modalities are unlike the training studies."""
    return [
        language.text(
            "The {modality} is unlike those that the model was trained on (p = {p}): the answer "
            "can't be relied on.",
            modality=language.name(m),
            p=f"{own.p_value:.2g}",
        )
        for m, own in answer.novelty.items()
        if own.novel
    ]


def describe_shares(sentence: SentenceAnswer, language: Language = ENGLISH) -> str:
    """Say what a sentence owes to each modality, the most first."""
    owed = sorted(((share, m) for m, share in sentence.shares.items() if share), reverse=True)
    said = (f"{language.name(m)} {share:.0%}" for share, m in owed)
    return ", ".join(said) or language.text("nothing in particular")


def describe_places(sentence: SentenceAnswer) -> list[str]:
    """Say where a sentence was read."""
    places = []
    if (image := sentence.image) is not None:
        places.append(
            f"image {image.instance} frame {image.frame}, rows {image.top} to {image.bottom}, "
            f"columns {image.left} to {image.right} ({sentence.shares[Modality.IMAGE]:.0%})"
        )
    if (note := sentence.note) is not None:
        share = sentence.shares[Modality.NOTE]
        places.append(f"note, characters {note.start} to {note.end} ({share:.0%})")
    if (voice := sentence.voice) is not None:
        share = sentence.shares[Modality.VOICE]
        places.append(f"voice, {voice.start_s:.2f} to {voice.end_s:.2f} s ({share:.0%})")
    return places


def format_value(task: TaskAnswer) -> str:
    """Write a regression's estimate with its unit."""
    return f"{task.value:.4g} {task.unit or ''}".strip()


def _to_text_answer(text: FindingsText) -> TextAnswer:
    return TextAnswer(
        sentences=tuple(_to_sentence_answer(sentence) for sentence in text.sentences),
        left_out=text.left_out,
    )


def _to_sentence_answer(sentence: Sentence) -> SentenceAnswer:
    found = sentence.evidence
    image, note, voice = found.image, found.note, found.voice
    return SentenceAnswer(
        target=sentence.target,
        probability=sentence.probability,
        threshold=sentence.threshold,
        text=sentence.text,
        likelihood=sentence.likelihood,
        shares=dict(found.shares),
        image=None if image is None else ImagePlaceAnswer.model_validate(asdict(image)),
        note=None if note is None else NotePlaceAnswer.model_validate(asdict(note)),
        voice=None if voice is None else VoicePlaceAnswer.model_validate(asdict(voice)),
    )


def _to_task_answer(prediction: TaskPrediction, given: frozenset[Modality]) -> TaskAnswer:
    task = prediction.task
    names = () if task.kind is TaskKind.REGRESSION else task.classes
    return TaskAnswer(
        name=task.name,
        kind=task.kind,
        probabilities=dict(zip(names, prediction.probabilities.tolist(), strict=True)),
        logits=dict(zip(task.targets, prediction.logits.tolist(), strict=True)),
        value=prediction.value,
        unit=task.unit,
        codes=task.codes,
        judgements=tuple(
            JudgementAnswer.model_validate(asdict(own)) for own in prediction.judgements
        ),
        reads=tuple(m for m in MODALITIES if m in task.modalities),
        used=tuple(m for m in MODALITIES if m in given and m in task.modalities),
    )
