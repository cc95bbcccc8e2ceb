"""The handler of the page by which the answer, its explanations and its reading become a PDF."""

from functools import partial

from medfuse.errors import InputError
from medfuse.overlay import escape_text
from medfuse_serving import reading
from medfuse_serving.language import Language
from medfuse_serving.page.desk import Desk, check_shown, edit_note
from medfuse_serving.page.desk_view import name_listed
from medfuse_serving.page.room import QUIET, Room, refuse, settle
from medfuse_serving.page.session import Session
from medfuse_serving.predictor import Predictor
from medfuse_serving.report.gather import ReportOptions, make_record
from medfuse_serving.report.render import make_report
from medfuse_serving.shelves import Shelf, Shelves
from medfuse_serving.telling import Shown, tell_in
from medfuse_serving.worklist.records import ReadingStep


def shelve_report(
    desk: Desk, step: ReadingStep | None, predictor: Predictor, shelves: Shelves
) -> Shelf:
    """Write an answer, its explanations and its reading as a PDF and put it on a shelf.

    Raises:
        MedfuseError: It cannot be written.
    """
    assert desk.answer is not None
    options = ReportOptions(
        language=desk.language.code,
        study_id=name_listed(desk) or None,
        reading=reading.to_reading(step),
    )
    pdf = make_report(make_record(predictor, desk.study, desk.answer, desk.views, options))
    return shelves.put(1, lambda _: pdf, "application/pdf")


def link_report(language: Language, report: Shelf) -> str:
    """Offer a report for download."""
    said = escape_text(language.text("Download the report (PDF)"))
    ready = escape_text(language.text("Report ready."))
    return (
        f'<p class="mf-download" data-told="{ready}"><a href="shelves/{report.token}/0" '
        f'download="report.pdf">{said}</a></p>'
    )


def write_report(
    room: Room, text: str, laid: str, session: Session, step: ReadingStep | None
) -> Shown:
    """Write the report and offer it for download, unless the study has changed meanwhile."""
    import gradio as gr

    report = room.parts.report
    desk, changed = session.desk, session.since()
    check_shown(desk, laid)
    if edit_note(desk, text, laid) is not desk:
        return {report.place: gr.skip()}
    if desk.answer is None:
        raise InputError("there is no answer to report; press Predict first")
    while True:
        shelf = shelve_report(desk, step, room.predictor, room.shelves)
        if changed():
            return {report.place: gr.skip()}
        newest = session.desk
        if (newest.views, newest.language) == (desk.views, desk.language):
            break
        desk = newest  # it was explained, or the page turned, meanwhile
    return {
        room.parts.states.report: shelf,
        room.parts.given.laid: desk.laid,
        report.place: link_report(desk.language, shelf),
    }


def connect_reporting(room: Room) -> None:
    """Connect what asks for a report."""
    parts, report, states = room.parts, room.parts.report, room.parts.states
    written = report.write.click(
        tell_in(report.place, refuse)(partial(write_report, room)),
        [*parts.given.typed, states.desk, states.read],
        [states.report, parts.given.laid, report.place],
        show_progress_on=report.place,
        concurrency_limit=1,
        **QUIET,
    )
    settle(room, written)
