"""The checkpoint: a trained model and all that reads its answers, as one folder without pickle."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, JsonValue, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from medfuse.attribution.background import (
    Background,
    blank_background,
    from_bytes,
    to_bytes,
)
from medfuse.config import PrepareSettings, Settings, Task
from medfuse.data.note import load_tokenizer
from medfuse.errors import BundleError, MedfuseError, TrainingError
from medfuse.leaks.report import LeakRecord
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.text.record import TextRecord
from medfuse.trust.calibration import Calibration
from medfuse.trust.novelty import NoveltyModel
from medfuse.trust.novelty import from_bytes as novelty_from_bytes
from medfuse.trust.novelty import to_bytes as novelty_to_bytes
from medfuse.trust.record import TrustRecord

RECORD = "checkpoint.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
BACKGROUND = "background.safetensors"
NOVELTY = "novelty.safetensors"

OLD_NOTE = ("note.bert.", "note.backbone.network.")

LIBRARIES = ("medfuse", "torch", "transformers", "monai", "numpy")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CheckpointRecord(Settings):
    """What ``checkpoint.json`` says.

    One of version 1 has no ``background.safetensors``, and one of version 2 no
    ``novelty.safetensors``; they are read, and not written any more.
    """

    schema_version: Literal[1, 2, 3] = 3
    model: ModelSettings
    prepare: PrepareSettings
    tasks: tuple[Task, ...] = Field(min_length=1)
    calibration: Calibration
    trust: TrustRecord = Field(default=TrustRecord(), description="what is promised of answers")
    metrics: dict[str, JsonValue] = Field(description="the report of training, for the record")
    cohort_digest: str = Field(description="SHA-256 of the cohort's rows, labels, splits and files")
    leaks: LeakRecord | None = Field(
        default=None, description="what the cohort gives away; null where nobody looked"
    )
    text: TextRecord | None = Field(
        default=None, description="how its decoder is asked; null of a model without one"
    )
    versions: dict[str, str] = Field(description="libraries that trained it")
    files: dict[
        Literal[
            "model.safetensors",
            "tokenizer.json",
            "background.safetensors",
            "novelty.safetensors",
        ],
        Sha256,
    ] = Field(default_factory=dict, description="SHA-256 of the other files; filled in when saved")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained model, in evaluation mode, with what is needed to ask it.

    Attributes:
        folder: Where it was loaded from.
        digest: SHA-256 of ``checkpoint.json``, as hex; it names the checkpoint, since that file
            holds the hashes of the others.
        background: The training set's mean study; of no studies where none was measured.
        novelty: What usual studies are like; empty where none was measured.
    """

    folder: Path
    digest: str
    record: CheckpointRecord
    model: FusedModel
    tokenizer: Tokenizer
    background: Background
    novelty: NoveltyModel

    @property
    def model_settings(self) -> ModelSettings:
        """Which network it is."""
        return self.record.model

    @property
    def prepare(self) -> PrepareSettings:
        """How its input is prepared."""
        return self.record.prepare

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The questions, in the order of the logits."""
        return self.record.tasks

    @property
    def calibration(self) -> Calibration:
        """How its logits are read."""
        return self.record.calibration

    @property
    def metrics(self) -> dict[str, JsonValue]:
        """The report of its training."""
        return self.record.metrics


def library_versions() -> dict[str, str]:
    """Name the libraries that a model's numbers depend on, with their versions."""
    return {name: version(name) for name in LIBRARIES}


def save_checkpoint(
    folder: Path,
    model: FusedModel,
    background: Background,
    novelty: NoveltyModel,
    record: CheckpointRecord,
) -> None:
    """Write a checkpoint beside its place, then move it there whole; an older one is replaced.

    Args:
        folder: Its place.
        model: The trained model.
        background: The training set's mean study.
        novelty: What usual studies are like.
        record: Whose `files` are filled in.

    Raises:
        TrainingError: ``folder`` holds something else than a checkpoint, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise TrainingError(f"{folder}: holds something that is not a checkpoint; it is left alone")
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
        save_file(state, staging / WEIGHTS)
        shutil.copyfile(tokenizer_path(record.model), staging / TOKENIZER)
        (staging / BACKGROUND).write_bytes(to_bytes(background))
        (staging / NOVELTY).write_bytes(novelty_to_bytes(novelty))
        names = (WEIGHTS, TOKENIZER, BACKGROUND, NOVELTY)
        files = {name: _sha256(staging / name) for name in names}
        whole = CheckpointRecord.model_validate(record.model_dump() | {"files": files})
        (staging / RECORD).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint after verifying that its files are those that training wrote.

    Raises:
        TrainingError: It is not a checkpoint, is of another version, was altered, or its weights
            do not fit its network.
    """
    record, digest = _read_record(folder)
    measured, described = record.schema_version > 1, record.schema_version > 2
    beside = ([BACKGROUND] if measured else []) + ([NOVELTY] if described else [])
    for name in (WEIGHTS, TOKENIZER, *beside):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder}: {name} is missing; copy the whole folder again")
        if _sha256(folder / name) != record.files.get(name):  # type: ignore[call-overload]
            raise TrainingError(
                f"{folder}: {name} is not the file that training wrote (its SHA-256 differs); copy "
                "the folder again"
            )
    try:
        # A user's own image weights served to start training; the trained ones are in the folder.
        words = 0 if record.text is None else len(record.text.words)
        model = build_model(
            record.model, record.prepare, record.tasks, pretrained=False, words=words
        )
        model.load_state_dict(_read_weights(folder / WEIGHTS), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise TrainingError(f"{folder}: {WEIGHTS} does not fit the network it names") from error
    except MedfuseError as error:
        raise TrainingError(f"{folder}: its network cannot be built: {error}") from error
    return Checkpoint(
        folder=folder,
        digest=digest,
        record=record,
        model=model.eval(),
        tokenizer=load_tokenizer(folder / TOKENIZER),
        background=_read_background(folder) if measured else _blank_background(model, record),
        novelty=_read_novelty(folder) if described else NoveltyModel({}),
    )


def _read_weights(file: Path) -> dict[str, Tensor]:
    """Read the weights; in older checkpoints the note's backbone was called ``bert``."""
    return {key.replace(*OLD_NOTE): value for key, value in load_file(file).items()}


def _read_background(folder: Path) -> Background:
    try:
        return from_bytes((folder / BACKGROUND).read_bytes())
    except BundleError as error:
        raise TrainingError(f"{folder}: {error}") from error


def _read_novelty(folder: Path) -> NoveltyModel:
    try:
        return novelty_from_bytes((folder / NOVELTY).read_bytes())
    except BundleError as error:
        raise TrainingError(f"{folder}: {error}") from error


def _blank_background(model: FusedModel, record: CheckpointRecord) -> Background:
    width = model.embed_note(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
    return blank_background(record.prepare.image.size, width, record.prepare.voice.mel_bands)


def _read_record(folder: Path) -> tuple[CheckpointRecord, str]:
    try:
        data = (folder / RECORD).read_bytes()
    except OSError as error:
        raise TrainingError(
            f"{folder}: no checkpoint here ({RECORD} cannot be read); `medfuse train` makes one"
        ) from error
    try:
        record = CheckpointRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or RECORD
        raise TrainingError(
            f"{folder}: {RECORD} is not valid or is of another version: {where}: {first['msg']}"
        ) from error
    return record, hashlib.sha256(data).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
