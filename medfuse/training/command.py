"""``medfuse train``: a settings file in; a run's folder, and its figures printed, out."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="TOML file that describes the whole run.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: new or empty.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, exactly.")
    ] = False,
    override_check: Annotated[
        bool,
        typer.Option(
            "--override-check",
            help="Train although the cohort gives labels away; checkpoint and bundle say so.",
        ),
    ] = False,
) -> None:
    """Train a model on a cohort, then calibrate and measure it."""
    from rich.console import Console
    from rich.markdown import Markdown

    from medfuse.config import read_settings
    from medfuse.training.processes import leads
    from medfuse.training.report import format_summary
    from medfuse.training.run import train_model
    from medfuse.training.settings import TrainSettings

    settings = read_settings(config, TrainSettings)
    if override_check:
        check = settings.check.model_copy(update={"mode": "record"})
        settings = settings.model_copy(update={"check": check})
    console = Console()
    report = train_model(settings, out, resume=resume, console=console)
    if not leads(settings.fit):
        return
    console.print(Markdown(format_summary(report, settings.tasks)))
    console.print(f"Everything is in {out}; all figures in {out / 'metrics.md'}", highlight=False)
