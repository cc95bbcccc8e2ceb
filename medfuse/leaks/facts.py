"""Rows of a cohort in; what each study's files say of it beside what they show, out, and kept.

Each file is read once. Image and voice facts are kept beside the feature cache; notes are read
anew, so that no cache holds a word of one.
"""

import hashlib
import json
import multiprocessing
import os
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import medfuse.leaks
from medfuse.config import PrepareSettings
from medfuse.data.cohort import CohortRow, load_study
from medfuse.data.note import read_sections
from medfuse.errors import CohortError, InputError
from medfuse.leaks.image_facts import ImageFacts, read_image_facts
from medfuse.leaks.voice_facts import VoiceFacts, read_voice_facts
from medfuse.types import Modality, Study

FEW = 8
"""Up to this many studies are read in this process; starting others takes seconds."""

AHEAD = 8
"""Studies in flight for each worker."""


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What is known of one study; None of a part that is absent or cannot be read.

    Attributes:
        note: The text that the model reads.
        unread: How many of its parts cannot be read.
    """

    image: ImageFacts | None = None
    note: str | None = None
    voice: VoiceFacts | None = None
    unread: int = 0


def read_facts(
    rows: Sequence[CohortRow],
    settings: PrepareSettings,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
    folder: Path | None = None,
) -> tuple[StudyFacts, ...]:
    """Read the facts of studies, several at once, or find them kept.

    Args:
        rows: Which studies.
        settings: How they are prepared, since only what the model gets can leak into it.
        workers: Processes; 0 is one per core this process may use.
        advance: Told how many studies are done.
        folder: Where they are kept; nowhere without one.
    """
    kept = None if folder is None else folder / f"facts-{_sign(rows, settings)}.npz"
    if kept is not None and (found := _load(kept, rows, settings)) is not None:
        return found
    facts = []
    for own in _read_rows(rows, settings, workers):
        facts.append(own)
        if advance is not None:
            advance(len(facts))
    if kept is not None:
        _save(kept, rows, facts)
    return tuple(facts)


def study_facts(study: Study, settings: PrepareSettings) -> StudyFacts:
    """Read the facts of one study; a part that cannot be read is counted, not raised."""
    limits, unread = settings.limits, 0
    image = note = voice = None
    if study.images:
        try:
            image = read_image_facts(study.images, settings.image, limits)
        except InputError:
            unread += 1
    if study.note is not None:
        try:
            note = read_sections(study.note, settings.note, limits)
        except InputError:
            unread += 1
    if study.voice is not None:
        try:
            voice = read_voice_facts(study.voice, settings.voice, limits)
        except InputError:
            unread += 1
    return StudyFacts(image, note, voice, unread)


def _row_facts(settings: PrepareSettings, row: CohortRow) -> StudyFacts:
    return study_facts(load_study(row), settings)


def _read_rows(
    rows: Sequence[CohortRow], settings: PrepareSettings, workers: int
) -> Iterator[StudyFacts]:
    workers = workers or len(os.sched_getaffinity(0))
    read = partial(_row_facts, settings)
    if workers == 1 or len(rows) <= FEW:
        yield from map(read, rows)
        return
    # Not fork: threads of libraries in the parent would leave a child with locks nobody holds.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[StudyFacts]] = deque()
        for row in rows:
            waiting.append(pool.submit(read, row))
            if len(waiting) >= workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sign(rows: Sequence[CohortRow], settings: PrepareSettings) -> str:
    """Sign all that the facts of images and recordings depend on."""
    digest = hashlib.sha256()
    parts = settings.model_dump_json(include={"image", "voice", "limits"})
    digest.update(parts.encode())
    for path in sorted(Path(medfuse.leaks.__path__[0]).glob("*_facts.py")):
        digest.update(path.read_bytes())
    try:
        for row in rows:
            files = [*row.images, *([] if row.voice is None else [row.voice])]
            stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
            digest.update(repr(stats).encode())
    except OSError as error:
        raise CohortError(f"a file of the cohort cannot be read ({error.strerror})") from None
    return digest.hexdigest()[:32]


def _save(path: Path, rows: Sequence[CohortRow], facts: Sequence[StudyFacts]) -> None:
    """Keep the facts of images and recordings as arrays and one JSON text; nothing of notes."""
    told = []
    arrays: dict[str, list[np.ndarray]] = {"thumbnails": [], "edges": [], "fingerprints": []}
    for row, own in zip(rows, facts, strict=True):
        entry: dict[str, object] = {"unread": own.unread - _note_unread(row, own.note)}
        if own.image is not None:
            entry["image"] = [own.image.made, own.image.stored, own.image.numbers]
            entry["frames"] = len(own.image.thumbnails)
            arrays["thumbnails"].append(own.image.thumbnails)
            arrays["edges"].append(own.image.edges)
        if own.voice is not None:
            entry["voice"] = [own.voice.stored, own.voice.numbers]
            entry["moments"] = len(own.voice.fingerprint)
            arrays["fingerprints"].append(own.voice.fingerprint)
        told.append(entry)
    joined = {
        name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in arrays.items()
    }
    text = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, told=text, allow_pickle=False, **joined)
    part.replace(path)


def _load(
    path: Path, rows: Sequence[CohortRow], settings: PrepareSettings
) -> tuple[StudyFacts, ...] | None:
    """Find kept facts, and read the notes to them; None where there are none, or damaged ones."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            told = json.loads(archive["told"].tobytes())
            thumbnails, edges, fingerprints = (
                archive[name] for name in ("thumbnails", "edges", "fingerprints")
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    facts, frame, image, moment = [], 0, 0, 0
    for row, entry in zip(rows, told, strict=True):
        own_image = own_voice = None
        if "image" in entry:
            end = frame + entry["frames"]
            rows_of_grid = edges[16 * image : 16 * image + 16]
            made, stored, numbers = entry["image"]
            own_image = ImageFacts(made, stored, numbers, thumbnails[frame:end], rows_of_grid)
            frame, image = end, image + 1
        if "voice" in entry:
            end = moment + entry["moments"]
            stored, numbers = entry["voice"]
            own_voice = VoiceFacts(stored, numbers, fingerprints[moment:end])
            moment = end
        note = _read_note(row, settings)
        unread = entry["unread"] + _note_unread(row, note)
        facts.append(StudyFacts(own_image, note, own_voice, unread))
    return tuple(facts)


def _note_unread(row: CohortRow, note: str | None) -> bool:
    """Say whether a study has a note that cannot be read."""
    return Modality.NOTE in row.present and note is None


def _read_note(row: CohortRow, settings: PrepareSettings) -> str | None:
    if row.note is None and row.note_text is None:
        return None
    try:
        data = row.note.read_bytes() if row.note is not None else str(row.note_text).encode()
        return read_sections(data, settings.note, settings.limits)
    except InputError:
        return None
    except OSError as error:
        raise CohortError(f"row {row.number}: a note cannot be read ({error.strerror})") from None
