"""Labels: the cells of a table row in, a task's numbers out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from medfuse.config import Settings, Task, TaskKind
from medfuse.errors import CohortError

UNKNOWN = float("nan")
FLAGS = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0, "": UNKNOWN}


class LabelSettings(Settings):
    """Where one task's labels stand.

    Without this, a finding or a quantity is the column of its own name, and classes or levels are
    the values of the column with the task's name.
    """

    column: str = Field(default="", description="of values (see below) or of a quantity")
    columns: dict[str, str] = Field(default_factory=dict, description="finding to its 0/1 column")
    positive: tuple[str, ...] = Field(default=(), description="values of `column` that mean yes")
    negative: tuple[str, ...] = Field(default=(), description="values of `column` that mean no")
    values: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="class or level to the values of `column` that mean it"
    )


@dataclass(frozen=True, slots=True)
class LabelReader:
    """How one task's labels are read from the cells of its columns."""

    task: Task
    columns: tuple[str, ...]
    meaning: Mapping[str, int] | None
    """Cell of the one column to the index of its class (1 and 0 for a finding), if it is coded."""

    @property
    def coded_as_flag(self) -> bool:
        """Whether each cell is a yes, a no, or nothing."""
        return self.task.kind is not TaskKind.REGRESSION

    @property
    def wanted(self) -> str:
        """What a cell that cannot be read should have held."""
        return "expected 0, 1 or nothing" if self.coded_as_flag else "expected a number or nothing"

    def read(self, cells: Sequence[str]) -> list[float] | int:
        """Give one label per column, or the index of the cell that cannot be read."""
        if self.meaning is not None:
            return self._read_code(cells[0])
        labels: list[float] = []
        for k, cell in enumerate(cells):
            try:
                value = FLAGS[cell.lower()] if self.coded_as_flag else _read_quantity(cell)
            except (KeyError, ValueError):
                return k
            labels.append(value)
        return labels

    def _read_code(self, cell: str) -> list[float]:
        index = (self.meaning or {}).get(cell)
        return [UNKNOWN if index is None else float(index)]


def label_reader(task: Task, settings: LabelSettings | None) -> LabelReader:
    """Resolve a task's label settings, or its defaults, into columns and the meaning of cells."""
    given = settings or LabelSettings()
    if task.kind in (TaskKind.MULTICLASS, TaskKind.ORDINAL):
        values = given.values or {name: (name,) for name in task.classes}
        if set(values) != set(task.classes):
            raise CohortError(f"cohort.labels.{task.name}.values must name each class once")
        meaning = {cell: task.classes.index(name) for name in values for cell in values[name]}
        return LabelReader(task, (given.column or task.name,), meaning)
    if given.positive or given.negative:
        if task.kind is not TaskKind.BINARY or not given.column:
            raise CohortError(
                f"cohort.labels.{task.name}: positive and negative need a binary task and a column"
            )
        if not (given.positive and given.negative) or set(given.positive) & set(given.negative):
            raise CohortError(
                f"cohort.labels.{task.name}: give positive and negative, with no value in both"
            )
        meaning = dict.fromkeys(given.positive, 1) | dict.fromkeys(given.negative, 0)
        return LabelReader(task, (given.column,), meaning)
    unknown = set(given.columns) - set(task.classes)
    if unknown:
        raise CohortError(
            f"cohort.labels.{task.name}.columns names no finding: {', '.join(sorted(unknown))}"
        )
    columns = tuple(given.columns.get(name, name) for name in task.classes)
    if given.column and len(task.classes) == 1:
        columns = (given.column,)
    return LabelReader(task, columns, None)


def _read_quantity(cell: str) -> float:
    value = float(cell) if cell else UNKNOWN
    if math.isinf(value):
        raise ValueError("a quantity is finite")
    return value
