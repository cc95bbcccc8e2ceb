"""``medfuse import``: a public dataset's folder in; a de-identified cohort and a summary out."""

from pathlib import Path
from typing import Annotated

import typer

from medfuse.deidentify.command import Dates, DayFirst, KeyFile

SOURCES = (
    "coswara, covid-cxr, egd-cxr, medmnist, mimic-cxr, open-i, reflacx or svd; table for one of "
    "your own, folder for a folder of studies"
)


def import_cohort(
    source: Annotated[str, typer.Argument(help=f"Which layout: {SOURCES}.")],
    folder: Annotated[Path, typer.Argument(help="The source's folder, as published.")],
    out: Annotated[Path, typer.Argument(help="Folder to write: new or empty.")],
    images: Annotated[
        Path | None,
        typer.Option(help="MIMIC-CXR's folder (with files/p10 ...), for sets that point into it."),
    ] = None,
    note: Annotated[
        str, typer.Option(help="Which text is the note; by default one free of the answer.")
    ] = "",
    voice: Annotated[str, typer.Option(help="Which of a person's recordings to take.")] = "",
    uncertain: Annotated[
        str, typer.Option(help="What a label of -1 means: unknown, positive or negative.")
    ] = "unknown",
    limit: Annotated[int | None, typer.Option(min=1, help="Studies to read at most.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="For table: the settings that training would read it by.")
    ] = None,
    name_column: Annotated[
        list[str] | None,
        typer.Option(help="For table: a column of people's names; may be repeated."),
    ] = None,
    dates: Dates = "shift",
    day_first: DayFirst = None,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="The source's ids are pseudonyms; keep them.")
    ] = False,
    key_file: KeyFile = None,
) -> None:
    """Import a dataset as a cohort, de-identified before anything is written."""
    from pydantic import ValidationError
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from medfuse.data.importers import IMPORTERS
    from medfuse.data.importers.check import check_import
    from medfuse.data.importers.source import ImportOptions
    from medfuse.data.importers.write import SETTINGS, TABLE, write_import
    from medfuse.deidentify.pseudonyms import make_pseudonyms
    from medfuse.deidentify.session import Session
    from medfuse.deidentify.settings import DeidentifySettings
    from medfuse.errors import SettingsError, SourceError
    from medfuse.leaks.progress import reading_progress
    from medfuse.leaks.report import PAGE, format_report
    from medfuse.place import check_folder

    if source not in IMPORTERS:
        raise SourceError(f"no source {source!r}; expected {', '.join(IMPORTERS)}")
    if not folder.exists():
        raise SourceError(f"{folder}: there is no such folder")
    try:
        options = ImportOptions.model_validate(
            {
                "images": images,
                "note": note,
                "voice": voice,
                "uncertain": uncertain,
                "limit": limit,
                "settings": settings,
                "names": tuple(name_column or ()),
            }
        )
        deidentify = DeidentifySettings.model_validate(
            {"dates": dates, "day_first": day_first, "keep_ids": keep_ids}
        )
    except ValidationError as error:
        lines = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from error
    check_folder(out)
    session = Session(make_pseudonyms(key_file), deidentify)
    importer = IMPORTERS[source]
    cohort = importer.read(folder, options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("studies", total=options.limit or cohort.total)
        summary = write_import(
            source, importer, cohort, options, out, session, lambda: bar.advance(task)
        )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{summary.studies} studies of {summary.patients} patients: {summary.images} images, "
        f"{summary.notes} notes, {summary.voices} recordings; {summary.labelled} have a label"
    )
    for reason, count in summary.left_out.items():
        console.print(f"left out: {reason}: {count}")
    for kind, count in summary.replaced.items():
        console.print(f"de-identified: {kind}: {count}")
    with reading_progress(Console(stderr=True), "checking", summary.studies) as advance:
        report = check_import(out, cohort, summary, advance=advance)
    console.print(Markdown(format_report(report)), soft_wrap=False)
    if report.failed:
        console.print(
            f"The cohort fails its check ({', '.join(report.failed)}): see {out / PAGE}. Medfuse "
            f"train refuses it; medfuse check-cohort {out / SETTINGS} --fix FOLDER takes away what "
            "can be"
        )
    elif summary.labelled:
        console.print(f"{out / SETTINGS} is ready for medfuse train")
    if not summary.labelled:
        console.print(
            f"No study has a label: {out / SETTINGS} needs [[tasks]], and {out / TABLE} their "
            "labels, for training"
        )
