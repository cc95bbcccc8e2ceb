"""``medfuse search``: a settings file with a section ``[search]`` in; the best settings out."""

from pathlib import Path
from typing import Annotated

import typer


def search(
    config: Annotated[Path, typer.Argument(help="TOML file of a run, with a section [search].")],
    out: Annotated[Path, typer.Option(help="Folder of the search; one begun there goes on.")],
    trials: Annotated[int, typer.Option(help="Models to fit in all.", min=1)] = 50,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which no further one is begun.", min=0)
    ] = None,
) -> None:
    """Search for the settings that do best on validation studies."""
    from rich.console import Console
    from rich.markdown import Markdown

    from medfuse.config import read_settings
    from medfuse.training.search.report import format_search
    from medfuse.training.search.run import BEST, run_search
    from medfuse.training.settings import TrainSettings

    settings = read_settings(config, TrainSettings)
    console = Console()
    report = run_search(settings, out, trials, timeout, console)
    console.print(Markdown(format_search(report)))
    if report.best is not None:
        console.print(
            f"Now fit and measure the best: medfuse train {out / BEST} --out RUN",
            highlight=False,
            soft_wrap=True,
        )
