"""The command findings-text: a bundle in; its text held to planted truth, printed, out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medfuse_serving.commands import BundlePath, Provider

if TYPE_CHECKING:
    from medfuse.audit.findings_text import Source, TextReport, Written
    from medfuse.synthetic.options import CohortOptions
    from medfuse_serving.predictor import Predictor

TABLE_WIDTH = 150
"""Columns of text that the tables need; a narrower terminal wraps their lines."""


def findings_text(
    bundle: BundlePath,
    studies: Annotated[int, typer.Option(help="How many studies to make.", min=2)] = 200,
    first: Annotated[
        int, typer.Option(help="Number of the first study.", min=1_000_000)
    ] = 1_000_000,
    missing_rate: Annotated[
        float, typer.Option(help="How often each modality is missing.", min=0.0, max=0.9)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of controls and intervals.", min=0)] = 0,
    show: Annotated[int, typer.Option(help="Studies whose sentences are printed.", min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="File to write all figures to.")] = None,
    provider: Provider = None,
) -> None:
    """Hold a bundle's findings text to studies whose truth is known, beside its controls.

    The studies are made on the fly and are in no cohort.
    """
    from rich.progress import Progress

    from medfuse.audit.findings_text import TextReport, measure
    from medfuse.errors import BundleError
    from medfuse.place import check_file
    from medfuse.synthetic.options import CohortOptions, Mechanism
    from medfuse.synthetic.world import TARGETS
    from medfuse_serving.predictor import Predictor

    if json is not None:
        check_file(json)
    predictor = Predictor(bundle, provider)
    record = predictor.require_text()
    findings = [target.partition(".")[2] for target in record.findings]
    if unknown := sorted(set(findings) - set(TARGETS)):
        raise BundleError(
            f"the known-truth cohort has no {', '.join(unknown)}, so nothing to score"
        )
    options = CohortOptions(
        missing=Mechanism.RANDOM if missing_rate else Mechanism.COMPLETE,
        missing_rate=missing_rate or CohortOptions().missing_rate,
    )
    numbers = range(first, first + studies)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        written = [write_study(predictor, options, index) for index in bar.track(numbers)]
    report = TextReport(
        model=predictor.bundle.digest,
        studies=studies,
        first=first,
        missing_rate=missing_rate,
        seed=seed,
        thresholds=record.thresholds,
        figures=measure(written, options, findings, seed),
    )
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, TABLE_WIDTH))
    for each in written[:show]:
        _print_written(each, console)
    console.print(overall_table(report))
    console.print(finding_table(report, findings))
    never = [target for target, least in record.thresholds.items() if least is None]
    if never:
        console.print(f"never stated: {', '.join(never)}")
    if json is not None:
        _write(json, report.model_dump_json(indent=2) + "\n")


def write_study(predictor: "Predictor", options: "CohortOptions", index: int) -> "Written":
    """Make one study and let the bundle write of it."""
    from medfuse.audit.findings_text import Written
    from medfuse.synthetic.study import make_study

    made = make_study(options, index)
    (prepared,) = predictor.prepare([made.study])
    (prediction,) = predictor.predict([made.study])
    assert prediction.text is not None
    return Written(made, prepared, prediction.text)


def overall_table(report: "TextReport") -> Table:
    """Make the table of every figure over all findings, beside its control."""
    from medfuse.audit.findings_text import ALL, FIGURES

    table = Table("right when", "said", "precision", "control", "wanted", "recall", "control")
    table.title = f"Findings text of {report.studies} studies against what was planted"
    for figure, meaning in FIGURES.items():
        control: Source = "random place" if figure == "evidence place" else "another study's text"
        own, other = report.find(figure, ALL, "model"), report.find(figure, ALL, control)
        if own is not None and other is not None:
            table.add_row(
                f"{figure}: {meaning}",
                str(own.said),
                str(own.precision),
                str(other.precision),
                str(own.wanted),
                str(own.recall),
                str(other.recall),
            )
    return table


def finding_table(report: "TextReport", findings: list[str]) -> Table:
    """Make the table of the leading figures of each finding."""
    figures = ("finding stated", "evidence place", "sign named", "sentence right")
    table = Table("finding", "", *figures, title="By finding")
    for finding in findings:
        found = [report.find(figure, finding, "model") for figure in figures]
        for side in ("precision", "recall"):
            cells = ["-" if one is None else str(getattr(one, side)) for one in found]
            table.add_row(finding if side == "precision" else "", side, *cells)
    return table


def _print_written(written: "Written", console: Console) -> None:
    truth = written.made.truth
    console.print(f"{written.made.study_id}  planted: {', '.join(sorted(truth.signs))}")
    for sentence in written.text.sentences:
        pointed = ", ".join(sorted(sentence.evidence.pointed))
        console.print(
            f"  {sentence.target} {sentence.probability:.2f}  {sentence.text}  ({pointed})"
        )


def _write(path: Path, text: str) -> None:
    from medfuse.errors import SettingsError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written ({error.strerror})") from error
