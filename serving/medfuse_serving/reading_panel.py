"""The page's reading: an impression before the answer where that is asked for, a decision after."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from medfuse.errors import InputError
from medfuse.overlay import escape_text
from medfuse_serving import rendering
from medfuse_serving.labels import Labels
from medfuse_serving.language import ENGLISH, Language, message
from medfuse_serving.reading import Question
from medfuse_serving.report.record import Decision
from medfuse_serving.report.words import title
from medfuse_serving.worklist.records import MOST_REASON, MOST_TEXT, ReadingStep

if TYPE_CHECKING:
    import gradio

DECISIONS: dict[Decision, str] = {
    "accept": message("Accept"),
    "edit": message("Edit"),
    "override": message("Override"),
    "acknowledge": message("Referral noted"),
}

DECIDED: dict[Decision, str] = {
    "accept": message("Kept: the answer was accepted."),
    "edit": message("Kept: the answer was accepted with changes."),
    "override": message("Kept: the answer was overridden."),
    "acknowledge": message("Kept: the referral was noted."),
}


SAID = "JSON.stringify(document.querySelector('mf-impression').said)"
"""What was said to the questions, in the browser."""

_SAID: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class Impression:
    """What the reader says before the answer; seen when the answer waits for it."""

    questions: "gradio.HTML"
    text: "gradio.Textbox"
    keep: "gradio.Button"
    place: "gradio.HTML"

    @property
    def shown(self) -> "list[gradio.components.Component]":
        """What changes with the study."""
        return [self.questions, self.text, self.place]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the reader decides after the answer; seen while there is one.

    ``told`` is never seen: a decision comes there, for `web/note.js` to show beside its answer.
    """

    wording: "gradio.Textbox"
    reason: "gradio.Textbox"
    buttons: "dict[Decision, gradio.Button]"
    place: "gradio.HTML"
    told: "gradio.Textbox"
    impression: "gradio.HTML"

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
        asked = gr.HTML(questions_html(ENGLISH, questions, "") if read_first else "")
        text = gr.Textbox(lines=2, max_lines=8, max_length=MOST_TEXT)
        labels.put(text, message("Your impression in words"))
        place = gr.HTML("", elem_id="impression-place")
        keep = gr.Button(variant="primary")
        labels.put(keep, message("Keep my impression and show the answer"))
    return Impression(asked, text, keep, place)


def questions_html(language: Language, questions: Sequence[Question], form: str) -> str:
    """Show what is asked; `web/impression.js` makes a form of it.

    Args:
        language: Of the questions.
        questions: In their order.
        form: Changes when what was said is to be taken away.
    """
    asked = [
        {
            "target": question.target,
            "name": _say_name(language, question),
            "options": [(option, language.name(option)) for option in question.options],
        }
        for question in questions
    ]
    words = escape_text(json.dumps(asked))
    return f'<mf-impression data-questions="{words}" data-form="{form}"></mf-impression>'


def lay_verdict(labels: Labels) -> Verdict:
    """Lay out what is decided under an answer."""
    import gradio as gr

    with gr.Column(elem_id="decision"):
        impression = gr.HTML("", elem_id="kept-impression")
        with gr.Row():
            wording = gr.Textbox(lines=2, max_lines=8, max_length=MOST_TEXT)
            labels.put(wording, message("Final wording (needed to edit)"))
            reason = gr.Textbox(lines=2, max_lines=8, max_length=MOST_REASON)
            labels.put(reason, message("Reason (needed to edit or override)"))
        with gr.Row():
            buttons = {  # page.css shows those that can be taken on what is shown of the answer
                decision: labels.put(gr.Button(elem_id=f"decide-{decision}"), text)
                for decision, text in DECISIONS.items()
            }
        place = gr.HTML("", elem_id="decision-place")
        told = gr.Textbox(visible="hidden")
    return Verdict(wording, reason, buttons, place, told, impression)


def wait_html(language: Language) -> str:
    """Say in the answer's place that the impression comes first."""
    said = escape_text(
        language.text("Read first: the answer is computed once your impression is kept, below.")
    )
    body = f'<p class="mf-empty mf-read-first" data-told>{said}</p>'
    return rendering.card_html(language.text("Answer"), body)


def decision_html(language: Language, step: ReadingStep | None, *, stored: bool) -> str:
    """Say what was decided, and where it is kept; nothing while no answer is shown."""
    if step is None or step.answered_at is None:
        return ""
    said = ""
    if step.decision is not None:
        told = escape_text(language.text(DECIDED[step.decision]))
        # By the time, the browser tells what was typed since (`web/impression.js`).
        said = f'<p data-told data-at="{step.decided_at}"><b>{told}</b></p>'
    where = ""
    if not stored:
        alone = language.text(
            "There is no worklist: your reading stays on this page and in its report, and is gone "
            "with them."
        )
        where = f'<p class="mf-legend">{escape_text(alone)}</p>'
    return said + where


def impression_html(
    language: Language, questions: Sequence[Question], step: ReadingStep | None
) -> str:
    """Show the impression that was kept before the answer; nothing where there is none."""
    if step is None or step.impression_at is None:
        return ""
    names = {question.target: _say_name(language, question) for question in questions}
    found = "".join(
        f"<li>{escape_text(names[target])}: {escape_text(language.name(value))}</li>"
        for target, value in step.findings.items()
    )
    heading = escape_text(language.text("Your impression, kept before the answer"))
    return (
        f'<section class="mf-kept"><h3>{heading}</h3>'
        + (f"<ul>{found}</ul>" if found else "")
        + (f"<p>{escape_text(step.impression)}</p>" if step.impression else "")
        + "</section>"
    )


def refusal_html(language: Language, problem: str) -> str:
    """Say why nothing was kept.

    Args:
        language: The reader's.
        problem: An error's message, in English.
    """
    return rendering.problem_html(language, problem, language.text("Not kept:"))


def read_findings(questions: Sequence[Question], said: str) -> dict[str, str]:
    """Read what was said to the questions; what was left open is not in it.

    Raises:
        InputError: It is none of what may be said to them.
    """
    try:
        found = {target: value for target, value in _SAID.validate_json(said).items() if value}
    except ValidationError as error:
        raise InputError(_NOT_ASKED) from error
    known = {question.target: question for question in questions}
    for target, value in found.items():
        if target not in known or not _may_be_said(known[target], value):
            raise InputError(_NOT_ASKED)
    return found


_NOT_ASKED = "the impression answers something that is not asked; load the page anew"


def _may_be_said(question: Question, value: str) -> bool:
    if question.options:
        return value in question.options
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _say_name(language: Language, question: Question) -> str:
    said = title(language, question.name)
    return f"{said} ({question.unit})" if question.unit else said
