"""What the page's handlers work in; and how a handler is made into what Gradio calls."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from medfuse.config import PrepareSettings
from medfuse.data.studies import StudyFiles
from medfuse_serving import rendering
from medfuse_serving.explainer import Explainer
from medfuse_serving.explanation_panel import Changes
from medfuse_serving.language import ENGLISH, LANGUAGES, Language, find_language
from medfuse_serving.page.desk import Desk
from medfuse_serving.page.desk_view import no_answer_html
from medfuse_serving.page.parts import Parts
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.reader import reader_of
from medfuse_serving.reading import Question, list_questions
from medfuse_serving.shelves import Shelves
from medfuse_serving.telling import Shown, tell_in

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

Handler = Callable[..., Shown]


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
    """Find the language of the user whose desk is among what a handler was given."""
    return next((v.language for v in values if isinstance(v, Desk)), ENGLISH)


def refuse(problem: str, given: tuple[object, ...]) -> str:
    """Say why a handler failed."""
    return rendering.problem_html(find_language_of(given), problem)


def refuse_answer(problem: str, given: tuple[object, ...]) -> str:
    """Say in the answer's place why a handler failed."""
    language = find_language_of(given)
    return rendering.card_html(language.text("Answer"), rendering.problem_html(language, problem))


def tell(room: Room, handle: Handler) -> Handler:
    """Give a handler its room; its error is shown in the answer's place."""
    return tell_in(room.parts.answer, refuse_answer)(partial(handle, room))


def list_said(parts: Parts) -> "list[gradio.HTML]":
    """List where something is said of a study, all of which goes when its note changes."""
    return [parts.answer, parts.report.place, parts.reach, *parts.explained]


def write_nothing(parts: Parts) -> str:
    """Write as JSON what stands in those places while nothing is said, in each language."""
    rest = [""] * (len(list_said(parts)) - 1)
    return json.dumps({code: [no_answer_html(find_language(code)), *rest] for code in LANGUAGES})


def hold_to_note(room: Room, event: "gradio.events.Dependency") -> None:
    """Take away what is said, once an event is over, if it is not of the note in the text box.

    By the browser, which alone knows both: what the server sends of the note as it was, or of the
    study before, may come after what took its place.
    """
    parts = room.parts
    said = list_said(parts)
    held = f"(...values) => medfuseNote.hold({write_nothing(parts)}, ...values)"
    event.then(None, [*parts.given.typed, *said], said, js=held, **UNSEEN)


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


def changing(handle: Handler) -> Handler:
    """End what is under way on the study before a handler that changes it, and what began since.

    What began meanwhile was given the study as it was, and would put it back.
    """

    def handle_change(changes: Changes, *values: object) -> Shown:
        changes.count += 1
        try:
            return handle(*values)
        finally:
            changes.count += 1

    return handle_change


def answering(handle: Handler) -> Handler:
    """The same, and tell the handler whether the study has changed since."""

    def handle_answer(changes: Changes, *values: object) -> Shown:
        changes.count += 1
        return handle(changes.since(), *values)

    return handle_answer


def naming(handle: Handler) -> Handler:
    """Tell a handler, after all that it is given, who the reader is."""
    import gradio as gr

    def handle_named(request: gr.Request, *values: object) -> Shown:
        return handle(*values, reader_of(request))

    return handle_named
