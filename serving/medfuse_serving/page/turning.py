"""The handler of the page by which it turns to another language, with all that lies on it."""

from typing import TYPE_CHECKING

from medfuse_serving import rendering
from medfuse_serving.language import find_language
from medfuse_serving.missing import Reaches
from medfuse_serving.page.answering import show_decision, show_impression
from medfuse_serving.page.desk import Desk, edit_note, turn_to
from medfuse_serving.page.desk_view import (
    show_answer,
    show_image,
    show_note,
    show_prior_of,
    show_reaches,
    show_voice,
    show_which,
)
from medfuse_serving.page.explaining import show_explanation
from medfuse_serving.page.giving import show_questions
from medfuse_serving.page.room import UNSEEN, Room, changing, hold_to_note, tell
from medfuse_serving.prior import Prior, turn_prior
from medfuse_serving.telling import Shown
from medfuse_serving.worklist.panel import list_html
from medfuse_serving.worklist.records import ReadingStep

if TYPE_CHECKING:
    import gradio


def turn(
    room: Room,
    code: str,
    text: str,
    laid: str,
    desk: Desk,
    step: ReadingStep | None,
    prior: Prior,
    reaches: Reaches,
) -> Shown:
    """Turn the page to a language."""
    import gradio as gr

    parts, evidence = room.parts, room.parts.evidence
    language = find_language(code)
    if language.code == desk.language.code:  # told at every load, and of a choice twice
        return {evidence.note: gr.skip()}
    desk = turn_to(edit_note(desk, text, laid), language, room.settings, room.shelves)
    prior = turn_prior(prior, language, room.settings, room.shelves)
    shown: Shown = {
        parts.states.desk: desk,
        parts.states.prior: prior,
        evidence.prior: show_prior_of(desk, prior),
        parts.header: rendering.header_html(language),
        parts.which: show_which(desk, room.examples),
        evidence.image: show_image(desk),
        evidence.note: show_note(desk, room.settings),
        evidence.voice: show_voice(desk, room.settings),
        parts.answer: show_answer(desk),
        parts.states.report: None,
        parts.report.place: "",
        parts.reach: show_reaches(desk, reaches),
        parts.worklist.place: list_html(language, desk.row),
        parts.verdict.place: show_decision(room, desk, step),
        parts.verdict.impression: show_impression(room, desk, step),
        parts.impression.questions: show_questions(room, desk),
        parts.impression.place: "",
    }
    return shown | show_explanation(room, desk) | parts.labels.say(language)


def connect_turning(room: Room, page: "gradio.Blocks") -> None:
    """Connect the switch; what the browser keeps is put into it there, when the page is loaded."""
    parts, states, switch = room.parts, room.parts.states, room.parts.switch
    page.load(None, None, switch, js="() => medfuseLanguage.restore()", **UNSEEN)
    turned = switch.change(
        changing(tell(room, turn)),
        [
            states.changes,
            switch,
            *parts.given.typed,
            states.desk,
            states.read,
            states.prior,
            states.reaches,
        ],
        [*parts.study, *parts.prior, parts.header, *parts.labels.components],
        js="(...values) => medfuseLanguage.keep(values)",
        **(UNSEEN | {"queue": False}),
    )
    hold_to_note(room, turned)
