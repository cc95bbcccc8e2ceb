"""What one user has laid out in; the same with a part given, changed or taken away out."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from medfuse.config import PrepareSettings
from medfuse.data.note import decode_note
from medfuse.data.studies import read_file
from medfuse.errors import InputError, LimitError
from medfuse.types import Study
from medfuse_serving import explanation_view
from medfuse_serving.answer import Answer
from medfuse_serving.api import UPLOAD_BYTES
from medfuse_serving.dictation_view import Dictated, shelve_dictation
from medfuse_serving.explanation_view import View
from medfuse_serving.language import ENGLISH, Language
from medfuse_serving.shelves import Shelf, Shelves
from medfuse_serving.viewer import Frames, shelve_frames
from medfuse_serving.worklist.records import StudyRow


@dataclass(frozen=True, slots=True)
class Desk:
    """What one user has laid out.

    Attributes:
        language: What the user reads.
        note_text: The note as put into the text box; while it is unchanged there, the study's own
            bytes are sent, so that their encoding is reported.
        frames: Its images' frames, for the viewer; None where there are none.
        problem: Why the images can't be shown.
        opened: Which example this is; None of any other study, and once it was changed.
        row: The study of the worklist that was opened; None of any other.
        since: When the study was opened; None where it was put together here.
        form: Another for each study, so that no impression and no typed note is the next one's.
        answer: What the model answers; None before it is asked, and once the study has changed.
        maps: What spoke for and against in the image, once that was asked.
        coarse: The same, coarsely and not yet checked, while that is under way; on the desk, or the
            shelf would be gone before the page has asked for it.
        views: The explanations that were asked for, one of each target.
        dictated: What the note was written down from, with its sound; None once it was changed by
            hand.
    """

    language: Language = ENGLISH
    study: Study = field(default_factory=Study)
    note_text: str = ""
    frames: Frames | None = None
    problem: str = ""
    opened: int | None = None
    row: StudyRow | None = None
    since: datetime | None = None
    form: str = ""
    answer: Answer | None = None
    maps: Shelf | None = None
    coarse: Shelf | None = None
    views: tuple[View, ...] = ()
    dictated: Dictated | None = None


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
    desk = clear_answer(replace(desk, study=study))
    try:
        frames = shelve_frames(desk.language, images, settings, shelves) if images else None
    except InputError as error:
        return replace(desk, frames=None, problem=str(error))
    return replace(desk, frames=frames, problem="")


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
        laid: The form of the study that the browser shows: where another was opened and has not
            arrived there, the text is of the one before and is no note of this one.
    """
    if laid != desk.form or _lines(text) == _lines(desk.note_text):
        return desk
    note = text.encode("utf-8") if text.strip() else None
    study = replace(desk.study, note=note)
    return clear_answer(replace(desk, study=study, note_text=text, dictated=None))


def clear_answer(desk: Desk) -> Desk:
    """Take an answer and its explanation off a desk."""
    return replace(desk, opened=None, answer=None, maps=None, coarse=None, views=())


def write_down(desk: Desk, recording: bytes, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Take what was dictated as the note, in place of any other.

    Raises:
        InputError: The recording cannot be read, or nothing in it be understood.
        SettingsError: Dictation is not installed.
    """
    from medfuse.dictation.transcribe import transcribe

    said = transcribe(recording, settings.limits)
    dictated = shelve_dictation(recording, said, settings.limits, shelves)
    return replace(edit_note(desk, said.text, desk.form), dictated=dictated)


def turn_to(desk: Desk, language: Language, settings: PrepareSettings, shelves: Shelves) -> Desk:
    """Say what lies on a desk in another language, where it is not said anew at every look."""
    frames = desk.frames
    if frames is not None:
        frames = shelve_frames(language, desk.study.images, settings, shelves)
    maps = desk.maps
    if maps is not None:
        maps = explanation_view.shelve_maps(language, desk.views[-1], shelves)
    return replace(desk, language=language, frames=frames, maps=maps, coarse=None)


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
