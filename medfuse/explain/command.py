"""The command explain: a model and one study's files in; maps, shares and a badge out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from medfuse.attribution.settings import AttributionSettings, BaselineName, Method
from medfuse.errors import BundleError, SettingsError
from medfuse.place import check_folder
from medfuse.types import Badge, Modality, ModalityShares, Study

if TYPE_CHECKING:
    from medfuse.attribution.record import ExplanationRecord
    from medfuse.explain.compare import Comparison
    from medfuse.explain.opened import Opened
    from medfuse.training.checkpoint import Checkpoint

WITHHELD = 3
"""Exit status when the badge failed and the maps were not written."""


def explain(
    model: Annotated[
        Path, typer.Argument(help="A bundle's folder, or a checkpoint's as training made it.")
    ],
    target: Annotated[
        str,
        typer.Option(
            help="What to explain: findings.nodule, or a weighting such as a.b=1,a.c=-0.5."
        ),
    ],
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
    method: Annotated[Method, typer.Option(help="How.")] = "integrated_gradients",
    baseline: Annotated[
        BaselineName | None,
        typer.Option(help="Against what; the mean if the model brings it, or else blank."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Points of the integral, at first.", min=1)] = 64,
    most_steps: Annotated[int, typer.Option(help="Points of the integral, at most.", min=1)] = 1024,
    band: Annotated[
        bool, typer.Option("--band", help="Share the output out against every baseline, too.")
    ] = False,
    background: Annotated[
        Path | None, typer.Option(help="Folder of other studies, for the baseline marginal.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Execution provider of a bundle: cuda or cpu.")
    ] = None,
    against_captum: Annotated[
        Path | None,
        typer.Option(help="The bundle's checkpoint: compute the maps by Captum, too, and compare."),
    ] = None,
    withhold: Annotated[
        bool, typer.Option(help="Leave out the maps of an explanation that fails its checks.")
    ] = True,
) -> None:
    """Show which pixels, words and sounds moved one target's logit, and if that can be trusted.

    A bundle is explained without torch, a checkpoint by Captum. Exit status 3 says that the
    explanation failed its checks, so that its maps were withheld.
    """
    check_folder(out)
    earlier = _find_earlier(out)
    study = _read_files((*(dicom or ()), *(more or ())), note, voice, bool(more and not dicom))
    settings = AttributionSettings(
        method=method, baseline=baseline, steps=steps, most_steps=max(steps, most_steps)
    )

    from medfuse.attribution.badge import BadgeSettings
    from medfuse.attribution.explain import explain_study
    from medfuse.attribution.report import write_report
    from medfuse.attribution.subject import take_up
    from medfuse.attribution.target import parse_target
    from medfuse.data.prepare import prepare
    from medfuse.explain.opened import open_model, take_samples

    opened = open_model(model, provider)
    chosen = parse_target(target, opened.network.targets)  # before anything slow
    checkpoint = _load_counterpart(model, opened, against_captum) if against_captum else None
    prepared = prepare(study, opened.prepare, opened.tokenizer)
    samples = take_samples(opened, background) if background else ()
    subject = take_up(opened.network, prepared, opened.prepare)
    with _show_progress("explaining") as progress:
        explanation = explain_study(
            opened.network,
            subject,
            chosen,
            settings,
            BadgeSettings(),
            opened.tokenizer,
            opened.background,
            samples,
            opened.digest,
            band=band,
            progress=progress,
            by=opened.by,
        )
    for path in earlier:  # or a map of it would stay beside a record that withholds it
        path.unlink(missing_ok=True)
    record = write_report(
        out, study, prepared, explanation, opened.prepare, opened.scales, withhold=withhold
    )

    console = Console(highlight=False)
    _print_shares(console, explanation.shares, record)
    _print_badge(console, explanation.badge)
    for remark in record.remarks:
        console.print(f"{remark.modality.value}: {remark.message}", markup=False)
    if checkpoint is not None:
        from medfuse.explain.compare import compare_with_captum

        with _show_progress("comparing") as progress:
            compared = compare_with_captum(
                opened.network, checkpoint, prepared, chosen, settings, samples, progress
            )
        _print_comparison(console, compared)
    console.print(f"written to {out}")
    if not explanation.badge.passed:
        kept = "withheld" if record.withheld else "written although they fail their checks"
        Console(stderr=True, soft_wrap=True).print(
            f"medfuse: the maps are {kept}: {' '.join(record.reasons)}",
            markup=False,
            highlight=False,
        )
    if record.withheld:
        raise typer.Exit(WITHHELD)


def _read_files(
    images: tuple[Path, ...], note: Path | None, voice: Path | None, misplaced: bool
) -> Study:
    if misplaced:
        raise typer.BadParameter("give DICOM files after --dicom")
    for path in (*images, *(path for path in (note, voice) if path)):
        if not path.is_file():
            raise typer.BadParameter(f"{path}: there is no such file")
    return Study(
        images=tuple(path.read_bytes() for path in images),
        note=note.read_bytes() if note else None,
        voice=voice.read_bytes() if voice else None,
    )


def _load_counterpart(model: Path, opened: "Opened", folder: Path) -> "Checkpoint":
    """Load the checkpoint that a bundle was exported from.

    Raises:
        BundleError: It is another one.
    """
    if opened.exported_from is None:
        raise typer.BadParameter("--against-captum compares a bundle, and this is a checkpoint")

    from medfuse.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    if checkpoint.digest != opened.exported_from:
        raise BundleError(
            f"{model}: was not exported from the checkpoint {folder} (it was from one with digest "
            f"{opened.exported_from[:12]}, and this has {checkpoint.digest[:12]})"
        )
    return checkpoint


def _find_earlier(out: Path) -> tuple[Path, ...]:
    """List the files of the explanation that is in a folder already.

    Raises:
        SettingsError: The folder holds something else.
    """
    from medfuse.attribution.record import ExplanationRecord
    from medfuse.attribution.report import RECORD

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return ()
    try:
        earlier = ExplanationRecord.model_validate_json((out / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise SettingsError(
            f"{out}: there is something here that is not an explanation; choose another folder"
        ) from error
    return tuple(out / Path(name).name for name in (*earlier.files, RECORD))


@contextmanager
def _show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, wanted: bar.update(task, completed=done, total=wanted)


def _print_shares(console: Console, shares: ModalityShares, record: "ExplanationRecord") -> None:
    """Print how nothing becomes this study's output, by the map's sums and by Shapley shares."""
    from medfuse.attribution.gradients import NO_BASELINE

    against = "" if record.baseline == NO_BASELINE else f" against {record.baseline}"
    title = f"{record.target}, {record.method.replace('_', ' ')}{against}"
    adds_up = record.completeness_gap is not None
    columns = [*(["map"] if adds_up else []), "share", *(["band"] if record.band else [])]
    table = Table("logit", *columns, title=title)

    def add(name: str, summed: str, share: float, band: str = "") -> None:
        cells = {"map": summed, "share": _number(share), "band": band}
        table.add_row(name, *(cells[column] for column in columns))

    add("of nothing", _number(record.baseline_output), shares.outputs[frozenset()])
    for modality, share in shares.shares.items():
        total = record.sums.get(modality)
        limits = record.band.get(modality)
        add(
            modality.value,
            "withheld" if total is None else _number(total),
            share,
            f"{limits.lowest:+.4f} to {limits.highest:+.4f}" if limits else "",
        )
    add("of this study", _number(record.output), record.output)
    console.print(table)
    for name, value in record.shares.interactions.items():
        console.print(f"interaction of {name.replace('+', ' and ')} {_number(value)}")


def _print_badge(console: Console, badge: Badge) -> None:
    table = Table("check", "", "figure")
    for check in badge.checks:
        table.add_row(check.name, "ok" if check.passed else "FAILED", check.message)
    console.print(table)


def _print_comparison(console: Console, compared: "Mapping[Modality, Comparison]") -> None:
    table = Table(
        "", "relative L2", "largest", "ONNX to float64", "Captum to float64",
        title="ONNX Runtime against Captum",
    )  # fmt: skip
    for modality, found in compared.items():
        figures = (
            found.relative_l2,
            found.largest,
            found.onnx_to_float64,
            found.captum_to_float64,
        )
        table.add_row(modality.value, *(f"{figure:.1e}" for figure in figures))
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
