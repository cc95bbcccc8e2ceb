"""Handlers of the page by which a part of a study, or all of it, is taken away."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from pydantic import TypeAdapter, ValidationError

from medfuse_serving.page.desk import Desk, check_shown, edit_note, lay_images, refuse_unshown
from medfuse_serving.page.desk_view import show_prior_of
from medfuse_serving.page.giving import clear_prior, refuse_prior, show_changed, show_study
from medfuse_serving.page.room import QUIET, Room, changing, take, tell
from medfuse_serving.prior import Prior, lay_prior
from medfuse_serving.telling import Shown, tell_in
from medfuse_serving.viewer import Frames

_UNWANTED: TypeAdapter[tuple[str, int]] = TypeAdapter(tuple[str, int])
"""What a viewer's ``unwanted`` is: its shelf, and the frame that it shows."""


def find_unwanted(unwanted: str, frames: Frames | None) -> int:
    """Find of which image the frame is that a viewer shows.

    Args:
        unwanted: What the viewer says of it, as JSON.
        frames: On the server.

    Raises:
        InputError: The viewer shows others.
    """
    try:
        token, frame = _UNWANTED.validate_json(unwanted)
    except ValidationError:
        refuse_unshown()
    if frames is None or token != frames.shelf.token or not 0 <= frame < len(frames.images):
        refuse_unshown()
    return frames.images[frame]


def leave_out(images: Sequence[bytes], number: int) -> tuple[bytes, ...]:
    """Leave one image out."""
    return (*images[:number], *images[number + 1 :])


def remove_image(
    room: Room, unwanted: str, desk: Desk, text: str, laid: str, prior: Prior
) -> Shown:
    """Take the image that the viewer shows out of the study."""
    check_shown(desk, laid)
    number = find_unwanted(unwanted, desk.frames)
    desk, given = edit_note(desk, text, laid), desk.study.images
    desk = lay_images(desk, leave_out(given, number), room.settings, room.shelves)
    shown = show_changed(room, replace(desk, removed=(number + 1, len(given))))
    return shown | {room.parts.evidence.prior: show_prior_of(desk, prior)}


def remove_prior_image(room: Room, unwanted: str, desk: Desk, prior: Prior) -> Shown:
    """Take the image that its viewer shows out of the earlier study."""
    number, given = find_unwanted(unwanted, prior.frames), prior.images
    left = leave_out(given, number)
    prior = lay_prior(desk.language, left, room.settings, room.shelves)
    prior = replace(prior, removed=(number + 1, len(given)))
    parts = room.parts
    return {parts.states.prior: prior, parts.evidence.prior: show_prior_of(desk, prior)}


def remove_voice(room: Room, desk: Desk, text: str, laid: str) -> Shown:
    """Take the recording out of the study."""
    check_shown(desk, laid)
    desk = edit_note(desk, text, laid)
    return show_changed(room, replace(desk, study=replace(desk.study, voice=None)))


def clear_all(room: Room, desk: Desk) -> Shown:
    """Take everything away."""
    return (
        show_study(room, Desk(desk.language)) | clear_prior(room) | {room.parts.given.example: None}
    )


def connect_removing(room: Room) -> None:
    """Connect what takes a part of a study away."""
    parts, given, states = room.parts, room.parts.given, room.parts.states
    given.remove_image.click(
        changing(tell(room, remove_image)),
        [states.changes, given.remove_image, states.desk, *given.typed, states.prior],
        [*parts.study, parts.evidence.prior],
        js=take(_write_unwanted("image")),
        **QUIET,
    )
    given.clear_voice.click(
        changing(tell(room, remove_voice)),
        [states.changes, states.desk, *given.typed],
        parts.study,
        **QUIET,
    )
    given.clear.click(
        changing(partial(clear_all, room)),
        [states.changes, states.desk],
        [*parts.study, *parts.prior, given.example],
        **QUIET,
    )

    # These change no study: an answer and its explanation stay.
    given.remove_prior_image.click(
        tell_in(parts.evidence.prior, refuse_prior)(partial(remove_prior_image, room)),
        [given.remove_prior_image, states.desk, states.prior],
        parts.prior,
        js=f"(...values) => values.with(0, {_write_unwanted('prior')})",
        **QUIET,
    )
    given.clear_prior.click(lambda: clear_prior(room), None, parts.prior, **QUIET)


def _write_unwanted(place: str) -> str:
    """Write the expression of what the viewer in a place shows."""
    return f"document.querySelector('#{place} mf-viewer').unwanted"
