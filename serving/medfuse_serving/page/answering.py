"""Handlers of the page by which a study is answered, and what was read of it is kept."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from medfuse.errors import InputError
from medfuse_serving import explanation_panel, missing, reading, reading_panel, rendering
from medfuse_serving.answer import to_answer
from medfuse_serving.missing import Reaches
from medfuse_serving.page.desk import (
    Desk,
    check_shown,
    clear_answer,
    edit_note,
    is_shown,
    refuse_unshown,
)
from medfuse_serving.page.desk_view import show_answer, show_reaches, show_told, show_which
from medfuse_serving.page.giving import show_again
from medfuse_serving.page.room import (
    QUIET,
    UNQUEUED,
    UNSEEN,
    Finish,
    Handler,
    Room,
    answering,
    asking,
    find_language_of,
    looking,
    naming,
    settle,
    take,
    tell_answer,
    tell_note,
)
from medfuse_serving.page.session import Session
from medfuse_serving.report.record import Decision
from medfuse_serving.telling import Shown, tell_in, tell_steps_in
from medfuse_serving.worklist.panel import list_html
from medfuse_serving.worklist.records import ReadingStep, Status

if TYPE_CHECKING:
    import gradio


def begin_reading(desk: Desk, reader: str) -> ReadingStep:
    """Begin to read what lies on a desk."""
    study_id = None if desk.row is None else desk.row.id
    return reading.begin(study_id, reader, desk.since)


def keep(room: Room, step: ReadingStep) -> ReadingStep:
    """Keep a reading's step on the worklist's record, where there is one."""
    if room.practice.store is not None:
        room.practice.store.keep(step)
    return step


def show_decision(room: Room, desk: Desk, step: ReadingStep | None) -> str:
    """Say what was decided on the answer; nothing of what was on another."""
    stored = room.practice.store is not None
    return reading_panel.decision_html(desk.language, _of_answer(desk, step), stored=stored)


def show_impression(room: Room, desk: Desk, step: ReadingStep | None) -> str:
    """Show the impression that was kept before the answer."""
    own = _of_answer(desk, step)
    return reading_panel.impression_html(desk.language, room.questions, own)


def _of_answer(desk: Desk, step: ReadingStep | None) -> ReadingStep | None:
    return step if step is not None and step.reading == desk.reading else None


def answer_study(
    room: Room,
    desk: Desk,
    typed: tuple[str, str],
    step: ReadingStep,
    before: ReadingStep | None,
    written: tuple[str, ...],
    reader: str,
) -> Finish:
    """Answer what lies on the desk; in the end put the answer there and show it.

    Args:
        room: Of the page.
        desk: What to answer.
        typed: The note in the browser, and of which study it is.
        step: How it was read so far.
        before: How the last answer was read.
        written: Wording and reason as they stand there; each is taken away if it was kept with it.
        reader: Who asks.
    """
    parts, study, told = room.parts, edit_note(desk, *typed).study, desk.told
    (prediction,) = room.predictor.predict([study])
    answered = to_answer(prediction)

    def finish(desk: Desk) -> Shown:
        done = keep(room, reading.show_answer(step, study, answered, reader, ()))
        desk = clear_answer(edit_note(desk, *typed))
        desk = replace(desk, answer=answered, reading=done.reading)
        if desk.told == told:  # it was there to be seen when the answer was asked for
            desk = replace(desk, told="")
        shown: Shown = {
            parts.states.desk: desk,
            parts.states.read: done,
            parts.which: show_which(desk, room.examples),
            parts.given.told: show_told(desk),
            parts.given.laid: desk.laid,
            parts.given.noted: tell_note(room, desk),
            parts.answer: show_answer(desk),
            parts.impression.place: "",
        }
        if (chosen := explanation_panel.choose_target(answered)) is not None:
            shown[parts.controls.target] = chosen
        shown |= parts.clear_asked()
        kept = () if before is None else (before.wording, before.reason)
        for box, own, other in zip(parts.verdict.given, written, kept, strict=False):
            if own.strip() == other:
                shown[box] = ""
        shown[parts.verdict.place] = show_decision(room, desk, done)
        shown[parts.verdict.impression] = show_impression(room, desk, done)
        return shown | explanation_panel.clear(parts.controls, parts.maps)

    return finish


def predict(
    room: Room,
    text: str,
    laid: str,
    desk: Desk,
    before: ReadingStep | None,
    wording: str,
    reason: str,
    reader: str,
) -> Finish:
    """Answer the study, or ask for the reader's impression where that comes first.

    Where the page shows it otherwise than it is, it is shown anew instead.
    """
    if not is_shown(desk, laid):
        if not desk.shown:
            refuse_unshown(desk)
        return partial(show_again, room, laid)
    if not room.practice.read_first:
        step = begin_reading(desk, reader)
        return answer_study(room, desk, (text, laid), step, before, (wording, reason), reader)
    room.predictor.prepare([edit_note(desk, text, laid).study])  # else needs no impression
    return partial(ask_impression, room, (text, laid))


def ask_impression(room: Room, typed: tuple[str, str], desk: Desk) -> Shown:
    """Let the answer wait for the reader's impression."""
    desk = replace(clear_answer(edit_note(desk, *typed)), waits=True)
    parts = room.parts
    shown: Shown = {
        parts.states.desk: desk,
        parts.given.laid: desk.laid,
        parts.given.noted: tell_note(room, desk),
        parts.answer: show_answer(desk),
        parts.impression.place: "",
    }
    return shown | parts.clear_asked() | explanation_panel.clear(parts.controls, parts.maps)


def keep_impression(
    room: Room,
    said: str,
    text: str,
    laid: str,
    desk: Desk,
    before: ReadingStep | None,
    wording: str,
    reason: str,
    words: str,
    reader: str,
) -> Finish:
    """Keep the reader's impression and answer the study."""
    check_shown(desk, laid)
    findings = reading_panel.read_findings(room.questions, said)
    step = begin_reading(desk, reader)
    study = edit_note(desk, text, laid).study
    step = reading.give_impression(step, study, findings, words, reader)
    step = keep(room, step)
    return answer_study(room, desk, (text, laid), step, before, (wording, reason), reader)


def decide(
    room: Room,
    decision: Decision,
    mark: str,
    text: str,
    laid: str,
    desk: Desk,
    step: ReadingStep | None,
    wording: str,
    reason: str,
    reader: str,
) -> Shown:
    """Keep what the reader decides on the answer, unless the note is another by now.

    What that changes on the page comes as JSON after the answer's mark, for `web/note.js` to place:
    another answer may be shown by then.
    """
    import gradio as gr

    check_shown(desk, laid)
    if edit_note(desk, text, laid) is not desk:
        return {room.parts.states.read: gr.skip()}
    if desk.answer is None or step is None or step.reading != desk.reading:
        raise InputError(reading.NO_ANSWER)
    seen = [view.record for view in desk.views]
    decided = reading.decide(step, desk.answer, seen, decision, wording, reason, reader)
    step = keep(room, decided)
    row = desk.row and desk.row.model_copy(update={"status": Status.READ})
    parts = room.parts
    written = "" if decision == "accept" else None  # nothing was kept of what was written
    listed = list_html(desk.language, row)
    shown = [show_decision(room, desk, step), listed, "", *(written for _ in parts.verdict.given)]
    return {
        parts.states.read: step,
        parts.states.report: None,
        parts.verdict.told: json.dumps([mark, *shown]),
    }


def noting(handle: Handler) -> Handler:
    """Take down how often the browser had told of a change of the note, for what hears it late."""

    def handle_noted(session: Session, told: str, *values: object) -> Shown:
        session.heard = int(told)
        session.hear(int(told))
        return handle(*values)

    return handle_noted


def find_reaches(room: Room, session: Session, text: str, laid: str) -> Iterator[Shown]:
    """Find over what the missing parts could move the answer, and show how far that is."""
    desk, changed = session.desk, session.since()
    check_shown(desk, laid)
    if edit_note(desk, text, laid) is not desk or desk.answer is None:
        return
    number, stopped, _ = session.exploring.begin()
    parts, others = room.parts, room.explainer.read_others()
    try:
        for step in missing.follow(room.predictor, desk.study, others):
            if changed() or stopped():
                return
            if isinstance(step, float):
                yield {parts.reach: show_exploring(session.desk, step)}
            else:
                yield {parts.states.reaches: Reaches(desk.answer, step)}
    finally:
        session.exploring.finish(number)


def show_exploring(desk: Desk, share: float) -> str:
    """Show how far it is found what missing parts might change."""
    language = desk.language
    started = language.text("Looking for what a missing part might change.")
    said = language.text("Looking: {percent} %", percent=int(100 * share))
    return rendering.progress_html(share, said, started)


def stop_exploring(room: Room, session: Session) -> Shown:
    """End that."""
    session.exploring.stop()
    return {room.parts.reach: ""}


def show_found(room: Room, text: str, laid: str, desk: Desk, reaches: Reaches) -> Shown:
    """Show what was found, unless the note is another by now."""
    return {room.parts.reach: show_reaches(edit_note(desk, text, laid), reaches)}


def show_found_after(room: Room, event: "gradio.events.Dependency") -> None:
    """Show what was found once an event is over.

    By itself, and of the desk as it is then: an explanation may have withheld something since.
    """
    states, reach = room.parts.states, room.parts.reach
    given = [*room.parts.given.typed, states.desk, states.reaches]
    settle(room, event.then(looking(partial(show_found, room)), given, reach, **UNQUEUED))


def connect_answering(room: Room) -> None:
    """Connect what asks for an answer, and what is done with it."""
    parts, given, states = room.parts, room.parts.given, room.parts.states
    typed, impression, verdict = given.typed, parts.impression, parts.verdict
    answered = [
        *parts.study,
        parts.evidence.prior,
        states.read,
        parts.controls.target,
    ]

    def refuse_reading(problem: str, given: tuple[object, ...]) -> str:
        return reading_panel.refusal_html(find_language_of(given), problem)

    asked = given.ask.click(
        naming(tell_answer(room, noting(answering(room, predict)))),
        [states.desk, given.changed, *typed, states.desk, states.read, *verdict.given],
        answered,
        js=take(asking(2)),
        show_progress_on=parts.answer,
        concurrency_limit=2,
        trigger_mode="multiple",  # a second press is of what the study has become
        **QUIET,
    )
    settle(room, asked)
    tell_impression = tell_in(impression.place, refuse_reading)
    kept = impression.keep.click(
        naming(tell_impression(noting(answering(room, keep_impression)))),
        [
            states.desk,
            given.changed,
            impression.keep,
            *typed,
            states.desk,
            states.read,
            *verdict.given,
            impression.text,
        ],
        answered,
        js=take(asking(3), reading_panel.SAID),
        show_progress_on=parts.answer,
        concurrency_limit=2,
        trigger_mode="multiple",
        **QUIET,
    )
    settle(room, kept)
    changed = [verdict.place, parts.worklist.place, parts.report.place, *verdict.given]

    def refuse_decision(problem: str, given: tuple[object, ...]) -> str:
        return json.dumps([given[0], refuse_reading(problem, given), *[None] * len(changed[1:])])

    tell_decision = tell_in(verdict.told, refuse_decision)
    for decision, button in verdict.buttons.items():
        decided = button.click(
            naming(tell_decision(looking(partial(decide, room, decision)))),
            [verdict.told, *typed, states.desk, states.read, *verdict.given],
            [states.read, states.report, verdict.told],
            js="(...values) => values.with(0, medfuseNote.mark(values[2]))",
            show_progress_on=verdict.place,
            **UNQUEUED,
        )
        decided.then(
            None,
            [verdict.told, given.laid],
            [verdict.told, *changed],
            js="(...values) => medfuseNote.decide(...values)",
            **UNSEEN,
        )

    def refuse_reaches(problem: str, _: tuple[object, ...]) -> Reaches:
        return Reaches(problem=problem)

    found = parts.report.explore.click(
        tell_steps_in(states.reaches, refuse_reaches)(partial(find_reaches, room)),
        [states.desk, *typed],
        [states.reaches, parts.reach],
        concurrency_limit=1,
        trigger_mode="multiple",  # after one that was stopped
        **UNSEEN,
    )
    show_found_after(room, found)
    parts.report.stop.click(partial(stop_exploring, room), states.desk, parts.reach, **UNQUEUED)
