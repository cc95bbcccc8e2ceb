"""A prediction in, the JSON form out that the command line and the HTTP door share."""

from typing import Final, Literal

from pydantic import Field

from medfuse.bundle import NOTICE
from medfuse.config import Code, Settings, TaskKind
from medfuse.errors import MedfuseError
from medfuse.types import MODALITIES, Modality, Prediction, TaskPrediction

SCHEMA: Final = "medfuse.prediction/1"


class RemarkAnswer(Settings):
    """Something the reader must know about the input."""

    modality: Modality
    code: str = Field(description="stable, such as `note-truncated`")
    message: str


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


class Answer(Settings):
    """What a model answers for one study."""

    schema_name: Literal["medfuse.prediction/1"] = Field(default=SCHEMA, alias="schema")
    model_digest: str = Field(description="SHA-256 of the bundle's manifest, as hex")
    used: tuple[Modality, ...] = Field(description="the modalities the answer rests on")
    tasks: tuple[TaskAnswer, ...]
    remarks: tuple[RemarkAnswer, ...]
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
    return Answer(
        schema=SCHEMA,
        model_digest=prediction.model_digest,
        used=tuple(m for m in MODALITIES if m in prediction.used),
        tasks=tuple(_to_task_answer(task) for task in prediction.tasks),
        remarks=tuple(
            RemarkAnswer(modality=r.modality, code=r.code, message=r.message)
            for r in prediction.remarks
        ),
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


def format_value(task: TaskAnswer) -> str:
    """Write a regression's estimate with its unit."""
    return f"{task.value:.4g} {task.unit or ''}".strip()


def _to_task_answer(prediction: TaskPrediction) -> TaskAnswer:
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
    )
