"""``medfuse deidentify``: a folder of studies in; the same, de-identified, out."""

from pathlib import Path
from typing import Annotated

import typer

Dates = Annotated[
    str, typer.Option(help="shift: by patient, the same for all of a patient's; remove.")
]
DayFirst = Annotated[
    bool | None,
    typer.Option("--day-first/--month-first", help="How 03/04/2020 is meant; masked if not said."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="32 random bytes, so that another run names people the same."),
]


def deidentify(
    folder: Annotated[Path, typer.Argument(help="A folder with a folder for each study.")],
    out: Annotated[Path, typer.Argument(help="Folder to write: new or empty.")],
    dates: Dates = "shift",
    day_first: DayFirst = None,
    key_file: KeyFile = None,
) -> None:
    """De-identify DICOM images, notes and recordings; text by rules, so read docs/deidentify.md."""
    from medfuse.data.importers.command import import_cohort

    import_cohort("folder", folder, out, dates=dates, day_first=day_first, key_file=key_file)
