"""Handlers of the page by which a study is opened, given or changed."""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from medfuse.data.studies import read_study
from medfuse.errors import InputError
from medfuse.types import Study
from medfuse_serving import explanation_panel, reading_panel, rendering
from medfuse_serving.language import message
from medfuse_serving.page.desk import (
    Desk,
    check_given,
    check_size,
    clear_answer,
    edit_note,
    is_noted,
    is_shown,
    lay_out,
    number_next,
    put_beside,
    take_dictation,
    take_images,
    take_up,
    write_down,
)
from medfuse_serving.page.desk_view import (
    show_answer,
    show_image,
    show_note,
    show_prior_of,
    show_told,
    show_voice,
    show_which,
)
from medfuse_serving.page.room import (
    CHANGES_TOLD,
    QUIET,
    UNQUEUED,
    UNSEEN,
    Room,
    changing,
    find_language_of,
    list_said,
    looking,
    naming,
    settle,
    take,
    tell_dictation,
    tell_given,
    tell_note,
    write_nothing,
)
from medfuse_serving.page.session import Session
from medfuse_serving.prior import Prior, lay_prior, show_prior
from medfuse_serving.telling import Shown, tell_in
from medfuse_serving.worklist.panel import WANTED, list_html

if TYPE_CHECKING:
    import gradio


def show_questions(room: Room, desk: Desk) -> str:
    """Ask for the impression, where it comes first."""
    if not room.practice.read_first:
        return ""
    return reading_panel.questions_html(desk.language, room.questions, desk.form)


def show_study(room: Room, desk: Desk, opened: int | None = None) -> Shown:
    """Show another study; nothing that was said or written of the one before stays beside it."""
    parts = room.parts
    desk = replace(desk, opened=opened, form=secrets.token_hex(8), beside=number_next())
    written: Shown = dict.fromkeys((parts.impression.text, *parts.verdict.given), "")
    written[parts.impression.questions] = show_questions(room, desk)
    written |= {parts.evidence.prior: show_prior_of(desk), parts.given.told: show_told(desk)}
    return _show_anew(room, desk, noted=True) | written


def show_changed(room: Room, desk: Desk, *, noted: bool = False) -> Shown:
    """Show a study of which a part was changed; what was said of it goes, what was written stays.

    Args:
        room: Of the page.
        desk: With the study.
        noted: Whether the part is its note. Else what stands in the text box stays, too: it may be
            typed meanwhile.
    """
    return _show_anew(room, replace(desk, opened=None, changed=True), noted=noted)


def _show_anew(room: Room, desk: Desk, *, noted: bool) -> Shown:
    desk = replace(clear_answer(desk), shown=number_next())
    if noted:
        desk = replace(desk, noted=secrets.token_hex(8))
    return _show(room, desk, noted=noted)


def _show(room: Room, desk: Desk, *, noted: bool) -> Shown:
    """Show what lies on a desk that has no answer."""
    parts, evidence = room.parts, room.parts.evidence
    shown: Shown = {
        parts.states.desk: desk,
        parts.which: show_which(desk, room.examples),
        parts.given.laid: desk.laid,
        evidence.image: show_image(desk),
        evidence.voice: show_voice(desk, room.settings),
        parts.answer: show_answer(desk),
        parts.worklist.place: list_html(desk.language, desk.row),
    }
    said = (parts.impression.place, parts.verdict.place, parts.verdict.impression)
    shown |= dict.fromkeys(said, "") | parts.clear_asked()
    if noted:
        shown |= {
            parts.given.note: desk.note_text,
            parts.given.noted: "",
            evidence.note: show_note(desk, room.settings),
        }
    else:
        shown[parts.given.noted] = tell_note(room, desk)
    return shown | explanation_panel.clear(parts.controls, parts.maps)


def show_same(room: Room, laid: str, desk: Desk) -> Shown:
    """Show a study as it lies on the desk, which did not come to the page, or not yet.

    What was typed into its note stays.
    """
    return _show(room, clear_answer(desk), noted=not is_noted(desk, laid)) | {
        room.parts.impression.questions: show_questions(room, desk),
        room.parts.evidence.prior: show_prior_of(desk),
        room.parts.given.told: show_told(desk),
    }


def show_again(room: Room, laid: str, desk: Desk) -> Shown:
    """The same, and say so in the answer's place.

    So nobody stays before a page that shows what the server no longer has.
    """
    problem = message(
        "the page did not show the study as it is on the server, and does now; look at it, and "
        "press Predict again"
    )
    language = desk.language
    said = rendering.problem_html(language, problem, language.text("Not done:"))
    card = rendering.card_html(language.text("Answer"), said)
    return show_same(room, laid, desk) | {room.parts.answer: card}


def refuse_prior(problem: str, given: tuple[object, ...]) -> str:
    """Say in the earlier study's place why a handler failed."""
    return show_prior(find_language_of(given), Prior(problem=problem), frozenset())


def open_example(room: Room, index: int | None, desk: Desk, text: str, laid: str) -> Shown:
    """Open an example, where another one is chosen.

    Gradio tells of one choice twice, and of none whenever the list is left without one.
    """
    parts = room.parts
    if index is not None and index == desk.opened and not is_shown(desk, laid):  # it is on its way
        return show_same(room, laid, desk)
    if index is None or index == edit_note(desk, text, laid).opened:
        return {parts.states.desk: desk}
    study = read_study(room.examples[index], room.settings.limits)
    opened = lay_out(desk.language, study, room.settings, room.shelves)
    return show_study(room, replace(opened, since=datetime.now(UTC)), index)


def open_listed(room: Room, study_id: str, desk: Desk, text: str, laid: str, reader: str) -> Shown:
    """Open a study of the worklist; one that lies there as it was stays, with its answer."""
    store = room.practice.store
    assert store is not None
    _, study = store.get(study_id)
    if desk.row is not None and desk.row.id == study_id and desk.study == study:
        if not is_shown(desk, laid):  # it is on its way, or was lost there
            return show_same(room, laid, desk) | {room.parts.given.example: None}
        if edit_note(desk, text, laid) is desk:  # the note may be left by this very click
            return {room.parts.states.desk: desk}
    opened = lay_out(desk.language, study, room.settings, room.shelves)
    row = store.open(study_id, reader)
    shown = show_study(room, replace(opened, row=row, since=datetime.now(UTC)))
    return shown | {room.parts.given.example: None}


def add_images(room: Room, paths: list[str], desk: Desk, text: str, laid: str) -> Shown:
    """Add images to the study; where none can be used, it stays as it is, with what was said."""
    parts = room.parts
    check_given(desk, laid, *paths)
    before, desk = desk, edit_note(desk, text, laid)
    desk = take_images(desk, paths, room.settings, room.shelves)
    if desk.study == before.study:
        told = replace(before, refused=desk.refused)
        return {parts.states.desk: told, parts.evidence.image: show_image(told)}
    return show_changed(room, desk) | {parts.evidence.prior: show_prior_of(desk)}


def add_prior(room: Room, paths: list[str], desk: Desk, laid: str) -> Shown:
    """Add images to the earlier study."""
    check_given(desk, laid, *paths)
    added = tuple(take_up(path, room.settings.limits.file_bytes) for path in paths)
    images = desk.prior.images + added
    check_size(images)
    desk = put_beside(desk, lay_prior(desk.language, images, room.settings, room.shelves))
    return show_beside(room, desk)


def show_beside(room: Room, desk: Desk) -> Shown:
    """Show the earlier study beside the one on a desk."""
    parts = room.parts
    return {
        parts.states.desk: desk,
        parts.given.laid: desk.laid,
        parts.evidence.prior: show_prior_of(desk),
    }


def open_note(room: Room, told: str, path: str, session: Session, laid: str) -> Shown:
    """Take a file as the note, unless another was typed since it was chosen.

    Args:
        room: Of the page.
        told: How often the browser had told of a change of the note by then.
        path: Of the file.
        session: With the study that it is of.
        laid: Which study the browser shows.
    """
    with session.lock:
        desk = session.desk
        check_given(desk, laid, path)
        data = take_up(path, room.settings.limits.note_bytes + 1)
        if session.since_note(int(told))():
            raise InputError("the note was changed while its file was on the way; give it again")
        study = replace(desk.study, note=data)
        text = lay_out(desk.language, Study(note=data), room.settings, room.shelves).note_text
        desk = replace(desk, study=study, note_text=text, dictated=None)
        return session.put(room.parts.states.desk, show_changed(room, desk, noted=True))


def add_dictation(room: Room, told: str, path: str, session: Session, laid: str) -> Iterator[Shown]:
    """Write a dictation down as the note, unless another was given or typed since it was chosen.

    Args:
        room: Of the page.
        told: How often the browser had told of a change of the note by then.
        path: Of the dictation.
        session: With the study that it is of.
        laid: Which study the browser shows.
    """
    check_given(session.desk, laid, path)
    given = room.parts.given
    changed = session.since_note(int(told))
    number, stopped, another = session.writing.begin()
    try:
        data = take_up(path, room.settings.limits.file_bytes)
        yield {given.writing: show_writing(session.desk, 0.0)}
        for step in write_down(data, room.settings, room.shelves):
            if stopped():
                break
            with session.lock:
                if changed():
                    raise InputError(
                        "the note was changed while the dictation was written down; give the "
                        "dictation again"
                    )
                if isinstance(step, float):
                    shown: Shown = {given.writing: show_writing(session.desk, step)}
                else:
                    desk = take_dictation(session.desk, step)
                    shown = show_changed(room, desk, noted=True) | {given.writing: ""}
                    shown = session.put(room.parts.states.desk, shown)
            yield shown
    finally:
        session.writing.finish(number)
    if not another():
        yield {given.writing: ""}


def show_writing(desk: Desk, share: float) -> str:
    """Show how far a dictation is written down."""
    language = desk.language
    started = language.text("The dictation is being written down.")
    said = language.text("Writing down: {percent} %", percent=int(100 * share))
    return rendering.progress_html(share, said, started)


def stop_writing(room: Room, session: Session) -> Shown:
    """End the dictation that is being written down; the note stays as it is."""
    session.writing.stop()
    return {room.parts.given.writing: ""}


def add_voice(room: Room, path: str | None, desk: Desk, text: str, laid: str) -> Shown:
    """Take a recording as the study's."""
    if path is None:
        return {room.parts.states.desk: desk}
    check_given(desk, laid, path)
    data = take_up(path, room.settings.limits.file_bytes)
    desk = edit_note(desk, text, laid)
    return show_changed(room, replace(desk, study=replace(desk.study, voice=data)))


def retype(session: Session, told: str) -> None:
    """End what is under way on the note as it was.

    Unless an answer was asked for after that change, and is of what the note became by it.
    """
    if int(told) > session.heard:
        session.count += 1
    session.hear(int(told))


def retype_note(room: Room, text: str, laid: str, desk: Desk) -> Shown:
    """Show the note once it is left, for the browser to place it (`settle`).

    It is not laid on the desk: every handler that needs the note is given it, and what ended the
    typing may be a click on Predict, whose answer would be lost by a desk from before it.
    """
    told = tell_note(room, edit_note(desk, text, laid)) if is_noted(desk, laid) else ""
    return {room.parts.given.noted: told}


def connect_giving(room: Room) -> None:
    """Connect what opens and gives a study or a part of it."""
    parts, given, desk = room.parts, room.parts.given, room.parts.states.desk
    study = parts.study
    opened = [*study, parts.evidence.prior, given.example]
    events = [
        given.example.input(
            tell_given(room, changing(room, open_example)),
            [given.example, desk, *given.typed],
            opened,
            **QUIET,
        ),
        parts.worklist.opening.click(
            naming(tell_given(room, changing(room, open_listed))),
            [parts.worklist.opening, desk, *given.typed],
            opened,
            js=f"(...values) => values.with(0, {WANTED})",
            **UNQUEUED,
        ),
        _taking(given.images, given.images.upload)(
            tell_given(room, changing(room, add_images)),
            [given.images, desk, *given.typed],
            [*study, parts.evidence.prior],
        ),
    ]
    takes: tuple[tuple[Any, Callable[..., object], int | str], ...] = (
        (given.note_file, tell_given(room, partial(open_note, room)), "default"),
        (given.dictation, tell_dictation(room, partial(add_dictation, room)), 1),
    )
    for file, take_note, most in takes:
        noted = file.upload(
            take_note,
            [given.changed, file, desk, given.laid],
            [*study, given.writing],
            js=f"(...values) => medfuseFiles.note({json.dumps(file.elem_id)}, values)",
            concurrency_limit=most,
            trigger_mode="multiple",
            **QUIET,
        )
        events.append(noted)
    microphone, voice = given.microphone, given.voice
    for recording, begins in ((voice, voice.upload), (microphone, microphone.stop_recording)):
        added = _taking(recording, begins)(
            tell_given(room, changing(room, add_voice)), [recording, desk, *given.typed], study
        )
        events.append(added)
    for event in events:
        settle(room, event)
    given.stop.click(partial(stop_writing, room), desk, given.writing, **UNQUEUED)
    # It changes no study: an answer and its explanation stay.
    beside = _taking(given.prior_images, given.prior_images.upload)(
        tell_in(parts.evidence.prior, refuse_prior)(changing(room, add_prior)),
        [given.prior_images, desk, given.laid],
        [desk, given.laid, parts.evidence.prior],
    )
    settle(room, beside)
    _connect_note(room)


def _taking(
    box: "gradio.components.Component", begins: "Callable[..., gradio.events.Dependency]"
) -> "Callable[..., gradio.events.Dependency]":
    """Connect a handler to what is put into a box, which is emptied as it is sent.

    Else what is put there next would come with it. The browser does what is connected first before
    it takes the values for what is connected next.

    Returns:
        Connects a handler whose first value is the box's, and its last, of which study it is.
    """
    each = QUIET | {"trigger_mode": "multiple"}
    name = json.dumps(box.elem_id)
    kept = f"value => medfuseFiles.keep({name}, value)"
    begins(None, box, box, js=kept, **(each | {"show_progress": "hidden"}))
    return partial(begins, js=f"(...values) => medfuseFiles.send({name}, values)", **each)


def _connect_note(room: Room) -> None:
    """Connect the note: what was said of it before is gone at the first change, and stays gone.

    Gradio's own event comes when something is typed, and not when it is pasted, cut, deleted or
    undone; `web/note.js` hears of all, and presses a button.
    """
    parts, given, desk = room.parts, room.parts.given, room.parts.states.desk
    emptied = f"() => medfuseLanguage.choose({write_nothing(parts)})"
    each: dict[str, Any] = UNSEEN | {"trigger_mode": "multiple"}
    given.changed.click(None, None, list_said(parts), js=emptied, **each)
    given.changed.click(
        retype,
        [desk, given.changed],
        None,
        js=take(CHANGES_TOLD),
        **(each | {"queue": False}),
    )
    left = given.note.blur(
        looking(partial(retype_note, room)), [*given.typed, desk], given.noted, **UNQUEUED
    )
    settle(room, left)
