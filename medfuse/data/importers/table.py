"""A table of any layout and its settings in; its studies, for de-identification, out."""

import math
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from medfuse.config import Settings, Task, TaskKind
from medfuse.data.cohort import CohortRow, CohortSettings, read_cohort
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    inside,
    label_columns,
    read_note,
    read_rows,
)
from medfuse.errors import SettingsError, SourceError


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
    settings = _read_settings(options.settings)
    own = settings.cohort.model_copy(
        update={
            "table": inside(folder, settings.cohort.table.name),
            "root": folder,
            "unlabelled": "train",
        }
    )
    cohort = read_cohort(own, settings.tasks)
    names = _read_names(own.table, options.names)
    left_out = Counter(dict(cohort.excluded))
    return SourceCohort(
        tasks=settings.tasks,
        studies=_read_all(cohort.rows, settings.tasks, names, left_out),
        total=len(cohort.rows),
        left_out=left_out,
    )


def _read_settings(path: Path) -> _TableSettings:
    """Read the two sections; the file may have others, which are training's."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return _TableSettings.model_validate(
            {name: data[name] for name in ("cohort", "tasks") if name in data}
        )
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file ({error})") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path}: " + "; ".join(lines)) from error


def _read_names(table: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Read the columns that hold people's names, a row each."""
    if not columns:
        return []
    if table.suffix != ".csv":
        raise SourceError("--name-column reads CSV tables alone")
    return [tuple(row[c] for c in columns if row[c]) for row in read_rows(table, columns)]


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
