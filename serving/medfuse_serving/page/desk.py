"""What one user has laid out in; the same with a part given, changed or taken away out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from medfuse.config import Limits, PrepareSettings
from medfuse.data.dicom import Identity, list_frames
from medfuse.data.note import decode_note
from medfuse.data.prepare import check_identities, read_identities
from medfuse.data.studies import read_file
from medfuse.data.voice import decode_voice
from medfuse.errors import InputError, LimitError
from medfuse.types import Study
from medfuse_serving import explanation_view
from medfuse_serving.answer import Answer
from medfuse_serving.api import UPLOAD_BYTES
from medfuse_serving.dictation_view import Dictated, shelve_dictation
from medfuse_serving.explanation_view import View
from medfuse_serving.language import ENGLISH, Language, message
from medfuse_serving.prior import Prior, turn_prior
from medfuse_serving.shelves import Shelf, Shelves
from medfuse_serving.viewer import Frames, shelve_frames
from medfuse_serving.worklist.records import StudyRow

LATELY_S = 10.0
"""For so long at least it is said which image cannot be used."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that cannot be used.

    Attributes:
        number: Among those that were given with it, from 1; its file's name is kept nowhere.
        count: How many those are.
        reason: An error's message, in English.
        at_s: When all of those were given, by the clock that only goes on.
    """

    number: int
    count: int
    reason: str
    at_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Desk:
    """What one user has laid out.

    Attributes:
        language: What the user reads.
        note_text: The note as put into the text box; while it is unchanged there, the study's own
            bytes are sent, so that their encoding is reported.
        frames: Its images' frames, for the viewer; None where there are none.
        problem: Why the images can't be shown.
        refused: Which of those that were given last cannot be used; the study is without them, or
            else there is a problem.
        removed: The number of the image that was removed last, from 1, and how many there were;
            None once others were given.
        opened: Which example this is; None of any other study, and once it was changed.
        row: The study of the worklist that was opened; None of any other.
        changed: Whether it was changed here since it was opened.
        since: When the study was opened; None where it was put together here.
        form: Another for each study, so that no impression and no part is the next one's.
        noted: Another for each note that comes to the page, so that what is typed is no other's.
        shown: Another, and higher, whenever anything of the study comes to the page.
        waits: Whether the answer was asked for, and waits for the reader's impression.
        answer: What the model answers; None before it is asked, and once the study has changed.
        maps: What spoke for and against in the image, once that was asked.
        coarse: The same, coarsely and not yet checked, while that is under way; on the desk, or the
            shelf would be gone before the page has asked for it.
        views: The explanations that were asked for, one of each target.
        dictated: What the note was written down from, with its sound; None once it was changed by
            hand.
        prior: The earlier study beside it, which no answer is of.
        beside: Another, and higher, whenever that one changes.
        reading: Of the answer, that none of what was decided on another stands beside it.
        told: Why something was not given, opened or taken away, in English.
    """

    language: Language = ENGLISH
    study: Study = field(default_factory=Study)
    note_text: str = ""
    frames: Frames | None = None
    problem: str = ""
    refused: tuple[Refused, ...] = ()
    removed: tuple[int, int] | None = None
    opened: int | None = None
    row: StudyRow | None = None
    changed: bool = False
    since: datetime | None = None
    form: str = ""
    noted: str = ""
    shown: str = ""
    waits: bool = False
    answer: Answer | None = None
    maps: Shelf | None = None
    coarse: Shelf | None = None
    views: tuple[View, ...] = ()
    dictated: Dictated | None = None
    prior: Prior = field(default_factory=Prior)
    beside: str = ""
    reading: str = ""
    told: str = ""

    @property
    def mark(self) -> str:
        """Which study it is, as it is."""
        return ".".join((self.form, self.noted, self.shown))

    @property
    def laid(self) -> str:
        """What the browser keeps of it, to say of which study, as it is, something is asked.

        It also has what else comes to the page: of two that it was sent, the browser tells which is
        older, and whether it is in the language that the page has been turned to.
        """
        return ".".join((self.mark, self.beside, self.language.code))


def number_next() -> str:
    """Give a number that is higher than all before."""
    return str(time.monotonic_ns() // 1000)  # a browser's numbers have 53 bits


def is_shown(desk: Desk, laid: str) -> bool:
    """Tell whether the browser shows the study that the server has, as it is."""
    return ".".join(laid.split(".")[:3]) == desk.mark


def is_noted(desk: Desk, laid: str) -> bool:
    """Tell whether what stands in the browser's text box is written of this study's note."""
    return laid.split(".")[:2] == [desk.form, desk.noted]


def put_beside(desk: Desk, prior: Prior) -> Desk:
    """Put an earlier study beside the one on a desk."""
    return replace(desk, prior=prior, beside=number_next())


def lay_out(language: Language, study: Study, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Make a desk of a study; a part that can't be read is said so where it would be shown."""
    desk = lay_images(Desk(language, study), study.images, settings, shelves)
    if study.note is not None:
        try:
            text = decode_note(study.note, settings.limits, settings.note.legacy_encoding)
        except InputError:
            return desk  # the note's own panel says why
        desk = replace(desk, note_text=text)
    return desk


def lay_images(
    desk: Desk, images: tuple[bytes, ...], settings: PrepareSettings, shelves: Shelves
) -> Desk:
    """Replace a desk's images and put their frames on a shelf.

    Raises:
        LimitError: There are too many to keep; the desk stays as it is.
    """
    check_size(images)
    study = replace(desk.study, images=images)
    desk = clear_answer(replace(desk, study=study, refused=(), removed=None))
    try:
        frames = shelve_frames(desk.language, images, settings, shelves) if images else None
    except InputError as error:
        refused = tuple(_find_refused(images, settings))
        return replace(desk, frames=None, problem=str(error), refused=refused)
    return replace(desk, frames=frames, problem="")


def take_images(
    desk: Desk, paths: Sequence[str], settings: PrepareSettings, shelves: Shelves
) -> Desk:
    """Take up images, but for those that cannot be read or are of another patient or study.

    Raises:
        InputError: They are too many or too large together; the desk stays as it is.
    """
    limits = settings.limits
    images, refused, now_s = list(desk.study.images), [], time.monotonic()
    known = _list_identities(desk.study, limits)
    for number, path in enumerate(paths, 1):
        try:
            image = take_up(path, limits.file_bytes)
            _check_image(image, settings)
            own = tuple(read_identities(Study(images=(image,)), limits))
            check_identities((*known, *own))
        except InputError as error:
            refused.append(Refused(number, len(paths), str(error), now_s))
            continue
        known += own
        images.append(image)
    laid = lay_images(desk, tuple(images), settings, shelves)
    if laid.problem:
        if desk.problem:
            return laid
        raise InputError(laid.problem)
    # What was refused a moment ago may not have been seen.
    lately = [r for r in desk.refused if now_s - r.at_s < LATELY_S]
    return replace(laid, refused=(*lately, *refused))


def leave_out_unread(desk: Desk, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Leave out of a study what cannot be read; the desk as it is where there is nothing such."""
    study, limits = desk.study, settings.limits
    unread = {image.number for image in _find_refused(study.images, settings)}
    if unread:
        images = tuple(image for i, image in enumerate(study.images, 1) if i not in unread)
        desk = lay_images(desk, images, settings, shelves)
    if study.note is not None:
        try:
            decode_note(study.note, limits, settings.note.legacy_encoding)
        except InputError:
            desk = replace(desk, study=replace(desk.study, note=None), note_text="")
    if study.voice is not None:
        try:
            decode_voice(study.voice, limits)
        except InputError:
            desk = replace(desk, study=replace(desk.study, voice=None))
    return desk


def _check_image(image: bytes, settings: PrepareSettings) -> None:
    list_frames([image], settings.image, settings.limits)


def _find_refused(images: Sequence[bytes], settings: PrepareSettings) -> Iterator[Refused]:
    """Find which images can't be read, each alone."""
    for number, image in enumerate(images, 1):
        try:
            _check_image(image, settings)
        except InputError as error:
            yield Refused(number, len(images), str(error))


def _list_identities(study: Study, limits: Limits) -> tuple[Identity, ...]:
    """List whose a study's parts say that they are; nothing of one that can't be read."""
    try:
        return tuple(read_identities(study, limits))
    except InputError:  # said where the part is shown
        return ()


def check_size(images: tuple[bytes, ...]) -> None:
    """Refuse what would stay in memory for as long as the page is open."""
    size = sum(map(len, images))
    if size > UPLOAD_BYTES:
        raise LimitError(
            f"the images have {size} bytes together, and at most {UPLOAD_BYTES} are taken; clear "
            "them and give fewer, or use the command line"
        )


def edit_note(desk: Desk, text: str, laid: str) -> Desk:
    """Take the text box's content as the note, unless it is what was put there.

    Args:
        desk: What the server has laid out.
        text: In the browser's text box.
        laid: Which study the browser shows: where another, or another note, has not arrived there,
            the text is of the one before and is no note of this one.
    """
    if not is_noted(desk, laid) or _lines(text) == _lines(desk.note_text):
        return desk
    # Half a character of two, which a browser may send, is no text.
    note = text.encode("utf-8", "replace") if text.strip() else None
    study = replace(desk.study, note=note)
    desk = replace(desk, study=study, note_text=text, dictated=None, opened=None, changed=True)
    return clear_answer(desk)


def refuse_unshown(desk: Desk) -> NoReturn:
    """Refuse what is asked of a study that the browser shows and the server has not.

    Raises:
        InputError: It says what helps.
    """
    if not desk.shown:
        raise InputError(
            message(
                "the server no longer has the study that the page shows; open it again, or press "
                "Clear all and give its parts anew"
            )
        )
    refuse_early()


def refuse_early() -> NoReturn:
    """Refuse what is asked before the page shows what lies on the server, or is about to.

    Raises:
        InputError: It says so.
    """
    raise InputError(
        message(
            "the page did not yet show the study as it is on the server; wait until it does, and "
            "try again"
        )
    )


def check_shown(desk: Desk, laid: str) -> None:
    """Refuse what is asked of a study that the browser does not show as it is.

    Args:
        desk: What the server has laid out.
        laid: Which study the browser shows.

    Raises:
        InputError: It shows another: one that the server has forgotten, or has put another in the
            place of, or a part, which may be on its way.
    """
    if not is_shown(desk, laid):
        refuse_unshown(desk)


def check_given(desk: Desk, laid: str, *paths: str) -> None:
    """Refuse a part that is given to another study than the server has, and delete it.

    Of the same study something else may be on its way.

    Args:
        desk: What the server has laid out.
        laid: Which study the browser shows.
        paths: Of the part's uploads.

    Raises:
        InputError: It is given to another, or to one that the server has forgotten.
    """
    form, _, shown, *_ = laid.split(".")
    if form == desk.form and (desk.shown or not shown):
        return
    for path in paths:
        Path(path).unlink(missing_ok=True)
    if not desk.shown:
        refuse_unshown(desk)
    raise InputError(
        message(
            "it was chosen for another study than the one that is open now; if it is of this one, "
            "give it again"
        )
    )


def clear_answer(desk: Desk) -> Desk:
    """Take an answer and its explanation off a desk."""
    return replace(desk, waits=False, answer=None, reading="", maps=None, coarse=None, views=())


def write_down(
    recording: bytes, settings: PrepareSettings, shelves: Shelves
) -> Iterator[float | Dictated]:
    """Write a dictation down, which takes a while.

    Yields:
        The share that is done, again and again, and in the end the dictation.

    Raises:
        InputError: The recording cannot be read, or nothing in it be understood.
        SettingsError: Dictation is not installed.
    """
    from medfuse.dictation.transcribe import follow

    for step in follow(recording, settings.limits):
        if isinstance(step, float):
            yield step
        else:
            yield shelve_dictation(recording, step, settings.limits, shelves)


def take_dictation(desk: Desk, dictated: Dictated) -> Desk:
    """Take what was dictated as the note, in place of any other."""
    return replace(edit_note(desk, dictated.transcript.text, desk.laid), dictated=dictated)


def turn_to(desk: Desk, language: Language, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Say what lies on a desk in another language, where it is not said anew at every look."""
    frames = desk.frames
    if frames is not None:
        frames = shelve_frames(language, desk.study.images, settings, shelves)
    maps = desk.maps
    if maps is not None:
        maps = explanation_view.shelve_maps(language, desk.views[-1], shelves)
    prior = turn_prior(desk.prior, language, settings, shelves)
    desk = replace(desk, language=language, frames=frames, maps=maps)
    return put_beside(desk, prior)


def take_up(path: str, most_bytes: int) -> bytes:
    """Read an upload and delete it, so that no one else can ask for it by its path."""
    try:
        return read_file(Path(path), most_bytes)
    finally:
        Path(path).unlink(missing_ok=True)


def list_read(desk: Desk) -> tuple[int | None, ...]:
    """Give of each frame in the viewer its number among those that the model reads."""
    return () if desk.frames is None else desk.frames.read


def _lines(text: str) -> list[str]:
    """Split a text into lines, whose ends a browser's text box makes its own."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
