"""REFLACX's folder in; film, indication, the dictation's timed words and certainties out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medfuse.config import Task, TaskKind
from medfuse.data.importers.mimic_files import NOTES as MIMIC_NOTES
from medfuse.data.importers.mimic_files import find_image, read_report, study_of
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    choose,
    inside,
    read_note,
    read_phrase,
    read_rows,
    slug,
)
from medfuse.deidentify.transcript import Phrase
from medfuse.errors import SourceError

NOTES = {**MIMIC_NOTES, "transcription": "what the reader dictated: contains the answer"}
PHASES = ("metadata_phase_1.csv", "metadata_phase_2.csv", "metadata_phase_3.csv")

_NEEDED = ("id", "split", "image", "dicom_id", "subject_id")
_NOT_LABELS = frozenset(
    {
        *_NEEDED,
        *("eye_tracking_data_discarded", "image_size_x", "image_size_y", "Other"),
        "Quality issue",
    }
)
_SPLITS = {"train": "train", "validate": "validation", "val": "validation", "test": "test"}
_CERTAIN = {"0": "0", "3": "1", "4": "1", "5": "1", "true": "1", "false": "0", "": ""}
"""Certainty: 0 absent, 1 unlikely, 2 less likely, 3 possibly, 4 suspicious for, 5 consistent."""


def read_reflacx(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read the tables of the phases that are there; each reading is a study.

    Raises:
        SourceError: The layout is another one.
    """
    base = folder / "main_data" if (folder / "main_data").is_dir() else folder
    tables = [inside(base, name) for name in PHASES if (base / name).is_file()]
    if not tables:
        raise SourceError(f"{folder}: expected main_data/{PHASES[0]} (REFLACX); there is none")
    note = choose("note", options.note, NOTES)
    columns: dict[str, None] = {}
    total = 0
    for table in tables:
        for row in read_rows(table, _NEEDED):
            columns.update(dict.fromkeys(name for name in row if name not in _NOT_LABELS))
            total += 1
    labels = tuple(column for column in columns if column)
    left_out: Counter[str] = Counter()
    task = Task(name="findings", kind=TaskKind.MULTILABEL, classes=tuple(slug(c) for c in labels))
    return SourceCohort(
        tasks=(task,),
        studies=_read_all(tables, base, options.images or folder, note, labels, options, left_out),
        total=total,
        left_out=left_out,
        remarks=(
            "Films were read by up to five readers: each reading is a study, all of a patient's",
            "stay together. The recordings were not published, so there is no voice.",
        ),
    )


def _read_all(
    tables: list[Path],
    base: Path,
    root: Path,
    note: str,
    labels: tuple[str, ...],
    options: ImportOptions,
    left_out: Counter[str],
) -> Iterator[SourceStudy]:
    for table in tables:
        for row in read_rows(table, _NEEDED):
            if row["split"] not in _SPLITS:
                raise SourceError(f"{table.name}: a split is none of {', '.join(_SPLITS)}")
            image = find_image(root, row["image"])
            if image is None:
                left_out["image that is not there"] += 1
            subject_id, study_id = study_of(row["image"])
            reading = inside(base, row["id"])
            text, dictated = "", reading / "transcription.txt"
            if note == "transcription" and dictated.is_file():
                text = read_note(dictated, left_out)
            elif note != "transcription" and study_id:
                text = read_report(root, subject_id, study_id, note, left_out)
            yield SourceStudy(
                patient_id=row["subject_id"],
                study_id=row["id"],
                images=(image,) if image else (),
                note=text,
                transcript=_read_words(reading / "timestamps_transcription.csv"),
                labels={slug(c): _read_certainty(row.get(c, ""), options) for c in labels},
                split=_SPLITS[row["split"]],
            )


def _read_words(path: Path) -> tuple[Phrase, ...]:
    if not path.is_file():
        return ()
    needed = ("word", "timestamp_start_word", "timestamp_end_word")
    return tuple(read_phrase(*(row[name] for name in needed)) for row in read_rows(path, needed))


def _read_certainty(cell: str, options: ImportOptions) -> str:
    """Read a certainty; 1 and 2, which doubt the finding, are uncertain."""
    plain = cell.lower().removesuffix(".0")
    if plain in ("1", "2"):
        return {"unknown": "", "positive": "1", "negative": "0"}[options.uncertain]
    try:
        return _CERTAIN[plain]
    except KeyError:
        raise SourceError("a certainty is none of 0 to 5, true, false and empty") from None


REFLACX = Importer(
    title="REFLACX: reports and eye-tracking for localization of abnormalities in chest X-rays",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Bigolin Lanfredi et al. 2022, doi 10.1038/s41597-022-01441-z",
    read=read_reflacx,
)
