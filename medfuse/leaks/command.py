"""``medfuse check-cohort``: a settings file in; what the cohort gives away, printed, out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def check_cohort(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of a training run; none with --prove.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and check.md; new or not.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write table and settings without the leaks here; new or empty."),
    ] = None,
    prove: Annotated[
        int,
        typer.Option(
            min=0, help="Instead: plant leaks in so many known-truth cohorts, and count the found."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of --prove.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
) -> None:
    """Find what makes a model look good for the wrong reason, before it is trained."""
    from rich.console import Console

    from medfuse.place import check_folder

    if bool(prove) == (config is not None):
        raise typer.BadParameter("give a settings file, or --prove with a number of cohorts")
    for folder in (out, fix):
        if folder is not None:
            check_folder(folder)
    console = Console()
    if config is None:
        _prove(prove, seed, workers, out, console)
        return
    failed = _check(config, out, fix, workers, console)
    if failed:
        raise typer.Exit(1)


def _check(
    config: Path, out: Path | None, fix: Path | None, workers: int, console: "Console"
) -> bool:
    """Check a cohort, or fix it; say whether what is left fails."""
    from rich.console import Console as RichConsole
    from rich.markdown import Markdown

    from medfuse.leaks.check import check_cohort as find_leaks
    from medfuse.leaks.check import read_request
    from medfuse.leaks.fix import fix_cohort
    from medfuse.leaks.progress import reading_progress
    from medfuse.leaks.report import format_report, write_report

    request = read_request(config)
    with reading_progress(RichConsole(stderr=True)) as advance:
        if fix is not None:
            fixed = fix_cohort(config, request, fix, workers=workers, advance=advance)
            report = fixed.after
        else:
            report = find_leaks(request, workers=workers, advance=advance)
    if fix is not None:
        for kind, remedy in fixed.applied:
            console.print(f"{kind}: {remedy}", markup=False, highlight=False)
        console.print(f"{fixed.rows} rows in {fix}; train on {fix / 'settings.toml'}")
    console.print(Markdown(format_report(report)))
    if out is not None:
        write_report(report, out)
    return bool(report.failed)


def _prove(cohorts: int, seed: int, workers: int, out: Path | None, console: "Console") -> None:
    """Plant leaks in known-truth cohorts, and count those found and the false alarms."""
    from rich.console import Console as RichConsole
    from rich.markdown import Markdown

    from medfuse.leaks.progress import reading_progress
    from medfuse.leaks.prove import ProofOptions, format_proof, prove

    options = ProofOptions(cohorts=cohorts, seed=seed)
    with reading_progress(RichConsole(stderr=True), "Proving", options.steps) as advance:
        proof = prove(options, workers=workers, advance=advance)
    console.print(Markdown(format_proof(proof)))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "proof.json").write_text(proof.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (out / "proof.md").write_text(format_proof(proof), encoding="utf-8")
