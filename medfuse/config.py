"""Settings: one TOML file in, frozen validated records out; an unknown key is a named error."""

import tomllib
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medfuse.errors import SettingsError
from medfuse.headings import PREAMBLE, SECTION_HEADINGS, section_of

SAMPLE_RATE = 16_000
"""Samples per second of every waveform inside medfuse."""


class Settings(BaseModel):
    """The base of all settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Settings):
    """What an input may declare before it is refused, checked before any decoding."""

    file_bytes: int = Field(default=512 * 2**20, gt=0, description="bytes of one encoded file")
    pixels: int = Field(default=64 * 10**6, gt=0, description="pixels of one frame")
    frames: int = Field(default=2_000, gt=0, description="frames of one instance, and of one study")
    decoded_bytes: int = Field(
        default=2 * 2**30, gt=0, description="bytes of one study's decoded pixels"
    )
    inflated_bytes: int = Field(
        default=64 * 2**20, gt=0, description="bytes a deflated file may become"
    )
    header_bytes: int = Field(
        default=64 * 2**20, gt=0, description="bytes of a DICOM file before its pixel data"
    )
    elements: int = Field(
        default=150_000, gt=0, description="data elements, items and fragments of a DICOM file"
    )
    sequence_depth: int = Field(default=16, gt=0, description="nesting of DICOM sequences")
    tiles: int = Field(
        default=16_384, gt=0, description="tiles, and precincts, of one JPEG 2000 frame"
    )
    instances: int = Field(default=2_000, gt=0, description="DICOM files of one study")
    audio_s: float = Field(default=600.0, gt=0, description="seconds of one recording")
    audio_channels: int = Field(default=8, gt=0, description="channels of one recording")
    audio_lowest_hz: int = Field(default=2_000, gt=0, description="lowest sample rate")
    audio_highest_hz: int = Field(default=192_000, gt=0, description="highest sample rate")
    audio_object_bytes: int = Field(
        default=64 * 2**20, gt=0, description="bytes of one DICOM audio object, inflated or not"
    )
    note_bytes: int = Field(default=2**20, gt=0, description="bytes of one note")


class Box(Settings):
    """A part of every frame, its edges as shares of the frame's height and width."""

    top: float = Field(ge=0, le=1)
    left: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _has_an_area(self) -> "Box":
        if self.top >= self.bottom or self.left >= self.right:
            raise ValueError("a box's top must be above its bottom, and its left before its right")
        return self


class ImageSettings(Settings):
    """How frames become float32 (S, H, W) in [0, 1]."""

    size: int = Field(
        default=224, ge=32, le=2048, description="side of the model's square in pixels"
    )
    frames: int = Field(default=32, gt=0, description="most frames a study gives, evenly chosen")
    pictures: bool = Field(default=False, description="accept PNG and JPEG, for research sets")
    window: int = Field(default=0, ge=0, description="which of several windows in a file to use")
    blank: tuple[Box, ...] = Field(
        default=(), description="parts of every frame that are black to the model, such as markers"
    )


class NoteSettings(Settings):
    """How a note becomes word pieces."""

    word_pieces: int = Field(
        default=128, ge=8, le=512, description="most pieces, special ones included"
    )
    exclude_sections: tuple[str, ...] = Field(
        default=("IMPRESSION",), description="sections left out, since they state the answer"
    )
    include_sections: tuple[str, ...] = Field(
        default=(), description="if any are named, the only sections read"
    )
    headings: dict[str, str] = Field(
        default_factory=dict, description="a site's own headings, each with the section it opens"
    )
    legacy_encoding: Literal[
        "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "big5", "cp932", "cp949", "gb18030"
    ] = Field(default="cp1252", description="how a note that is not Unicode is read")
    mask_words: tuple[str, ...] = Field(
        default=(), description="words and phrases, in any case, that the model never reads"
    )

    @model_validator(mode="after")
    def _masked_words_have_letters(self) -> "NoteSettings":
        if not all(word.strip() for word in self.mask_words):
            raise ValueError("mask_words: a word is empty")
        return self

    @model_validator(mode="after")
    def _sections_are_known(self) -> "NoteSettings":
        if not all(heading.strip() for pair in self.headings.items() for heading in pair):
            raise ValueError("headings: a heading or its section has no letters")
        for name in (*self.exclude_sections, *self.include_sections):
            if section_of(name, self.headings) is None:
                known = ", ".join((*SECTION_HEADINGS, PREAMBLE))
                raise ValueError(f"no section {name!r}; known are {known} and those in headings")
        return self


class VoiceSettings(Settings):
    """How a recording becomes log-mel float32 (T, F)."""

    mel_bands: int = Field(default=64, ge=8, le=256)
    window_s: float = Field(default=0.025, gt=0)
    step_s: float = Field(default=0.010, gt=0)
    mel_scale: Literal["htk", "slaney"] = Field(
        default="htk",
        description="slaney: bands and FFT as librosa and networks trained with it have them",
    )
    low_hz: float = Field(default=50.0, ge=0)
    high_hz: float = Field(default=8_000.0, gt=0, le=SAMPLE_RATE / 2)
    lowpass_hz: float = Field(
        default=SAMPLE_RATE / 2,
        gt=0,
        description="mel bands that reach above it are silent in every recording",
    )
    duration_s: float = Field(default=10.0, gt=0, description="what is read; the rest is reported")
    shortest_s: float = Field(default=0.3, gt=0, description="shorter recordings are refused")
    silent_db: float = Field(
        default=-60.0, lt=0, description="a recording never louder than this (dBFS) is silent"
    )
    clipped_share: float = Field(
        default=0.001, ge=0, le=1, description="share of clipped samples that is reported"
    )

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> "VoiceSettings":
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz {self.low_hz} is not below high_hz {self.high_hz}")
        if self.lowpass_hz <= self.low_hz:
            raise ValueError(f"lowpass_hz {self.lowpass_hz} is not above low_hz {self.low_hz}")
        return self


class PrepareSettings(Settings):
    """Everything between a study's bytes and the model's input; stored in checkpoint and bundle."""

    image: ImageSettings = ImageSettings()
    note: NoteSettings = NoteSettings()
    voice: VoiceSettings = VoiceSettings()
    limits: Limits = Limits()


class TaskKind(StrEnum):
    """What sort of question a task asks."""

    BINARY = "binary"
    MULTILABEL = "multilabel"
    MULTICLASS = "multiclass"
    ORDINAL = "ordinal"
    REGRESSION = "regression"


class Code(Settings):
    """A coded concept (PS3.3 8.8): value, scheme designator and meaning."""

    value: str
    scheme: str
    meaning: str


ModalityName = Literal["image", "note", "voice"]


class Task(Settings):
    """One question to the model.

    `classes` names the findings of a binary or multilabel task (each a yes or no), the classes of
    a multiclass task, the levels of an ordinal one from low to high, or a regression's quantity.

    `modalities` names those that the answer may rest on. The others change no bit of it; a study
    that has none of these gets the answer of no evidence, about the classes' share in training.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: TaskKind
    classes: tuple[str, ...] = Field(min_length=1)
    codes: dict[str, Code] = Field(default_factory=dict)
    unit: str | None = None
    modalities: tuple[ModalityName, ...] = Field(default=("image", "note", "voice"), min_length=1)
    weight: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="what its loss counts in training beside the other tasks'",
    )

    @model_validator(mode="after")
    def _modalities_differ(self) -> "Task":
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"task {self.name!r}: a modality is named twice")
        return self

    @model_validator(mode="after")
    def _classes_fit_kind(self) -> "Task":
        n = len(self.classes)
        wanted = {
            TaskKind.BINARY: n == 1,
            TaskKind.MULTILABEL: n >= 1,
            TaskKind.MULTICLASS: n >= 2,
            TaskKind.ORDINAL: n >= 2,
            TaskKind.REGRESSION: n == 1,
        }
        if not wanted[self.kind]:
            raise ValueError(f"task {self.name!r}: {n} classes do not fit a {self.kind} task")
        if len(set(self.classes)) != n:
            raise ValueError(f"task {self.name!r}: a class is named twice")
        return self

    @property
    def logits(self) -> int:
        """How many raw outputs the task has; an ordinal task has one per threshold."""
        return len(self.classes) - 1 if self.kind is TaskKind.ORDINAL else len(self.classes)

    @property
    def label_columns(self) -> int:
        """How many numbers its label takes: one a finding, else the class, level or quantity."""
        yes_no = self.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
        return len(self.classes) if yes_no else 1

    @property
    def targets(self) -> tuple[str, ...]:
        """A name per logit, which attributions and metrics use: ``findings.nodule``."""
        if self.kind is TaskKind.ORDINAL:
            return tuple(f"{self.name}.at_least_{c}" for c in self.classes[1:])
        return tuple(f"{self.name}.{c}" for c in self.classes)


Balance = Literal["none", "weight", "sample"]

T = TypeVar("T", bound=Settings)

SETTINGS_FOLDER = "settings_folder"
"""In the context of a validation: the folder of the file that is read."""


def read_settings(path: Path, kind: type[T], sections: Collection[str] | None = None) -> T:
    """Read a TOML file into settings of ``kind``.

    Args:
        path: The file; settings that resolve paths from its folder are told it as their context.
        kind: What is read.
        sections: The only sections that are read; the file may have others. All by default.

    Raises:
        SettingsError: The file is missing, is not TOML, or has an unknown key or a bad value; the
            message names the file and the key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file ({error})") from error
    if sections is not None:
        data = {name: own for name, own in data.items() if name in sections}
    try:
        return kind.model_validate(data, context={SETTINGS_FOLDER: path.parent})
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}"
            for e in error.errors()
        ]
        raise SettingsError(f"{path}: " + "; ".join(lines)) from error
