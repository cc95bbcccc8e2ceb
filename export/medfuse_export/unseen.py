"""Preparation settings in; synthetic studies that no training has seen, and can be read, out."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from tokenizers import Tokenizer

from medfuse.config import PrepareSettings
from medfuse.data.note import decode_note, find_sections
from medfuse.data.prepare import prepare
from medfuse.errors import ExportError
from medfuse.headings import SECTION_HEADINGS
from medfuse.runtime import usable_cores
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.types import MODALITIES, Prepared, Study

FEW = 16
"""Studies that one more process is worth starting for."""

UNSEEN = 1_000_000
"""The first number of a synthetic study that no cohort can hold, whatever its seed: the most that
`CohortOptions.studies` allows."""


def make_unseen(
    count: int,
    settings: PrepareSettings,
    tokenizer: Tokenizer,
    progress: Callable[[float], None] = lambda done: None,
    *,
    keep: int | None = None,
) -> tuple[list[Study], list[Prepared]]:
    """Make studies of which the settings leave every modality something to read.

    The synthetic notes have few sections; where the settings read none of those, the text is put
    under a heading that they do read.

    Args:
        count: How many.
        settings: How they are prepared.
        tokenizer: The note's.
        progress: Told how much is done, from 0 to 1.
        keep: How many of the studies' own files are given back; all by default.

    Raises:
        ExportError: The settings leave nothing of any note, or refuse an ordinary recording.
        InputError: The settings refuse what every synthetic study has.
    """
    studies: list[Study] = []
    prepared: list[Prepared] = []
    make = partial(_make_one, settings, tokenizer.to_str())
    numbers = range(UNSEEN, UNSEEN + count)
    for study, one in _map(make, numbers):
        if keep is None or len(studies) < keep:
            studies.append(study)
        prepared.append(one)
        progress(len(prepared) / count)
    return studies, prepared


def _map(
    make: Callable[[int], tuple[Study, Prepared]], numbers: range
) -> Iterator[tuple[Study, Prepared]]:
    """Make studies in order, in several processes where there are many."""
    workers = min(usable_cores(), len(numbers) // FEW)
    if workers < 2:
        yield from map(make, numbers)
        return
    # Spawned, since a forked process inherits the locks of libraries' threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(make, numbers, chunksize=4)


def _make_one(
    settings: PrepareSettings, tokenizer_json: str, number: int
) -> tuple[Study, Prepared]:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    study = make_study(CohortOptions(), number).study
    for candidate in (study, *_other_headings(study, settings)):
        one = prepare(candidate, settings, tokenizer)
        if one.present.issuperset(MODALITIES):
            return candidate, one
    reasons = " ".join(remark.message for remark in one.remarks)
    raise ExportError(
        "the preparation settings leave nothing of an ordinary study's note or recording, "
        f"so the graph can't be compared with the model: {reasons}"
    )


def _other_headings(study: Study, settings: PrepareSettings) -> Iterator[Study]:
    assert study.note is not None
    text = decode_note(study.note, settings.limits)
    parts = find_sections(text, settings.note.headings)
    body = " ".join(text[part.body : part.end].strip() for part in parts).strip()
    yield replace(study, note=body.encode())
    for heading in (
        *settings.note.include_sections,
        *settings.note.headings,
        *SECTION_HEADINGS,
    ):
        yield replace(study, note=f"{heading}: {body}\n".encode())
