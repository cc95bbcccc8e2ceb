"""Progress on the console: how many studies are read, or cohorts checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


@contextmanager
def reading_progress(
    console: Console, what: str = "Reading studies", total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar while it is told how much is done."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
