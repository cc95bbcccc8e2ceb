"""The command explain: a checkpoint and one study's files in, attributions and overlays out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from medfuse.explain.settings import ExplainSettings
from medfuse.types import Study


def explain(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, as training made it.")],
    target: Annotated[str, typer.Option(help="What to explain, such as findings.nodule.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DICOM]...", help="Further DICOM files, so that *.dcm works."),
    ] = None,
    dicom: Annotated[
        list[Path] | None, typer.Option(help="A DICOM file; several may follow.")
    ] = None,
    note: Annotated[Path | None, typer.Option(help="The clinical note, a text file.")] = None,
    voice: Annotated[
        Path | None, typer.Option(help="A recording: WAV, FLAC, OGG, MP3 or DICOM waveform.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Points of the integral, at first.", min=1)] = 64,
    most_steps: Annotated[int, typer.Option(help="Points of the integral, at most.", min=1)] = 1024,
) -> None:
    """Show which pixels, words and sounds moved one target's logit, by integrated gradients."""
    from medfuse.data.prepare import collate, prepare
    from medfuse.explain.baseline import BASELINES
    from medfuse.explain.integrated_gradients import integrated_gradients, target_index
    from medfuse.explain.report import write_report
    from medfuse.training.checkpoint import load_checkpoint

    if more and not dicom:
        raise typer.BadParameter("give DICOM files after --dicom")
    images = (*(dicom or ()), *(more or ()))
    for path in (*images, *(path for path in (note, voice) if path)):
        if not path.is_file():
            raise typer.BadParameter(f"{path}: there is no such file")
    study = Study(
        images=tuple(path.read_bytes() for path in images),
        note=note.read_bytes() if note else None,
        voice=voice.read_bytes() if voice else None,
    )
    settings = ExplainSettings(steps=steps, most_steps=max(steps, most_steps))
    loaded = load_checkpoint(checkpoint)
    target_index(loaded.tasks, target)  # before anything slow
    prepared = prepare(study, loaded.prepare, loaded.tokenizer)
    batch = collate([prepared], loaded.prepare)
    baseline = BASELINES[settings.baseline](batch, loaded.tokenizer)

    errors = Console(stderr=True, highlight=False)
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("integrating")

        def show(done: int, wanted: int) -> None:
            bar.update(task, completed=done, total=wanted, description=f"{wanted} points")

        (attribution,) = integrated_gradients(loaded.model, batch, baseline, target, settings, show)
    record = write_report(out, study, prepared, attribution, loaded.prepare, loaded.digest)

    table = Table("", "logit", title=target)
    table.add_row(f"baseline ({record.baseline})", f"{record.baseline_output:+.4f}")
    for modality, value in record.sums.items():
        table.add_row(modality.value, f"{value:+.4f}")
    table.add_row("this study", f"{record.output:+.4f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"completeness gap {record.completeness_gap:.2%} with {record.steps} points")
    for remark in prepared.remarks:
        console.print(f"{remark.modality.value}: {remark.message}")
    if record.completeness_gap > settings.gap:
        errors.print(
            f"medfuse: the gap is above {settings.gap:.1%}; read small attributions with care, or "
            "raise --most-steps"
        )
    console.print(f"written to {out}")
