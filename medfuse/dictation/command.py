"""The command dictate: one recording, or a table of them, in; notes with their words' times out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from medfuse.dictation.record import Transcript


def dictate(
    recording: Annotated[
        Path, typer.Argument(help="A recording, or a table (CSV) with a column of recordings.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Text file for the note, its words' times beside it as JSON; of a table, the "
            "new one, in the same folder."
        ),
    ] = None,
    column: Annotated[
        str, typer.Option(help="Of a table: the column with the dictated recordings' paths.")
    ] = "dictation",
    json: Annotated[bool, typer.Option("--json", help="Print the words' times as well.")] = False,
) -> None:
    """Write down a recording dictated in English, each word with its time.

    A small model does it: names of drugs and findings come out wrong, and speech in any other
    language comes out as fluent English that nobody said. Nothing warns of it: read it first.
    """
    from medfuse.place import check_file

    if recording.suffix.lower() == ".csv":
        if out is None:
            raise typer.BadParameter("give --out, the new table with the notes")
        _dictate_table(recording, column, out)
        return
    if out is not None:
        check_file(out)
    transcript = _transcribe(recording)
    if out is not None:
        _keep(out, transcript)
    console = Console(highlight=False)
    shown = transcript.model_dump_json(indent=2) if json else transcript.text
    console.print(shown, markup=False, soft_wrap=True)


def _dictate_table(path: Path, column: str, out: Path) -> None:
    """Write a note for every row with a recording, and the table that names them.

    The new table stands beside the old one, so that their other paths mean the same.

    Raises:
        CohortError: The table or its column is not there, a path leaves the table's folder, or
            ``out`` is elsewhere, or there already.
    """
    from rich.progress import Progress

    from medfuse.data.table import read_cells
    from medfuse.errors import CohortError, InputError
    from medfuse.place import check_file

    check_file(out)
    root = path.parent.resolve()
    notes = out.with_name(f"{out.stem}-notes")
    if out.parent.resolve() != root or out.suffix != ".csv":
        raise CohortError(f"{out}: give a new CSV in the table's own folder, {path.parent}")
    if out.exists() or notes.exists():
        raise CohortError(f"{out}: it, or {notes.name}, is there already; choose another name")
    table = read_cells(path)
    if column not in table.columns:
        raise CohortError(f"{path}: there is no column {column!r}; name it by --column")
    sources = [(root / cell).resolve() if cell else None for cell in table[column]]
    for i, source in enumerate(sources):
        if source is not None and not (source.is_relative_to(root) and source.is_file()):
            raise CohortError(f"row {i + 1}: column {column!r} names no file in the folder")
    written: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for i, source in enumerate(bar.track(sources, description="Writing down")):
            name = ""
            if source is not None:
                try:
                    transcript = _transcribe(source)
                except InputError:
                    pass  # counted below, as a row with a recording and without a note
                else:
                    name = f"{notes.name}/{i + 1:06d}.txt"
                    _keep(root / name, transcript)
            written.append(name)
    table["note"] = written
    _write(out, table.to_csv(index=False))
    made, given = sum(map(bool, written)), sum(source is not None for source in sources)
    Console(highlight=False).print(
        f"{made} notes written down, {given - made} recordings without any; the table is {out}",
        soft_wrap=True,
    )


def _keep(path: Path, transcript: "Transcript") -> None:
    """Write a note, and beside it when each of its words was said."""
    _write(path, transcript.text + "\n")
    _write(path.with_suffix(".words.json"), transcript.model_dump_json(indent=2) + "\n")


def _transcribe(path: Path) -> "Transcript":
    from medfuse.config import Limits
    from medfuse.data.studies import read_file
    from medfuse.dictation.transcribe import transcribe

    limits = Limits()
    return transcribe(read_file(path, limits.file_bytes), limits)


def _write(path: Path, text: str) -> None:
    """Write a file, its folder made.

    Raises:
        SettingsError: It cannot be written.
    """
    from medfuse.errors import SettingsError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written ({error.strerror})") from error
