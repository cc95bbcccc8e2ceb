"""The commands verify, predict and serve: a bundle and files in, answers out; never torch."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medfuse.config import TaskKind

if TYPE_CHECKING:
    from medfuse.config import Limits
    from medfuse.data.studies import StudyFiles
    from medfuse.types import Study
    from medfuse_serving.answer import Answer, PromiseAnswer, StudyLine, TaskAnswer, TextAnswer
    from medfuse_serving.predictor import Predictor

BundlePath = Annotated[Path, typer.Argument(help="A bundle's folder, as `medfuse export` made it.")]
Provider = Annotated[
    str | None,
    typer.Option(help="Execution provider: cuda or cpu. The first that is there by default."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail when the wanted provider is not the one in use.")
]

BAR = 24
"""Characters of a bar that stands for a probability of 1."""


def verify(bundle: BundlePath, provider: Provider = None, strict: Strict = False) -> None:
    """Check a bundle's hashes, its graph, and its answers to the golden study."""
    import onnxruntime

    from medfuse.golden import read_golden
    from medfuse_serving.explainer import check_explanations
    from medfuse_serving.predictor import Predictor

    console = Console(soft_wrap=True, highlight=False)
    predictor = Predictor(bundle, provider, strict)
    manifest = predictor.bundle.manifest
    console.print(f"files   ok  {len(manifest.files)}, each with the manifest's SHA-256")
    console.print(
        f"graph   ok  {len(manifest.inputs)} inputs and {len(manifest.outputs)} outputs as "
        f"declared; ONNX Runtime {onnxruntime.__version__} runs it on {predictor.provider}"
    )
    worst = predictor.check_golden()
    golden = read_golden(predictor.bundle)
    console.print(
        f"golden  ok  {len(golden.studies)} subsets of modalities answered, at most {worst:.1e} of "
        f"the logits' scale off ({golden.answer.tolerance:.0e} allowed)"
    )
    if manifest.text is not None:
        sentences = sum(map(len, golden.answer.sentences.values()))
        console.print(f"text    ok  {sentences} sentences of the golden study, word for word")
    if manifest.explain is None:
        console.print("explain     the bundle was exported without explanations")
    else:
        worst = check_explanations(predictor)
        console.print(
            f"explain ok  made from the graph that answers, and answers as it does: at most "
            f"{worst:.1e} of the logits' scale off"
        )
    console.print(f"digest      {predictor.bundle.digest}")


def predict(
    bundle: BundlePath,
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
    studies: Annotated[
        Path | None,
        typer.Option(help="A folder of studies: one JSON line each, a bad one reported."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    provider: Provider = None,
    strict: Strict = False,
) -> None:
    """Predict from one study's files, any kind left out, or from a folder of studies."""
    from medfuse.data.studies import find_studies
    from medfuse_serving.predictor import Predictor

    one = (*(dicom or ()), *(more or ()), *(path for path in (note, voice) if path))
    if studies and one:
        raise typer.BadParameter("give one study's files or --studies, not both")
    if more and not dicom:
        raise typer.BadParameter("give DICOM files after --dicom")
    if not studies and not one:
        raise typer.BadParameter("give at least one of --dicom, --note, --voice, or --studies")
    for path in one:
        if not path.is_file():
            raise typer.BadParameter(f"{path}: there is no such file")

    if studies is None:
        _predict_one(
            Predictor(bundle, provider, strict), (*(dicom or ()), *(more or ())), note, voice, json
        )
        return
    found = find_studies(studies)
    failed = _predict_folder(Predictor(bundle, provider, strict), found)
    if failed:
        Console(stderr=True).print(
            f"medfuse: {failed} of {len(found)} studies could not be answered", highlight=False
        )
        raise typer.Exit(1)


def serve(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 7860,
    examples: Annotated[
        Path | None,
        typer.Option(help="A folder of studies that the page offers to open."),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="A folder of other studies, for explanations' baseline 'marginal'."),
    ] = None,
    upload_mib: Annotated[
        int, typer.Option(help="Most MiB of one request; more is refused.", min=1)
    ] = 1024,
    accounts: Annotated[
        Path | None,
        typer.Option(help="A file of accounts (`medfuse accounts`); without it nobody logs in."),
    ] = None,
    worklist: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_URL",
            help="A worklist that the page shows: a SQLite file, made where there is none, or "
            "postgresql://USER@HOST/DATABASE.",
        ),
    ] = None,
    read_first: Annotated[
        bool,
        typer.Option(
            "--read-first", help="On the page, ask for the reader's impression before the answer."
        ),
    ] = False,
    provider: Provider = None,
    strict: Strict = False,
) -> None:
    """Serve a bundle: the page at /, answers at /v1/predict and /v1/explain, more at /docs."""
    from medfuse_serving.server import run_server

    run_server(
        bundle,
        host=host,
        port=port,
        examples=examples,
        background=background,
        upload_bytes=upload_mib * 2**20,
        provider=provider,
        strict=strict,
        accounts=accounts,
        worklist=worklist,
        read_first=read_first,
    )


def _predict_one(
    predictor: "Predictor",
    images: tuple[Path, ...],
    note: Path | None,
    voice: Path | None,
    json: bool,
) -> None:
    from medfuse_serving.answer import to_answer, to_json

    study = read_given(predictor.bundle.manifest.prepare.limits, images, note, voice)
    (prediction,) = predictor.predict([study])
    answer = to_answer(prediction)
    if json:
        sys.stdout.write(to_json(answer, indent=2) + "\n")
    else:
        print_answer(answer, Console(highlight=False))


def read_given(
    limits: "Limits", images: tuple[Path, ...], note: Path | None, voice: Path | None
) -> "Study":
    """Read the files of one study, each kind from options of its own.

    Raises:
        InputError: A file is larger than the limits allow.
    """
    from medfuse.data.studies import StudyFiles, read_study

    notes, voices = ((path,) if path else () for path in (note, voice))
    return read_study(StudyFiles(name="", images=images, notes=notes, voices=voices), limits)


def _predict_folder(predictor: "Predictor", studies: tuple["StudyFiles", ...]) -> int:
    """Write a line for each study to stdout, progress to stderr; return how many failed."""
    from rich.progress import Progress

    from medfuse_serving.answer import to_json

    failed = 0
    with Progress(console=Console(stderr=True), redirect_stdout=False) as progress:
        for line in progress.track(
            answer_studies(predictor, studies), total=len(studies), description="studies"
        ):
            failed += line.failure is not None
            sys.stdout.write(to_json(line) + "\n")
            sys.stdout.flush()
    return failed


def answer_studies(
    predictor: "Predictor", studies: tuple["StudyFiles", ...]
) -> Iterator["StudyLine"]:
    """Answer one study after another; one that cannot be answered does not stop the rest.

    Raises:
        BundleError: The deployment is at fault, so no study can be answered.
    """
    from medfuse.data.studies import read_study
    from medfuse.errors import InputError
    from medfuse_serving.answer import StudyLine, to_answer, to_failure

    limits = predictor.bundle.manifest.prepare.limits
    for files in studies:
        try:
            (prediction,) = predictor.predict([read_study(files, limits)])
        except InputError as error:
            yield StudyLine(study=files.name, failure=to_failure(error))
        else:
            yield StudyLine(study=files.name, answer=to_answer(prediction))


def print_answer(answer: "Answer", console: Console) -> None:
    """Print an answer for reading: bars with numbers, what it rests on, and the notice."""
    from medfuse.types import MODALITIES
    from medfuse_serving.answer import (
        describe_basis,
        describe_novelty,
        describe_promises,
        describe_reading,
        format_value,
    )

    for line in describe_novelty(answer):
        console.print(f"novel   {line}", style="bold yellow", markup=False)
    for task in answer.tasks:
        reading = describe_reading(task, answer.used)
        if not task.used:
            console.print(f"{task.name}  {reading}", markup=False)
        elif task.kind is TaskKind.REGRESSION:
            said = " ".join(_judged(task, answer.promises).values())
            line = f"{task.name}  {format_value(task)}  {said}  {reading}".rstrip()
            console.print(line, markup=False)
        else:
            console.print(_task_table(task, reading, _judged(task, answer.promises)))
    if answer.promises is not None:
        console.print(describe_promises(answer.promises), style="dim", markup=False)
        if basis := describe_basis(answer):
            console.print(basis, style="dim", markup=False)
    if answer.findings_text is not None:
        _print_text(answer.findings_text, console)
    unused = [m for m in MODALITIES if m not in answer.used]
    console.print(
        f"used    {', '.join(answer.used)}" + (f"   (no {', '.join(unused)})" if unused else "")
    )
    for remark in answer.remarks:
        console.print(f"remark  {remark.modality}: {remark.message}", markup=False)
    console.print(f"model   {answer.model_digest}", soft_wrap=True)
    console.print(f"\n{answer.notice}", style="dim")


def _print_text(text: "TextAnswer", console: Console) -> None:
    """Print each sentence with what states it and where it was read."""
    from medfuse_serving.answer import describe_places, format_probability

    console.print("\nfindings text")
    for sentence in text.sentences:
        console.print(f"  {sentence.text}", markup=False, soft_wrap=True)
        console.print(
            f"    {sentence.target} {format_probability(sentence.probability)}, stated from "
            f"{format_probability(sentence.threshold)}; {'; '.join(describe_places(sentence))}",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if text.left_out:
        console.print(f"  not stated: {', '.join(text.left_out)}", markup=False, soft_wrap=True)
    console.print(f"  {text.notice}\n", style="dim", soft_wrap=True)


def _judged(task: "TaskAnswer", promises: "PromiseAnswer | None") -> dict[str, str]:
    """Say what may be said of each question."""
    from medfuse_serving.answer import describe_judgement

    if promises is None:
        return {}
    return {j.question: describe_judgement(j, promises) for j in task.judgements}


def _task_table(task: "TaskAnswer", reading: str, judged: dict[str, str]) -> Table:
    from medfuse_serving.answer import format_probability

    table = Table(
        box=None, pad_edge=False, title=f"{task.name}  {reading}".rstrip(), title_justify="left"
    )
    table.add_column("finding" if task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL) else "class")
    table.add_column("probability", justify="right")
    table.add_column("", min_width=BAR)
    table.add_column("")
    for name, probability in task.probabilities.items():
        filled = round(probability * BAR)
        bar = "█" * filled + "░" * (BAR - filled)
        said = judged.get(f"{task.name}.{name}", "")
        table.add_row(name, format_probability(probability), bar, said)
    if task.name in judged:
        table.add_row("", "", "", Text(judged[task.name], style="dim"))
    return table
