"""An earlier study's images in; what the page shows of them beside the present ones out.

They are for the reader's eyes alone: no model reads them, and no answer, explanation or report has
anything of them.
"""

from dataclasses import dataclass, replace

from medfuse.config import PrepareSettings
from medfuse.data.dicom import Identity
from medfuse.errors import InputError
from medfuse.overlay import escape_text
from medfuse_serving import rendering
from medfuse_serving.language import Language
from medfuse_serving.shelves import Shelves
from medfuse_serving.viewer import Frames, prior_html, removed_html, shelve_prior


@dataclass(frozen=True, slots=True)
class Prior:
    """An earlier study's images.

    Attributes:
        images: As they were given.
        frames: For the viewer; None where there are none that can be shown.
        problem: Why they can't be shown.
        removed: The number of the image that was removed last, from 1, and how many there were.
    """

    images: tuple[bytes, ...] = ()
    frames: Frames | None = None
    problem: str = ""
    removed: tuple[int, int] | None = None


def lay_prior(
    language: Language, images: tuple[bytes, ...], settings: PrepareSettings, shelves: Shelves
) -> Prior:
    """Put an earlier study's frames on a shelf; what can't be shown is said in their place."""
    if not images:
        return Prior()
    try:
        frames = shelve_prior(language, images, settings, shelves)
    except InputError as error:
        return Prior(images, problem=str(error))
    return Prior(images, frames)


def turn_prior(
    prior: Prior, language: Language, settings: PrepareSettings, shelves: Shelves
) -> Prior:
    """Say what is said of the frames in another language."""
    if prior.frames is None:
        return prior
    return replace(prior, frames=shelve_prior(language, prior.images, settings, shelves))


def say_dates(language: Language, identities: frozenset[Identity]) -> str:
    """Say on which days a study was made, as its headers have it."""
    days = sorted({i.study_date for i in identities if i.study_date is not None})
    if not days:
        return language.text("Study date not given")
    dates = ", ".join(day.isoformat() for day in days)
    return language.text("Study date {dates}", dates=dates)


def say_which(language: Language, which: str, identities: frozenset[Identity]) -> str:
    """Say over a study's images which of the two it is, and of which day."""
    said = f"{which} \N{MIDDLE DOT} {say_dates(language, identities)}"
    return f'<p class="mf-which">{escape_text(said)}</p>'


def say_doubts(
    language: Language, prior: frozenset[Identity], present: frozenset[Identity]
) -> tuple[str, ...]:
    """Say what in the headers speaks against two sets of images being one patient's two studies."""
    patients = {i.patient_id for i in prior | present} - {None}
    studies = ({i.study_uid for i in prior} & {i.study_uid for i in present}) - {None}
    doubts = []
    if len(patients) > 1:
        doubts.append(
            language.text(
                "The headers name more than one patient: check that the prior images are of this "
                "one."
            )
        )
    elif any(i.patient_id is None for i in prior | present):
        doubts.append(
            language.text(
                "Not every header names its patient: check that the prior images are of this one."
            )
        )
    if studies:
        doubts.append(
            language.text(
                "By their headers, the prior images are of the same study as the present ones."
            )
        )
    before, now = (
        [i.study_date for i in found if i.study_date is not None] for found in (prior, present)
    )
    if before and now and max(before) > max(now):
        doubts.append(
            language.text("By their headers, the prior images are later than the present ones.")
        )
    return tuple(doubts)


def show_prior(language: Language, prior: Prior, present: frozenset[Identity]) -> str:
    """Show the earlier study in a viewer of its own; nothing where none is given.

    Args:
        language: The reader's.
        prior: The earlier study.
        present: Whose study the present images say they are part of.
    """
    heading = language.text("Prior image")
    if prior.problem:
        return rendering.card_html(heading, rendering.problem_html(language, prior.problem))
    if prior.frames is None:
        return ""
    identities = prior.frames.identities
    doubts = "".join(
        f'<p class="mf-doubt" role="alert">{escape_text(doubt)}</p>'
        for doubt in say_doubts(language, identities, present)
    )
    which = language.text("Prior study: for comparison, not read by the model")
    said = say_which(language, which, identities)
    viewer = prior_html(prior.frames, language.text("Prior study"))
    over = f'<div class="mf-doubts">{doubts}</div>' if doubts else ""
    return rendering.card_html(
        heading, over + said + viewer + removed_html(language, prior.removed)
    )
