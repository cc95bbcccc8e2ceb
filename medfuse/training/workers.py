"""Preparing in parallel: rows of a cohort in, prepared arrays and file digests out, in order.

Nothing here imports torch, so a worker process starts quickly and stays small.
"""

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from medfuse.config import PrepareSettings
from medfuse.data.cohort import CohortRow, load_study
from medfuse.data.note import load_tokenizer
from medfuse.data.prepare import prepare
from medfuse.errors import MedfuseError
from medfuse.trust.descriptors import describe
from medfuse.types import Modality, Study

FEW = 8
"""Up to this many studies are prepared in this process; starting others takes seconds."""

AHEAD = 8
"""Studies in flight for each worker, which bounds memory when the reader is slower."""


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """One study's arrays, or why there are none.

    Attributes:
        values: What the model reads, by modality; the absent ones are not in it.
        digests: SHA-256, as hex, of the bytes of each modality that the row gives.
        descriptions: What kind of thing each modality is, as novelty is told by.
        fault: What is wrong with the files, free of patient data; None when all is well.
    """

    values: dict[Modality, np.ndarray]
    digests: dict[Modality, str]
    descriptions: dict[Modality, np.ndarray] = field(default_factory=dict)
    fault: str | None = None


def prepare_rows(
    rows: Sequence[CohortRow], settings: PrepareSettings, tokenizer: Path, workers: int
) -> Iterator[PreparedRow]:
    """Prepare studies, several at once, and give them in the order of the rows.

    Args:
        rows: Which studies.
        settings: How.
        tokenizer: The ``tokenizer.json`` of the note encoder.
        workers: Processes; 0 is one per core this process may use.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(rows) <= FEW:
        loaded = load_tokenizer(tokenizer)
        yield from (prepare_row(row, settings, loaded) for row in rows)
        return
    # Not fork: torch's threads in the parent would leave a forked child with locks nobody holds.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(settings, tokenizer)
    ) as pool:
        waiting: deque[Future[PreparedRow]] = deque()
        for row in rows:
            waiting.append(pool.submit(_prepare, row))
            if len(waiting) >= workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def prepare_row(row: CohortRow, settings: PrepareSettings, tokenizer: Tokenizer) -> PreparedRow:
    """Read and prepare one study; a fault of its files is told, not raised."""
    try:
        study = load_study(row)
        digests = digest_study(study)
        prepared = prepare(study, settings, tokenizer)
    except MedfuseError as error:
        return PreparedRow({}, {}, fault=f"row {row.number}: {error}")
    parts = {
        Modality.IMAGE: prepared.image,
        Modality.NOTE: prepared.note,
        Modality.VOICE: prepared.voice,
    }
    values = {m: part.values for m, part in parts.items() if part is not None}
    return PreparedRow(values, digests, describe(prepared))


def digest_study(study: Study) -> dict[Modality, str]:
    """Hash the bytes of each modality that is there."""
    parts = {
        Modality.IMAGE: study.images,
        Modality.NOTE: () if study.note is None else (study.note,),
        Modality.VOICE: () if study.voice is None else (study.voice,),
    }
    return {m: combine([_sha256(b) for b in files]) for m, files in parts.items() if files}


def combine(digests: Sequence[str]) -> str:
    """Hash hashes, in order, to one."""
    return _sha256("".join(digests).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_settings: PrepareSettings
_tokenizer: Tokenizer


def _start(settings: PrepareSettings, tokenizer: Path) -> None:
    """Give a worker process what all its rows share."""
    global _settings, _tokenizer
    _settings, _tokenizer = settings, load_tokenizer(tokenizer)


def _prepare(row: CohortRow) -> PreparedRow:
    return prepare_row(row, _settings, _tokenizer)
