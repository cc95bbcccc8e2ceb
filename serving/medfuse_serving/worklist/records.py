"""What is asked of a worklist and what it answers, as records that know their limits."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from medfuse.bundle import Sha256
from medfuse.config import Settings
from medfuse.errors import InputError
from medfuse.types import Modality
from medfuse_serving.answer import Answer
from medfuse_serving.report.record import Decision, Findings, InputRecord, ReferralRecord

LABEL_CHARACTERS = 64
MOST_ROWS = 200
"""Rows of one page."""

MOST_TEXT = 4000
MOST_REASON = 2000
"""Characters of what a reader writes; as many as a report takes."""


class Status(StrEnum):
    """How far a study is; in this order."""

    WAITING = "waiting"
    OPENED = "opened"
    READ = "read"


Sort = Literal["label", "arrived", "modalities", "status", "reader"]


def check_label(label: str) -> str:
    """Give a study's name on the worklist as it is kept, without space around it.

    Raises:
        InputError: It is empty, too long, or has a character that cannot be shown.
    """
    label = label.strip()
    if not 1 <= len(label) <= LABEL_CHARACTERS:
        raise InputError(
            f"a study's label has {len(label)} characters; expected 1 to {LABEL_CHARACTERS}, such "
            "as a pseudonym"
        )
    if not label.isprintable():
        raise InputError("a study's label has a character that cannot be shown; leave it out")
    return label


def _check_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has a character that cannot be shown")
    return text


class Query(Settings):
    """Which studies are wanted, in which order.

    Attributes:
        text: Some of the label's characters, in either case; all labels where it is empty.
        modality: One that was given.
    """

    text: Annotated[str, AfterValidator(_check_text)] = Field(default="", max_length=100)
    modality: Modality | None = None
    status: Status | None = None
    sort: Sort = "arrived"
    descending: bool = False


class PageQuery(Query):
    """Which rows of them are wanted."""

    offset: int = Field(default=0, ge=0, lt=2**31)
    limit: int = Field(default=100, ge=1, le=MOST_ROWS)


class NextQuery(Query):
    """The next study to read is wanted.

    Attributes:
        after: The study that lies on the page; from the beginning where there is none.
    """

    after: str | None = Field(default=None, max_length=64)


class StudyRow(Settings):
    """One study of a worklist, without its parts."""

    id: str
    label: str
    arrived: AwareDatetime
    modalities: tuple[Modality, ...]
    status: Status
    reader: str = Field(description="who changed the status last; empty where it is not known")


class RowPage(Settings):
    """Some of the rows that were asked for, and how many there are in all."""

    total: int
    rows: tuple[StudyRow, ...]


class NextRow(Settings):
    """The next study to read, and where it stands in the order that was asked for."""

    row: StudyRow | None = Field(description="null where none is waiting")
    index: int = Field(description="from 0")
    total: int


class StudyAdded(Settings):
    """A study was put on the worklist."""

    id: str


class ReadingStep(Settings):
    """How far one reading of a study is; a step is only ever followed by another, never changed.

    Attributes:
        study: Its id on the worklist; None where it is not on one.
        findings: The impression by target: `present`, `absent` or `unsure`; a class; a value.
        impression: The impression in words.
        wording: What the reader lets stand in the answer's place, in words.
        referrals: What was left to a human, so that `answer` has no score of it.
    """

    reading: str
    study: str | None = None
    reader: str = Field(default="", max_length=100)
    opened_at: AwareDatetime
    impression_at: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    decided_at: AwareDatetime | None = None
    findings: Findings = Field(default_factory=dict)
    impression: str = Field(default="", max_length=MOST_TEXT)
    decision: Decision | None = None
    reason: str = Field(default="", max_length=MOST_REASON)
    wording: str = Field(default="", max_length=MOST_TEXT)
    model_digest: Sha256 | None = None
    inputs: tuple[InputRecord, ...] = ()
    answer: Answer | None = None
    referrals: tuple[ReferralRecord, ...] = ()


class ReadingLine(ReadingStep):
    """A step as it is exported.

    Attributes:
        number: Counts all steps of a worklist, in the order in which they were kept.
        label: Of the study; None where it is no longer on the worklist, or never was.
    """

    number: int
    label: str | None
