"""The command bench: ratios of speed and memory, measured side by side in one run."""

from pathlib import Path
from typing import Annotated

import typer

from medfuse.training.bench_command import train

bench = typer.Typer(help="Measure speed and memory, side by side.", no_args_is_help=True)
bench.command()(train)


@bench.command()
def explain(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint it was exported from.")],
    studies: Annotated[int, typer.Option(help="Unseen synthetic studies.", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Points of the integral.", min=1)] = 64,
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
) -> None:
    """Compare integrated gradients by the bundle with Captum's, on the same studies and threads."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from medfuse.explain.bench import bench_explain
    from medfuse.place import check_file

    if json is not None:
        check_file(json)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        report = bench_explain(
            bundle, checkpoint, studies, steps, lambda done: bar.update(task, completed=done)
        )
    table = Table(
        "integrated gradients by",
        "points in a pass",
        "s per study",
        "ms per point",
        "extra MiB",
        "ratio",
        title=f"{report.steps} points, {report.studies} studies, {report.threads} threads",
    )
    for row in report.rows:
        table.add_row(
            row.name,
            str(row.rows),
            f"{row.seconds:.2f}",
            f"{1000 * row.seconds / report.steps:.1f}",
            "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            f"{row.seconds / report.rows[0].seconds:.2f}",
        )
    Console(highlight=False).print(table)
    if json is not None:
        json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
