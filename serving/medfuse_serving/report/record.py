"""What a report says in; the JSON of it out that its pages are drawn from and its digest is of."""

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from PIL import Image
from pydantic import AfterValidator, AwareDatetime, Base64Bytes, Field, model_validator

from medfuse.attribution.record import CheckRecord, ExplanationRecord
from medfuse.bundle import NOTICE, Sha256
from medfuse.config import Settings
from medfuse.errors import ReportError, SettingsError
from medfuse.types import Modality
from medfuse_serving.answer import Answer
from medfuse_serving.evidence import Piece

SCHEMA: Final = "medfuse.report/2"
ATTACHMENT = "medfuse-report.json"
"""The name under which a report's record is attached to it."""

MOST_BYTES = 64 * 2**20
"""Of a record, and of a report."""

PICTURE_SIDE = 512
"""Most pixels of a picture's side; its numbers are those of the whole frame all the same."""

SPECTROGRAM_COLUMNS = 1200
"""Most pixels of a spectrogram's width."""

MOST_FRAMES = 32
"""Frames that a report shows."""

NOTE_CHARACTERS = 4000
NOTE_LINES = 80
"""How much of a note a report shows, from its beginning."""


def _check_picture(data: bytes) -> bytes:
    """Refuse what is no small PNG, before anything of it is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("a picture is not a PNG") from error
    if height > PICTURE_SIDE or width > SPECTROGRAM_COLUMNS:
        raise ValueError("a picture is larger than reports have")
    return data


Png = Annotated[Base64Bytes, AfterValidator(_check_picture)]


class InputRecord(Settings):
    """One part of the study, byte for byte."""

    modality: Modality
    sha256: Sha256
    size: int = Field(ge=0, description="bytes")


class ModelRecord(Settings):
    """Which model answered, and on what."""

    digest: Sha256
    created: AwareDatetime
    provider: str = Field(description="ONNX Runtime's execution provider")
    exported_with: dict[str, str] = Field(description="libraries")


class ReferralRecord(Settings):
    """Answers that are left to a human, and why; the report holds no score of them."""

    reason: Literal["novel", "badge"]
    targets: tuple[str, ...] = Field(description="findings, or a whole task")
    modalities: tuple[Modality, ...] = Field(
        default=(), description="`novel`: those unlike the training studies"
    )
    checks: tuple[CheckRecord, ...] = Field(
        default=(), description="`badge`: those that the explanation failed"
    )


class FrameEvidence(Settings):
    """One frame that the model read."""

    number: int = Field(ge=1, description="among those that were read")
    instance: int = Field(ge=0, description="which of the images that were sent")
    frame: int = Field(ge=0, description="which frame of that instance")
    rows: int
    columns: int
    spacing_mm: tuple[float, float] | None
    png: Png = Field(description="8-bit grey, small")


class NoteEvidence(Settings):
    """The note's beginning."""

    text: str = Field(max_length=NOTE_CHARACTERS)
    characters: int = Field(description="of the whole note")


class VoiceEvidence(Settings):
    """The recording's spectrogram."""

    duration_s: float
    from_s: float = Field(description="where the picture begins")
    to_s: float = Field(description="where it ends")
    hz: tuple[float, ...] = Field(description="centres of its bands, the lowest first")
    png: Png = Field(description="8-bit grey, the highest band first")


class EvidenceRecord(Settings):
    """What the model read."""

    frames: tuple[FrameEvidence, ...] = Field(default=(), max_length=MOST_FRAMES)
    frames_read: int = 0
    note: NoteEvidence | None = None
    voice: VoiceEvidence | None = None


class OutlineRecord(Settings):
    """One line around a strong area, in pixels of its picture."""

    positive: bool
    points: tuple[tuple[float, float], ...]


class SpotRecord(Settings):
    """A number at an outlined area, in pixels of its picture."""

    column: float
    top: float
    bottom: float
    value: float


class LayerRecord(Settings):
    """A map as it lies over its picture."""

    png: Png = Field(description="see-through, of the picture's size")
    outlines: tuple[OutlineRecord, ...]
    spots: tuple[SpotRecord, ...]


class ExplainedRecord(Settings):
    """Why one target was answered so: its record, its evidence and its pictures."""

    record: ExplanationRecord
    additive: bool = Field(description="whether parts add up, so that they are sums")
    pieces: tuple[Piece, ...] = Field(description="the evidence of its tables and sentences")
    frames: tuple[LayerRecord, ...] = Field(description="one for each of the evidence's frames")
    voice: LayerRecord | None


Decision = Literal["accept", "edit", "override", "acknowledge"]

Findings = dict[
    Annotated[str, Field(max_length=200)], Annotated[str, Field(min_length=1, max_length=200)]
]
"""A reader's impression by target: `present`, `absent` or `unsure`; a class or level; a value."""


class Reading(Settings):
    """What a reader made of the study and of the model's answer."""

    impression: str = Field(
        default="", max_length=4000, description="in words, before or after the answer"
    )
    findings: Findings = Field(default_factory=dict, description="the impression by target")
    decision: Decision
    reason: str = Field(
        default="", max_length=2000, description="why; of an edit and an override always"
    )
    wording: str = Field(
        default="", max_length=4000, description="what stands in the answer's place, in words"
    )
    reader: str = Field(
        max_length=100, description="a name that may be shown; empty where nobody had logged in"
    )
    opened_at: AwareDatetime
    impression_at: AwareDatetime | None = Field(
        default=None, description="when the impression was kept; null where it was not asked for"
    )
    answered_at: AwareDatetime | None = Field(
        default=None, description="when the answer was shown; null where that was not noted"
    )
    signed_at: AwareDatetime = Field(description="when it was decided; nothing is signed by it")

    @model_validator(mode="after")
    def _is_whole(self) -> "Reading":
        if self.decision in {"edit", "override"} and not self.reason.strip():
            raise ValueError("an answer that is edited or overridden needs a reason")
        moments = (self.opened_at, self.impression_at, self.answered_at, self.signed_at)
        known = [moment for moment in moments if moment is not None]
        if known != sorted(known):
            raise ValueError("opened_at, impression_at, answered_at and signed_at are out of order")
        return self


StudyId = Annotated[str, Field(min_length=1, max_length=128)]


class ReportRecord(Settings):
    """All that a report says."""

    schema_name: Literal["medfuse.report/2"] = Field(default=SCHEMA, alias="schema")
    language: str = Field(description="of the pages")
    made_at: AwareDatetime
    study_id: StudyId | None = Field(
        description="a pseudonym, as it was given; null where none was"
    )
    model: ModelRecord
    inputs: tuple[InputRecord, ...]
    answer: Answer = Field(description="without what `referrals` leave to a human")
    referrals: tuple[ReferralRecord, ...]
    evidence: EvidenceRecord
    explanations: tuple[ExplainedRecord, ...] = Field(description="of answers that are shown")
    reading: Reading | None
    versions: dict[str, str] = Field(description="of what drew the pages")
    notice: str = NOTICE


def to_bytes(record: ReportRecord) -> bytes:
    """Write a record as it is attached, the same bytes for the same record."""
    return record.model_dump_json(by_alias=True).encode()


def from_bytes(data: bytes) -> ReportRecord:
    """Read a record as `to_bytes` wrote it.

    Raises:
        ReportError: It is not one.
    """
    try:
        record = ReportRecord.model_validate_json(data)
    except ValueError as error:  # pydantic's message would quote the record
        raise ReportError(
            f"the report's record is not of schema {SCHEMA}; ask for the report as it was made, or "
            "install the medfuse that made it"
        ) from error
    return record


def find_digest(data: bytes) -> str:
    """Give what a report's digest is: SHA-256 of its record's bytes, as hex."""
    return hashlib.sha256(data).hexdigest()


def to_code(digest: str) -> str:
    """Give the text of a report's QR code and of its pages' feet."""
    return f"medfuse-report:1:{digest}"


def read_reading(path: Path) -> Reading:
    """Read a reader's impression and decision from a JSON file.

    Raises:
        SettingsError: It cannot be read or says something else; no text of it is in the message.
    """
    try:
        with path.open("rb") as file:
            return Reading.model_validate_json(file.read(2**16))
    except OSError as error:
        raise SettingsError(f"{path}: the reading cannot be read ({error.strerror})") from error
    except ValueError as error:
        fields = ", ".join(Reading.model_fields)
        raise SettingsError(
            f"{path}: not a reading; expected JSON with {fields}, and a reason where the decision "
            "is edit or override"
        ) from error


def to_utc(moment: datetime) -> str:
    """Write a time as every page does."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
