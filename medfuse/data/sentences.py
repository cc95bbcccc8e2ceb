"""Sentences to learn findings text from: a table beside the cohort's in, each study's own out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medfuse.config import Task, TaskKind
from medfuse.data.table import read_cells
from medfuse.errors import CohortError
from medfuse.text.vocabulary import MOST_WORDS, split_words
from medfuse.types import MODALITIES, Modality

SENTENCE_COLUMNS = ("study_id", "finding", "modalities", "sentence")
"""The columns of the table; the third may be left out, or empty."""


@dataclass(frozen=True, slots=True)
class GivenSentence:
    """What somebody wrote of one finding of a study.

    Attributes:
        target: The finding, such as ``findings.nodule``.
        modalities: What the sentence rests on; None where it rests on all that the study has.
        text: The sentence.
    """

    target: str
    modalities: frozenset[Modality] | None
    text: str = field(repr=False)


def findings_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Name the targets that a sentence can be of: those answered by yes or no."""
    yes_no = (TaskKind.BINARY, TaskKind.MULTILABEL)
    return tuple(target for task in tasks if task.kind in yes_no for target in task.targets)


def read_sentences(path: Path, tasks: Sequence[Task]) -> Mapping[str, tuple[GivenSentence, ...]]:
    """Read a CSV table of sentences: one a line, several a study.

    A finding is named by its target, ``findings.nodule``, or by its class where no other task has
    one of that name.

    Raises:
        CohortError: The table or a column is missing, or a line cannot be used; the message gives
            its number and column, never its content.
    """
    table = read_cells(path)
    needed = set(SENTENCE_COLUMNS) - {"modalities"}
    if missing := sorted(needed - set(table.columns)):
        raise CohortError(f"{path.name}: no column {', '.join(missing)}")
    targets = _name_targets(tasks)
    sentences: dict[str, list[GivenSentence]] = {}
    seen: set[tuple[str, str, frozenset[Modality] | None]] = set()
    for i, line in enumerate(table.to_dict("records"), start=1):
        cells = {name: str(line.get(name, "")).strip() for name in SENTENCE_COLUMNS}
        if not cells["study_id"]:
            raise _bad(path, i, "study_id", "no study")
        target = targets.get(cells["finding"])
        if target is None:
            raise _bad(path, i, "finding", f"expected one of {', '.join(findings_of(tasks))}")
        modalities = _read_modalities(path, i, cells["modalities"])
        count = len(split_words(cells["sentence"]))
        if not 0 < count <= MOST_WORDS:
            raise _bad(path, i, "sentence", f"{count} words; expected 1 to {MOST_WORDS}")
        key = (cells["study_id"], target, modalities)
        if key in seen:
            raise _bad(path, i, "finding", "a second sentence of the same study and finding")
        seen.add(key)
        own = sentences.setdefault(cells["study_id"], [])
        own.append(GivenSentence(target, modalities, cells["sentence"]))
    return {study: tuple(own) for study, own in sentences.items()}


def _name_targets(tasks: Sequence[Task]) -> dict[str, str]:
    """Map every unmistakable name of a finding to its target."""
    targets = findings_of(tasks)
    classes = [target.partition(".")[2] for target in targets]
    short = {
        name: target
        for name, target in zip(classes, targets, strict=True)
        if classes.count(name) == 1
    }
    return short | {target: target for target in targets}


def _read_modalities(path: Path, i: int, cell: str) -> frozenset[Modality] | None:
    if not cell:
        return None
    names = [part.strip() for part in cell.split("+")]
    if not set(names) <= set(MODALITIES):
        raise _bad(path, i, "modalities", "expected image, note and voice joined by '+'")
    return frozenset(Modality(name) for name in names)


def _bad(path: Path, i: int, column: str, why: str) -> CohortError:
    return CohortError(f"{path.name}, row {i}, column {column!r}: {why}")
