"""The Saarbruecken Voice Database's table and recordings in; sessions with healthy or not out."""

from collections import Counter
from collections.abc import Iterator
from datetime import date
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
from medfuse.errors import SourceError

TABLES = ("voice_data.csv", "overview.csv", "export.csv")
VOICES = {
    "phrase": "the sentence",
    "iau": "the vowels i, a and u in a row",
    **{
        f"{vowel}_{pitch}": f"the vowel {vowel}, pitch {pitch}"
        for vowel in "aiu"
        for pitch in ("n", "h", "l", "lhl")
    },
}
NOTES = {
    "none": "no note",
    "diagnosis": "Diagnose, the clinician's remark in German: contains the answer",
}
NSP = ".nsp"
"""The format of Kay's Computerized Speech Lab, in which Zenodo has the recordings."""

NOT_WAV = "session whose recording is NSP; expected WAV: export it so, or convert it"

_SEX = {"m": "M", "w": "F"}
_KINDS = {"n": "0", "p": "1"}
_NEEDED = ("AufnahmeID", "AufnahmeTyp", "SprecherID", "Geschlecht")


def read_svd(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read the table of sessions, and of each the recording ``<AufnahmeID>-<voice>.wav``.

    Raises:
        SourceError: The layout is another one.
    """
    table = find_table(folder, TABLES, "the database's table of sessions")
    voice = choose("voice", options.voice, VOICES)
    note = choose("note", options.note, NOTES)
    left_out: Counter[str] = Counter()
    recordings = {
        path.name: inside(folder, str(path.relative_to(folder)))
        for path in sorted(folder.rglob(f"*-{voice}.*"))
        if path.suffix in (".wav", NSP)
    }
    return SourceCohort(
        tasks=(Task(name="voice", kind=TaskKind.BINARY, classes=("disorder",)),),
        studies=_read_all(table, recordings, voice, note, left_out),
        total=count_rows(table),
        left_out=left_out,
        remarks=("All sessions of a speaker are one patient's; birth dates become ages.",),
    )


def _read_all(
    table: Path, recordings: dict[str, Path], voice: str, note: str, left_out: Counter[str]
) -> Iterator[SourceStudy]:
    for row in read_rows(table, _NEEDED):
        stem = f"{row['AufnahmeID']}-{voice}"
        recording = recordings.get(f"{stem}.wav")
        if recording is None:
            packed = f"{stem}{NSP}" in recordings
            left_out[NOT_WAV if packed else "session without this recording"] += 1
            continue
        kind = row["AufnahmeTyp"].lower()
        if kind not in _KINDS:
            raise SourceError(f"{table.name}: AufnahmeTyp is neither n nor p")
        yield SourceStudy(
            patient_id=row["SprecherID"],
            study_id=row["AufnahmeID"],
            voice=recording,
            note=row.get("Diagnose", "") if note == "diagnosis" else "",
            labels={"disorder": _KINDS[kind]},
            sex=_SEX.get(row["Geschlecht"].lower(), ""),
            age=_age(row.get("Geburtsdatum", ""), row.get("AufnahmeDatum", "")),
            date=row.get("AufnahmeDatum", ""),
        )


def _age(born: str, recorded: str) -> str:
    """Give the full years between two dates; empty where either is not there."""
    try:
        first, then = date.fromisoformat(born[:10]), date.fromisoformat(recorded[:10])
    except ValueError:
        return ""
    return str(then.year - first.year - ((then.month, then.day) < (first.month, first.day)))


SVD = Importer(
    title="Saarbruecken Voice Database",
    licence="CC BY 4.0",
    citation="Puetzer and Barry; doi 10.5281/zenodo.16874898",
    read=read_svd,
)
