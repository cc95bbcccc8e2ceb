"""The page's reading: an impression before the answer where that is asked for, a decision after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfuse.overlay import escape_text
from medfuse_serving import rendering
from medfuse_serving.labels import Choices, Labels
from medfuse_serving.language import ENGLISH, Language, message
from medfuse_serving.reading import Question
from medfuse_serving.report.record import Decision
from medfuse_serving.report.words import title
from medfuse_serving.telling import Shown
from medfuse_serving.worklist.records import MOST_REASON, MOST_TEXT, ReadingStep

if TYPE_CHECKING:
    import gradio

DECISIONS: dict[Decision, str] = {
    "accept": message("Accept"),
    "edit": message("Edit"),
    "override": message("Override"),
}

DECIDED: dict[Decision, str] = {
    "accept": message("Kept: the answer was accepted."),
    "edit": message("Kept: the answer was accepted with changes."),
    "override": message("Kept: the answer was overridden."),
}


@dataclass(frozen=True, slots=True)
class Impression:
    """What the reader says before the answer; seen when the answer waits for it."""

    said: "tuple[gradio.components.Component, ...]"
    text: "gradio.Textbox"
    keep: "gradio.Button"
    place: "gradio.HTML"

    @property
    def given(self) -> "list[gradio.components.Component]":
        """What is said: the words, and then an answer to each question in their order."""
        return [self.text, *self.said]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the reader decides after the answer; seen while there is one."""

    wording: "gradio.Textbox"
    reason: "gradio.Textbox"
    buttons: "dict[Decision, gradio.Button]"
    place: "gradio.HTML"

    @property
    def given(self) -> "list[gradio.components.Component]":
        """What is written."""
        return [self.wording, self.reason]


def lay_impression(
    questions: Sequence[Question], labels: Labels, *, read_first: bool
) -> Impression:
    """Lay out the form of the impression."""
    import gradio as gr

    with gr.Column(elem_id="impression", visible=read_first):
        said = tuple(_ask(question, labels) for question in questions)
        text = gr.Textbox(lines=2, max_lines=8, max_length=MOST_TEXT)
        labels.put(text, message("Your impression in words"))
        place = gr.HTML("", elem_id="impression-place")
        keep = gr.Button(variant="primary")
        labels.put(keep, message("Keep my impression and show the answer"))
    return Impression(said, text, keep, place)


def lay_verdict(labels: Labels) -> Verdict:
    """Lay out what is decided under an answer."""
    import gradio as gr

    with gr.Column(elem_id="decision"):
        with gr.Row():
            wording = gr.Textbox(lines=2, max_lines=8, max_length=MOST_TEXT)
            labels.put(wording, message("Final wording (needed to edit)"))
            reason = gr.Textbox(lines=2, max_lines=8, max_length=MOST_REASON)
            labels.put(reason, message("Reason (needed to edit or override)"))
        with gr.Row():
            buttons = {d: labels.put(gr.Button(), text) for d, text in DECISIONS.items()}
        place = gr.HTML("", elem_id="decision-place")
    return Verdict(wording, reason, buttons, place)


def wait_html(language: Language) -> str:
    """Say in the answer's place that the impression comes first."""
    said = escape_text(
        language.text("Read first: the answer is computed once your impression is kept, below.")
    )
    body = f'<p class="mf-empty mf-read-first" role="status">{said}</p>'
    return rendering.card_html(language.text("Answer"), body)


def decision_html(language: Language, step: ReadingStep | None, *, stored: bool) -> str:
    """Say what was decided, and where it is kept; nothing while no answer is shown."""
    if step is None or step.answered_at is None:
        return ""
    said = ""
    if step.decision is not None:
        said = f'<p role="status"><b>{escape_text(language.text(DECIDED[step.decision]))}</b></p>'
    where = ""
    if not stored:
        told = language.text(
            "There is no worklist: your reading stays on this page and in its report, and is gone "
            "with them."
        )
        where = f'<p class="mf-legend">{escape_text(told)}</p>'
    return said + where


def refusal_html(language: Language, problem: str) -> str:
    """Say why nothing was kept.

    Args:
        language: The reader's.
        problem: An error's message, in English.
    """
    return rendering.problem_html(language, problem, language.text("Not kept:"))


def clear(impression: Impression, verdict: Verdict) -> Shown:
    """Take away what was said of another study."""
    emptied: Shown = dict.fromkeys(impression.said)
    return emptied | {impression.text: "", impression.place: ""} | clear_verdict(verdict)


def clear_verdict(verdict: Verdict) -> Shown:
    """Take away what was decided on another answer."""
    return {verdict.wording: "", verdict.reason: "", verdict.place: ""}


def read_findings(questions: Sequence[Question], said: Sequence[object]) -> dict[str, str]:
    """Take what was said to each question; what was left open is not in it."""
    return {
        question.target: f"{value:g}" if isinstance(value, int | float) else str(value)
        for question, value in zip(questions, said, strict=True)
        if value is not None and value != ""
    }


def _ask(question: Question, labels: Labels) -> "gradio.components.Component":
    """Lay out one question."""
    import gradio as gr

    def name(language: Language) -> str:
        said = title(language, question.name)
        return f"{said} ({question.unit})" if question.unit else said

    if not question.options:
        return labels.put(gr.Number(value=None), name)

    def options(language: Language) -> Choices:
        return [(language.name(option), option) for option in question.options]

    return labels.put(gr.Radio(options(ENGLISH), value=None), name, options)
