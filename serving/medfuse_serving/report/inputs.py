"""A study in; each of its parts, named by its bytes, out."""

import hashlib
from collections.abc import Iterator

from medfuse.types import Modality, Study
from medfuse_serving.report.record import InputRecord


def each_part(study: Study) -> Iterator[tuple[Modality, bytes]]:
    """Give a study's parts in the order in which they were sent."""
    yield from ((Modality.IMAGE, image) for image in study.images)
    if study.note is not None:
        yield Modality.NOTE, study.note
    if study.voice is not None:
        yield Modality.VOICE, study.voice


def list_inputs(study: Study) -> tuple[InputRecord, ...]:
    """Name every part of a study by its bytes."""
    return tuple(
        InputRecord(modality=m, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for m, data in each_part(study)
    )
