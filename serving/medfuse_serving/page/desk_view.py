"""What one user has laid out in, HTML for the page out; why a part is not there where it is not."""

from collections.abc import Sequence

from medfuse.config import PrepareSettings
from medfuse.data.studies import StudyFiles
from medfuse.errors import InputError
from medfuse.overlay import escape_text
from medfuse.types import Study
from medfuse_serving import rendering
from medfuse_serving.dictation_view import dictated_html
from medfuse_serving.language import Language, message
from medfuse_serving.missing import Reaches
from medfuse_serving.missing_view import reach_html
from medfuse_serving.page.desk import Desk
from medfuse_serving.prior import say_dates, say_which, show_prior
from medfuse_serving.reading_panel import wait_html
from medfuse_serving.report.withhold import find_referrals, list_withheld
from medfuse_serving.viewer import removed_html, viewer_html

LEAVE_OUT = message('To go on without it, press "Leave out what cannot be read".')


def name_listed(desk: Desk) -> str:
    """Say what the study of the worklist is called, and if it was changed; empty of any other."""
    if desk.row is None:
        return ""
    label = desk.row.label
    if not desk.changed:
        return label
    language = desk.language
    return language.text("{name} (changed on the page)", name=label)


def show_which(desk: Desk, examples: Sequence[StudyFiles]) -> str:
    """Say which study lies on the page: its name, its date, and whose its headers say it is.

    It is for the reader's eyes: no title, address, log or file has any of it.
    """
    language = desk.language
    if desk.row is not None:
        name = name_listed(desk)
    elif desk.opened is not None:
        name = language.text("Example {name}", name=examples[desk.opened].name)
    elif desk.study.images or desk.study.note is not None or desk.study.voice is not None:
        name = language.text("Files given here")
    else:
        return ""
    identities = frozenset() if desk.frames is None else desk.frames.identities
    facts = [say_dates(language, identities)] if identities else []
    patients = sorted({i.patient_id for i in identities if i.patient_id is not None})
    if patients:
        facts.append(language.text("Patient ID {patients}", patients=", ".join(patients)))
    if len(patients) > 1:
        facts.append(language.text("The headers name more than one patient."))
    label = escape_text(language.text("The study on the page"))
    said = f"<b>{escape_text(name)}</b>"
    said += "".join(f"<span>{escape_text(fact)}</span>" for fact in facts)
    return f'<div class="mf-open" role="group" aria-label="{label}">{said}</div>'


def show_image(desk: Desk) -> str:
    """Show the image in the viewer, or why there is none."""
    language = desk.language
    refused = refused_html(desk)
    if desk.problem:
        body = "" if refused else rendering.problem_html(language, desk.problem)
    elif desk.frames is None:
        body = rendering.empty_html(language.text("No image given."))
    else:
        name = language.text("Present study")
        which = language.text("Present study: what the answer is about")
        said = say_which(language, which, desk.frames.identities)
        body = said + viewer_html(desk.frames, name)
    body += removed_html(language, desk.removed)
    return rendering.card_html(language.text("Image"), refused + body)


def refused_html(desk: Desk) -> str:
    """Say which images cannot be used and why, and what their giver may do; nothing of none."""
    language = desk.language
    numbers: dict[tuple[float, int, str], list[int]] = {}
    for image in desk.refused:
        numbers.setdefault((image.at_s, image.count, image.reason), []).append(image.number)
    if not numbers:
        return ""
    said = "".join(
        rendering.problem_html(
            language,
            reason,
            language.text(
                "Image {numbers} of {count} given cannot be used.",
                numbers=", ".join(map(str, own)),
                count=count,
            ),
        )
        for (_, count, reason), own in numbers.items()
    )
    advice = [language.text("Give each image as the DICOM file that the archive (PACS) has of it.")]
    if desk.problem:
        advice.append(language.text(LEAVE_OUT))
    elif desk.frames is not None:
        advice.append(language.text("The other images were taken."))
    kind = " mf-left-out" if desk.problem else ""
    told = f'<p class="mf-legend{kind}">{escape_text(" ".join(advice))}</p>'
    return f'<div class="mf-refusals">{said}{told}</div>'


def show_told(desk: Desk) -> str:
    """Say why something was not given, opened or taken away; nothing where all was."""
    language = desk.language
    if not desk.told:
        return ""
    return rendering.problem_html(language, desk.told, language.text("Not done:"))


def show_prior_of(desk: Desk) -> str:
    """Show the earlier study beside the one on a desk; nothing where none is given."""
    present = frozenset() if desk.frames is None else desk.frames.identities
    return show_prior(desk.language, desk.prior, present)


def show_note(desk: Desk, settings: PrepareSettings) -> str:
    """Show the note by sections, or why there is none."""
    language = desk.language
    try:
        body = (
            rendering.empty_html(language.text("No note given."))
            if desk.study.note is None
            else rendering.note_html(language, desk.study.note, settings.note, settings.limits)
        )
        if desk.dictated is not None:
            body += dictated_html(language, desk.dictated)
    except InputError as error:
        body = rendering.problem_html(language, str(error)) + _leave_out_html(language)
    return rendering.card_html(language.text("Note"), body)


def show_voice(desk: Desk, settings: PrepareSettings) -> str:
    """Show the recording with a player, or why there is none."""
    language = desk.language
    try:
        body = (
            rendering.empty_html(language.text("No recording given."))
            if desk.study.voice is None
            else rendering.voice_html(language, desk.study.voice, settings.limits)
        )
    except InputError as error:
        body = rendering.problem_html(language, str(error)) + _leave_out_html(language)
    return rendering.card_html(language.text("Recording"), body)


def _leave_out_html(language: Language) -> str:
    """Say how to go on without what cannot be read; page.css shows the button beside it."""
    return f'<p class="mf-legend mf-left-out">{escape_text(language.text(LEAVE_OUT))}</p>'


def show_answer(desk: Desk) -> str:
    """Show the model's answer, without the score of what its explanations leave to a human."""
    language = desk.language
    if desk.waits:
        return wait_html(language)
    if desk.answer is None and desk.study != Study():
        return no_answer_html(language)
    if desk.answer is None:
        said = language.text("Open a study or give its parts, then press Predict.")
        body = rendering.empty_html(said)
    else:
        records = [view.record for view in desk.views]
        body = rendering.answer_html(language, desk.answer, records)
    return rendering.card_html(language.text("Answer"), body)


def no_answer_html(language: Language) -> str:
    """Say that there is no answer to what was given."""
    said = language.text("This study has no answer yet; press Predict.")
    return rendering.card_html(language.text("Answer"), rendering.empty_html(said))


def show_reaches(desk: Desk, reaches: Reaches) -> str:
    """Show what missing parts might change, of nothing that the answer leaves to a human."""
    if reaches.problem:
        return rendering.problem_html(desk.language, reaches.problem)
    if desk.answer is None or desk.answer != reaches.answer:
        return ""
    withheld = list_withheld(find_referrals(desk.answer, [view.record for view in desk.views]))
    return reach_html(desk.language, desk.answer, reaches.found, withheld)
