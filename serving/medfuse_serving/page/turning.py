"""The handler of the page by which it turns to another language, with all that lies on it."""

from functools import partial
from typing import TYPE_CHECKING

from medfuse_serving import rendering
from medfuse_serving.language import find_language
from medfuse_serving.missing import Reaches
from medfuse_serving.page.answering import show_decision, show_impression
from medfuse_serving.page.desk import Desk, edit_note, is_shown, turn_to
from medfuse_serving.page.desk_view import (
    show_answer,
    show_image,
    show_note,
    show_prior_of,
    show_reaches,
    show_told,
    show_voice,
    show_which,
)
from medfuse_serving.page.explaining import show_explanation
from medfuse_serving.page.giving import show_questions, show_same
from medfuse_serving.page.room import UNSEEN, Room, settle, tell_given, tell_note
from medfuse_serving.page.session import Session
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
    session: Session,
    step: ReadingStep | None,
    reaches: Reaches,
) -> Shown:
    """Turn the page to a language; what is under way on the study goes on, and comes in it."""
    with session.lock:
        language = find_language(code)
        if language.code == session.desk.language.code:  # told at every load, and of a choice twice
            return {room.parts.states.desk: session}
        desk = turn_to(edit_note(session.desk, text, laid), language, room.settings, room.shelves)
        shown = show_turned(room, desk, session, step, reaches)
        return session.put(room.parts.states.desk, shown)


def show_turned(
    room: Room, desk: Desk, session: Session, step: ReadingStep | None, reaches: Reaches
) -> Shown:
    """Show all that lies on a desk, and the page's own words."""
    parts, evidence = room.parts, room.parts.evidence
    shown: Shown = {
        parts.states.desk: desk,
        evidence.prior: show_prior_of(desk),
        parts.header: rendering.header_html(desk.language),
        parts.which: show_which(desk, room.examples),
        parts.given.laid: desk.laid,
        parts.given.told: show_told(desk),
        parts.given.noted: tell_note(room, desk),
        evidence.image: show_image(desk),
        evidence.voice: show_voice(desk, room.settings),
        parts.answer: show_answer(desk),
        parts.states.report: None,
        parts.report.place: "",
        parts.reach: show_reaches(desk, reaches),
        parts.worklist.place: list_html(desk.language, desk.row),
        parts.verdict.place: show_decision(room, desk, step),
        parts.verdict.impression: show_impression(room, desk, step),
        parts.impression.questions: show_questions(room, desk),
        parts.impression.place: "",
    }
    if desk.maps is not None or not session.explaining.goes_on:
        shown |= show_explanation(room, desk)
    return shown | parts.labels.say(desk.language)


def catch_up(
    room: Room,
    text: str,
    laid: str,
    session: Session,
    step: ReadingStep | None,
    reaches: Reaches,
) -> Shown:
    """Show what lies on the server where something older came to the page after it.

    What is not queued may come before or after what is, and what turns the page is not.
    """
    with session.lock:
        desk = session.desk
        if not is_shown(desk, laid):
            shown = show_same(room, laid, desk) if desk.shown else {}
        elif laid != desk.laid:
            shown = show_turned(room, desk, session, step, reaches)
            if edit_note(desk, text, laid) is desk:
                shown[room.parts.evidence.note] = show_note(desk, room.settings)
        else:
            shown = {
                room.parts.evidence.prior: show_prior_of(desk),
                room.parts.verdict.place: show_decision(room, desk, step),
                room.parts.verdict.impression: show_impression(room, desk, step),
            }
        return session.put(room.parts.states.desk, {room.parts.states.desk: desk} | shown)


def connect_turning(room: Room, page: "gradio.Blocks") -> None:
    """Connect the switch; what the browser keeps is put into it there, when the page is loaded."""
    parts, states, switch = room.parts, room.parts.states, room.parts.switch
    turned_over = [*parts.study, parts.evidence.prior, parts.header, *parts.labels.components]
    page.load(None, None, switch, js="() => medfuseLanguage.restore()", **UNSEEN)
    turned = switch.change(
        tell_given(room, partial(turn, room)),
        [switch, *parts.given.typed, states.desk, states.read, states.reaches],
        turned_over,
        js="(...values) => medfuseLanguage.keep(values)",
        **(UNSEEN | {"queue": False}),
    )
    for begins in (turned.then, parts.given.catch_up.click):
        caught = begins(
            tell_given(room, partial(catch_up, room)),
            [*parts.given.typed, states.desk, states.read, states.reaches],
            turned_over,
            **(UNSEEN | {"queue": False}),
        )
        settle(room, caught)
