"""The parts of the page in their places: what is given, the answer, and the image beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medfuse.config import PrepareSettings
from medfuse.data.studies import StudyFiles
from medfuse_serving import explanation_panel, reading_panel, rendering
from medfuse_serving.explainer import Explainer
from medfuse_serving.explanation_panel import Controls, Maps
from medfuse_serving.labels import Labels
from medfuse_serving.language import ENGLISH, OWN_NAMES, message
from medfuse_serving.missing import Reaches
from medfuse_serving.page.desk import Desk
from medfuse_serving.page.desk_view import show_answer, show_image, show_note, show_voice
from medfuse_serving.page.practice import Practice
from medfuse_serving.page.session import Session
from medfuse_serving.reading import list_questions
from medfuse_serving.reading_panel import Impression, Verdict
from medfuse_serving.telling import Shown
from medfuse_serving.worklist.panel import Worklist, lay_worklist

if TYPE_CHECKING:
    import gradio

IDLE_S = 3600
"""How long a user's study stays in memory after they last touched it."""


@dataclass(frozen=True, slots=True)
class States:
    """What the server keeps for one user.

    What a handler gives back takes the place of what another gave back while it was under way, so
    what must not be lost so is kept by itself; the desk, which most handlers change, in a
    `Session`.

    Attributes:
        desk: The session, with what is laid out.
        read: How the answer on the desk was read.
        report: The last one that was asked for, as a PDF; on a shelf for as long as it is kept.
        reaches: What the study's missing parts might change, once that was asked.
    """

    desk: "gradio.State"
    read: "gradio.State"
    report: "gradio.State"
    reaches: "gradio.State"


@dataclass(frozen=True, slots=True)
class Given:
    """Where a study is opened or its parts are given.

    ``laid`` is never seen: it holds `Desk.laid` of the study that the browser shows, so that a note
    that is sent with it is known to be that study's. Nor are ``changed``, which is pressed by
    `web/note.js` when the note is changed, and stands for how often it was; and ``noted``, where
    the note comes as it was read, for the browser to show it if it is still that note; and
    ``catch_up``, which is pressed there when something older came after something newer; and
    ``remove_image`` and ``remove_prior_image``, which the viewers press. ``told`` is where it is
    said why something could not be given, opened or taken away; ``writing`` where it is said how
    far a dictation is written down, and ``stop`` ends that.
    """

    told: "gradio.HTML"
    example: "gradio.Dropdown"
    images: "gradio.File"
    prior_images: "gradio.File"
    clear_prior: "gradio.Button"
    remove_image: "gradio.Button"
    remove_prior_image: "gradio.Button"
    note: "gradio.Textbox"
    laid: "gradio.Textbox"
    changed: "gradio.Button"
    noted: "gradio.Textbox"
    catch_up: "gradio.Button"
    note_file: "gradio.UploadButton"
    dictation: "gradio.UploadButton"
    writing: "gradio.HTML"
    stop: "gradio.Button"
    voice: "gradio.File"
    microphone: "gradio.Audio"
    clear_voice: "gradio.Button"
    leave_out: "gradio.Button"
    clear: "gradio.Button"
    ask: "gradio.Button"

    @property
    def typed(self) -> "list[gradio.Textbox]":
        """The note as it stands in the browser, and of which study it is."""
        return [self.note, self.laid]


@dataclass(frozen=True, slots=True)
class Report:
    """What is asked for under an answer besides its explanation."""

    write: "gradio.Button"
    place: "gradio.HTML"
    explore: "gradio.Button"
    stop: "gradio.Button"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the study is shown as it was read; each kind has a second place, for its map."""

    image: "gradio.HTML"
    prior: "gradio.HTML"
    note: "gradio.HTML"
    voice: "gradio.HTML"


@dataclass(frozen=True, slots=True)
class Parts:
    """All of the page."""

    labels: Labels
    states: States
    header: "gradio.HTML"
    which: "gradio.HTML"
    switch: "gradio.Dropdown"
    worklist: Worklist
    given: Given
    answer: "gradio.HTML"
    reach: "gradio.HTML"
    impression: Impression
    verdict: Verdict
    report: Report
    controls: Controls
    evidence: Evidence
    maps: Maps

    @property
    def explained(self) -> "list[gradio.HTML]":
        """What an explanation is shown in."""
        return [self.controls.summary, *self.maps.places]

    @property
    def asked(self) -> "list[gradio.components.Component]":
        """What is asked for under an answer, kept and shown."""
        return [self.states.report, self.report.place, self.states.reaches, self.reach]

    def clear_asked(self) -> Shown:
        """Take that away, as its answer goes."""
        return {
            self.states.report: None,
            self.report.place: "",
            self.states.reaches: Reaches(),
            self.reach: "",
        }

    @property
    def decided(self) -> "list[gradio.components.Component]":
        """What a decision is written and shown in."""
        return [*self.verdict.given, self.verdict.place, self.verdict.impression]

    @property
    def study(self) -> "list[gradio.components.Component]":
        """What changes with the study."""
        evidence = self.evidence
        return [
            self.states.desk,
            self.which,
            self.given.told,
            *self.given.typed,
            self.given.noted,
            evidence.image,
            evidence.note,
            evidence.voice,
            self.answer,
            *self.asked,
            *self.explained,
            self.worklist.place,
            *self.impression.shown,
            *self.decided,
        ]


def lay_parts(explainer: Explainer, examples: Sequence[StudyFiles], practice: Practice) -> Parts:
    """Lay out the page."""
    import gradio as gr

    labels = Labels()
    manifest = explainer.predictor.bundle.manifest
    states = States(
        desk=gr.State(Session(), time_to_live=IDLE_S),
        read=gr.State(None, time_to_live=IDLE_S),
        report=gr.State(None, time_to_live=IDLE_S),
        reaches=gr.State(Reaches(), time_to_live=IDLE_S),
    )
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
    worklist = lay_worklist(ENGLISH, practice.store)
    which = gr.HTML("", elem_id="which")
    with gr.Row(elem_classes="mf-columns"):
        with gr.Column(elem_classes="mf-give"):
            given = _lay_given(examples, labels)
        with gr.Column(elem_classes="mf-answering"):
            answer = gr.HTML(show_answer(Desk()), elem_id="answer")
            reach = gr.HTML("", elem_id="reach")
            impression = reading_panel.lay_impression(
                list_questions(manifest.tasks), labels, read_first=practice.read_first
            )
            verdict = reading_panel.lay_verdict(labels)
            report = _lay_report(labels, explore=explainer.has_others)
            controls = explanation_panel.lay_controls(explainer, labels)
        evidence, maps = _lay_evidence(labels, manifest.prepare)
    return Parts(
        labels,
        states,
        header,
        which,
        switch,
        worklist,
        given,
        answer,
        reach,
        impression,
        verdict,
        report,
        controls,
        evidence,
        maps,
    )


def _lay_given(examples: Sequence[StudyFiles], labels: Labels) -> Given:
    """Lay out where a study is given."""
    import gradio as gr

    told = gr.HTML("", elem_id="given-told")
    example = gr.Dropdown(
        [(files.name, i) for i, files in enumerate(examples)], value=None, visible=bool(examples)
    )
    labels.put(example, message("Example study"))
    images = gr.File(file_count="multiple", height=104, type="filepath", elem_id="images")
    labels.put(images, message("Images (DICOM)"))
    prior_images = gr.File(
        file_count="multiple", height=104, type="filepath", elem_id="prior-images"
    )
    labels.put(prior_images, message("Prior images (DICOM)"))
    clear_prior = gr.Button(size="sm", elem_id="clear-prior")
    labels.put(clear_prior, message("Remove the prior images"))
    remove_image = gr.Button(elem_id="remove-image", visible="hidden")
    remove_prior_image = gr.Button(elem_id="remove-prior-image", visible="hidden")
    note = gr.Textbox(lines=5, max_lines=12, elem_id="note-text")
    labels.put(note, message("Note"), placeholder=message("Type or paste the note"))
    laid = gr.Textbox(Desk().laid, visible="hidden", elem_id="laid")
    catch_up = gr.Button(elem_id="catch-up", visible="hidden")
    changed = gr.Button(elem_id="note-changed", visible="hidden")
    noted = gr.Textbox(visible="hidden")
    with gr.Row():
        note_file = gr.UploadButton(size="sm", file_count="single", elem_id="note-file")
        labels.put(note_file, message("Open a note file"))
        can_write = find_spec("moonshine_voice") is not None
        dictation = gr.UploadButton(
            size="sm", file_count="single", visible=can_write, elem_id="dictation"
        )
        labels.put(dictation, message("Write down a dictation"))
    writing = gr.HTML("", elem_id="writing")
    stop = gr.Button(size="sm", elem_id="stop-writing")
    labels.put(stop, message("Stop writing down"))
    voice = gr.File(file_count="single", height=124, type="filepath", elem_id="recording")
    labels.put(voice, message("Recording (WAV, FLAC, OGG, MP3, DICOM)"))
    microphone = gr.Audio(sources=["microphone"], type="filepath", buttons=[], elem_id="microphone")
    labels.put(microphone, message("Record"))
    clear_voice = gr.Button(size="sm", elem_id="clear-voice")
    labels.put(clear_voice, message("Remove the recording"))
    leave_out = gr.Button(size="sm", elem_id="leave-out")
    labels.put(leave_out, message("Leave out what cannot be read"))
    with gr.Row():
        clear = labels.put(gr.Button(elem_id="clear-all"), message("Clear all"))
        ask = labels.put(gr.Button(variant="primary"), message("Predict"))
    return Given(
        told,
        example,
        images,
        prior_images,
        clear_prior,
        remove_image,
        remove_prior_image,
        note,
        laid,
        changed,
        noted,
        catch_up,
        note_file,
        dictation,
        writing,
        stop,
        voice,
        microphone,
        clear_voice,
        leave_out,
        clear,
        ask,
    )


def _lay_report(labels: Labels, *, explore: bool) -> Report:
    """Lay out what is asked for under an answer."""
    import gradio as gr

    with gr.Row(elem_id="report"):
        write = gr.Button(scale=0, min_width=290, elem_id="report-ask")
        labels.put(write, message("Make a PDF report (Alt+R)"))
        place = gr.HTML("", elem_id="report-place")
        asked = gr.Button(scale=0, min_width=400, elem_id="reach-ask", visible=explore)
        labels.put(asked, message("Show what a missing part might change"))
        stop = gr.Button(scale=0, min_width=120, elem_id="stop-exploring")
        labels.put(stop, message("Stop looking for it"))
    return Report(write, place, asked, stop)


def _lay_evidence(labels: Labels, settings: PrepareSettings) -> tuple[Evidence, Maps]:
    """Lay out the study; page.css shows a map in the evidence's place where there is one."""
    import gradio as gr

    with gr.Column(elem_classes="mf-looking"), gr.Column(elem_classes="mf-evidence"):
        overlays = gr.Checkbox(False, elem_id="overlays", interactive=True)
        labels.put(overlays, message("Show what spoke for and against over the evidence"))
        strength = gr.HTML("", elem_id="strength")
        with gr.Row(elem_classes="mf-studies"):
            image = gr.HTML(show_image(Desk()), elem_id="image")
            prior = gr.HTML("", elem_id="prior")
        image_map = gr.HTML("", elem_id="image-map")
    with gr.Column(elem_classes="mf-hearing"):
        with gr.Column(elem_classes="mf-evidence"):
            note = gr.HTML(show_note(Desk(), settings), elem_id="note")
            note_map = gr.HTML("", elem_id="note-map")
        with gr.Column(elem_classes="mf-evidence"):
            voice = gr.HTML(show_voice(Desk(), settings), elem_id="voice")
            voice_map = gr.HTML("", elem_id="voice-map")
        table = gr.HTML("", elem_id="pieces")
    return Evidence(image, prior, note, voice), Maps(
        image_map, note_map, voice_map, strength, table
    )
