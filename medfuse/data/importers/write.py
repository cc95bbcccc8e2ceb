"""A source's studies in; a medfuse cohort, de-identified, as files, table, settings, record out."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from medfuse.config import Task
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
from medfuse.deidentify.dicom import deidentify_dicom, find_known
from medfuse.deidentify.picture import deidentify_picture
from medfuse.deidentify.pseudonyms import Person
from medfuse.deidentify.recording import deidentify_recording
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import OLDEST_AGE
from medfuse.deidentify.text import Replaced, clean_text
from medfuse.deidentify.transcript import Phrase, clean_transcript
from medfuse.errors import BurnedInError, InputError, LimitError, SourceError

TABLE = "cohort.csv"
SETTINGS = "cohort.toml"
RECORD = "import.json"

NOTHING_LEFT = "study without image, note or voice"
TWICE = "study that stands twice"
BURNED_IN = "image that may have text burned in"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What was written.

    Attributes:
        studies: How many, and so on for what they have.
        left_out: What was not written, by reason.
        replaced: What de-identification replaced and removed, by kind.
    """

    studies: int
    patients: int
    images: int
    notes: int
    voices: int
    left_out: Mapping[str, int]
    replaced: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A study's files, de-identified and ready to be written."""

    files: Mapping[str, bytes]

    def named(self, start: str) -> list[str]:
        return [name for name in self.files if name.startswith(start)]


def write_import(
    name: str,
    importer: Importer,
    cohort: SourceCohort,
    options: ImportOptions,
    out: Path,
    session: Session,
    advance: Callable[[], None] = lambda: None,
) -> ImportSummary:
    """De-identify every study in memory and write it; nothing is written before.

    Raises:
        SourceError: The folder is not empty, or the source is not as published.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SourceError(f"{out}: expected a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    labels = [column for task in cohort.tasks for column in label_columns(task)]
    header = [
        *("patient_id", "study_id", "images", "note", "voice", "transcript"),
        *labels,
        *("sex", "age", "site", "date", "split"),
    ]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    counts: Counter[str] = Counter()
    patients, seen = set(), set()
    pictures = False
    for study in islice(cohort.studies, options.limit):
        advance()
        person, parts = _deidentify(study, session, cohort.left_out)
        study_id = study.study_id
        if not session.settings.keep_ids:
            study_id = session.pseudonyms.name("S", study_id)
        if study_id in seen:
            cohort.left_out[TWICE] += 1
            continue
        images, notes, voices = (parts.named(part) for part in ("image", "note", "voice"))
        if not (images or notes or voices):
            cohort.left_out[NOTHING_LEFT] += 1
            continue
        seen.add(study_id)
        patients.add(person.pseudonym)
        place = f"studies/S{len(seen):06d}"
        (out / place).mkdir(parents=True)
        for file, content in parts.files.items():
            (out / place / file).write_bytes(content)
        counts.update(images=len(images), notes=len(notes), voices=len(voices))
        pictures |= any(file.endswith(".png") for file in images)
        writer.writerow(
            [
                *(person.pseudonym, study_id),
                *(";".join(f"{place}/{file}" for file in part) for part in (images, notes, voices)),
                *(f"{place}/{file}" if file else "" for file in [_only(parts, "transcript")]),
                *(study.labels.get(column, "") for column in labels),
                *_characteristics(study, person, session),
                study.split,
            ]
        )
    (out / TABLE).write_text(table.getvalue(), encoding="utf-8")
    summary = ImportSummary(
        studies=len(seen),
        patients=len(patients),
        images=counts["images"],
        notes=counts["notes"],
        voices=counts["voices"],
        left_out=dict(sorted(cohort.left_out.items())),
        replaced=dict(sorted((+session.counts).items())),
    )
    _write_settings(out, importer, cohort, pictures)
    _write_record(out, name, importer, options, session, summary)
    return summary


def _deidentify(
    study: SourceStudy, session: Session, left_out: Counter[str]
) -> tuple[Person, _Parts]:
    files: dict[str, bytes] = {}
    images = list(_read_images(study, session, left_out))
    voice = _read_voice(study, session, left_out)
    person = _find_person(study, images, voice, session)
    for data in images:
        try:
            if is_picture(data):
                made, ending = deidentify_picture(data, session), "png"
            else:
                made, ending = deidentify_dicom(data, person, session), "dcm"
        except InputError as error:
            left_out[_reason("image", error)] += 1
            continue
        files[f"image_{len(files)}.{ending}"] = made
    phrases, silences, spans = clean_transcript(study.transcript, person, session.settings)
    note, more = clean_text(study.note, person, session.settings)
    _count(session, (*spans, *more))
    if note.strip():
        files["note.txt"] = note.encode("utf-8")
    if voice is not None:
        try:
            files["voice.wav"] = deidentify_recording(voice, session, silences)
        except InputError as error:
            left_out[_reason("recording", error)] += 1
    if phrases:
        files["transcript.json"] = _write_transcript(phrases)
    return person, _Parts(files)


def _find_person(
    study: SourceStudy, images: list[bytes], voice: bytes | None, session: Session
) -> Person:
    """Say who it is, with all that the study's own files call that person."""
    names = list(study.names)
    identifiers = [study.patient_id, study.study_id]
    objects = [data for data in images if not is_picture(data)]
    if voice is not None and is_voice_object(voice):
        objects.append(voice)
    for data in objects:
        try:
            known = find_known(data, session.limits)
        except InputError:
            continue  # de-identification refuses and counts it
        names += known.names
        identifiers += known.identifiers
    return session.person(study.patient_id, names, identifiers)


def _read_images(study: SourceStudy, session: Session, left_out: Counter[str]) -> Iterator[bytes]:
    for part in study.images:
        try:
            yield part if isinstance(part, bytes) else read_part(part, session.limits.file_bytes)
        except (InputError, SourceError) as error:
            left_out[_reason("image", error)] += 1


def _read_voice(study: SourceStudy, session: Session, left_out: Counter[str]) -> bytes | None:
    if study.voice is None:
        return None
    try:
        return read_file(study.voice, session.limits.file_bytes)
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


def _count(session: Session, spans: tuple[Replaced, ...]) -> None:
    session.counts.update(f"text: {span.kind}" for span in spans)


def _only(parts: _Parts, start: str) -> str:
    return next(iter(parts.named(start)), "")


def _write_transcript(phrases: tuple[Phrase, ...]) -> bytes:
    content = [
        {"text": phrase.text, "start_s": phrase.start_s, "end_s": phrase.end_s}
        for phrase in phrases
    ]
    return (json.dumps({"phrases": content}, indent=1, allow_nan=False) + "\n").encode()


def _characteristics(study: SourceStudy, person: Person, session: Session) -> list[str]:
    """Write sex, age, site and date so that they tell nobody apart."""
    settings = session.settings
    sex = study.sex.upper()[:1] if settings.characteristics else ""
    date = ""
    match = DATE.fullmatch(study.date.strip())
    if match is not None and settings.dates == "shift":
        date = move_date(match, person.shift_days, settings.day_first) or ""
    site = session.pseudonyms.name("C", study.site)[:9] if study.site else ""
    return [
        sex if sex in ("M", "F", "O") else "",
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


def _write_settings(out: Path, importer: Importer, cohort: SourceCohort, pictures: bool) -> None:
    """Write settings that ``medfuse train`` takes as they are."""
    lines = [
        f"# {importer.title}",
        f"# licence: {importer.licence}",
        f"# cite: {importer.citation}",
        *(f"# {remark}" for remark in cohort.remarks),
        "",
        "[cohort]",
        f"table = {json.dumps((out / TABLE).as_posix())} # relative to the working directory",
        "",
    ]
    if pictures:
        lines += ["[prepare.image]", "pictures = true", ""]
    for task in cohort.tasks:
        lines += ["[[tasks]]", *_describe(task), ""]
    (out / SETTINGS).write_text("\n".join(lines), encoding="utf-8")


def _describe(task: Task) -> Iterator[str]:
    for key, value in task.model_dump(mode="json", exclude_defaults=True).items():
        yield f"{key} = {json.dumps(value)}"


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
            for part in ("studies", "patients", "images", "notes", "voices")
        },
        "left_out": summary.left_out,
        "deidentification": session.settings.model_dump(),
        "replaced": summary.replaced,
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
