"""The command worklist: studies on and off a worklist, and what was read of them out of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from medfuse_serving.worklist.records import StudyRow
    from medfuse_serving.worklist.store import Store

Place = Annotated[
    str,
    typer.Argument(
        metavar="PATH_OR_URL", help="A SQLite file, or postgresql://USER@HOST/DATABASE."
    ),
]

worklist = typer.Typer(
    help="Put studies on a worklist, take them off, and export what was read of them.",
    no_args_is_help=True,
)


@worklist.command()
def add(
    place: Place,
    folder: Annotated[
        Path, typer.Argument(help="A folder of studies, as `medfuse predict --studies` takes it.")
    ],
    first: Annotated[
        int | None, typer.Option(help="Only so many, the first of the folder.", min=1)
    ] = None,
) -> None:
    """Put a folder's studies on the worklist; one that is there already is left as it is."""
    from rich.progress import Progress

    from medfuse.config import Limits
    from medfuse.data.studies import find_studies, read_study
    from medfuse.errors import InputError

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    found = find_studies(folder)[:first]
    added = known = failed = 0
    with _open(place) as store, Progress(console=console) as progress:
        for files in progress.track(found, description="studies"):
            try:
                study = read_study(files, Limits())
                if store.has(files.name, study):
                    known += 1
                else:
                    store.add(files.name, study)
                    added += 1
            except InputError as error:
                failed += 1
                progress.console.print(f"{files.name}: {error}", markup=False)
    _say(f"{added} studies added, {known} were there already")
    if failed:
        console.print(f"medfuse: {failed} of {len(found)} studies could not be added")
        raise typer.Exit(1)


@worklist.command(name="list")
def list_studies(place: Place) -> None:
    """List the studies, the first to arrive first."""
    _say(f"{'id':<32}  {'arrived (UTC)':<19}  {'status':<7}  {'modalities':<18}  label")
    with _open(place) as store:
        for row in _each_row(store):
            arrived, given = f"{row.arrived:%Y-%m-%d %H:%M:%S}", ", ".join(row.modalities)
            _say(f"{row.id}  {arrived}  {row.status:<7}  {given:<18}  {row.label}")


@worklist.command()
def remove(
    place: Place,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
) -> None:
    """Take studies off the worklist, with their files; what was read of them stays."""
    with _open(place) as store:
        for study_id in ids:
            store.remove(study_id)
    _say(f"{len(ids)} studies removed")


@worklist.command()
def export_readings(
    place: Place,
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="The file to write.")],
) -> None:
    """Write every step of every reading, a line of JSON each, in the order of their times."""
    from medfuse.errors import StoreError
    from medfuse_serving.answer import to_json

    count = 0
    with _open(place) as store:
        try:
            with out.open("x", encoding="utf-8") as file:
                for line in store.list_readings():
                    file.write(to_json(line) + "\n")
                    count += 1
        except OSError as error:
            raise StoreError(f"{out}: cannot be written ({error.strerror})") from error
    _say(f"{count} steps of readings written to {out}")


def _open(place: str) -> "Store":
    from medfuse_serving.worklist.store import Store

    return Store(place)


def _each_row(store: "Store") -> Iterator["StudyRow"]:
    from medfuse_serving.worklist.records import MOST_ROWS, PageQuery

    offset, total = 0, 1
    while offset < total:
        page = store.list_rows(PageQuery(offset=offset, limit=MOST_ROWS))
        yield from page.rows
        offset, total = offset + MOST_ROWS, page.total


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True, markup=False).print(text)
