"""The command export: a checkpoint's folder in, a bundle's folder out, parity on the screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from medfuse.bundle import Certificate


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that `medfuse train` wrote.")],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.")],
    explanations: Annotated[
        bool,
        typer.Option(help="Let the bundle explain its answers, certified against Captum."),
    ] = True,
    certify: Annotated[
        int,
        typer.Option(
            help="Unseen studies to compare the explanations with Captum's on, at least.", min=7
        ),
    ] = 210,
    uncertified: Annotated[
        bool,
        typer.Option(
            "--uncertified",
            help="Write the bundle even if its explanations fail the comparison with Captum; the "
            "manifest records it.",
        ),
    ] = False,
) -> None:
    """Export a checkpoint as a bundle that runs, and explains its answers, without PyTorch."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from medfuse.place import check_folder

    check_folder(bundle)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr) as bars:
        steps = {step: text for step, text in STEPS.items() if explanations or step != "certify"}
        tasks = {step: bars.add_task(text, total=1.0, start=False) for step, text in steps.items()}

        def show(step: str, done: float) -> None:
            if done == 0:
                bars.start_task(tasks[step])
            bars.update(tasks[step], completed=done)

        from medfuse_export.export import ExportOptions, export_bundle

        options = ExportOptions(explanations, certify, uncertified)
        manifest = export_bundle(checkpoint, bundle, show, options=options)

    report = manifest.parity
    table = Table("present", "studies", "logits", "embeddings", title="Graph against model")
    for name, subset in report.subsets.items():
        table.add_row(name, str(subset.studies), f"{subset.logits:.1e}", f"{subset.embeddings:.1e}")
    console = Console()
    console.print(table)
    console.print(
        f"Largest difference relative to each output's scale; at most {report.tolerance:.0e} "
        "passes."
    )
    if manifest.explain is not None:
        print_certificate(manifest.explain.certificate, console)
    console.print(f"bundle  {bundle}", soft_wrap=True, markup=False, highlight=False)


def print_certificate(certificate: "Certificate", console: "Console") -> None:
    """Print how the bundle's attributions compare with Captum's."""
    from rich.table import Table

    table = Table(
        "attributions to",
        "studies",
        "relative L2",
        "worst",
        "worst element",
        "graph to float64",
        "Captum to float64",
        title="Explanations against Captum",
    )
    for modality, found in certificate.modalities.items():
        figures = (
            found.relative_l2,
            found.worst_relative_l2,
            found.worst_difference,
            found.onnx_to_float64,
            found.captum_to_float64,
        )
        table.add_row(modality, str(found.studies), *(f"{figure:.1e}" for figure in figures))
    console.print(table)
    verdict = "certified" if certificate.holds else "NOT certified, and written all the same"
    console.print(
        f"Medians over {certificate.studies} unseen studies; {verdict}: at most "
        f"{certificate.limit:.0e} from Captum, or at most {certificate.ratio:g} times as far from "
        "float64 as Captum is."
    )


STEPS = {
    "load": "Load the checkpoint and unseen studies",
    "graph": "Write the graphs",
    "parity": "Compare the answers with the model's",
    "certify": "Compare the explanations with Captum's",
    "write": "Write and verify the bundle",
}
"""What `medfuse_export.export.export_bundle` calls its steps, and what a reader calls them."""
