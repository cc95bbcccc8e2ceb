"""The page: a study opened or given by hand, shown as it was read, and its answer beside it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from medfuse.config import PrepareSettings
from medfuse.data.note import decode_note
from medfuse.errors import InputError, LimitError, MedfuseError
from medfuse.types import Study
from medfuse_serving import rendering
from medfuse_serving.answer import to_answer
from medfuse_serving.api import UNFORESEEN, UPLOAD_BYTES, log_unforeseen
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import Frame
from medfuse_serving.studies import StudyFiles, read_file, read_study

if TYPE_CHECKING:
    import gradio

Shown = dict[object, object]
"""New content by component."""

NO_IMAGE = "No image given."
NO_NOTE = "No note given."
NO_VOICE = "No recording given."
NO_ANSWER = rendering.card_html(
    "Answer", rendering.empty_html("Open an example or give a study's parts, then press Predict.")
)

FORGET_S = 600
"""Uploads that were never taken up are deleted after this; the rest are at once."""

IDLE_S = 3600
"""How long a user's study stays in memory after they last touched it."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What one user has laid out, with the frames already rendered.

    Attributes:
        note_text: The note as put into the text box; while it is unchanged there, the study's own
            bytes are sent, so that their encoding is reported.
        problem: Why the images can't be shown.
    """

    study: Study = field(default_factory=Study)
    note_text: str = ""
    frames: tuple[Frame, ...] = ()
    problem: str = ""


def lay_out(study: Study, settings: PrepareSettings) -> Desk:
    """Make a desk of a study; a part that can't be read is said so where it would be shown."""
    desk = lay_images(Desk(study=study), study.images, settings)
    if study.note is not None:
        try:
            text = decode_note(study.note, settings.limits, settings.note.legacy_encoding)
        except InputError:
            return desk  # the note's own panel says why
        desk = replace(desk, note_text=text)
    return desk


def lay_images(desk: Desk, images: tuple[bytes, ...], settings: PrepareSettings) -> Desk:
    """Replace a desk's images and render their frames.

    Raises:
        LimitError: There are too many to keep; the desk stays as it is.
    """
    size = sum(map(len, images))
    if size > UPLOAD_BYTES:  # not kept: it would stay in memory for as long as the page is open
        raise LimitError(
            f"the images have {size} bytes together, and at most {UPLOAD_BYTES} are taken; clear "
            "them and give fewer, or use the command line"
        )
    study = replace(desk.study, images=images)
    try:
        frames = rendering.render_frames(images, settings) if images else ()
    except InputError as error:
        return replace(desk, study=study, frames=(), problem=str(error))
    return replace(desk, study=study, frames=frames, problem="")


def edit_note(desk: Desk, text: str) -> Desk:
    """Take the text box's content as the note, unless it is what was put there."""
    if _lines(text) == _lines(desk.note_text):
        return desk
    note = text.encode("utf-8") if text.strip() else None
    return replace(desk, study=replace(desk.study, note=note), note_text=text)


def show_image(desk: Desk, number: int) -> str:
    """Show the frame with a number from 1, or why there is none."""
    if desk.problem:
        body = rendering.problem_html(desk.problem)
    elif not desk.frames:
        body = rendering.empty_html(NO_IMAGE)
    else:
        body = rendering.frame_html(desk.frames[min(max(number, 1), len(desk.frames)) - 1])
    return rendering.card_html("Image", body)


def show_note(desk: Desk, settings: PrepareSettings) -> str:
    """Show the note by sections, or why there is none."""
    try:
        body = (
            rendering.empty_html(NO_NOTE)
            if desk.study.note is None
            else rendering.note_html(desk.study.note, settings.note, settings.limits)
        )
    except InputError as error:
        body = rendering.problem_html(str(error))
    return rendering.card_html("Note", body)


def show_voice(desk: Desk, settings: PrepareSettings) -> str:
    """Show the recording with a player, or why there is none."""
    try:
        body = (
            rendering.empty_html(NO_VOICE)
            if desk.study.voice is None
            else rendering.voice_html(desk.study.voice, settings.limits)
        )
    except InputError as error:
        body = rendering.problem_html(str(error))
    return rendering.card_html("Recording", body)


def show_answer(predictor: Predictor, study: Study) -> str:
    """Ask the model and show its answer.

    Raises:
        MedfuseError: There is none.
    """
    (prediction,) = predictor.predict([study])
    return rendering.card_html("Answer", rendering.answer_html(to_answer(prediction)))


def show_refusal(message: str) -> str:
    """Say in the answer's place why there is none."""
    return rendering.card_html("Answer", rendering.problem_html(message))


def take_up(path: str, most_bytes: int) -> bytes:
    """Read an upload and delete it, so that no one else can ask for it by its path."""
    try:
        return read_file(Path(path), most_bytes)
    finally:
        Path(path).unlink(missing_ok=True)


def mount_page(app: FastAPI, predictor: Predictor, examples: Sequence[StudyFiles] = ()) -> FastAPI:
    """Put the page at the app's root; its other routes stay as they are."""
    # Read by Gradio as it is imported: no analytics, no look at its newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    system = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
    mono = ("ui-monospace", "Consolas", "monospace")
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        build_page(predictor, examples),
        path="/",
        css=files("medfuse_serving").joinpath("page.css").read_text(encoding="utf-8"),
        theme=gradio.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=system, font_mono=mono
        ).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=predictor.bundle.manifest.prepare.limits.file_bytes,
    )
    return mounted


def build_page(predictor: Predictor, examples: Sequence[StudyFiles]) -> "gradio.Blocks":
    """Lay out the page and connect its parts."""
    import gradio as gr

    settings = predictor.bundle.manifest.prepare
    page: gr.Blocks
    with gr.Blocks(
        title="medfuse", fill_width=True, analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)
    ) as page:
        gr.HTML(rendering.header_html())
        desk = gr.State(Desk(), time_to_live=IDLE_S)
        with gr.Row(elem_classes="mf-columns"):
            with gr.Column(scale=3, min_width=300, elem_classes="mf-give"):
                example = gr.Dropdown(
                    [(files.name, i) for i, files in enumerate(examples)],
                    value=None,
                    label="Example study",
                    visible=bool(examples),
                )
                images = gr.File(
                    label="Images (DICOM)", file_count="multiple", height=104, type="filepath"
                )
                note = gr.Textbox(
                    label="Note", lines=5, max_lines=12, placeholder="Type or paste the note"
                )
                note_file = gr.UploadButton("Open a note file", size="sm", file_count="single")
                voice = gr.File(
                    label="Recording (WAV, FLAC, OGG, MP3, DICOM)",
                    file_count="single",
                    height=104,
                    type="filepath",
                )
                microphone = gr.Audio(
                    label="Record", sources=["microphone"], type="filepath", buttons=[]
                )
                with gr.Row():
                    clear = gr.Button("Clear all")
                    ask = gr.Button("Predict", variant="primary")
            with gr.Column(scale=7, min_width=480):
                answer = gr.HTML(NO_ANSWER, elem_id="answer")
                with gr.Row():
                    with gr.Column(min_width=320):
                        image_view = gr.HTML(show_image(Desk(), 1), elem_id="image")
                        frame = gr.Slider(1, 2, value=1, step=1, label="Frame", visible=False)
                    with gr.Column(min_width=320):
                        note_view = gr.HTML(show_note(Desk(), settings), elem_id="note")
                        voice_view = gr.HTML(show_voice(Desk(), settings), elem_id="voice")

        def show(desk: Desk) -> Shown:
            """Show a whole desk; an answer to an earlier study never stays beside a new one."""
            count = len(desk.frames)
            return {
                desk_state: desk,
                note: desk.note_text,
                frame: gr.Slider(maximum=max(count, 2), value=1, visible=count > 1),
                image_view: show_image(desk, 1),
                note_view: show_note(desk, settings),
                voice_view: show_voice(desk, settings),
                answer: NO_ANSWER,
            }

        def tell(function: Callable[..., Shown]) -> Callable[..., Shown]:
            """Show an error in the answer's place, and keep its text out of the log."""

            @wraps(function)
            def told(*values: object) -> Shown:
                try:
                    return function(*values)
                except MedfuseError as error:
                    return {answer: show_refusal(str(error))}
                except Exception as error:  # noqa: BLE001 - its text may quote the study
                    log_unforeseen(error)
                    return {answer: show_refusal(UNFORESEEN.message)}

            return told

        desk_state = desk
        views = [desk, note, frame, image_view, note_view, voice_view, answer]

        @tell
        def open_example(index: int | None) -> Shown:
            if index is None:
                return show(Desk())
            return show(lay_out(read_study(examples[index], settings.limits), settings))

        @tell
        def add_images(paths: list[str], desk: Desk, text: str) -> Shown:
            added = tuple(take_up(path, settings.limits.file_bytes) for path in paths)
            desk = lay_images(edit_note(desk, text), desk.study.images + added, settings)
            return show(desk) | {images: None}

        @tell
        def open_note(path: str, desk: Desk) -> Shown:
            data = take_up(path, settings.limits.note_bytes + 1)
            study = replace(desk.study, note=data)
            text = lay_out(Study(note=data), settings).note_text
            return show(replace(desk, study=study, note_text=text))

        @tell
        def add_voice(path: str | None, desk: Desk, text: str) -> Shown:
            if path is None:
                return {}
            data = take_up(path, settings.limits.file_bytes)
            desk = edit_note(desk, text)
            desk = replace(desk, study=replace(desk.study, voice=data))
            return show(desk) | {voice: None, microphone: None}

        @tell
        def retype_note(text: str, desk: Desk) -> Shown:
            desk = edit_note(desk, text)
            return {desk_state: desk, note_view: show_note(desk, settings)}

        @tell
        def predict(text: str, desk: Desk) -> Shown:
            desk = edit_note(desk, text)
            return {
                desk_state: desk,
                note_view: show_note(desk, settings),
                answer: show_answer(predictor, desk.study),
            }

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        example.input(open_example, example, views, **quiet)
        images.upload(add_images, [images, desk, note], [*views, images], **quiet)
        note_file.upload(open_note, [note_file, desk], views, **quiet)
        voice.upload(add_voice, [voice, desk, note], [*views, voice, microphone], **quiet)
        microphone.stop_recording(
            add_voice, [microphone, desk, note], [*views, voice, microphone], **quiet
        )
        note.input(None, None, answer, js=f"() => {json.dumps(NO_ANSWER)}", **quiet)
        note.blur(retype_note, [note, desk], [desk, note_view], **quiet)
        frame.input(lambda desk, n: show_image(desk, int(n)), [desk, frame], image_view, **quiet)
        ask.click(predict, [note, desk], [desk, note_view, answer], concurrency_limit=2, **quiet)
        clear.click(lambda: show(Desk()) | {example: None}, None, [*views, example], **quiet)
    return page


def _lines(text: str) -> list[str]:
    """Split a text into lines, whose ends a browser's text box makes its own."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
