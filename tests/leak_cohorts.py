"""Small cohorts made by hand, as checks see them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfuse.config import PrepareSettings, Task, TaskKind
from medfuse.data.cohort import Cohort, CohortRow, Split, WholeTable
from medfuse.leaks.check import examine
from medfuse.leaks.examined import Examined
from medfuse.leaks.facts import StudyFacts
from medfuse.leaks.image_facts import ImageFacts
from medfuse.leaks.settings import CheckSettings
from medfuse.leaks.voice_facts import VoiceFacts

TASK = Task(name="covid", kind=TaskKind.BINARY, classes=("covid19",))


def make_rows(labels: Sequence[float], studies_each: int = 1) -> tuple[CohortRow, ...]:
    """Rows of patients with as many studies each, none of which has a file."""
    return tuple(
        CohortRow(
            number=i + 1,
            labels=(float(label),),
            patient_id=f"P{i // studies_each}",
            study_id=f"S{i}",
        )
        for i, label in enumerate(labels)
    )


def make_examined(
    rows: Sequence[CohortRow],
    facts: Sequence[StudyFacts] | None = None,
    others: Mapping[str, Sequence[str]] | None = None,
    prepare: PrepareSettings | None = None,
    **check: object,
) -> Examined:
    """Lay a cohort out for a check."""
    table = WholeTable(
        Cohort((TASK,), tuple(rows)), {name: tuple(own) for name, own in (others or {}).items()}
    )
    return examine(
        table,
        tuple(facts or [StudyFacts()] * len(rows)),
        prepare or PrepareSettings(),
        CheckSettings.model_validate({"resamples": 50, **check}),
    )


def with_notes(rows: Sequence[CohortRow], notes: Sequence[str]) -> Examined:
    """A cohort of notes alone."""
    noted = [replace(row, note_text=note) for row, note in zip(rows, notes, strict=True)]
    return make_examined(noted, [StudyFacts(note=note) for note in notes])


def make_image(
    edges: np.ndarray | None = None,
    thumbnail: np.ndarray | None = None,
    made: Mapping[str, str] | None = None,
    **numbers: float,
) -> ImageFacts:
    """Facts of an image that shows nothing."""
    usual = {f"flat border, {side}": 0.0 for side in ("top", "bottom", "left", "right")}
    usual |= {"files": 1.0, "frames": 1.0, "rows": 512.0, "columns": 512.0, "aspect": 1.0}
    return ImageFacts(
        made=made or {},
        stored={"format": "DICOM"},
        numbers={**usual, **numbers},
        thumbnails=(np.zeros((64, 64), np.uint8) if thumbnail is None else thumbnail)[None],
        edges=np.zeros((16, 16), np.uint16) if edges is None else edges,
    )


def make_voice(fingerprint: np.ndarray | None = None, **numbers: float) -> VoiceFacts:
    """Facts of a recording."""
    usual = {"bandwidth_hz": 8000.0, "background_db": -60.0, "duration_s": 5.0}
    usual |= {"hum_50_db": 0.0, "hum_60_db": 0.0}
    return VoiceFacts(
        stored={"format": "WAV", "encoding": "PCM_16", "channels": "1"},
        numbers={**usual, **numbers},
        fingerprint=np.zeros((40, 16), np.float32) if fingerprint is None else fingerprint,
    )


def with_file(row: CohortRow) -> CohortRow:
    """Say that a row has an image and a recording."""
    return replace(row, images=(Path("a.dcm"),), voice=Path("a.wav"))


def in_split(row: CohortRow, split: Split) -> CohortRow:
    """Put a row into a split."""
    return replace(row, split=split)
