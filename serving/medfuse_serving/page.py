"""The page: a study opened or given by hand, shown as it was read, and its answer beside it."""

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from medfuse.config import PrepareSettings
from medfuse.data.note import decode_note
from medfuse.data.studies import StudyFiles, read_file, read_study
from medfuse.dictation.record import Transcript
from medfuse.errors import InputError, LimitError
from medfuse.overlay import escape_text
from medfuse.types import Study
from medfuse_serving import (
    explanation_panel,
    explanation_view,
    missing,
    reading,
    reading_panel,
    rendering,
)
from medfuse_serving.answer import Answer, to_answer
from medfuse_serving.api import UPLOAD_BYTES
from medfuse_serving.explainer import Explainer, Glance
from medfuse_serving.explanation_panel import Changes, Maps
from medfuse_serving.explanation_view import View
from medfuse_serving.labels import Labels
from medfuse_serving.language import (
    ENGLISH,
    LANGUAGES,
    OWN_NAMES,
    Language,
    find_language,
    message,
)
from medfuse_serving.missing import Reach
from medfuse_serving.missing_view import reach_html
from medfuse_serving.predictor import Predictor
from medfuse_serving.prior import Prior, lay_prior, list_identities, show_prior, turn_prior
from medfuse_serving.reader import reader_of
from medfuse_serving.report.gather import ReportOptions, make_record
from medfuse_serving.report.record import Decision
from medfuse_serving.report.render import make_report
from medfuse_serving.report.withhold import find_referrals, list_withheld
from medfuse_serving.shelves import Shelf, Shelves
from medfuse_serving.telling import Shown, tell_in, tell_steps_in
from medfuse_serving.viewer import Frames, shelve_frames, viewer_html
from medfuse_serving.worklist.panel import TAKE_WANTED, lay_worklist, list_html
from medfuse_serving.worklist.records import ReadingStep, Status, StudyRow
from medfuse_serving.worklist.store import Store

if TYPE_CHECKING:
    import gradio

FORGET_S = 600
"""Uploads that were never taken up are deleted after this; the rest are at once."""

IDLE_S = 3600
"""How long a user's study stays in memory after they last touched it."""

CLOSED_S = 30
"""How long it stays after their page was closed, since a lost connection looks the same."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What one user has laid out.

    Attributes:
        language: What the user reads.
        note_text: The note as put into the text box; while it is unchanged there, the study's own
            bytes are sent, so that their encoding is reported.
        frames: Its images' frames, for the viewer; None where there are none.
        problem: Why the images can't be shown.
        opened: Which example this is; None of any other study, and once it was changed.
        row: The study of the worklist that was opened; None of any other.
        since: When the study was opened; None where it was put together here.
        form: Of the impression: another for each study, so that none is said of the next.
        answer: What the model answers; None before it is asked, and once the study has changed.
        maps: What spoke for and against in the image, once that was asked.
        reaches: Over what its missing modalities could move the answer, once that was asked.
        coarse: The same, coarsely and not yet checked, while that is under way; on the desk, or the
            shelf would be gone before the page has asked for it.
        views: The explanations that were asked for, one of each target.
        report: All of it as a PDF, once that was asked.
        dictated: What the note was written down from; None once it was changed by hand.
    """

    language: Language = ENGLISH
    study: Study = field(default_factory=Study)
    note_text: str = ""
    frames: Frames | None = None
    problem: str = ""
    opened: int | None = None
    row: StudyRow | None = None
    since: datetime | None = None
    form: str = ""
    answer: Answer | None = None
    maps: Shelf | None = None
    coarse: Shelf | None = None
    reaches: tuple[Reach, ...] = ()
    views: tuple[View, ...] = ()
    report: Shelf | None = None
    dictated: Transcript | None = None


def lay_out(language: Language, study: Study, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Make a desk of a study; a part that can't be read is said so where it would be shown."""
    desk = lay_images(Desk(language, study), study.images, settings, shelves)
    if study.note is not None:
        try:
            text = decode_note(study.note, settings.limits, settings.note.legacy_encoding)
        except InputError:
            return desk  # the note's own panel says why
        desk = replace(desk, note_text=text)
    return desk


def lay_images(
    desk: Desk, images: tuple[bytes, ...], settings: PrepareSettings, shelves: Shelves
) -> Desk:
    """Replace a desk's images and put their frames on a shelf.

    Raises:
        LimitError: There are too many to keep; the desk stays as it is.
    """
    _check_size(images)
    study = replace(desk.study, images=images)
    desk = _unanswered(replace(desk, study=study))
    try:
        frames = shelve_frames(desk.language, images, settings, shelves) if images else None
    except InputError as error:
        return replace(desk, frames=None, problem=str(error))
    return replace(desk, frames=frames, problem="")


def _check_size(images: tuple[bytes, ...]) -> None:
    """Refuse what would stay in memory for as long as the page is open."""
    size = sum(map(len, images))
    if size > UPLOAD_BYTES:
        raise LimitError(
            f"the images have {size} bytes together, and at most {UPLOAD_BYTES} are taken; clear "
            "them and give fewer, or use the command line"
        )


def edit_note(desk: Desk, text: str) -> Desk:
    """Take the text box's content as the note, unless it is what was put there."""
    if _lines(text) == _lines(desk.note_text):
        return desk
    note = text.encode("utf-8") if text.strip() else None
    study = replace(desk.study, note=note)
    return _unanswered(replace(desk, study=study, note_text=text, dictated=None))


def _unanswered(desk: Desk) -> Desk:
    """Take an answer and its explanation off a desk."""
    return replace(
        desk, opened=None, answer=None, maps=None, coarse=None, reaches=(), views=(), report=None
    )


def write_down(desk: Desk, recording: bytes, settings: PrepareSettings) -> Desk:
    """Take what was dictated as the note, in place of any other.

    Raises:
        InputError: The recording cannot be read, or nothing in it be understood.
        SettingsError: Dictation is not installed.
    """
    from medfuse.dictation.transcribe import transcribe

    said = transcribe(recording, settings.limits)
    return replace(edit_note(desk, said.text), dictated=said)


def turn_to(desk: Desk, language: Language, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Say what lies on a desk in another language, where it is not said anew at every look."""
    frames = desk.frames
    if frames is not None:
        frames = shelve_frames(language, desk.study.images, settings, shelves)
    maps = desk.maps
    if maps is not None:
        maps = explanation_view.shelve_maps(language, desk.views[-1], shelves)
    return replace(desk, language=language, frames=frames, maps=maps, coarse=None, report=None)


def show_image(desk: Desk) -> str:
    """Show the image in the viewer, or why there is none."""
    language = desk.language
    if desk.problem:
        body = rendering.problem_html(language, desk.problem)
    elif desk.frames is None:
        body = rendering.empty_html(language.text("No image given."))
    else:
        name = language.text("Present study")
        which = escape_text(language.text("Present study: what the answer is about"))
        body = f'<p class="mf-which">{which}</p>{viewer_html(desk.frames, name)}'
    return rendering.card_html(language.text("Image"), body)


def show_prior_of(desk: Desk, prior: Prior, settings: PrepareSettings) -> str:
    """Show an earlier study beside the one on a desk; nothing where none is given."""
    given = desk.frames is not None and prior.frames is not None
    present = list_identities(desk.study.images, settings) if given else frozenset()
    return show_prior(desk.language, prior, present)


def show_note(desk: Desk, settings: PrepareSettings) -> str:
    """Show the note by sections, or why there is none."""
    language = desk.language
    try:
        body = (
            rendering.empty_html(language.text("No note given."))
            if desk.study.note is None
            else rendering.note_html(language, desk.study.note, settings.note, settings.limits)
        )
        if desk.dictated is not None:
            body += rendering.dictated_html(language, desk.dictated)
    except InputError as error:
        body = rendering.problem_html(language, str(error))
    return rendering.card_html(language.text("Note"), body)


def show_voice(desk: Desk, settings: PrepareSettings) -> str:
    """Show the recording with a player, or why there is none."""
    language = desk.language
    try:
        body = (
            rendering.empty_html(language.text("No recording given."))
            if desk.study.voice is None
            else rendering.voice_html(language, desk.study.voice, settings.limits)
        )
    except InputError as error:
        body = rendering.problem_html(language, str(error))
    return rendering.card_html(language.text("Recording"), body)


def show_answer(desk: Desk) -> str:
    """Show the model's answer, without the score of what its explanations leave to a human."""
    language = desk.language
    if desk.answer is None:
        said = language.text("Open an example or give a study's parts, then press Predict.")
        body = rendering.empty_html(said)
    else:
        records = [view.record for view in desk.views]
        body = rendering.answer_html(language, desk.answer, records)
        withheld = list_withheld(find_referrals(desk.answer, records))
        body += reach_html(language, desk.answer, desk.reaches, withheld)
    return rendering.card_html(language.text("Answer"), body)


def shelve_report(
    desk: Desk, step: ReadingStep | None, predictor: Predictor, shelves: Shelves
) -> Shelf:
    """Write an answer, its explanations and its reading as a PDF and put it on a shelf.

    Raises:
        MedfuseError: It cannot be written.
    """
    assert desk.answer is not None
    options = ReportOptions(
        language=desk.language.code,
        study_id=None if desk.row is None else desk.row.label,
        reading=reading.to_reading(step),
    )
    pdf = make_report(make_record(predictor, desk.study, desk.answer, desk.views, options))
    return shelves.put(1, lambda _: pdf, "application/pdf")


def link_report(language: Language, report: Shelf) -> str:
    """Offer a report for download."""
    said = escape_text(language.text("Download the report (PDF)"))
    return (
        f'<p class="mf-download"><a href="shelves/{report.token}/0" download="report.pdf">'
        f"{said}</a></p>"
    )


def take_up(path: str, most_bytes: int) -> bytes:
    """Read an upload and delete it, so that no one else can ask for it by its path."""
    try:
        return read_file(Path(path), most_bytes)
    finally:
        Path(path).unlink(missing_ok=True)


def find_language_of(values: Sequence[object]) -> Language:
    """Find the language of the user whose desk is among what a handler was given."""
    return next((v.language for v in values if isinstance(v, Desk)), ENGLISH)


@dataclass(frozen=True, slots=True)
class Practice:
    """How studies come to the page and are read there.

    Attributes:
        store: The worklist; None where there is none.
        read_first: Whether an answer is computed only after the reader's own impression is kept.
    """

    store: Store | None = None
    read_first: bool = False


def mount_page(
    app: FastAPI,
    explainer: Explainer,
    examples: Sequence[StudyFiles] = (),
    practice: Practice | None = None,
) -> FastAPI:
    """Put the page at the app's root; its other routes stay as they are."""
    # Read by Gradio as it is imported: no analytics, no look at its newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    system = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
    mono = ("ui-monospace", "Consolas", "monospace")
    shelves = Shelves()
    shelves.mount(app)

    @app.get("/reader", include_in_schema=False)
    async def tell_reader(request: Request) -> dict[str, str]:
        return {"name": reader_of(request)}

    web = str(files("medfuse_serving").joinpath("web"))
    app.mount("/web", StaticFiles(directory=web))
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        build_page(explainer, examples, shelves, practice),
        path="/",
        css=files("medfuse_serving").joinpath("page.css").read_text(encoding="utf-8"),
        head='<script type="module" src="web/viewer.js"></script>'
        '<script type="module" src="web/reader.js"></script>'
        '<script type="module" src="web/worklist.js"></script>'
        '<script type="module" src="web/impression.js"></script>'
        '<script type="module" src="web/evidence.js"></script>',
        theme=gradio.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=system, font_mono=mono
        ).set(
            # Contrast of at least 4.5 to 1 everywhere (WCAG 2.2, 1.4.3).
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
        ),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=explainer.predictor.bundle.manifest.prepare.limits.file_bytes,
    )
    return mounted


def build_page(
    explainer: Explainer,
    examples: Sequence[StudyFiles],
    shelves: Shelves,
    practice: Practice | None = None,
) -> "gradio.Blocks":
    """Lay out the page and connect its parts."""
    import gradio as gr

    practice = practice or Practice()
    store = practice.store
    predictor = explainer.predictor
    settings = predictor.bundle.manifest.prepare
    questions = reading.list_questions(predictor.bundle.manifest.tasks)
    page: gr.Blocks
    with gr.Blocks(
        title="medfuse", fill_width=True, analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)
    ) as page:
        labels = Labels()
        desk = gr.State(Desk(), time_to_live=IDLE_S)
        # Apart from the desk, which an explanation under way puts back as it found it.
        prior = gr.State(Prior(), time_to_live=IDLE_S)
        changes = gr.State(Changes(), time_to_live=IDLE_S)
        # Of the answer on the desk. By itself, since an explanation that was begun before a
        # decision ends with the desk as it was then.
        read = gr.State(None, time_to_live=IDLE_S)
        with gr.Row(elem_classes="mf-top"):
            header = gr.HTML(rendering.header_html(ENGLISH), scale=1)
            switch = gr.Dropdown(
                [(name, code) for code, name in OWN_NAMES.items()],
                value=ENGLISH.code,
                label="Language \N{MIDDLE DOT} 语言",
                elem_id="language",
                filterable=False,
                scale=0,
                min_width=160,
            )
        worklist = lay_worklist(ENGLISH, store)
        with gr.Row(elem_classes="mf-columns"):
            with gr.Column(scale=3, min_width=300, elem_classes="mf-give"):
                example = labels.put(
                    gr.Dropdown(
                        [(files.name, i) for i, files in enumerate(examples)],
                        value=None,
                        visible=bool(examples),
                    ),
                    message("Example study"),
                )
                images = labels.put(
                    gr.File(file_count="multiple", height=104, type="filepath"),
                    message("Images (DICOM)"),
                )
                prior_images = labels.put(
                    gr.File(file_count="multiple", height=104, type="filepath"),
                    message("Prior images (DICOM)"),
                )
                clear_prior = labels.put(
                    gr.Button(size="sm", elem_id="clear-prior"), message("Remove the prior images")
                )
                note = labels.put(
                    gr.Textbox(lines=5, max_lines=12),
                    message("Note"),
                    placeholder=message("Type or paste the note"),
                )
                with gr.Row():
                    note_file = labels.put(
                        gr.UploadButton(size="sm", file_count="single"), message("Open a note file")
                    )
                    dictation = labels.put(
                        gr.UploadButton(
                            size="sm",
                            file_count="single",
                            visible=find_spec("moonshine_voice") is not None,
                        ),
                        message("Write down a dictation"),
                    )
                voice = labels.put(
                    gr.File(file_count="single", height=104, type="filepath"),
                    message("Recording (WAV, FLAC, OGG, MP3, DICOM)"),
                )
                microphone = labels.put(
                    gr.Audio(sources=["microphone"], type="filepath", buttons=[]),
                    message("Record"),
                )
                with gr.Row():
                    clear = labels.put(gr.Button(), message("Clear all"))
                    ask = labels.put(gr.Button(variant="primary"), message("Predict"))
            with gr.Column(scale=7, min_width=480):
                answer = gr.HTML(show_answer(Desk()), elem_id="answer")
                impression = reading_panel.lay_impression(
                    questions, labels, read_first=practice.read_first
                )
                verdict = reading_panel.lay_verdict(labels)
                with gr.Row(elem_id="report"):
                    write = labels.put(
                        gr.Button(scale=0, min_width=220), message("Make a PDF report")
                    )
                    report_place = gr.HTML("", elem_id="report-place")
                    explore = labels.put(
                        gr.Button(
                            scale=0,
                            min_width=320,
                            elem_id="reach-ask",
                            visible=explainer.has_others,
                        ),
                        message("Show what a missing part might change"),
                    )
                controls = explanation_panel.lay_controls(explainer, labels)
                labels.put(
                    gr.Checkbox(False, elem_id="overlays", interactive=True),
                    message("Show what spoke for and against over the evidence"),
                )
                strength = gr.HTML("", elem_id="strength")
                # Each kind of evidence has two places; page.css shows the map where there is one.
                with gr.Row(elem_id="evidence"):
                    with gr.Column(min_width=320, elem_classes="mf-evidence"):
                        with gr.Row(elem_classes="mf-studies"):
                            image_view = gr.HTML(show_image(Desk()), elem_id="image")
                            prior_view = gr.HTML("", elem_id="prior")
                        image_map = gr.HTML("", elem_id="image-map")
                    with gr.Column(min_width=320):
                        with gr.Column(elem_classes="mf-evidence"):
                            note_view = gr.HTML(show_note(Desk(), settings), elem_id="note")
                            note_map = gr.HTML("", elem_id="note-map")
                        with gr.Column(elem_classes="mf-evidence"):
                            voice_view = gr.HTML(show_voice(Desk(), settings), elem_id="voice")
                            voice_map = gr.HTML("", elem_id="voice-map")
                table = gr.HTML("", elem_id="pieces")
                maps = Maps(image_map, note_map, voice_map, strength, table)

        def show_questions(desk: Desk) -> str:
            """Ask for the impression, where it comes first."""
            if not practice.read_first:
                return ""
            return reading_panel.questions_html(desk.language, questions, desk.form)

        def show(desk: Desk, opened: int | None = None) -> Shown:
            """Show a whole desk; an answer to an earlier study never stays beside a new one."""
            desk = replace(_unanswered(desk), opened=opened, form=secrets.token_hex(8))
            shown: Shown = {
                desk_state: desk,
                note: desk.note_text,
                image_view: show_image(desk),
                note_view: show_note(desk, settings),
                voice_view: show_voice(desk, settings),
                answer: show_answer(desk),
                report_place: "",
                worklist.place: list_html(desk.language, desk.row),
            }
            shown[impression.questions] = show_questions(desk)
            shown |= reading_panel.clear(impression, verdict)
            return shown | explanation_panel.clear(controls, maps)

        def refuse_answer(problem: str, given: tuple[object, ...]) -> str:
            language = find_language_of(given)
            body = rendering.problem_html(language, problem)
            return rendering.card_html(language.text("Answer"), body)

        def refuse_explanation(problem: str, given: tuple[object, ...]) -> str:
            language = find_language_of(given)
            body = rendering.problem_html(language, problem)
            return rendering.card_html(language.text("Explanation"), body)

        def refuse_prior(problem: str, given: tuple[object, ...]) -> str:
            return show_prior(find_language_of(given), Prior(problem=problem), frozenset())

        def refuse(problem: str, given: tuple[object, ...]) -> str:
            return rendering.problem_html(find_language_of(given), problem)

        def refuse_reading(problem: str, given: tuple[object, ...]) -> str:
            return reading_panel.refusal_html(find_language_of(given), problem)

        tell = tell_in(answer, refuse_answer)
        tell_steps = tell_steps_in(controls.summary, refuse_explanation, maps.places)
        desk_state, prior_state = desk, prior
        explained = [controls.summary, *maps.places]
        decided = [*verdict.given, verdict.place]
        views = [desk, note, image_view, note_view, voice_view, answer, report_place, *explained]
        views += [worklist.place, *impression.shown, *decided]
        priors = [prior, prior_view]

        no_prior: Shown = {prior: Prior(), prior_view: ""}

        @tell
        def open_example(index: int | None, desk: Desk, text: str) -> Shown:
            if index is None:
                return show(Desk(desk.language)) | no_prior
            if index == edit_note(desk, text).opened:  # Gradio tells of one choice twice
                return {desk_state: desk}
            study = read_study(examples[index], settings.limits)
            opened = lay_out(desk.language, study, settings, shelves)
            return show(replace(opened, since=datetime.now(UTC)), index) | no_prior

        @tell
        def open_listed(study_id: str, desk: Desk, text: str, reader: str) -> Shown:
            assert store is not None
            _, study = store.get(study_id)
            given = edit_note(desk, text).study  # a note that was left by this very click
            if desk.row is not None and desk.row.id == study_id and given == study:
                return {desk_state: desk}  # as it was, with its answer
            opened = lay_out(desk.language, study, settings, shelves)
            row = store.open(study_id, reader)
            return (
                show(replace(opened, row=row, since=datetime.now(UTC))) | {example: None} | no_prior
            )

        @tell
        def add_images(paths: list[str], desk: Desk, text: str, prior: Prior) -> Shown:
            added = tuple(take_up(path, settings.limits.file_bytes) for path in paths)
            desk = lay_images(edit_note(desk, text), desk.study.images + added, settings, shelves)
            beside = show_prior_of(desk, prior, settings)
            return show(desk) | {images: None, prior_view: beside}

        @tell_in(prior_view, refuse_prior)
        def add_prior(paths: list[str], desk: Desk, prior: Prior) -> Shown:
            added = tuple(take_up(path, settings.limits.file_bytes) for path in paths)
            _check_size(prior.images + added)
            prior = lay_prior(desk.language, prior.images + added, settings, shelves)
            beside = show_prior_of(desk, prior, settings)
            return {prior_state: prior, prior_view: beside, prior_images: None}

        @tell
        def open_note(path: str, desk: Desk) -> Shown:
            data = take_up(path, settings.limits.note_bytes + 1)
            study = replace(desk.study, note=data)
            text = lay_out(desk.language, Study(note=data), settings, shelves).note_text
            return show(replace(desk, study=study, note_text=text))

        @tell
        def add_dictation(path: str, desk: Desk) -> Shown:
            data = take_up(path, settings.limits.file_bytes)
            return show(write_down(desk, data, settings))

        @tell
        def add_voice(path: str | None, desk: Desk, text: str) -> Shown:
            if path is None:
                return {desk_state: desk}
            data = take_up(path, settings.limits.file_bytes)
            desk = edit_note(desk, text)
            desk = replace(desk, study=replace(desk.study, voice=data))
            return show(desk) | {voice: None, microphone: None}

        @tell
        def retype_note(changes: Changes, text: str, desk: Desk) -> Shown:
            changed = changes.since()
            edited = edit_note(desk, text)
            if edited is desk:  # left without a change: an explanation stays
                return {note_view: gr.skip()}
            shown: Shown = {
                desk_state: edited,
                note_view: show_note(edited, settings),
                report_place: "",
            }
            if changed():  # by the click that left it: another study may lie there
                return {note_view: gr.skip()}
            return shown | explanation_panel.clear(controls, maps)

        def keep(step: ReadingStep) -> ReadingStep:
            """Keep a reading's step on the worklist's record, where there is one."""
            if store is not None:
                store.keep(step)
            return step

        def begin_reading(desk: Desk, reader: str) -> ReadingStep:
            study_id = None if desk.row is None else desk.row.id
            return reading.begin(study_id, reader, desk.since)

        def answer_study(
            changed: Callable[[], bool], desk: Desk, step: ReadingStep, reader: str
        ) -> Shown:
            """Answer what lies on the desk and show it, unless something else lies there by now."""
            (prediction,) = predictor.predict([desk.study])
            if changed():
                return {answer: gr.skip()}
            answered = to_answer(prediction)
            step = keep(reading.show_answer(step, desk.study, answered, reader, ()))
            desk = replace(_unanswered(desk), answer=answered)
            shown: Shown = {
                desk_state: desk,
                read: step,
                note_view: show_note(desk, settings),
                answer: show_answer(desk),
                report_place: "",
                impression.place: "",
            }
            if (chosen := explanation_panel.choose_target(answered)) is not None:
                shown[controls.target] = chosen
            shown |= reading_panel.clear_verdict(verdict)
            shown[verdict.place] = show_decision(desk, step)
            return shown | explanation_panel.clear(controls, maps)

        def show_decision(desk: Desk, step: ReadingStep | None) -> str:
            stored = store is not None
            return reading_panel.decision_html(desk.language, step, stored=stored)

        @tell
        def predict(changed: Callable[[], bool], text: str, desk: Desk, reader: str) -> Shown:
            desk = edit_note(desk, text)
            if not practice.read_first:
                return answer_study(changed, desk, begin_reading(desk, reader), reader)
            predictor.prepare([desk.study])  # what cannot be read needs no impression
            desk = _unanswered(desk)
            shown: Shown = {
                desk_state: desk,
                note_view: show_note(desk, settings),
                answer: reading_panel.wait_html(desk.language),
                report_place: "",
                impression.place: "",
            }
            return shown | explanation_panel.clear(controls, maps)

        @tell
        def show_reach(changes: Changes, text: str, desk: Desk) -> Shown:
            changed = changes.since()
            desk = edit_note(desk, text)
            if desk.answer is None:
                return {answer: gr.skip()}
            others = explainer.read_others()
            found = missing.explore(predictor, desk.study, others, lambda: not changed())
            if changed():
                return {answer: gr.skip()}
            desk = replace(desk, reaches=found)
            return {desk_state: desk, answer: show_answer(desk)}

        @tell_in(impression.place, refuse_reading)
        def keep_impression(
            changed: Callable[[], bool], said: str, text: str, desk: Desk, words: str, reader: str
        ) -> Shown:
            desk = edit_note(desk, text)
            findings = reading_panel.read_findings(questions, said)
            step = begin_reading(desk, reader)
            step = reading.give_impression(step, desk.study, findings, words, reader)
            return answer_study(changed, desk, keep(step), reader)

        def decide(decision: Decision) -> Callable[..., Shown]:
            @tell_in(verdict.place, refuse_reading)
            def take_decision(
                text: str,
                desk: Desk,
                step: ReadingStep | None,
                wording: str,
                reason: str,
                reader: str,
            ) -> Shown:
                desk = edit_note(desk, text)
                if desk.answer is None or step is None:
                    raise InputError(reading.NO_ANSWER)
                seen = [view.record for view in desk.views]
                step = keep(
                    reading.decide(step, desk.answer, seen, decision, wording, reason, reader)
                )
                row = desk.row and desk.row.model_copy(update={"status": Status.READ})
                return {
                    read: step,
                    verdict.place: show_decision(desk, step),
                    worklist.place: list_html(desk.language, row),
                    report_place: "",
                }

            return take_decision

        @tell_in(report_place, refuse)
        def write_report(text: str, desk: Desk, step: ReadingStep | None) -> Shown:
            desk = edit_note(desk, text)
            if desk.answer is None:
                raise InputError("there is no answer to report; press Predict first")
            shelf = shelve_report(desk, step, predictor, shelves)
            link = link_report(desk.language, shelf)
            return {desk_state: replace(desk, report=shelf), report_place: link}

        @tell
        def turn(code: str, text: str, desk: Desk, step: ReadingStep | None, prior: Prior) -> Shown:
            language = find_language(code)
            if language.code == desk.language.code:  # told at every load, and of a choice twice
                return {note_view: gr.skip()}
            desk = turn_to(edit_note(desk, text), language, settings, shelves)
            prior = turn_prior(prior, language, settings, shelves)
            shown: Shown = {
                desk_state: desk,
                prior_state: prior,
                prior_view: show_prior_of(desk, prior, settings),
                header: rendering.header_html(language),
                image_view: show_image(desk),
                note_view: show_note(desk, settings),
                voice_view: show_voice(desk, settings),
                answer: show_answer(desk),
                report_place: "",
                worklist.place: list_html(language, desk.row),
                verdict.place: show_decision(desk, step),
                impression.questions: show_questions(desk),
                impression.place: "",
            }
            if desk.maps is None:
                shown |= explanation_panel.clear(controls, maps)
            else:
                shown |= explanation_panel.show(
                    language,
                    explainer,
                    controls,
                    maps,
                    desk.views[-1],
                    desk.maps,
                    desk.study,
                    _list_read(desk),
                )
            return shown | labels.say(language)

        @tell_steps
        def explain(
            text: str,
            desk: Desk,
            changes: Changes,
            target: str,
            method: str,
            baseline: str | None,
            band: bool,
        ) -> Iterator[Shown]:
            changed = changes.since()
            desk = edit_note(desk, text)
            if practice.read_first and desk.answer is None:
                raise InputError("an explanation comes after the answer; press Predict first")
            language = desk.language
            steps = explanation_panel.explain(
                language, explainer, desk.study, target, method, baseline, band, changed
            )
            for step in steps:
                if isinstance(step, str):
                    yield {controls.summary: step}
                    continue
                if isinstance(step, Glance):
                    coarse = explanation_view.shelve_glance(
                        language, step, explainer.scales, settings, shelves
                    )
                    yield {
                        desk_state: replace(desk, coarse=coarse),
                        image_map: explanation_view.glance_html(coarse),
                    }
                    continue
                shelf = explanation_view.shelve_maps(language, step, shelves)
                others = tuple(v for v in desk.views if v.record.target != target)
                desk = replace(desk, maps=shelf, views=(*others, step), report=None)
                shown: Shown = {desk_state: desk, report_place: ""}
                if desk.answer is not None:
                    shown[answer] = show_answer(desk)
                yield shown | explanation_panel.show(
                    language, explainer, controls, maps, step, shelf, desk.study, _list_read(desk)
                )
            if changed():  # what was sent meanwhile may lie over what took its place
                yield explanation_panel.clear(controls, maps)

        def changing(handle: Callable[..., Shown]) -> Callable[..., Shown]:
            """End what is being explained before a handler that changes the study."""

            def handle_change(changes: Changes, *values: object) -> Shown:
                changes.count += 1
                return handle(*values)

            return handle_change

        def answering(handle: Callable[..., Shown]) -> Callable[..., Shown]:
            """The same, and tell the handler whether the study has changed since."""

            def handle_answer(changes: Changes, *values: object) -> Shown:
                changes.count += 1
                return handle(changes.since(), *values)

            return handle_answer

        def naming(handle: Callable[..., Shown]) -> Callable[..., Shown]:
            """Tell a handler, after all that it is given, who the reader is."""

            def handle_named(request: gr.Request, *values: object) -> Shown:
                return handle(*values, reader_of(request))

            return handle_named

        def retype(desk: Desk) -> Shown:
            cleared: Shown = {answer: show_answer(Desk(desk.language)), report_place: ""}
            return cleared | explanation_panel.clear(controls, maps)

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        # A click on Predict also leaves the note. Were both queued, the stream that ends with the
        # first could close on the second's answer, which would then never arrive.
        unqueued = quiet | {"queue": False}
        controls.ask.click(
            explain,
            [note, desk, changes, *controls.choices],
            [desk, answer, report_place, *explained],
            concurrency_limit=2,
            api_visibility="private",
            show_progress="hidden",
        )
        controls.stop.click(
            changing(lambda: explanation_panel.clear(controls, maps)),
            changes,
            explained,
            **unqueued,
        )
        explore.click(
            show_reach, [changes, note, desk], [desk, answer], concurrency_limit=1, **quiet
        )
        example.input(
            changing(open_example), [changes, example, desk, note], [*views, *priors], **quiet
        )
        images.upload(
            changing(add_images),
            [changes, images, desk, note, prior],
            [*views, images, prior_view],
            **quiet,
        )
        # These change no study, so an answer and its explanation stay.
        prior_images.upload(
            add_prior, [prior_images, desk, prior], [*priors, prior_images], **quiet
        )
        clear_prior.click(lambda: no_prior, None, priors, **quiet)
        note_file.upload(changing(open_note), [changes, note_file, desk], views, **quiet)
        dictation.upload(
            changing(add_dictation), [changes, dictation, desk], views, **quiet, concurrency_limit=1
        )
        for recording, given in ((voice, voice.upload), (microphone, microphone.stop_recording)):
            given(
                changing(add_voice),
                [changes, recording, desk, note],
                [*views, voice, microphone],
                **quiet,
            )
        # What was said of the note before is gone at the first key, and stays gone.
        cleared = json.dumps(
            {
                code: [show_answer(Desk(find_language(code))), "", *[""] * len(explained)]
                for code in LANGUAGES
            }
        )
        unseen = quiet | {"show_progress": "hidden"}
        emptied = [answer, report_place, *explained]
        emptying = f"() => medfuseLanguage.choose({cleared})"
        note.input(None, None, emptied, js=emptying, **unseen)
        note.input(changing(retype), [changes, desk], emptied, **(unseen | {"queue": False}))
        note.blur(
            retype_note,
            [changes, note, desk],
            [desk, note_view, report_place, *explained],
            **unqueued,
        )
        answered = [desk, read, note_view, answer, report_place, controls.target, *explained]
        answered += [impression.place, *decided]
        ask.click(
            naming(answering(predict)),
            [changes, note, desk],
            answered,
            concurrency_limit=2,
            **quiet,
        )
        impression.keep.click(
            naming(answering(keep_impression)),
            [changes, impression.keep, note, desk, impression.text],
            answered,
            js=reading_panel.TAKE_SAID,
            concurrency_limit=2,
            **quiet,
        )
        for decision, button in verdict.buttons.items():
            button.click(
                naming(decide(decision)),
                [note, desk, read, *verdict.given],
                [read, verdict.place, worklist.place, report_place],
                **unqueued,
            )
        worklist.opening.click(
            naming(changing(open_listed)),
            [changes, worklist.opening, desk, note],
            [*views, *priors, example],
            js=TAKE_WANTED,
            **unqueued,
        )
        write.click(
            write_report,
            [note, desk, read],
            [desk, report_place],
            concurrency_limit=1,
            **quiet,
        )
        clear.click(
            changing(lambda desk: show(Desk(desk.language)) | no_prior | {example: None}),
            [changes, desk],
            [*views, *priors, example],
            **quiet,
        )
        # What the browser keeps is put into the switch there; the server hears of a change alone.
        page.load(None, None, switch, js="() => medfuseLanguage.restore()", **unseen)
        switch.change(
            changing(turn),
            [changes, switch, note, desk, read, prior],
            [*views, *priors, header, *labels.components],
            js="(...values) => medfuseLanguage.keep(values)",
            **(unseen | {"queue": False}),
        )
        page.unload(_forget_soon(page))
    return page


def _list_read(desk: Desk) -> tuple[int | None, ...]:
    """Give of each frame in the viewer its number among those that the model reads."""
    return () if desk.frames is None else desk.frames.read


def _forget_soon(page: "gradio.Blocks") -> "Callable[[gradio.Request], None]":
    """Make the handler that lets go of a user's study once their page is closed."""
    import gradio as gr

    def forget(request: gr.Request) -> None:
        session, closed = request.session_hash or "", datetime.now()  # as Gradio counts

        def let_go() -> None:
            states = page.state_holder
            if states.time_last_used.get(session, closed) <= closed:  # not come back
                states.delete_state(session)

        timer = threading.Timer(CLOSED_S, let_go)
        timer.daemon = True
        timer.start()

    return forget


def _lines(text: str) -> list[str]:
    """Split a text into lines, whose ends a browser's text box makes its own."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
