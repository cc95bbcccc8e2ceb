"""Progress on the console: a bar for the studies being prepared, or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from medfuse.training.features import Progress


class _RichFeatureProgress(Progress):
    """Shows the studies prepared as a bar."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task = bar.add_task("Preparing studies", total=None, visible=False)

    def begin(self, total: int) -> None:
        self._bar.update(self._task, total=total, visible=total > 0)

    def advance(self) -> None:
        self._bar.advance(self._task)


@contextmanager
def study_progress(console: Console | None) -> Iterator[Progress]:
    """Show the studies on a console; without one, nowhere."""
    if console is None:
        yield Progress()
        return
    columns = (*RichProgress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _RichFeatureProgress(bar)
