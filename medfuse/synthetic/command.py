"""``medfuse cohort``: options on the command line in; a cohort on disk and its Bayes table out."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from medfuse.errors import SettingsError
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut

TABLE_WIDTH = 106
"""Columns of text that the table needs; a narrower terminal wraps its lines."""


def cohort(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or a cohort.")],
    studies: Annotated[int, typer.Option(help="How many studies.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    missing: Annotated[
        Mechanism, typer.Option(help="Whether modalities are missing, and what it depends on.")
    ] = Mechanism.COMPLETE,
    missing_rate: Annotated[
        float,
        typer.Option(help="How often each modality goes missing; the last one of a study stays."),
    ] = 0.25,
    shortcut: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY:FINDING:STRENGTH",
            help="A mark in a modality that goes along with a finding, such as "
            "image:pneumonia:0.8; may be repeated.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="About the images' side in pixels.")] = 384,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores by default.")
    ] = None,
) -> None:
    """Write a cohort of synthetic studies whose truth is known exactly."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from medfuse.place import check_folder
    from medfuse.synthetic.cohort import write_cohort
    from medfuse.synthetic.report import build_table, describe_missing

    try:
        options = CohortOptions(
            studies=studies,
            seed=seed,
            missing=missing,
            missing_rate=missing_rate,
            shortcuts=tuple(parse_shortcut(text) for text in shortcut or ()),
            size=size,
        )
    except ValidationError as error:
        lines = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from error
    check_folder(out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("studies", total=studies)
        summary = write_cohort(out, options, lambda done: bar.update(task, completed=done), workers)
    console = Console(width=max(Console().width, TABLE_WIDTH))
    console.print(build_table(summary))
    if options.missing is not Mechanism.COMPLETE:
        console.print(describe_missing(summary), highlight=False)
    console.print(f"{studies} studies in {out}", highlight=False, soft_wrap=True, markup=False)


def parse_shortcut(text: str) -> Shortcut:
    """Read ``image:pneumonia:0.8``.

    Raises:
        SettingsError: It is not a modality, a finding and a strength from 0 to 1.
    """
    parts = text.split(":")
    try:
        modality, finding, strength = parts
        return Shortcut.model_validate(
            {"modality": modality, "finding": finding, "strength": strength}
        )
    except ValueError as error:  # pydantic's is one too
        raise SettingsError(
            f"--shortcut: {text!r} is not MODALITY:FINDING:STRENGTH, such as image:pneumonia:0.8 "
            "(modalities: image, note, voice; strength from 0 to 1)"
        ) from error
