"""A folder with a folder for each study in; its studies, grouped by the DICOM PatientID, out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from medfuse.config import Limits
from medfuse.data.dicom import read_file_identity
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    read_note,
    read_part,
)
from medfuse.data.studies import TABLE, StudyFiles, find_studies
from medfuse.errors import InputError, SourceError


def read_folder(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read a folder as ``medfuse predict`` does: each folder in it is a study.

    Raises:
        InputError: There is no study in it.
        SourceError: It has a table, which says what no file does: patients and labels.
    """
    if (folder / TABLE).is_file():
        raise SourceError(
            f"{folder}: expected a folder for each study; it has {TABLE}, which medfuse import "
            "table reads, by settings that say what its columns hold"
        )
    studies = find_studies(folder)
    left_out: Counter[str] = Counter()
    return SourceCohort(
        tasks=(),
        studies=_read_all(folder, studies, left_out),
        total=len(studies),
        left_out=left_out,
        remarks=(
            "There are no labels: add their columns to cohort.csv, and [[tasks]] here.",
            "A study whose files have no PatientID is taken for a patient of its own.",
        ),
    )


def _read_all(
    folder: Path, studies: Sequence[StudyFiles], left_out: Counter[str]
) -> Iterator[SourceStudy]:
    root = folder.resolve()
    for study in studies:
        paths = (*study.images, *study.notes, *study.voices)
        if not all(path.resolve().is_relative_to(root) for path in paths):
            left_out["study with a link that leaves the folder"] += 1
            continue
        patients = _patients_of(study)
        if len(patients) > 1:
            left_out["study with files of more than one patient"] += 1
            continue
        if study.others:
            left_out["file that is neither image, note nor recording"] += len(study.others)
        if len(study.voices) > 1:
            left_out["recording beyond a study's first"] += len(study.voices) - 1
        yield SourceStudy(
            patient_id=next(iter(patients), study.name),
            study_id=study.name,
            images=study.images,
            note="\n\n".join(read_note(path, left_out) for path in study.notes),
            voice=study.voices[0] if study.voices else None,
        )


def _patients_of(study: StudyFiles) -> set[str]:
    """Read whose a study's files are by their PatientID; those that have none are nobody's."""
    patients = set()
    for path in (*study.images, *study.voices):
        try:
            identity = read_file_identity(read_part(path, Limits().file_bytes), Limits())
        except InputError:
            continue  # no DICOM object, or a file that is refused and counted later
        if identity.patient_id:
            patients.add(identity.patient_id)
    return patients


FOLDER = Importer(
    title="a folder of studies",
    licence="its own",
    citation="its own",
    read=read_folder,
)
