"""Handlers of the page by which an answer is explained, step by step."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from medfuse.errors import InputError
from medfuse_serving import explanation_panel, explanation_view, rendering
from medfuse_serving.dictation_view import find_sounds
from medfuse_serving.explainer import Glance, Waiting
from medfuse_serving.explanation_view import View
from medfuse_serving.page.answering import show_found_after
from medfuse_serving.page.desk import Desk, check_shown, edit_note, list_read
from medfuse_serving.page.desk_view import show_answer
from medfuse_serving.page.room import UNQUEUED, Room, find_language_of, list_said
from medfuse_serving.page.session import Session
from medfuse_serving.telling import Shown, tell_steps_in


def clear_explanation(room: Room) -> Shown:
    """Take the explanation away."""
    return explanation_panel.clear(room.parts.controls, room.parts.maps)


def show_explanation(room: Room, desk: Desk) -> Shown:
    """Show the newest explanation on the desk; nothing where there is none."""
    if desk.maps is None:
        return clear_explanation(room)
    view = desk.views[-1]
    said = desk.dictated
    return explanation_panel.show(
        desk.language,
        room.explainer,
        room.parts.controls,
        room.parts.maps,
        view,
        desk.maps,
        desk.study,
        list_read(desk),
        {} if said is None else find_sounds(said.transcript, view.pieces),
    )


def explain(
    room: Room,
    text: str,
    laid: str,
    session: Session,
    target: str,
    method: str,
    baseline: str | None,
    band: bool,
) -> Iterator[Shown]:
    """Explain the answer: how far it is, a coarse map, and in the end the explanation."""
    number, stopped, another = session.explaining.begin()
    changed = session.since()

    def ended() -> bool:
        return changed() or stopped()

    try:
        desk = session.desk
        check_shown(desk, laid)
        if edit_note(desk, text, laid) is not desk:  # the browser has taken it away
            return
        if room.practice.read_first and desk.answer is None:
            raise InputError("an explanation comes after the answer; press Predict first")
        steps = explanation_panel.explain(
            room.explainer, desk.study, target, method, baseline, band, ended
        )
        for step in steps:
            with session.lock:
                if ended():
                    break
                shown = show_step(room, session.desk, step)
                shown = session.put(room.parts.states.desk, shown)
            yield shown
    finally:
        session.explaining.finish(number)
    if ended() and not another():  # what was sent meanwhile may lie over what took its place
        yield clear_explanation(room)


def show_step(room: Room, desk: Desk, step: float | Waiting | Glance | View) -> Shown:
    """Show a step of an explanation; the coarse map and the explanation go on the desk."""
    parts, language = room.parts, desk.language
    if isinstance(step, Waiting):
        return {parts.controls.summary: explanation_view.waiting_html(language)}
    if isinstance(step, float):
        started = language.text("The answer is being explained.")
        said = language.text("Explaining: {percent} %", percent=int(100 * step))
        return {parts.controls.summary: rendering.progress_html(step, said, started)}
    if isinstance(step, Glance):
        coarse = explanation_view.shelve_glance(
            language, step, room.explainer.scales, room.settings, room.shelves
        )
        return {
            parts.states.desk: replace(desk, coarse=coarse),
            parts.maps.image: explanation_view.glance_html(coarse),
        }
    shelf = explanation_view.shelve_maps(language, step, room.shelves)
    others = tuple(v for v in desk.views if v.record.target != step.record.target)
    desk = replace(desk, maps=shelf, views=(*others, step))
    # A report that was made before lacks it.
    shown: Shown = {
        parts.states.desk: desk,
        parts.given.laid: desk.laid,
        parts.states.report: None,
        parts.report.place: "",
    }
    if step.record.withheld:  # as may be what is shown there, until it is shown anew
        shown[parts.reach] = ""
    if desk.answer is not None:
        shown[parts.answer] = show_answer(desk)
    return shown | show_explanation(room, desk)


def stop(room: Room, session: Session) -> Shown:
    """End the explanation that is under way, and take away what is shown of it."""
    session.explaining.stop()
    return clear_explanation(room)


def connect_explaining(room: Room) -> None:
    """Connect what asks for an explanation and what stops it."""
    parts, states, controls = room.parts, room.parts.states, room.parts.controls

    def refuse_explanation(problem: str, given: tuple[object, ...]) -> str:
        language = find_language_of(given)
        body = rendering.problem_html(language, problem)
        return rendering.card_html(language.text("Explanation"), body)

    tell_steps = tell_steps_in(controls.summary, refuse_explanation, parts.maps.places)
    ended = controls.ask.click(
        tell_steps(partial(explain, room)),
        [*parts.given.typed, states.desk, *controls.choices],
        [states.desk, states.report, parts.given.laid, *list_said(parts)],
        concurrency_limit=2,
        trigger_mode="multiple",  # or one that has not ended yet would take no notice of the next
        api_visibility="private",
        show_progress="hidden",
    )
    show_found_after(room, ended)
    controls.stop.click(partial(stop, room), states.desk, parts.explained, **UNQUEUED)
