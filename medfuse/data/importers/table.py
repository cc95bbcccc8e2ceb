"""A table of any layout and its settings in; its studies, for de-identification, out."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from medfuse.config import Settings, Task, TaskKind, read_settings
from medfuse.data.cohort import CohortRow, CohortSettings, read_cohort
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    inside,
    label_columns,
    read_note,
)
from medfuse.data.table import read_cells
from medfuse.errors import SourceError

SENTENCES = "The settings' sentences are not imported: medfuse does not de-identify them."


class _TableSettings(Settings):
    """The two sections of a training run's settings that say what a table holds."""

    cohort: CohortSettings
    tasks: tuple[Task, ...] = Field(min_length=1)


def read_table(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read a table as training would, by ``[cohort]`` and ``[[tasks]]`` of ``--settings``.

    The table is looked for in the folder; its path there is of no matter.

    Raises:
        SourceError: No settings are given.
        SettingsError: They can't be read.
        CohortError: The table can't be used as they say.
    """
    if options.settings is None:
        raise SourceError("a table needs --settings, a file with [cohort] and [[tasks]]")
    settings = read_settings(options.settings, _TableSettings, ("cohort", "tasks"))
    own = settings.cohort.model_copy(
        update={
            "table": inside(folder, settings.cohort.table.name),
            "root": folder,
            "unlabelled": "train",
            "sentences": None,
        }
    )
    cohort = read_cohort(own, settings.tasks)
    names = _read_names(own, options.names)
    left_out = Counter(dict(cohort.excluded))
    return SourceCohort(
        tasks=settings.tasks,
        studies=_read_all(cohort.rows, settings.tasks, names, left_out),
        total=len(cohort.rows),
        left_out=left_out,
        remarks=() if settings.cohort.sentences is None else (SENTENCES,),
    )


def _read_names(cohort: CohortSettings, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Read the columns that hold people's names, a row each, as `read_cohort` counts rows."""
    if not columns:
        return []
    table = read_cells(cohort.table)
    missing = [column for column in columns if column not in table]
    if missing:
        raise SourceError(f"{cohort.table.name}: no column {', '.join(missing)} for --name-column")
    rows = table[list(columns)].itertuples(index=False)
    return [tuple(cell.strip() for cell in row if cell.strip()) for row in rows]


def _read_all(
    rows: tuple[CohortRow, ...],
    tasks: tuple[Task, ...],
    names: list[tuple[str, ...]],
    left_out: Counter[str],
) -> Iterator[SourceStudy]:
    for row in rows:
        note = row.note_text or ""
        if row.note is not None:
            note = read_note(row.note, left_out)
        yield SourceStudy(
            patient_id=row.patient_id,
            study_id=row.study_id,
            images=row.images,
            note=note,
            voice=row.voice,
            labels=_write_labels(row.labels, tasks),
            names=names[row.number - 1] if names else (),
            sex=row.sex,
            age=row.age,
            site=row.site,
            date=row.date,
            split=row.split.value if row.split else "",
        )


def _write_labels(numbers: tuple[float, ...], tasks: tuple[Task, ...]) -> dict[str, str]:
    """Turn a row's numbers back into cells, under the names that need no mapping."""
    labels: dict[str, str] = {}
    left = iter(numbers)
    for task in tasks:
        values = [next(left) for _ in range(task.label_columns)]
        for column, value in zip(label_columns(task), values, strict=True):
            if math.isnan(value):
                labels[column] = ""
            elif task.kind in (TaskKind.MULTICLASS, TaskKind.ORDINAL):
                labels[column] = task.classes[int(value)]
            elif task.kind is TaskKind.REGRESSION:
                labels[column] = repr(value)
            else:
                labels[column] = str(int(value))
    return labels


TABLE = Importer(
    title="a table of your own",
    licence="its own",
    citation="its own",
    read=read_table,
)
