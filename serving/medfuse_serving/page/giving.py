"""Handlers of the page by which a study is opened, given or changed."""

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from medfuse.data.studies import read_study
from medfuse.errors import InputError
from medfuse.types import Study
from medfuse_serving import explanation_panel, reading_panel
from medfuse_serving.explanation_panel import Changes
from medfuse_serving.page.desk import (
    Desk,
    check_given,
    check_size,
    clear_answer,
    edit_note,
    lay_out,
    take_images,
    take_up,
    write_down,
)
from medfuse_serving.page.desk_view import (
    show_answer,
    show_image,
    show_note,
    show_prior_of,
    show_voice,
    show_which,
)
from medfuse_serving.page.room import (
    CHANGES_TOLD,
    QUIET,
    UNQUEUED,
    UNSEEN,
    Room,
    answering,
    changing,
    find_language_of,
    hold_to_note,
    list_said,
    naming,
    take,
    tell,
    write_nothing,
)
from medfuse_serving.prior import Prior, lay_prior, show_prior
from medfuse_serving.telling import Shown, tell_in
from medfuse_serving.worklist.panel import WANTED, list_html


def show_questions(room: Room, desk: Desk) -> str:
    """Ask for the impression, where it comes first."""
    if not room.practice.read_first:
        return ""
    return reading_panel.questions_html(desk.language, room.questions, desk.form)


def show_study(room: Room, desk: Desk, opened: int | None = None) -> Shown:
    """Show another study; nothing that was said or written of the one before stays beside it."""
    parts = room.parts
    desk = replace(desk, opened=opened, form=secrets.token_hex(8))
    written: Shown = dict.fromkeys((parts.impression.text, *parts.verdict.given), "")
    written[parts.impression.questions] = show_questions(room, desk)
    return _show(room, desk, noted=True) | written


def show_changed(room: Room, desk: Desk, *, noted: bool = False) -> Shown:
    """Show a study of which a part was changed; what was said of it goes, what was written stays.

    Args:
        room: Of the page.
        desk: With the study.
        noted: Whether the part is its note. Else what stands in the text box stays, too: it may be
            typed meanwhile.
    """
    return _show(room, replace(desk, opened=None), noted=noted)


def _show(room: Room, desk: Desk, *, noted: bool) -> Shown:
    desk = replace(clear_answer(desk), shown=secrets.token_hex(8))
    if noted:
        desk = replace(desk, noted=secrets.token_hex(8))
    parts, evidence = room.parts, room.parts.evidence
    shown: Shown = {
        parts.states.desk: desk,
        parts.which: show_which(desk, room.examples),
        parts.given.laid: desk.laid,
        evidence.image: show_image(desk),
        evidence.note: show_note(desk, room.settings),
        evidence.voice: show_voice(desk, room.settings),
        parts.answer: show_answer(desk),
        parts.worklist.place: list_html(desk.language, desk.row),
    }
    said = (parts.impression.place, parts.verdict.place, parts.verdict.impression)
    shown |= dict.fromkeys(said, "") | parts.clear_asked()
    if noted:
        shown[parts.given.note] = desk.note_text
    return shown | explanation_panel.clear(parts.controls, parts.maps)


def refuse_prior(problem: str, given: tuple[object, ...]) -> str:
    """Say in the earlier study's place why a handler failed."""
    return show_prior(find_language_of(given), Prior(problem=problem), frozenset())


def clear_prior(room: Room) -> Shown:
    """Take the earlier study away."""
    return {room.parts.states.prior: Prior(), room.parts.evidence.prior: ""}


def open_example(
    room: Room, changes: Changes, index: int | None, desk: Desk, text: str, laid: str
) -> Shown:
    """Open an example, where another one is chosen.

    Gradio tells of one choice twice, and of none whenever the list is left without one.
    """
    import gradio as gr

    same = laid == desk.laid and index == edit_note(desk, text, laid).opened
    if index is None or same:
        return {room.parts.given.laid: gr.skip()}
    changes.count += 1
    study = read_study(room.examples[index], room.settings.limits)
    opened = lay_out(desk.language, study, room.settings, room.shelves)
    return show_study(room, replace(opened, since=datetime.now(UTC)), index) | clear_prior(room)


def open_listed(room: Room, study_id: str, desk: Desk, text: str, laid: str, reader: str) -> Shown:
    """Open a study of the worklist."""
    store = room.practice.store
    assert store is not None
    _, study = store.get(study_id)
    given = edit_note(desk, text, laid).study  # a note that was left by this very click
    same = laid == desk.laid and given == study
    if same and desk.row is not None and desk.row.id == study_id:
        return {room.parts.states.desk: desk}  # as it was, with its answer
    opened = lay_out(desk.language, study, room.settings, room.shelves)
    row = store.open(study_id, reader)
    shown = show_study(room, replace(opened, row=row, since=datetime.now(UTC)))
    return shown | {room.parts.given.example: None} | clear_prior(room)


def add_images(
    room: Room, paths: list[str], desk: Desk, text: str, laid: str, prior: Prior
) -> Shown:
    """Add images to the study; where none can be used, it stays as it is, with what was said."""
    parts = room.parts
    check_given(desk, laid, *paths)
    before, desk = desk, edit_note(desk, text, laid)
    desk = take_images(desk, paths, room.settings, room.shelves)
    if desk.study == before.study:
        told = replace(before, refused=desk.refused)
        return {
            parts.states.desk: told,
            parts.evidence.image: show_image(told),
            parts.given.images: None,
        }
    beside = show_prior_of(desk, prior)
    return show_changed(room, desk) | {parts.given.images: None, parts.evidence.prior: beside}


def add_prior(room: Room, paths: list[str], desk: Desk, prior: Prior) -> Shown:
    """Add images to the earlier study."""
    added = tuple(take_up(path, room.settings.limits.file_bytes) for path in paths)
    check_size(prior.images + added)
    prior = lay_prior(desk.language, prior.images + added, room.settings, room.shelves)
    parts = room.parts
    return {
        parts.states.prior: prior,
        parts.evidence.prior: show_prior_of(desk, prior),
        parts.given.prior_images: None,
    }


def open_note(room: Room, path: str, desk: Desk, laid: str) -> Shown:
    """Take a file as the note."""
    check_given(desk, laid, path)
    data = take_up(path, room.settings.limits.note_bytes + 1)
    study = replace(desk.study, note=data)
    text = lay_out(desk.language, Study(note=data), room.settings, room.shelves).note_text
    desk = replace(desk, study=study, note_text=text, dictated=None)
    return show_changed(room, desk, noted=True)


def add_dictation(
    room: Room, changed: Callable[[], bool], path: str, desk: Desk, laid: str
) -> Shown:
    """Write a dictation down as the note, which takes a while."""
    check_given(desk, laid, path)
    data = take_up(path, room.settings.limits.file_bytes)
    desk = write_down(desk, data, room.settings, room.shelves)
    if changed():
        raise InputError(
            "the study was changed while the dictation was written down; give the dictation again"
        )
    return show_changed(room, desk, noted=True)


def add_voice(room: Room, path: str | None, desk: Desk, text: str, laid: str) -> Shown:
    """Take a recording as the study's."""
    if path is None:
        return {room.parts.states.desk: desk}
    check_given(desk, laid, path)
    data = take_up(path, room.settings.limits.file_bytes)
    desk = edit_note(desk, text, laid)
    desk = replace(desk, study=replace(desk.study, voice=data))
    given = room.parts.given
    return show_changed(room, desk) | {given.voice: None, given.microphone: None}


def retype(changes: Changes, told: str) -> None:
    """End what is under way on the note as it was.

    Unless an answer was asked for after that change, and is of what the note became by it.
    """
    if int(told) > changes.heard:
        changes.count += 1


def retype_note(room: Room, text: str, laid: str, desk: Desk) -> str:
    """Show the note once it is left: as JSON, with what it is of, for `web/note.js` to place.

    Empty where the server has another study than the browser.
    It is not laid on the desk: every handler that needs the note is given it, and what ended the
    typing may be a click on Predict, whose answer would be lost by a desk from before it.
    """
    if laid != desk.laid:
        return ""
    return json.dumps([text, laid, show_note(edit_note(desk, text, laid), room.settings)])


def connect_giving(room: Room) -> None:
    """Connect what opens and gives a study or a part of it."""
    parts, given, states = room.parts, room.parts.given, room.parts.states
    changes, desk = states.changes, states.desk
    given.example.input(
        tell(room, open_example),
        [changes, given.example, desk, *given.typed],
        [*parts.study, *parts.prior],
        **QUIET,
    )
    parts.worklist.opening.click(
        naming(changing(tell(room, open_listed))),
        [changes, parts.worklist.opening, desk, *given.typed],
        [*parts.study, *parts.prior, given.example],
        js=take(WANTED),
        **UNQUEUED,
    )
    given.images.upload(
        changing(tell(room, add_images)),
        [changes, given.images, desk, *given.typed, states.prior],
        [*parts.study, given.images, parts.evidence.prior],
        **QUIET,
    )
    given.note_file.upload(
        changing(tell(room, open_note)),
        [changes, given.note_file, desk, given.laid],
        parts.study,
        **QUIET,
    )
    given.dictation.upload(
        answering(tell(room, add_dictation)),
        [changes, given.dictation, desk, given.laid],
        parts.study,
        concurrency_limit=1,
        **QUIET,
    )
    microphone, voice = given.microphone, given.voice
    for recording, begins in ((voice, voice.upload), (microphone, microphone.stop_recording)):
        begins(
            changing(tell(room, add_voice)),
            [changes, recording, desk, *given.typed],
            [*parts.study, voice, microphone],
            **QUIET,
        )
    _connect_prior(room)
    _connect_note(room)


def _connect_prior(room: Room) -> None:
    """Connect the earlier study, which changes no study: an answer and its explanation stay."""
    parts, given = room.parts, room.parts.given
    given.prior_images.upload(
        tell_in(parts.evidence.prior, refuse_prior)(partial(add_prior, room)),
        [given.prior_images, parts.states.desk, parts.states.prior],
        [*parts.prior, given.prior_images],
        **QUIET,
    )


def _connect_note(room: Room) -> None:
    """Connect the note: what was said of it before is gone at the first change, and stays gone.

    Gradio's own event comes when something is typed, and not when it is pasted, cut, deleted or
    undone; `web/note.js` hears of all, and presses a button.
    """
    parts, given, states = room.parts, room.parts.given, room.parts.states
    emptied = f"() => medfuseLanguage.choose({write_nothing(parts)})"
    each: dict[str, Any] = UNSEEN | {"trigger_mode": "multiple"}
    given.changed.click(None, None, list_said(parts), js=emptied, **each)
    given.changed.click(
        retype,
        [states.changes, given.changed],
        None,
        js=take(CHANGES_TOLD),
        **(each | {"queue": False}),
    )
    left = given.note.blur(
        partial(retype_note, room), [*given.typed, states.desk], given.noted, **UNQUEUED
    )
    placed = left.then(
        None,
        [given.noted, *given.typed],
        [given.noted, parts.evidence.note],
        js="(...values) => medfuseNote.place(...values)",
        **UNSEEN,
    )
    hold_to_note(room, placed)
