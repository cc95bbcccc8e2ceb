"""``medfuse bench train``: a settings file in; training's speed beside a plain loop's out."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="TOML file of a training run.")],
    steps: Annotated[int, typer.Option(help="Steps of each side in a round.", min=1)] = 20,
    rounds: Annotated[int, typer.Option(help="Turns of each side.", min=1)] = 3,
    features: Annotated[
        Path, typer.Option(help="Feature cache, where the file names none.")
    ] = Path("features"),
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
) -> None:
    """Compare training with a plain PyTorch loop over the same arrays: speed, waiting, memory."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from medfuse.config import read_settings
    from medfuse.place import check_file, check_folder
    from medfuse.training.bench import bench_training
    from medfuse.training.settings import TrainSettings

    check_folder(features)
    if json is not None:
        check_file(json)
    settings = read_settings(config, TrainSettings)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        report = bench_training(
            settings, features, steps, rounds, lambda done: bar.update(task, completed=done)
        )
    table = Table(
        "training by",
        "studies/s",
        "ms a step",
        "waiting for data",
        "extra MiB",
        title=f"batches of {report.batch_size}, {report.rounds} rounds of {report.steps} steps, "
        f"{report.device}, {report.threads} threads",
    )
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.studies_per_s:.1f}",
            f"{row.step_ms:.1f}",
            f"{100 * row.waiting:.1f} %",
            f"{row.peak_mib:.0f}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"medfuse / plain: {report.ratio:.3f}")
    if json is not None:
        json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
