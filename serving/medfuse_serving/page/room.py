"""What the page's handlers work in; and how a handler is made into what Gradio calls."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medfuse.config import PrepareSettings
from medfuse.data.studies import StudyFiles
from medfuse_serving import rendering
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, LANGUAGES, Language, find_language
from medfuse_serving.page.desk import Desk, refuse_early
from medfuse_serving.page.desk_view import no_answer_html, show_note, show_told
from medfuse_serving.page.parts import Parts
from medfuse_serving.page.practice import Practice
from medfuse_serving.page.session import Session
from medfuse_serving.predictor import Predictor
from medfuse_serving.reader import reader_of
from medfuse_serving.reading import Question, list_questions
from medfuse_serving.shelves import Shelves
from medfuse_serving.telling import Shown, message_of, tell_in, tell_steps_in

if TYPE_CHECKING:
    import gradio

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
"""Of every event: it is no route for others."""

UNSEEN = QUIET | {"show_progress": "hidden"}

UNQUEUED = QUIET | {"queue": False}
"""Of what is done at once, and may be asked for in one move with something that is queued.

A click on Predict also leaves the note. Were both queued, the stream that ends with the first could
close on the second's answer, which would then never arrive.
"""

CHANGES_TOLD = "String(medfuseNote.changes)"
"""How often the browser told of a change of the note (`web/note.js`)."""

WAIT_S = 1.0
"""How long an answer waits for a part to be taken up: the page does not show it yet."""

Handler = Callable[..., Shown]

Finish = Callable[[Desk], Shown]
"""What a handler that takes a while gives back: puts what it found on the newest desk."""


@dataclass(frozen=True, slots=True)
class Room:
    """What every handler of a page may need.

    Attributes:
        explainer: Answers and explains.
        examples: Studies that the page offers to open.
        shelves: Of the large pieces that it shows.
        practice: How studies come and are read.
        parts: The page.
    """

    explainer: Explainer
    examples: Sequence[StudyFiles]
    shelves: Shelves
    practice: Practice
    parts: Parts

    @property
    def predictor(self) -> Predictor:
        """What answers."""
        return self.explainer.predictor

    @property
    def settings(self) -> PrepareSettings:
        """How the model reads a study."""
        return self.predictor.bundle.manifest.prepare

    @property
    def questions(self) -> tuple[Question, ...]:
        """What a reader is asked before the answer."""
        return list_questions(self.predictor.bundle.manifest.tasks)


def find_language_of(values: Sequence[object]) -> Language:
    """Find the language of the user whose session is among what a handler was given."""
    return next((v.desk.language for v in values if isinstance(v, Session)), ENGLISH)


def refuse(problem: str, given: tuple[object, ...]) -> str:
    """Say why a handler failed."""
    return rendering.problem_html(find_language_of(given), problem)


def refuse_answer(problem: str, given: tuple[object, ...]) -> str:
    """Say in the answer's place why a handler failed."""
    language = find_language_of(given)
    return rendering.card_html(language.text("Answer"), rendering.problem_html(language, problem))


def tell_answer(room: Room, handle: Handler) -> Handler:
    """Show a handler's error in the answer's place."""
    return tell_in(room.parts.answer, refuse_answer)(handle)


def refuse_given(problem: str, given: tuple[object, ...]) -> str:
    """Keep why something was not given, opened or taken away, and say it."""
    session = _find_session(given)
    with session.lock:
        session.desk = replace(session.desk, told=problem)
    return show_told(session.desk)


def tell_given(room: Room, handle: Handler) -> Handler:
    """Show why something was not given, opened or taken away, beside what was said before."""
    return tell_in(room.parts.given.told, refuse_given)(handle)


def tell_dictation(room: Room, handle: Callable[..., Iterator[Shown]]) -> Callable[..., object]:
    """Show there why a dictation was not taken, and no more how far it is."""
    given = room.parts.given
    return tell_steps_in(given.told, refuse_given, [given.writing])(handle)


def list_said(parts: Parts) -> "list[gradio.HTML]":
    """List where something is said of a study, all of which goes when its note changes."""
    return [parts.answer, parts.report.place, parts.reach, *parts.explained]


def write_nothing(parts: Parts) -> str:
    """Write as JSON what stands in those places while nothing is said, in each language."""
    rest = [""] * (len(list_said(parts)) - 1)
    return json.dumps({code: [no_answer_html(find_language(code)), *rest] for code in LANGUAGES})


def settle(room: Room, event: "gradio.events.Dependency") -> None:
    """Once an event is over, let what it brought stand only beside the note that it is of.

    By the browser, which alone knows what stands in the text box: what the server sends of the
    note as it was, or of the study before, may come after what took its place. Of what came in
    ``given.noted``, the note as it was read, it shows what is of that note, and of what is said it
    takes away what is not.
    """
    parts = room.parts
    noted, panel, said = parts.given.noted, parts.evidence.note, list_said(parts)
    settled = f"(...values) => medfuseNote.settle({write_nothing(parts)}, ...values)"
    given = [noted, *parts.given.typed, *said]
    event.then(None, given, [noted, panel, *said], js=settled, **UNSEEN)


def tell_note(room: Room, desk: Desk) -> str:
    """Say how a note is read: as JSON, with what it is of, for `settle`."""
    return json.dumps([desk.note_text, desk.laid, show_note(desk, room.settings)])


def asking(place: int) -> str:
    """Write the expression that keeps of which note an answer is asked for.

    Args:
        place: Of the note among a handler's values, before its study's form.

    Returns:
        Its value is `CHANGES_TOLD`.
    """
    return f"medfuseNote.ask(values[{place}], values[{place + 1}])"


def take(*expressions: str) -> str:
    """Write the script that puts what expressions give after the first of a handler's values."""
    puts = "".join(f".with({place}, {own})" for place, own in enumerate(expressions, start=1))
    return f"(...values) => values{puts}"


def looking(handle: Handler) -> Handler:
    """Give a handler the newest desk in the place of its session."""

    def handle_look(*values: object) -> Shown:
        return handle(*_unwrap(values))

    return handle_look


def changing(room: Room, handle: Handler) -> Handler:
    """The same, and put the desk that it gives back in that one's place, with none in between."""

    def handle_change(*values: object) -> Shown:
        session = _find_session(values)
        with session.lock:
            return session.put(room.parts.states.desk, handle(room, *_unwrap(values)))

    return handle_change


def answering(room: Room, handle: Callable[..., Finish]) -> Handler:
    """Give a handler the newest desk, and put what it found on the one that is newest then.

    What is under way on the study before it ends. If the study has changed meanwhile, nothing is
    put there, and nothing said: what went wrong is of no study that is shown.
    """
    import gradio as gr

    def handle_answer(*values: object) -> Shown:
        session, place = _find_session(values), room.parts.states.desk
        if not session.lock.acquire(timeout=WAIT_S):
            refuse_early()
        try:
            session.count += 1
            changed, given = session.since(), _unwrap(values)
        finally:
            session.lock.release()
        nothing: Shown = {place: gr.skip()}
        try:
            finish = handle(room, *given)
        except Exception as error:
            if not changed():
                raise
            message_of(error)  # which logs what was not foreseen
            return nothing
        with session.lock:
            return nothing if changed() else session.put(place, finish(session.desk))

    return handle_answer


def _find_session(values: Sequence[object]) -> Session:
    return next(value for value in values if isinstance(value, Session))


def _unwrap(values: Sequence[object]) -> tuple[object, ...]:
    """Put the newest desk in the place of a session."""
    return tuple(value.desk if isinstance(value, Session) else value for value in values)


def naming(handle: Handler) -> Handler:
    """Tell a handler, after all that it is given, who the reader is."""
    import gradio as gr

    def handle_named(request: gr.Request, *values: object) -> Shown:
        return handle(*values, reader_of(request))

    return handle_named
