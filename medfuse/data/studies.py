"""Files and folders in, studies out, each file's size bounded before it is read."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medfuse.config import Limits
from medfuse.errors import InputError, LimitError
from medfuse.types import Study

TABLE = "cohort.csv"
IMAGE_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg"})
NOTE_SUFFIXES = frozenset({".txt"})
VOICE_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".mp3"})
DICOM_VOICE = "voice.dcm"
"""A DICOM waveform object looks like an image by its ending, so it is known by its name."""

NOT_OF_A_STUDY = frozenset({"DICOMDIR"})


@dataclass(frozen=True, slots=True)
class StudyFiles:
    """Where one study's parts are.

    Attributes:
        name: The study's folder name, or its study_id in the table.
        others: Files in the study's folder that are none of the three; reading refuses them,
            because an answer that silently left something out would mislead.
    """

    name: str
    images: tuple[Path, ...] = ()
    notes: tuple[Path, ...] = ()
    voices: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()


def find_studies(folder: Path) -> tuple[StudyFiles, ...]:
    """List a folder's studies: the rows of its ``cohort.csv``, or else each of its subfolders.

    Raises:
        InputError: There is none, or the table cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of studies; there is none")
    table = folder / TABLE
    if table.is_file():
        studies = _read_table(table)
    else:
        studies = tuple(
            _sort_files(path)
            for path in sorted(folder.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        )
    if not studies:
        raise InputError(f"{folder}: no studies; expected {TABLE} or a folder for each study")
    return studies


def read_study(files: StudyFiles, limits: Limits) -> Study:
    """Read one study's files.

    Raises:
        InputError: A file cannot be read, or the folder holds more than one study's parts.
        LimitError: There are too many files, or one is too large.
    """
    if files.others:
        endings = sorted({path.suffix for path in files.others})
        raise InputError(
            f"the study has {len(files.others)} file(s) that are neither image, note nor recording "
            f"(ending in {', '.join(endings)}); remove them from its folder"
        )
    for what, paths in (("notes", files.notes), ("recordings", files.voices)):
        if len(paths) > 1:
            raise InputError(f"the study has {len(paths)} {what}; expected at most one")
    if len(files.images) > limits.instances:
        raise LimitError(
            f"the study has {len(files.images)} image files; at most {limits.instances} are read"
        )
    return Study(
        images=tuple(read_file(path, limits.file_bytes) for path in files.images),
        note=read_file(files.notes[0], limits.note_bytes) if files.notes else None,
        voice=read_file(files.voices[0], limits.file_bytes) if files.voices else None,
    )


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a file of at most ``most_bytes``.

    Raises:
        LimitError: It is larger; no more of it was read.
        InputError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"a file of the study cannot be read ({error.strerror})") from error
    if len(data) > most_bytes:
        raise LimitError(f"a file of the study has more than {most_bytes} bytes")
    return data


def _sort_files(folder: Path) -> StudyFiles:
    """Sort a study's files by their ending, in the order of their names."""
    images, notes, voices, others = [], [], [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.name in NOT_OF_A_STUDY:
            continue
        suffix = path.suffix.lower()
        if suffix in VOICE_SUFFIXES or path.name.lower() == DICOM_VOICE:
            voices.append(path)
        elif suffix in IMAGE_SUFFIXES:
            images.append(path)
        elif suffix in NOTE_SUFFIXES:
            notes.append(path)
        else:
            others.append(path)
    return StudyFiles(folder.name, *map(tuple, (images, notes, voices, others)))


def _read_table(table: Path) -> tuple[StudyFiles, ...]:
    """Read a cohort's table for the studies' files alone; labels may be missing."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    missing = {"study_id", "images", "note", "voice"} - set(rows[0] if rows else ())
    if rows and missing:
        raise InputError(f"{table}: no column {', '.join(sorted(missing))}")
    return tuple(
        StudyFiles(
            name=row["study_id"],
            images=_find(table, number, row["images"].split(";")),
            notes=_find(table, number, [row["note"]]),
            voices=_find(table, number, [row["voice"]]),
        )
        for number, row in enumerate(rows, start=1)
    )


def _find(table: Path, number: int, cells: Sequence[str]) -> tuple[Path, ...]:
    root = table.parent.resolve()
    paths = tuple((root / cell.strip()).resolve() for cell in cells if cell.strip())
    if not all(path.is_relative_to(root) for path in paths):
        raise InputError(f"{table}: row {number}: a path leaves the folder")
    return paths
