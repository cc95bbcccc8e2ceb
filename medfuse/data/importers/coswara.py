"""Coswara's table and recordings in; each person's breath, cough or speech and COVID status out."""

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

VOICES = {
    name: name.replace("-", " ")
    for name in (
        *("counting-normal", "counting-fast", "cough-heavy", "cough-shallow", "breathing-deep"),
        *("breathing-shallow", "vowel-a", "vowel-e", "vowel-o"),
    )
}
_SEX = {"male": "M", "female": "F"}
_AUDIO_FOLDERS = ("", "Extracted_data")
_NEEDED = ("id", "a", "covid_status", "record_date", "g")


def read_coswara(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read ``combined_data.csv`` and, by day and person, one recording of each.

    Raises:
        SourceError: The layout is another one.
    """
    table = find_table(folder, ("combined_data.csv",), "Coswara's table of participants")
    voice = choose("voice", options.voice, VOICES)
    left_out: Counter[str] = Counter()
    return SourceCohort(
        tasks=(Task(name="covid", kind=TaskKind.BINARY, classes=("covid19",)),),
        studies=_read_all(folder, table, voice, left_out),
        total=count_rows(table),
        left_out=left_out,
        remarks=(
            "Positive against healthy; exposed, recovered and other illness are unknown. The date",
            "of recording alone tells most of it, so it is left out.",
        ),
    )


def _read_all(
    folder: Path, table: Path, voice: str, left_out: Counter[str]
) -> Iterator[SourceStudy]:
    for row in read_rows(table, _NEEDED):
        day = row["record_date"].replace("-", "")[:8]
        paths = (inside(folder, place, day, row["id"], f"{voice}.wav") for place in _AUDIO_FOLDERS)
        recording = next((path for path in paths if path.is_file()), None)
        if recording is None:
            left_out["participant without this recording"] += 1
            continue
        yield SourceStudy(
            patient_id=row["id"],
            study_id=row["id"],
            voice=recording,
            labels={"covid19": read_status(row["covid_status"])},
            sex=_SEX.get(row["g"].lower(), ""),
            age=row["a"],
        )


def read_status(status: str) -> str:
    """Read ``positive_mild`` and its like as 1, ``healthy`` as 0 and all else as unknown."""
    if status.startswith("positive"):
        return "1"
    return "0" if status == "healthy" else ""


COSWARA = Importer(
    title="Coswara",
    licence="CC BY 4.0",
    citation="Bhattacharya et al. 2023, doi 10.1038/s41597-023-02266-0",
    read=read_coswara,
)
