"""What an importer gives for each study of a source, and how it reads the source's folder."""

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from medfuse.config import Limits, Settings, Task, TaskKind
from medfuse.data.note import decode_note
from medfuse.data.studies import read_file
from medfuse.deidentify.transcript import Phrase
from medfuse.errors import InputError, LimitError, SourceError

TABLE_BYTES = 2**30
"""No published table here is larger, unpacked; MIMIC-CXR's largest has 60 MB."""

CELL_CHARACTERS = 2**20
LINE_CHARACTERS = 2**24


class ImportOptions(Settings):
    """What to take from a source, where there is a choice."""

    images: Path | None = Field(
        default=None, description="the folder of MIMIC-CXR's files, for sets that point into it"
    )
    note: str = Field(default="", description="which text is the note; the safe one by default")
    voice: str = Field(default="", description="which of a person's recordings is taken")
    uncertain: Literal["unknown", "positive", "negative"] = Field(
        default="unknown", description="what a label of -1, or a reader's doubt, means"
    )
    limit: int | None = Field(default=None, gt=0, description="studies to read at most")
    settings: Path | None = Field(
        default=None, description="a generic table's [cohort] and [[tasks]], as for training"
    )
    names: tuple[str, ...] = Field(
        default=(), description="columns of a generic table that hold people's names"
    )


@dataclass(frozen=True, slots=True)
class SourceStudy:
    """One study as its source has it, not yet de-identified.

    Attributes:
        patient_id: The source's own; groups the studies of one person.
        study_id: The source's own.
        images: Files (DICOM, PNG, JPEG, or these in gzip), or a picture's bytes.
        note: The text chosen as the note.
        voice: A recording.
        transcript: What is said in the recording, with times.
        labels: By column of the cohort's table; empty where not known.
        names: Names known to be in this study's texts.
        split: ``train``, ``validation`` or ``test``, where the source has one.
    """

    patient_id: str = field(repr=False)
    study_id: str = field(repr=False)
    images: tuple[Path | bytes, ...] = field(default=(), repr=False)
    note: str = field(default="", repr=False)
    voice: Path | None = field(default=None, repr=False)
    transcript: tuple[Phrase, ...] = field(default=(), repr=False)
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    site: str = field(default="", repr=False)
    date: str = field(default="", repr=False)
    split: str = ""


@dataclass(frozen=True, slots=True)
class SourceCohort:
    """A source's studies, and what is asked of them.

    Attributes:
        tasks: Each task's labels stand under the names that `SourceStudy.labels` uses.
        studies: Read one after another, so that a large source needs no memory.
        total: How many there may be, for a progress bar.
        left_out: What reading leaves out, by reason; complete after the last study.
        remarks: What a user should know before training; each is a line in ``cohort.toml``.
    """

    tasks: tuple[Task, ...]
    studies: Iterable[SourceStudy]
    total: int | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Importer:
    """A source that can be imported.

    Attributes:
        title: Its name in full.
        licence: Under which it may be used.
        citation: What to cite.
        read: Reads its folder.
    """

    title: str
    licence: str
    citation: str
    read: Callable[[Path, ImportOptions], SourceCohort]


def choose(option: str, value: str, choices: Mapping[str, str]) -> str:
    """Give the choice that was made, or else the first, which is the default.

    Raises:
        SourceError: There is no such choice.
    """
    name = value or next(iter(choices))
    if name not in choices:
        raise SourceError(f"--{option}: {name!r} is not one of {', '.join(choices)}")
    return name


def inside(root: Path, *parts: str) -> Path:
    """Join a path that a table gives, and refuse one that leaves the folder.

    Raises:
        SourceError: It leaves the folder, itself or by a link.
    """
    base = root.resolve()
    path = base.joinpath(*parts).resolve()
    if not path.is_relative_to(base):
        raise SourceError(f"{root.name}: a table names a path outside the folder")
    return path


def find_table(root: Path, names: Iterable[str], what: str) -> Path:
    """Find a source's table under one of its names, as it is or in gzip.

    Raises:
        SourceError: There is none.
    """
    tried = tuple(names)
    for name in tried:
        for form in (name, f"{name}.gz"):
            if (root / form).is_file():
                return inside(root, form)
    raise SourceError(f"{root}: expected {' or '.join(tried)} ({what}); there is none")


def read_rows(table: Path, needed: Iterable[str]) -> Iterator[dict[str, str]]:
    """Read a CSV table row by row, after its columns are checked.

    Raises:
        SourceError: A column is missing, or it is not a CSV table.
    """
    try:
        with _open_text(table) as file:
            reader = csv.DictReader(_read_lines(file, table.name), restval="")
            missing = sorted(set(needed) - set(reader.fieldnames or ()))
            if missing:
                raise SourceError(
                    f"{table.name}: no column {', '.join(missing)}; expected the layout in "
                    "docs/import.md"
                )
            for row in reader:
                yield {
                    name: (cell or "").strip()
                    for name, cell in row.items()
                    if name is not None  # cells beyond the header
                }
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{table.name}: not a well-formed CSV table in UTF-8; its text is in another encoding "
            "(Latin-1 or Windows-1252, perhaps), so save it as UTF-8"
        ) from error
    except (csv.Error, EOFError, OSError, zlib.error) as error:
        raise SourceError(
            f"{table.name}: not a well-formed CSV table in UTF-8 ({type(error).__name__})"
        ) from error


def label_columns(task: Task) -> tuple[str, ...]:
    """Name the columns that a task's labels stand in where no mapping says otherwise."""
    own = task.kind in (TaskKind.MULTICLASS, TaskKind.ORDINAL)
    return (task.name,) if own else task.classes


def slug(name: str) -> str:
    """Name a finding as medfuse does: "Pleural Effusion" is ``pleural_effusion``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def count_rows(table: Path) -> int:
    """Count a table's rows, for a progress bar."""
    return sum(1 for _ in read_rows(table, ()))


def read_text(path: Path, limits: Limits) -> str:
    """Read a text file by its byte order mark, else as UTF-8, else as Windows' Western code page.

    Raises:
        InputError: It cannot be read, or is not plain text.
        LimitError: It is too large.
    """
    data = read_file(path, limits.note_bytes)
    return decode_note(data, limits) if data.strip() else ""


def read_note(path: Path, left_out: Counter[str]) -> str:
    """Read a note, or count it as one that can't be read."""
    try:
        return read_text(path, Limits()).strip()
    except InputError:
        left_out["note that can't be read"] += 1
        return ""


def read_part(path: Path, most_bytes: int) -> bytes:
    """Read a file, unpacked if it is in gzip.

    Raises:
        InputError: It cannot be read or unpacked.
        LimitError: It is, or becomes, too large.
    """
    data = read_file(path, most_bytes)
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            plain = file.read(most_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"a file in gzip is damaged ({type(error).__name__})") from error
    if len(plain) > most_bytes:
        raise LimitError(f"a file in gzip becomes more than {most_bytes} bytes")
    return plain


def read_phrase(text: str, start_s: str, end_s: str) -> Phrase:
    """Read a phrase and its times.

    Raises:
        SourceError: They are no stretch of a recording, in seconds.
    """
    try:
        start, end = float(start_s), float(end_s)
    except ValueError:
        start = end = math.nan
    if not -math.inf < start <= end < math.inf:
        raise SourceError("a word's times are no seconds, or its end is before its start")
    return Phrase(text, start, end)


def read_flag(cell: str, uncertain: str) -> str:
    """Read CheXpert's code: 1, 0, -1 for uncertain, and nothing for not mentioned.

    What is not mentioned is unknown: a report that is silent on a finding doesn't deny it.

    Raises:
        SourceError: It is none of these.
    """
    values = {"": "", "1": "1", "1.0": "1", "0": "0", "0.0": "0"}
    doubt = {"unknown": "", "positive": "1", "negative": "0"}[uncertain]
    try:
        return (values | {"-1": doubt, "-1.0": doubt})[cell]
    except KeyError:
        raise SourceError("a label is none of 1, 0, -1 and empty") from None


def _open_text(table: Path) -> io.TextIOWrapper:
    csv.field_size_limit(CELL_CHARACTERS)
    packed = table.suffix == ".gz"
    raw = gzip.open(table) if packed else table.open("rb")  # noqa: SIM115  # the caller closes it
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _read_lines(file: io.TextIOWrapper, name: str) -> Iterator[str]:
    """Read line by line, and no more than a table may have, packed or not."""
    whole = 0
    while line := file.readline(LINE_CHARACTERS + 1):
        whole += len(line)
        if len(line) > LINE_CHARACTERS or whole > TABLE_BYTES:
            raise LimitError(
                f"{name}: a line has more than {LINE_CHARACTERS} characters, or the table more "
                f"than {TABLE_BYTES}"
            )
        yield line
