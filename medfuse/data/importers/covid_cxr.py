"""The COVID-19 Image Data Collection in; films with their case notes and diagnoses out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medfuse.config import Task, TaskKind
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    choose,
    count_rows,
    find_table,
    inside,
    read_rows,
)

NOTES = {
    "clinical_notes": "captions of case reports: many describe the film or the outcome",
    "none": "no note",
}
_NEEDED = ("patientid", "sex", "age", "finding", "view", "modality", "folder", "filename",
           "clinical_notes")  # fmt: skip


def read_covid_cxr(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read ``metadata.csv`` and the radiographs that it names; CT slices are left out.

    Raises:
        SourceError: The layout is another one.
    """
    table = find_table(folder, ("metadata.csv",), "the COVID-19 Image Data Collection's table")
    note = choose("note", options.note, NOTES)
    left_out: Counter[str] = Counter()
    return SourceCohort(
        tasks=(Task(name="covid", kind=TaskKind.BINARY, classes=("covid19",)),),
        studies=_read_all(folder, table, note, left_out),
        total=count_rows(table),
        left_out=left_out,
        remarks=(
            "COVID-19 against other pneumonia. Website, licence and view tell the two apart, too,",
            "and notes often state the answer: figures here are no evidence of recognition.",
        ),
    )


def _read_all(
    folder: Path, table: Path, note: str, left_out: Counter[str]
) -> Iterator[SourceStudy]:
    for number, row in enumerate(read_rows(table, _NEEDED), start=1):
        if row["modality"] != "X-ray":
            left_out["not a radiograph"] += 1
            continue
        image = inside(folder, row["folder"], row["filename"])
        if not image.is_file():
            left_out["image that is not there"] += 1
        yield SourceStudy(
            patient_id=row["patientid"],
            study_id=f"row {number}",
            images=(image,) if image.is_file() else (),
            note=row["clinical_notes"] if note == "clinical_notes" else "",
            labels={"covid19": read_finding(row["finding"])},
            sex=row["sex"],
            age=row["age"],
            date=row.get("date", ""),
        )


def read_finding(finding: str) -> str:
    """Tell COVID-19 from other pneumonia in ``Pneumonia/Viral/COVID-19``; else it is unknown."""
    parts = [part.strip() for part in finding.split("/")]
    if "COVID-19" in parts:
        return "1"
    return "0" if parts[0] == "Pneumonia" and len(parts) > 1 else ""


COVID_CXR = Importer(
    title="COVID-19 Image Data Collection",
    licence="per image; metadata CC BY-NC-SA 4.0",
    citation="Cohen et al. 2020, arXiv:2006.11988",
    read=read_covid_cxr,
)
