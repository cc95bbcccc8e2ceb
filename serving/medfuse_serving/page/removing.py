"""Handlers of the page by which a part of a study, or all of it, is taken away."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from medfuse_serving.page.desk import (
    Desk,
    check_shown,
    edit_note,
    lay_images,
    leave_out_unread,
    put_beside,
    refuse_unshown,
)
from medfuse_serving.page.desk_view import show_prior_of
from medfuse_serving.page.giving import refuse_prior, show_beside, show_changed, show_study
from medfuse_serving.page.room import QUIET, UNSEEN, Room, changing, settle, tell_given
from medfuse_serving.prior import Prior, lay_prior
from medfuse_serving.telling import Shown, tell_in
from medfuse_serving.viewer import Frames

_UNWANTED: TypeAdapter[tuple[str, int]] = TypeAdapter(tuple[str, int])
"""What a viewer's ``unwanted`` is: its shelf, and the frame that it shows."""


def find_unwanted(unwanted: str, desk: Desk, frames: Frames | None) -> int:
    """Find of which image the frame is that a viewer shows.

    Args:
        unwanted: What the viewer says of it, as JSON.
        desk: On the server.
        frames: On it, those that the viewer should show.

    Raises:
        InputError: The viewer shows others.
    """
    try:
        token, frame = _UNWANTED.validate_json(unwanted)
    except ValidationError:
        refuse_unshown(desk)
    if frames is None or token != frames.shelf.token or not 0 <= frame < len(frames.images):
        refuse_unshown(desk)
    return frames.images[frame]


def leave_out(images: Sequence[bytes], number: int) -> tuple[bytes, ...]:
    """Leave one image out."""
    return (*images[:number], *images[number + 1 :])


def remove_image(room: Room, unwanted: str, desk: Desk, text: str, laid: str) -> Shown:
    """Take the image that the viewer shows out of the study."""
    check_shown(desk, laid)
    number = find_unwanted(unwanted, desk, desk.frames)
    desk, given = edit_note(desk, text, laid), desk.study.images
    desk = lay_images(desk, leave_out(given, number), room.settings, room.shelves)
    shown = show_changed(room, replace(desk, removed=(number + 1, len(given))))
    return shown | {room.parts.evidence.prior: show_prior_of(desk)}


def remove_prior_image(room: Room, unwanted: str, desk: Desk) -> Shown:
    """Take the image that its viewer shows out of the earlier study."""
    number, given = find_unwanted(unwanted, desk, desk.prior.frames), desk.prior.images
    left = leave_out(given, number)
    prior = lay_prior(desk.language, left, room.settings, room.shelves)
    prior = replace(prior, removed=(number + 1, len(given)))
    return show_beside(room, put_beside(desk, prior))


def clear_prior(room: Room, desk: Desk) -> Shown:
    """Take the earlier study away."""
    return show_beside(room, put_beside(desk, Prior()))


def remove_voice(room: Room, desk: Desk, text: str, laid: str) -> Shown:
    """Take the recording out of the study."""
    check_shown(desk, laid)
    desk = edit_note(desk, text, laid)
    return show_changed(room, replace(desk, study=replace(desk.study, voice=None)))


def remove_unread(room: Room, desk: Desk, text: str, laid: str) -> Shown:
    """Take out of a study what cannot be read."""
    check_shown(desk, laid)
    given = edit_note(desk, text, laid)
    left = leave_out_unread(given, room.settings, room.shelves)
    if left is given:
        return {room.parts.states.desk: desk}
    return show_changed(room, left) | {room.parts.evidence.prior: show_prior_of(left)}


def clear_all(room: Room, desk: Desk) -> Shown:
    """Take everything away, but for the note, which the browser has: another may be typed since."""
    shown = show_study(room, Desk(desk.language)) | {room.parts.given.example: None}
    del shown[room.parts.given.note]
    return shown


def connect_removing(room: Room) -> None:
    """Connect what takes a part of a study away."""
    parts, given, desk = room.parts, room.parts.given, room.parts.states.desk
    prior = [desk, given.laid, parts.evidence.prior]
    both = [*parts.study, parts.evidence.prior]
    given.clear.click(None, None, given.note, js="() => ['']", **UNSEEN)  # at once
    events = [
        given.remove_image.click(
            tell_given(room, changing(room, remove_image)),
            [given.remove_image, desk, *given.typed],
            both,
            js=_take_unwanted("image"),
            **QUIET,
        ),
        given.clear_voice.click(
            tell_given(room, changing(room, remove_voice)),
            [desk, *given.typed],
            parts.study,
            **QUIET,
        ),
        given.leave_out.click(
            tell_given(room, changing(room, remove_unread)),
            [desk, *given.typed],
            both,
            **QUIET,
        ),
        given.clear.click(
            tell_given(room, changing(room, clear_all)), desk, [*both, given.example], **QUIET
        ),
    ]
    # These change no study: an answer and its explanation stay.
    tell_prior = tell_in(parts.evidence.prior, refuse_prior)
    events += [
        given.remove_prior_image.click(
            tell_prior(changing(room, remove_prior_image)),
            [given.remove_prior_image, desk],
            prior,
            js=_take_unwanted("prior"),
            **QUIET,
        ),
        given.clear_prior.click(tell_prior(changing(room, clear_prior)), desk, prior, **QUIET),
    ]
    for event in events:
        settle(room, event)


def _take_unwanted(place: str) -> str:
    """Write the script that puts what the viewer in a place shows before a handler's values."""
    return f"(...values) => values.with(0, document.querySelector('#{place} mf-viewer').unwanted)"
