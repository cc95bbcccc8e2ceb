"""A cohort: one table of any layout in, rows with files, labels and a patient-wise split out."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, model_validator

from medfuse.config import SETTINGS_FOLDER, Settings, Task
from medfuse.data.labels import LabelSettings, label_reader
from medfuse.data.sentences import GivenSentence, read_sentences
from medfuse.data.table import read_cells
from medfuse.errors import CohortError
from medfuse.types import Modality, Study, subset_name

ANOTHER_VALUE = "label has a value that no class is mapped to"
NO_LABEL = "no label"
NO_MODALITY = "no image, note or voice"
FILTERED = "left out by keep"


class Split(StrEnum):
    """What a study is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}


class Columns(Settings):
    """Which column of the table holds what; an empty name says that the table has none.

    A column named here must exist. One that is left at its default is used if it exists.
    """

    patient_id: str = "patient_id"
    study_id: str = "study_id"
    images: str = Field(default="images", description="paths, joined by ';'")
    note: str = Field(default="note", description="path of a text file")
    note_text: str = Field(default="", description="the note itself, in place of a path")
    voice: str = Field(default="voice", description="path of a recording")
    sex: str = "sex"
    age: str = "age"
    site: str = "site"
    date: str = "date"
    split: str = "split"

    @model_validator(mode="after")
    def _one_note(self) -> "Columns":
        if self.note_text and self.note and "note" in self.model_fields_set:
            raise ValueError("give note (a path) or note_text (the text), not both")
        return self


@runtime_checkable
class _Validation(Protocol):
    """Pydantic's ``ValidationInfo``, which can't be checked while tests run."""

    @property
    def context(self) -> Mapping[str, Path] | None:
        """Give what `read_settings` says of the file."""


class CohortSettings(Settings):
    """One table and how to read it."""

    table: Path = Field(description="CSV or Parquet")
    relative_to: Literal["working_directory", "settings_file"] = Field(
        default="working_directory",
        description="where table, root and sentences start; settings_file: a cohort's own settings "
        "lie beside its table, and both may be moved",
    )
    root: Path | None = Field(
        default=None, description="folder that paths start from and stay in; the table's by default"
    )
    columns: Columns = Columns()
    sentences: Path | None = Field(
        default=None, description="CSV of findings sentences to learn from, beside the table"
    )
    labels: dict[str, LabelSettings] = Field(
        default_factory=dict, description="by task name, where the defaults do not fit"
    )
    keep: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column to the values it must have; other rows are left"
    )
    unlabelled: Literal["leave_out", "train"] = Field(
        default="leave_out",
        description="train: studies without labels are for objectives that need none",
    )
    check_identity: bool = Field(
        default=False, description="the patient column is the DICOM PatientID and must agree"
    )

    @model_validator(mode="before")
    @classmethod
    def _start_at_the_settings_file(cls, data: object, info: _Validation) -> object:
        """Once read, every path starts at the working directory, wherever the settings are."""
        if not isinstance(data, dict) or data.get("relative_to") != "settings_file":
            return data
        folder = (info.context or {}).get(SETTINGS_FOLDER)
        if folder is None:
            raise ValueError("relative_to = 'settings_file' is for settings that a file holds")
        paths = {
            name: folder / data[name]
            for name in ("table", "root", "sentences")
            if isinstance(data.get(name), str)
        }
        return {**data, **paths, "relative_to": "working_directory"}


@dataclass(frozen=True, slots=True)
class CohortRow:
    """One study of a cohort: where its parts are and what is known about it.

    Attributes:
        number: Row of the table, 1 for the first below the header; safe to show.
        labels: `Task.label_columns` per task: 0 or 1 for each finding, else the class or level
            counted from 0, or the quantity; NaN where not known.
        patient_id: Groups the studies of one person; never enters a message.
        check_patient_id: Whether the study's files must carry the same identifier.
        sentences: What somebody wrote of its findings, for a decoder to learn.
    """

    number: int
    labels: tuple[float, ...]
    patient_id: str = field(repr=False)
    study_id: str = field(repr=False)
    images: tuple[Path, ...] = field(default=(), repr=False)
    note: Path | None = field(default=None, repr=False)
    note_text: str | None = field(default=None, repr=False)
    voice: Path | None = field(default=None, repr=False)
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    site: str = field(default="", repr=False)
    date: str = field(default="", repr=False)
    split: Split | None = None
    check_patient_id: bool = False
    sentences: tuple[GivenSentence, ...] = field(default=(), repr=False)

    @property
    def labelled(self) -> bool:
        """Whether any label is known."""
        return not np.isnan(self.labels).all()

    @property
    def present(self) -> frozenset[Modality]:
        """The modalities the table gives for this study."""
        parts = {
            Modality.IMAGE: bool(self.images),
            Modality.NOTE: self.note is not None or self.note_text is not None,
            Modality.VOICE: self.voice is not None,
        }
        return frozenset(m for m, there in parts.items() if there)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The rows of a table that can be used.

    Attributes:
        tasks: The questions, in the order of the labels.
        rows: One per study, in the table's order.
        excluded: How many rows of the table were left out, by reason.
    """

    tasks: tuple[Task, ...]
    rows: tuple[CohortRow, ...]
    excluded: Mapping[str, int] = field(default_factory=dict)

    def part(self, split: Split) -> tuple[CohortRow, ...]:
        """Give the rows of one split."""
        return tuple(row for row in self.rows if row.split is split)

    @property
    def labels(self) -> Float[np.ndarray, "n c"]:
        """All labels, a row per study."""
        width = sum(task.label_columns for task in self.tasks)
        return np.array([row.labels for row in self.rows], dtype=np.float64).reshape(
            len(self.rows), width
        )

    @property
    def digest(self) -> str:
        """SHA-256, as hex, of the rows' identities, labels, splits and sentences, not of files."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(repr((row.patient_id, row.study_id, row.labels, row.split)).encode())
            for each in row.sentences:
                named = each.modalities and subset_name(each.modalities)
                digest.update(repr((each.target, named, each.text)).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class WholeTable:
    """A cohort as a check for leaks reads it: with its faults, and with what no model reads.

    Attributes:
        cohort: Its rows; of a table that names no image, note or recording, all labelled ones. A
            patient may be in two splits.
        others: The columns that are neither a part of a study nor a label, a cell per row.
    """

    cohort: Cohort
    others: Mapping[str, tuple[str, ...]] = field(repr=False)


def read_cohort(settings: CohortSettings, tasks: Sequence[Task]) -> Cohort:
    """Read a table, check every path and label in it, and leave out what cannot be used.

    Raises:
        CohortError: The table or a named column is missing, a cell cannot be used (the message
            gives its row and column, never its content), or a patient is in two splits.
    """
    cohort = _read_rows(_Reader(settings, tuple(tasks), read_cells(settings.table)))
    _check_splits(cohort.rows)
    if settings.sentences is None:
        return cohort
    return replace(cohort, rows=_add_sentences(cohort.rows, settings.sentences, tasks))


def read_unlabelled(settings: CohortSettings) -> Cohort:
    """Read a table whose studies are only asked about, without labels.

    A file that is missing is found when its study is loaded, unless every study lacks one.

    Raises:
        CohortError: As of `read_cohort`, but for labels and for some missing files.
    """
    settings = settings.model_copy(update={"unlabelled": "train", "labels": {}})
    reader = _Reader(settings, (), read_cells(settings.table))
    reader.some_missing = True
    cohort = _read_rows(reader)
    _check_splits(cohort.rows)
    return cohort


def read_whole_table(settings: CohortSettings, tasks: Sequence[Task]) -> WholeTable:
    """Read a table as `read_cohort` does, with its other columns; torn patients are kept.

    Raises:
        CohortError: The table or a named column is missing, or a cell cannot be used.
    """
    reader = _Reader(settings, tuple(tasks), read_cells(settings.table))
    reader.bare = not any(reader.columns[role] for role in ("images", "note", "note_text", "voice"))
    cohort = _read_rows(reader)
    used = {*reader.columns.values(), *(c for own in reader.labels for c in own.columns)}
    others = {
        name: tuple(str(cells[row.number - 1]).strip() for row in cohort.rows)
        for name, cells in reader.cells.items()
        if name not in used
    }
    return WholeTable(cohort, others)


def _read_rows(reader: "_Reader") -> Cohort:
    """Read every row, and leave out what cannot be used."""
    rows: list[CohortRow] = []
    excluded: Counter[str] = Counter()
    for i in range(reader.size):
        row = reader.read(i)
        if isinstance(row, str):
            excluded[row] += 1
        else:
            rows.append(row)
    if not rows:
        why = "; ".join(f"{reason}: {n}" for reason, n in excluded.items()) or "it is empty"
        raise CohortError(f"{reader.settings.table.name}: no row can be used ({why})")
    reader.refuse_missing_files()
    _check_study_ids(rows, reader.settings.table.name)
    return Cohort(tasks=reader.tasks, rows=tuple(rows), excluded=dict(excluded))


def load_study(row: CohortRow) -> Study:
    """Read a row's files as the study a hospital would hand over.

    Raises:
        CohortError: A file is gone or cannot be read.
    """
    try:
        note = row.note.read_bytes() if row.note else None
        if row.note_text is not None:
            note = row.note_text.encode("utf-8")
        return Study(
            images=tuple(path.read_bytes() for path in row.images),
            note=note,
            voice=row.voice.read_bytes() if row.voice else None,
            patient_id=row.patient_id if row.check_patient_id else None,
        )
    except OSError as error:
        raise CohortError(f"row {row.number}: a file cannot be read ({error.strerror})") from None


class _Reader:
    """Reads one row after another, by columns resolved once."""

    def __init__(
        self, settings: CohortSettings, tasks: tuple[Task, ...], table: pd.DataFrame
    ) -> None:
        self.settings, self.tasks, self.size = settings, tasks, len(table)
        self.bare = False
        self.some_missing = False
        self.root = (settings.root or settings.table.parent).resolve()
        self.cells = {str(c): table[c].tolist() for c in table.columns}
        names = settings.columns.model_dump()
        if settings.columns.note_text:
            names["note"] = ""
        given = settings.columns.model_fields_set | {"patient_id"}
        self.columns = {
            role: self._resolve(name, required=role in given) for role, name in names.items()
        }
        if not self.columns["patient_id"]:
            raise CohortError("columns.patient_id is empty; a cohort is split by patient")
        for column in settings.keep:
            self._resolve(column, required=True)
        unknown = set(settings.labels) - {task.name for task in tasks}
        if unknown:
            raise CohortError(f"cohort.labels names no task: {', '.join(sorted(unknown))}")
        self.labels = [label_reader(task, settings.labels.get(task.name)) for task in tasks]
        for reader in self.labels:
            for column in reader.columns:
                self._resolve(column, required=True)
        split = self.columns["split"]
        self.has_split = bool(split) and any(cell.strip() for cell in self.cells[split])
        self.missing: list[tuple[int, str]] = []

    def _resolve(self, name: str, *, required: bool) -> str:
        if not name or name in self.cells:
            return name
        if required:
            raise CohortError(
                f"{self.settings.table.name}: no column {name!r}; it has {', '.join(self.cells)}"
            )
        return ""

    def cell(self, i: int, role: str) -> str:
        column = self.columns[role]
        return str(self.cells[column][i]).strip() if column else ""

    def read(self, i: int) -> CohortRow | str:
        """Give row ``i``, or why it is left out."""
        for column, kept in self.settings.keep.items():
            if self.cells[column][i].strip() not in kept:
                return FILTERED
        labels, unmapped = self._read_labels(i)
        if np.isnan(labels).all() and (unmapped or self.settings.unlabelled == "leave_out"):
            return ANOTHER_VALUE if unmapped else NO_LABEL
        patient_id = self.cell(i, "patient_id")
        if not patient_id:
            raise self._bad(i, self.columns["patient_id"], "no patient")
        images = (part.strip() for part in self.cell(i, "images").split(";"))
        row = CohortRow(
            number=i + 1,
            labels=tuple(labels),
            patient_id=patient_id,
            study_id=self.cell(i, "study_id") or f"row-{i + 1}",
            images=tuple(self._path(i, "images", part) for part in images if part),
            note=self._path(i, "note", self.cell(i, "note")) if self.cell(i, "note") else None,
            note_text=self.cell(i, "note_text") or None,
            voice=self._path(i, "voice", self.cell(i, "voice")) if self.cell(i, "voice") else None,
            sex=self.cell(i, "sex"),
            age=self.cell(i, "age"),
            site=self.cell(i, "site"),
            date=self.cell(i, "date"),
            split=self._read_split(i),
            check_patient_id=self.settings.check_identity,
        )
        return row if row.present or self.bare else NO_MODALITY

    def _read_labels(self, i: int) -> tuple[list[float], bool]:
        labels: list[float] = []
        unmapped = False
        for reader in self.labels:
            cells = [str(self.cells[column][i]).strip() for column in reader.columns]
            own = reader.read(cells)
            if isinstance(own, int):
                raise self._bad(i, reader.columns[own], reader.wanted)
            unmapped |= bool(any(cells)) and bool(np.isnan(own).all())
            labels += own
        return labels, unmapped

    def _read_split(self, i: int) -> Split | None:
        if not self.has_split:
            return None
        split = SPLIT_NAMES.get(self.cell(i, "split").lower())
        if split is None:
            raise self._bad(i, self.columns["split"], "expected train, validation or test")
        return split

    def _path(self, i: int, role: str, relative: str) -> Path:
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root):
            raise self._bad(i, self.columns[role], "the path leaves the cohort's root folder")
        if not path.is_file():
            self.missing.append((i, self.columns[role]))
        return path

    def refuse_missing_files(self) -> None:
        every = len({i for i, _ in self.missing}) == self.size
        if self.missing and (every or not self.some_missing):
            i, column = self.missing[0]
            more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
            raise self._bad(i, column, f"the file is missing{more}")

    def _bad(self, i: int, column: str, why: str) -> CohortError:
        return CohortError(f"{self.settings.table.name}, row {i + 1}, column {column!r}: {why}")


def _add_sentences(
    rows: Sequence[CohortRow], path: Path, tasks: Sequence[Task]
) -> tuple[CohortRow, ...]:
    """Give each study its sentences; those of studies that are left out are left out, too."""
    sentences = read_sentences(path, tasks)
    told = tuple(replace(row, sentences=sentences.get(row.study_id, ())) for row in rows)
    if not any(row.sentences for row in told):
        raise CohortError(f"{path.name}: no sentence is of a study of the cohort")
    return told


def _check_study_ids(rows: Sequence[CohortRow], table: str) -> None:
    seen: dict[str, int] = {}
    for row in rows:
        if row.study_id in seen:
            raise CohortError(
                f"{table}: rows {seen[row.study_id]} and {row.number} are the same study; give "
                "each its own study_id, or leave one out"
            )
        seen[row.study_id] = row.number


def _check_splits(rows: Sequence[CohortRow]) -> None:
    splits: dict[str, set[Split | None]] = {}
    for row in rows:
        splits.setdefault(row.patient_id, set()).add(row.split)
    torn = sum(len(found) > 1 for found in splits.values())
    if torn:
        raise CohortError(
            f"{torn} patient(s) stand in more than one split; every study of a patient must be in "
            "the same one"
        )
