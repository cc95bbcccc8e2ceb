"""EGD-CXR's folder in; radiograph, indication, dictation with its timed words, and labels out."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medfuse.config import Limits, ModalityName, Task, TaskKind
from medfuse.data.importers.mimic_files import find_image
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    choose,
    count_rows,
    find_table,
    inside,
    read_flag,
    read_phrase,
    read_rows,
    read_text,
)
from medfuse.deidentify.transcript import Phrase
from medfuse.errors import InputError, SourceError

NOTES = {
    "indication": "cxr_exam_indication, written before the film was read: free of the answer",
    "transcript": "what the reader dictated: contains the answer",
    "none": "no note",
}
VOICES = {"dictation": "the reader's dictation: says the answer aloud", "none": "no voice"}

_CONDITIONS = {"Normal": "normal", "CHF": "heart_failure", "pneumonia": "pneumonia"}
_FINDINGS = {
    "consolidation": "consolidation",
    "enlarged_cardiac_silhouette": "enlarged_cardiac_silhouette",
    "linear__patchy_atelectasis": "linear_or_patchy_atelectasis",
    "lobar__segmental_collapse": "lobar_or_segmental_collapse",
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__": "other_opacity",
    "pleural_effusion_or_thickening": "pleural_effusion_or_thickening",
    "pulmonary_edema__hazy_opacity": "pulmonary_edema",
    "elevated_hemidiaphragm": "elevated_hemidiaphragm",
    "hyperaeration": "hyperaeration",
    "vascular_redistribution": "vascular_redistribution",
}
_NEEDED = ("dicom_id", "path", "study_id", "patient_id", *_CONDITIONS, "cxr_exam_indication")
_FOLDER = "audio_segmentation_transcripts"


def read_egd_cxr(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read ``master_sheet.csv`` and what it names.

    Raises:
        SourceError: The layout is another one.
    """
    table = find_table(folder, ("master_sheet.csv",), "EGD-CXR's table of 1,083 films")
    note = choose("note", options.note, NOTES)
    voice = choose("voice", options.voice, VOICES)
    # Columns of findings may be left out of a copy; those of the condition may not.
    first = next(read_rows(table, _NEEDED), {})
    findings = {column: name for column, name in _FINDINGS.items() if column in first}
    # The dictation says what is seen, so a task that hears it only copies it.
    heard: tuple[ModalityName, ...] = ("image", "note")
    tasks = [
        Task(
            name="condition",
            kind=TaskKind.MULTICLASS,
            classes=tuple(_CONDITIONS.values()),
            modalities=heard,
        )
    ]
    if findings:
        classes = tuple(findings.values())
        tasks.append(
            Task(name="findings", kind=TaskKind.MULTILABEL, classes=classes, modalities=heard)
        )
    left_out: Counter[str] = Counter()
    read = partial(_read_study, folder, options, (note, voice), findings, left_out)
    return SourceCohort(
        tasks=tuple(tasks),
        studies=_read_all(table, read),
        total=count_rows(table),
        left_out=left_out,
        remarks=(
            "The voice is the radiologist's dictation of the report, so it says the answer. The "
            "tasks",
            'here do not hear it; take the line "modalities" out only if that is what you want.',
        ),
    )


def _read_all(table: Path, read: partial[SourceStudy]) -> Iterator[SourceStudy]:
    for row in read_rows(table, _NEEDED):
        yield read(row)


def _read_study(
    folder: Path,
    options: ImportOptions,
    choices: tuple[str, str],
    findings: dict[str, str],
    left_out: Counter[str],
    row: dict[str, str],
) -> SourceStudy:
    note, voice = choices
    image = find_image(options.images or folder, row["path"])
    if image is None:
        left_out["image that is not there"] += 1
    files = partial(inside, folder, _FOLDER, row["dicom_id"])
    recordings = (files(name) for name in ("audio.wav", "audio.mp3"))
    recording = next((path for path in recordings if path.is_file()), None)
    transcript = files("transcript.json")
    full_text, phrases = _read_transcript(transcript) if transcript.is_file() else ("", ())
    notes = {"indication": row["cxr_exam_indication"], "transcript": full_text, "none": ""}
    marked = [name for column, name in _CONDITIONS.items() if row[column] in ("1", "1.0")]
    labels = {"condition": marked[0] if len(marked) == 1 else ""}
    for column, name in findings.items():
        labels[name] = read_flag(row[column], options.uncertain)
    return SourceStudy(
        patient_id=row["patient_id"],
        study_id=row["dicom_id"],
        images=(image,) if image else (),
        note=notes[note],
        voice=recording if voice == "dictation" else None,
        transcript=phrases,
        labels=labels,
        sex=row.get("gender", ""),
        age=_middle(row.get("anchor_age", "")),
    )


def _read_transcript(path: Path) -> tuple[str, tuple[Phrase, ...]]:
    """Read ``full_text`` and ``time_stamped_text``."""
    try:
        content = json.loads(read_text(path, Limits()))
        phrases = tuple(
            read_phrase(*(str(part[key]) for key in ("phrase", "begin_time", "end_time")))
            for part in content["time_stamped_text"]
        )
        return str(content["full_text"]), phrases
    except (ValueError, KeyError, TypeError, RecursionError, InputError, SourceError) as error:
        raise SourceError(
            "a transcript.json is not as published: expected full_text and time_stamped_text, a "
            "list of phrase, begin_time and end_time"
        ) from error


def _middle(decade: str) -> str:
    """Give the middle of an age that is published as "20 - 30"."""
    low, _, high = decade.partition("-")
    if low.strip().isdecimal() and high.strip().isdecimal():
        return str((int(low) + int(high)) // 2)
    return decade


EGD_CXR = Importer(
    title="Eye Gaze Data for Chest X-rays (EGD-CXR)",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Karargyris et al. 2021, doi 10.1038/s41597-021-00863-5; doi 10.13026/qfdz-zr67",
    read=read_egd_cxr,
)
