"""``medfuse leaderboard``: a settings file in; every contender's figures on the same folds out."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer


def leaderboard(
    config: Annotated[Path, typer.Argument(help="TOML file of a training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the leaderboard; kept fits are used again.")],
    fusions: Annotated[str, typer.Option(help="Names, joined by commas; all by default.")] = "",
    variants: Annotated[
        Path | None,
        typer.Option(help="Compare these instead: a TOML file, a table of changed settings each."),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="What all are compared with beside the best; the file's own fusion, or the first."
        ),
    ] = "",
    repeats: Annotated[int, typer.Option(help="Cross-validations, each split anew.", min=1)] = 3,
    folds: Annotated[int, typer.Option(help="Folds of each.", min=2)] = 5,
) -> None:
    """Compare fusions, or any settings, by repeated cross-validation by patient, in pairs."""
    from rich.console import Console
    from rich.markdown import Markdown

    from medfuse.config import read_settings
    from medfuse.training.leaderboard.report import format_board_summary
    from medfuse.training.leaderboard.run import BoardOptions, run_leaderboard
    from medfuse.training.settings import TrainSettings

    if variants is not None and fusions:
        raise typer.BadParameter("give --fusions or --variants, not both")
    settings = read_settings(config, TrainSettings)
    contenders = _take_fusions(fusions) if variants is None else _read_variants(variants)
    usual = settings.model.fusion if settings.model.fusion in contenders else next(iter(contenders))
    options = BoardOptions(
        contenders=contenders, baseline=baseline or usual, repeats=repeats, folds=folds
    )
    console = Console()
    board = run_leaderboard(settings, options, out, console)
    console.print(Markdown(format_board_summary(board)))
    console.print(
        f"Everything is in {out}; all figures in {out / 'leaderboard.md'}", highlight=False
    )


def _take_fusions(names: str) -> dict[str, dict[str, Any]]:
    from medfuse.errors import SettingsError
    from medfuse.models.fusion import FUSIONS

    chosen = [name.strip() for name in names.split(",")] if names else list(FUSIONS)
    unknown = [name for name in chosen if name not in FUSIONS]
    if unknown:
        raise SettingsError(f"no fusion {', '.join(unknown)}; there are {', '.join(FUSIONS)}")
    if len(set(chosen)) != len(chosen):
        raise SettingsError("a fusion is named twice")
    return {name: {"model": {"fusion": name}} for name in chosen}


def _read_variants(path: Path) -> dict[str, dict[str, Any]]:
    from medfuse.errors import SettingsError

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not a readable TOML file ({error})") from error
    for name, table in tables.items():
        if not isinstance(table, dict) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise SettingsError(
                f"{path}: {name!r} is not a table named by letters, digits, '_' and '-'; each "
                "variant is a table of the settings that it changes"
            )
    if not tables:
        raise SettingsError(f"{path}: names no variant")
    return tables
