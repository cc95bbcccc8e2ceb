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
from medfuse.data.studies import StudyFiles, find_studies
from medfuse.errors import InputError


def read_folder(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read a folder as ``medfuse predict`` does: each folder in it is a study.

    Raises:
        InputError: There is no study in it.
    """
    studies = find_studies(folder)
    left_out: Counter[str] = Counter()
    return SourceCohort(
        tasks=(),
        studies=_read_all(folder, studies, left_out),
        total=len(studies),
        left_out=left_out,
        remarks=("There are no labels: add their columns to cohort.csv, and [[tasks]] here.",),
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
        if study.others:
            left_out["file that is neither image, note nor recording"] += len(study.others)
        if len(study.voices) > 1:
            left_out["recording beyond a study's first"] += len(study.voices) - 1
        yield SourceStudy(
            patient_id=_patient_of(study) or study.name,
            study_id=study.name,
            images=study.images,
            note="\n\n".join(read_note(path, left_out) for path in study.notes),
            voice=study.voices[0] if study.voices else None,
        )


def _patient_of(study: StudyFiles) -> str:
    """Read the PatientID of a study's first file that has one."""
    for path in study.images:
        try:
            identity = read_file_identity(read_part(path, Limits().file_bytes), Limits())
        except InputError:
            continue  # a picture, or a file that is refused and counted later
        if identity.patient_id:
            return identity.patient_id
    return ""


FOLDER = Importer(
    title="a folder of studies",
    licence="its own",
    citation="its own",
    read=read_folder,
)
