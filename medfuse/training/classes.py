"""A labelled cohort in; a refusal, or a line, where labels are of one class alone, out."""

import logging
from dataclasses import replace

import numpy as np
from rich.console import Console

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import Cohort, Split
from medfuse.errors import CohortError

_LOG = logging.getLogger(__name__)


def check_classes(table: str, cohort: Cohort, console: Console | None) -> None:
    """Check that there is something to learn; say which labels are alike in all studies.

    A cohort without any label passes: objectives that need none learn from it.

    Args:
        table: Its name.
        cohort: Whose labels are looked at.
        console: Where the line is shown, as it is logged.

    Raises:
        CohortError: No label has two classes.
    """
    alike = find_alike(cohort)
    if cohort.rows and not np.isnan(cohort.labels).all() and len(alike) == cohort.labels.shape[1]:
        raise CohortError(
            f"{table}: expected labels of two classes at least, and all studies have the same of "
            f"{', '.join(alike)}; there is nothing to learn without studies of another"
        )
    _warn(alike, "the cohort's", console)


def check_split_classes(cohort: Cohort, console: Console | None) -> None:
    """Say which labels are alike in all studies of a split, but not in all of the cohort."""
    known = find_alike(cohort)
    for split in Split:
        alike = find_alike(replace(cohort, rows=cohort.part(split)))
        _warn([name for name in alike if name not in known], f"the {split.value}", console)


def find_alike(cohort: Cohort) -> list[str]:
    """Name the labels of one class, or none, among all studies; nothing where no label is known."""
    labels = cohort.labels
    if np.isnan(labels).all():
        return []
    names = [name for task in cohort.tasks for name in _name_labels(task)]
    columns = (column[~np.isnan(column)] for column in labels.T)
    return [name for name, own in zip(names, columns, strict=True) if len(np.unique(own)) < 2]


def _name_labels(task: Task) -> tuple[str, ...]:
    yes_no = task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
    return task.targets if yes_no else (task.name,)


def _warn(alike: list[str], whose: str, console: Console | None) -> None:
    if not alike:
        return
    told = f"all of {whose} studies have the same label of {', '.join(alike)}"
    _LOG.warning("%s: nothing can be learnt or measured of it there", told)
    if console is not None:
        console.print(
            f"{told[0].upper()}{told[1:]}: nothing can be learnt or measured of it there.",
            markup=False,
            highlight=False,
        )
