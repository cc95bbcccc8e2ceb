"""A source's studies in; a medfuse cohort, de-identified, as files, table, settings, record out."""

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tomlkit

from medfuse.config import Limits, Task
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    label_columns,
    read_part,
)
from medfuse.data.picture import is_picture
from medfuse.data.studies import read_file
from medfuse.data.voice import is_voice_object
from medfuse.deidentify.dates import DATE, move_date
from medfuse.deidentify.dicom import Known, deidentify_dicom, find_known
from medfuse.deidentify.picture import deidentify_picture
from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.recording import deidentify_recording
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import OLDEST_AGE
from medfuse.deidentify.text import clean_text
from medfuse.deidentify.transcript import Phrase, clean_transcript
from medfuse.errors import BurnedInError, InputError, LimitError, SourceError
from medfuse.whole import write_whole

TABLE = "cohort.csv"
SETTINGS = "cohort.toml"
RECORD = "import.json"
NOTE = "note.txt"
VOICE = "voice.wav"
TRANSCRIPT = "transcript.json"

PARTS = ("patient_id", "study_id", "images", "note", "voice", "transcript")
PERSON = ("sex", "age", "site", "date", "split")
"""The columns before and after the labels."""

SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
"""How sources write it, and DICOM does; any other word is left out, since it may mean either."""

NO_PATIENT = "study that names no patient"
NOTHING_LEFT = "study without image, note or voice"
TWICE = "study that stands twice"
BURNED_IN = "image that may have text burned in"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What was written.

    Attributes:
        studies: How many, and so on for what they have.
        labelled: How many of them have a label.
        left_out: What was not written, by reason.
        replaced: What de-identification replaced and removed, by kind.
    """

    studies: int
    patients: int
    labelled: int
    images: int
    notes: int
    voices: int
    left_out: Mapping[str, int]
    replaced: Mapping[str, int]


def write_import(
    name: str,
    importer: Importer,
    cohort: SourceCohort,
    options: ImportOptions,
    out: Path,
    session: Session,
    advance: Callable[[], None] = lambda: None,
) -> ImportSummary:
    """De-identify every study in memory and write it, file by file; the folder is whole or not.

    Raises:
        SourceError: The folder is not empty, the source is not as published, no study is left, or
            a column of the table would have two meanings.
    """
    columns = _name_columns(cohort.tasks)
    with write_whole(out, SourceError) as part:
        summary = _write_studies(part, cohort, options, session, advance, columns)
        _write_settings(part, importer, cohort, session)
        _write_record(part, name, importer, options, session, summary)
    return summary


def _name_columns(tasks: Sequence[Task]) -> list[str]:
    """Name the labels' columns, each of which must mean one thing."""
    columns = [column for task in tasks for column in label_columns(task)]
    twice = [name for name, n in Counter((*PARTS, *columns, *PERSON)).items() if n > 1]
    if twice:
        raise SourceError(
            f"two columns of the cohort would be named {', '.join(twice)}; expected classes that "
            "are no column's and no other task's: rename them in --settings"
        )
    return columns


def _write_studies(
    part: Path,
    cohort: SourceCohort,
    options: ImportOptions,
    session: Session,
    advance: Callable[[], None],
    columns: Sequence[str],
) -> ImportSummary:
    """Write the studies' files and the table."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*PARTS, *columns, *PERSON))
    counts: Counter[str] = Counter()
    patients: set[str] = set()
    written: set[str] = set()
    for study in islice(cohort.studies, options.limit):
        advance()
        if not study.patient_id:
            cohort.left_out[NO_PATIENT] += 1
            continue
        study_id = study.study_id
        if not session.settings.keep_ids:
            study_id = session.pseudonyms.name("S", study_id)
        if study_id in written:
            cohort.left_out[TWICE] += 1
            continue
        place = f"studies/S{len(written) + 1:06d}"
        (part / place).mkdir(parents=True)
        person, files = _write_study(part / place, study, session, cohort.left_out)
        if not (files.images or files.note or files.voice):
            shutil.rmtree(part / place)
            cohort.left_out[NOTHING_LEFT] += 1
            continue
        written.add(study_id)
        patients.add(person.pseudonym)
        counts.update(images=len(files.images), notes=len(files.note), voices=len(files.voice))
        labels = [study.labels.get(column, "") for column in columns]
        counts["labelled"] += any(labels)
        parts = (files.images, files.note, files.voice, files.transcript)
        writer.writerow(
            [
                *(person.pseudonym, study_id),
                *(";".join(f"{place}/{file}" for file in own) for own in parts),
                *labels,
                *_characteristics(study, person, session),
                study.split,
            ]
        )
    if not written:
        why = "; ".join(f"{reason}: {n}" for reason, n in sorted(cohort.left_out.items()))
        raise SourceError(f"no study is left to write ({why or 'there is none'})")
    (part / TABLE).write_text(table.getvalue(), encoding="utf-8")
    return ImportSummary(
        studies=len(written),
        patients=len(patients),
        labelled=counts["labelled"],
        images=counts["images"],
        notes=counts["notes"],
        voices=counts["voices"],
        left_out=dict(sorted(cohort.left_out.items())),
        replaced=dict(sorted((+session.counts).items())),
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """The names of a study's written files, by part; of all but images there is one at most."""

    images: tuple[str, ...]
    note: tuple[str, ...]
    voice: tuple[str, ...]
    transcript: tuple[str, ...]


def _write_study(
    place: Path, study: SourceStudy, session: Session, left_out: Counter[str]
) -> tuple[Person, _Files]:
    """De-identify a study's parts, one in memory at a time, and write them."""
    images = study.images
    if len(images) > session.limits.instances:
        left_out["image beyond a limit"] += len(images)
        images = ()
    voice = _read_voice(study, session, left_out)
    person = _find_person(study, images, voice, session)
    phrases, silences, spans = clean_transcript(study.transcript, person, session.settings)
    note, more = clean_text(study.note, person, session.settings)
    session.counts.update(f"text: {span.kind}" for span in (*spans, *more))
    made = {
        NOTE: note.encode("utf-8") if note.strip() else None,
        VOICE: None if voice is None else _make_voice(voice, silences, session, left_out),
        TRANSCRIPT: _make_transcript(phrases) if phrases else None,
    }
    for name, content in made.items():
        if content is not None:
            (place / name).write_bytes(content)
    written = {name: (name,) if content is not None else () for name, content in made.items()}
    return person, _Files(
        images=_write_images(place, images, person, session, left_out),
        note=written[NOTE],
        voice=written[VOICE],
        transcript=written[TRANSCRIPT],
    )


def _write_images(
    place: Path,
    images: Sequence[Path | bytes],
    person: Person,
    session: Session,
    left_out: Counter[str],
) -> tuple[str, ...]:
    names: list[str] = []
    for image in images:
        try:
            data = _read_image(image, session.limits)
            if is_picture(data):
                made, ending = deidentify_picture(data, session), "png"
            else:
                made, ending = deidentify_dicom(data, person, session), "dcm"
        except InputError as error:
            left_out[_reason("image", error)] += 1
            continue
        names.append(f"image_{len(names)}.{ending}")
        (place / names[-1]).write_bytes(made)
    return tuple(names)


def _find_person(
    study: SourceStudy, images: Sequence[Path | bytes], voice: bytes | None, session: Session
) -> Person:
    """Say who it is, with all that the study's own files call that person.

    So images are read twice: what the last one's header holds must be found in the first text.
    """
    names = list(study.names)
    identifiers = [study.patient_id, study.study_id]
    for known in _find_all_known(images, voice, session.limits):
        names += known.names
        identifiers += known.identifiers
    return session.person(study.patient_id, names, identifiers)


def _find_all_known(
    images: Sequence[Path | bytes], voice: bytes | None, limits: Limits
) -> Iterator[Known]:
    if voice is not None and is_voice_object(voice):
        images = (*images, voice)
    for image in images:
        try:
            data = _read_image(image, limits)
            if not is_picture(data):
                yield find_known(data, limits)
        except InputError:
            continue  # de-identification refuses and counts it


def _read_image(image: Path | bytes, limits: Limits) -> bytes:
    return image if isinstance(image, bytes) else read_part(image, limits.file_bytes)


def _read_voice(study: SourceStudy, session: Session, left_out: Counter[str]) -> bytes | None:
    if study.voice is None:
        return None
    try:
        return read_file(study.voice, session.limits.file_bytes)
    except InputError as error:
        left_out[_reason("recording", error)] += 1
        return None


def _make_voice(
    voice: bytes,
    silences: Sequence[tuple[float, float]],
    session: Session,
    left_out: Counter[str],
) -> bytes | None:
    try:
        return deidentify_recording(voice, session, silences)
    except InputError as error:
        left_out[_reason("recording", error)] += 1
        return None


def _reason(what: str, error: Exception) -> str:
    """Say why something is left out, in words that hold nothing of what it is."""
    if isinstance(error, BurnedInError):
        return BURNED_IN
    return (
        f"{what} beyond a limit" if isinstance(error, LimitError) else f"{what} that can't be read"
    )


def _make_transcript(phrases: tuple[Phrase, ...]) -> bytes:
    content = [
        {"text": phrase.text, "start_s": phrase.start_s, "end_s": phrase.end_s}
        for phrase in phrases
    ]
    return (json.dumps({"phrases": content}, indent=1, allow_nan=False) + "\n").encode()


def _characteristics(study: SourceStudy, person: Person, session: Session) -> list[str]:
    """Write sex, age, site and date so that they tell nobody apart."""
    settings = session.settings
    sex = SEXES.get(study.sex.strip().lower(), "") if settings.characteristics else ""
    date = ""
    match = DATE.fullmatch(study.date.strip())
    if match is not None and settings.dates == "shift":
        date = move_date(match, person.shift_days, settings.day_first) or ""
    site = session.pseudonyms.name("C", study.site)[:9] if study.site else ""
    return [
        sex,
        cap_age(study.age) if settings.characteristics else "",
        site,
        date,
    ]


def cap_age(age: str) -> str:
    """Keep an age in years, at most 90; empty where it is no number."""
    try:
        years = float(age)
    except ValueError:
        return ""
    return f"{min(years, OLDEST_AGE):g}" if 0 <= years <= 125 else ""


def _write_settings(out: Path, importer: Importer, cohort: SourceCohort, session: Session) -> None:
    """Write settings that ``medfuse train`` takes as they are, wherever the folder stands."""
    document = tomlkit.document()
    for line in (
        importer.title,
        f"licence: {importer.licence}",
        f"cite: {importer.citation}",
        *cohort.remarks,
    ):
        document.add(tomlkit.comment(line))
    document["cohort"] = {"table": TABLE, "relative_to": "settings_file"}
    if session.counts["pictures"]:
        document["prepare"] = {"image": {"pictures": True}}
    if cohort.tasks:
        tasks = [task.model_dump(mode="json", exclude_defaults=True) for task in cohort.tasks]
        document["tasks"] = tomlkit.item(tasks)
    (out / SETTINGS).write_text(tomlkit.dumps(document), encoding="utf-8")


def _write_record(
    out: Path,
    name: str,
    importer: Importer,
    options: ImportOptions,
    session: Session,
    summary: ImportSummary,
) -> None:
    # The folders that were named may hold a name, so only choices are recorded.
    chosen = options.model_dump(include={"note", "voice", "uncertain", "limit"})
    record = {
        "source": name,
        "title": importer.title,
        "licence": importer.licence,
        "citation": importer.citation,
        "options": chosen,
        "counts": {
            part: getattr(summary, part)
            for part in ("studies", "patients", "labelled", "images", "notes", "voices")
        },
        "left_out": summary.left_out,
        "deidentification": session.settings.model_dump(),
        "replaced": summary.replaced,
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
