"""The commands report and verify-report: a bundle and a study in, a PDF out; and the way back."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from medfuse.config import Limits
    from medfuse.types import Study
    from medfuse_serving.answer import Answer
    from medfuse_serving.explainer import Explainer
    from medfuse_serving.explanation_view import View

BundlePath = Annotated[Path, typer.Argument(help="A bundle's folder, as `medfuse export` made it.")]
Dicom = Annotated[list[Path] | None, typer.Option(help="A DICOM file; several may follow.")]
More = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DICOM]...", help="Further DICOM files, so that *.dcm works."),
]
Note = Annotated[Path | None, typer.Option(help="The clinical note, a text file.")]
Voice = Annotated[
    Path | None, typer.Option(help="A recording: WAV, FLAC, OGG, MP3 or DICOM waveform.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="A file of at least 32 random bytes that reports are sealed with."),
]
Provider = Annotated[
    str | None,
    typer.Option(help="Execution provider: cuda or cpu. The first that is there by default."),
]


UNSURE = 3
"""Exit status where all that could be checked holds, and something could not."""


def report(
    bundle: BundlePath,
    more: More = None,
    dicom: Dicom = None,
    note: Note = None,
    voice: Voice = None,
    out: Annotated[Path, typer.Option(help="The PDF to write.")] = Path("report.pdf"),
    language: Annotated[str, typer.Option(help="Of its pages: en or zh.")] = "en",
    explain: Annotated[
        list[str] | None,
        typer.Option(
            help="A target to explain; several times for several. `all` or `none`; the most "
            "probable finding by default."
        ),
    ] = None,
    study_id: Annotated[
        str | None, typer.Option(help="A pseudonym of the study, to stand on every page.")
    ] = None,
    reading: Annotated[
        Path | None, typer.Option(help="A reader's impression and decision, a JSON file.")
    ] = None,
    key_file: KeyFile = None,
    provider: Provider = None,
) -> None:
    """Answer a study, explain the answer, and write both as a PDF that can be checked."""
    from medfuse.place import check_file
    from medfuse_serving.answer import to_answer
    from medfuse_serving.explainer import Explainer
    from medfuse_serving.language import find_language
    from medfuse_serving.predictor import Predictor
    from medfuse_serving.report.gather import ReportOptions, make_record
    from medfuse_serving.report.record import read_reading
    from medfuse_serving.report.render import make_report
    from medfuse_serving.report.seal import read_key
    from medfuse_serving.report.targets import choose_targets
    from medfuse_serving.report.withhold import find_referrals

    find_language(language)
    key = None if key_file is None else read_key(key_file)
    options = ReportOptions(
        language=language,
        study_id=study_id,
        reading=None if reading is None else read_reading(reading),
    )
    check_file(out)
    images = _check_files(more, dicom, note, voice)
    if not (images or note or voice):
        raise typer.BadParameter("give at least one of --dicom, --note and --voice")
    predictor = Predictor(bundle, provider)
    study = _read(predictor.bundle.manifest.prepare.limits, images, note, voice)
    (prediction,) = predictor.predict([study])
    answer = to_answer(prediction)
    explainer = Explainer(predictor)
    targets = choose_targets(answer, explainer.targets, explain, ready=explainer.ready)
    views = _explain(explainer, study, answer, targets)
    record = make_record(predictor, study, answer, views, options)
    _write(out, make_report(record, key))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"report  {out}", markup=False)
    for referral in find_referrals(answer, [view.record for view in views]):
        console.print(f"human   {', '.join(referral.targets)} ({referral.reason})", markup=False)


def verify_report(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="The PDF.")],
    more: More = None,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle that is said to have answered.")
    ] = None,
    dicom: Dicom = None,
    note: Note = None,
    voice: Voice = None,
    key_file: KeyFile = None,
    provider: Provider = None,
) -> None:
    """Check that a report is as it was made, of this bundle and of these files.

    Exit status 0: all that was asked holds. 1: something does not. 3: the pages were drawn by
    other versions, so their text alone was compared.
    """
    from medfuse.config import Limits
    from medfuse_serving.predictor import Predictor
    from medfuse_serving.report.seal import read_key
    from medfuse_serving.report.verify import check_answer, check_inputs, check_model, open_report

    logging.getLogger("pypdf").addHandler(logging.NullHandler())  # a damaged PDF is one line here
    key = None if key_file is None else read_key(key_file)
    images = _check_files(more, dicom, note, voice)
    console = Console(soft_wrap=True, highlight=False)
    opened = open_report(path, key)
    console.print(f"record  ok  {opened.digest}")
    if opened.exact:
        console.print("pages   ok  drawn from the record, byte for byte")
    elif opened.whole:
        console.print(f"pages   ok  as they were sealed; drawn by other versions ({opened.others})")
    else:
        console.print(
            "pages   ?   their text is the record's; drawn by other versions "
            f"({opened.others}), so pictures and anything drawn over them were not compared"
        )
    if opened.seal == "checked":
        console.print("seal    ok  made with this key, and no byte changed since")
    elif opened.seal == "unchecked":
        console.print("seal    ?   give --key-file to check it")
    predictor = None if bundle is None else Predictor(bundle, provider)
    if predictor is not None:
        check_model(opened.record, predictor.bundle.digest)
        console.print(f"model   ok  {predictor.bundle.digest}")
    if images or note or voice:
        limits = Limits() if predictor is None else predictor.bundle.manifest.prepare.limits
        study = _read(limits, images, note, voice)
        check_inputs(opened.record, study)
        console.print(f"inputs  ok  {len(opened.record.inputs)} files, each with its SHA-256")
        if predictor is not None:
            worst = check_answer(opened.record, predictor, study)
            console.print(
                f"answer  ok  the bundle answers so now, at most {worst:.1e} of the logits' scale "
                "off; what is shown of the study is of these files. Maps were not computed again"
            )
    if not opened.whole:
        raise typer.Exit(UNSURE)


def _check_files(
    more: list[Path] | None, dicom: list[Path] | None, note: Path | None, voice: Path | None
) -> tuple[Path, ...]:
    if more and not dicom:
        raise typer.BadParameter("give DICOM files after --dicom")
    images = (*(dicom or ()), *(more or ()))
    for path in (*images, *(part for part in (note, voice) if part)):
        if not path.is_file():
            raise typer.BadParameter(f"{path}: there is no such file")
    return images


def _read(
    limits: "Limits", images: tuple[Path, ...], note: Path | None, voice: Path | None
) -> "Study":
    from medfuse_serving.commands import read_given

    return read_given(limits, images, note, voice)


def _explain(
    explainer: "Explainer", study: "Study", answer: "Answer", targets: tuple[str, ...]
) -> list["View"]:
    """Explain one target after another, progress on stderr."""
    from rich.progress import Progress

    from medfuse.attribution.settings import AttributionSettings
    from medfuse_serving.explainer import Explained
    from medfuse_serving.explanation_view import make_view

    views = []
    settings = explainer.predictor.bundle.manifest.prepare
    with Progress(console=Console(stderr=True), redirect_stdout=False) as progress:
        for target in targets:
            task = progress.add_task(f"explaining {target}", total=1.0)
            for step in explainer.follow(study, target, AttributionSettings()):
                if isinstance(step, Explained):
                    views.append(make_view(step, settings, explainer.scales))
                    progress.update(task, completed=1.0)
                elif isinstance(step, float):
                    progress.update(task, completed=step)
    return views


def _write(path: Path, data: bytes) -> None:
    from medfuse.errors import ReportError

    try:
        path.write_bytes(data)
    except OSError as error:
        raise ReportError(f"{path}: the report cannot be written ({error.strerror})") from error
