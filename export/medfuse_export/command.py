"""The command export: a checkpoint's folder in, a bundle's folder out, parity on the screen."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that `medfuse train` wrote.")],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Export a checkpoint as a bundle that runs without PyTorch."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr) as bars:
        tasks = {step: bars.add_task(text, total=1.0, start=False) for step, text in STEPS.items()}

        def show(step: str, done: float) -> None:
            if done == 0:
                bars.start_task(tasks[step])
            bars.update(tasks[step], completed=done)

        from medfuse_export.export import export_bundle

        report = export_bundle(checkpoint, bundle, show)

    table = Table("present", "studies", "logits", "embeddings", title="Graph against model")
    for name, subset in report.subsets.items():
        table.add_row(name, str(subset.studies), f"{subset.logits:.1e}", f"{subset.embeddings:.1e}")
    console = Console()
    console.print(table)
    console.print(
        f"Largest difference relative to each output's scale; at most {report.tolerance:.0e} "
        "passes."
    )
    console.print(f"bundle  {bundle}", soft_wrap=True, markup=False, highlight=False)


STEPS = {
    "load": "Load the checkpoint and unseen studies",
    "graph": "Write the graph",
    "parity": "Compare it with the model",
    "write": "Write and verify the bundle",
}
"""What `medfuse_export.export.export_bundle` calls its steps, and what a reader calls them."""
