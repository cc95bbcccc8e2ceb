"""``medfuse benchmark``: names and a folder of published data in; tables with intervals out."""

from pathlib import Path
from typing import Annotated

import typer

NAMES = "covid, lung-sounds, indication, pneumonia, synthetic-patients"


def benchmark(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {NAMES}; all by default.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of cxr_notes.csv, audio.csv and their files.")
    ] = Path("../shared/data"),
    out: Annotated[
        Path, typer.Option(help="Folder of the report, and of what a next run uses again.")
    ] = Path("runs/benchmark"),
    open_i: Annotated[
        Path | None, typer.Option(help="Open-I's NLMCXR_reports.tgz, or the folder it is in.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Cross-validations, each split anew.", min=1)] = 5,
    network_repeats: Annotated[
        int, typer.Option(help="Of these, how many the fused network takes part in.", min=0)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of everything drawn.", min=0)] = 0,
) -> None:
    """Measure what is reached on published data, by patient, beside metadata alone."""
    from rich.console import Console
    from rich.markdown import Markdown

    from medfuse.errors import CohortError
    from medfuse.place import check_folder
    from medfuse.training.benchmark.options import BenchmarkOptions
    from medfuse.training.benchmark.report import format_benchmarks
    from medfuse.training.benchmark.run import PAGE, run_benchmarks

    check_folder(out)
    options = BenchmarkOptions(
        data=data,
        out=out,
        open_i=open_i,
        repeats=repeats,
        network_repeats=network_repeats,
        seed=seed,
    )
    console = Console()
    report = run_benchmarks(names or [], options, Console(stderr=True))
    if not report.records:
        raise CohortError("; ".join(f"{name}: {why}" for name, why in report.skipped.items()))
    console.print(Markdown(format_benchmarks(report)))
    console.print(f"The page is {out / PAGE}", highlight=False)
    if names and report.skipped:
        raise CohortError("; ".join(f"{name}: {why}" for name, why in report.skipped.items()))
