"""The command bench-serve: a bundle in, a table of how long its readers wait out."""

from pathlib import Path
from typing import Annotated

import typer


def bench_serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    side: Annotated[int, typer.Option(help="About the film's side in pixels.", min=64)] = 2000,
    rounds: Annotated[int, typer.Option(help="How often each is timed.", min=1)] = 10,
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
) -> None:
    """Time an answer, a frame, a first coarse map and a whole explanation of a large film."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from medfuse.place import check_file
    from medfuse_serving.bench import measure_serving

    if json is not None:
        check_file(json)

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        report = measure_serving(
            bundle, side, rounds, lambda done, all_: bar.update(task, completed=done / all_)
        )
    table = Table(
        "from the file's bytes to",
        "median",
        "worst",
        title=f"{report.columns} x {report.rows} pixels, {rounds} rounds, {report.threads} threads",
    )
    for row in report.measured:
        table.add_row(row.what, f"{1000 * row.median_s:.0f} ms", f"{1000 * row.worst_s:.0f} ms")
    Console(highlight=False).print(table)
    if json is not None:
        json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
