"""The page's worklist: a study in, its words and what is open out; `web/worklist.js` shows it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from medfuse.overlay import escape_text
from medfuse_serving.language import Language, message
from medfuse_serving.worklist.records import StudyRow
from medfuse_serving.worklist.store import Store

if TYPE_CHECKING:
    import gradio

WORDS: Mapping[str, str] = {
    "title": message("Worklist"),
    "tools": message("Filter of the worklist"),
    "by-label": message("Filter by label"),
    "by-modality": message("Given"),
    "by-status": message("Status"),
    "any": message("any"),
    "next": message("Next waiting study (Alt+N)"),
    "keys": message(
        "Worklist. Arrows, Page Up, Page Down, Home and End move; Enter opens a study; slash goes "
        "to the filter; Alt and N open the next waiting study from anywhere on the page."
    ),
    "column-label": message("Label"),
    "column-arrived": message("Arrived"),
    "column-modalities": message("Given"),
    "column-status": message("Status"),
    "column-reader": message("Reader"),
    "image": message("image"),
    "note": message("note"),
    "voice": message("voice"),
    "waiting": message("waiting"),
    "opened": message("opened"),
    "read": message("read"),
    "count": message("{total} studies"),
    "none": message("No study."),
    "no-next": message("No study is waiting."),
    "place": message("Study {number} of {total}: {label}, {status}"),
}
"""What the element says, by the names that it uses; it fills the values in itself."""


WANTED = "document.querySelector('mf-worklist').wanted"
"""The id of the study that is wanted, in the browser."""


@dataclass(frozen=True, slots=True)
class Worklist:
    """Where the worklist is shown, and the button that is never seen by which it opens a study."""

    place: "gradio.HTML"
    opening: "gradio.Button"


def lay_worklist(language: Language, store: Store | None) -> Worklist:
    """Lay out the worklist; without a store it is not seen."""
    import gradio as gr

    there = store is not None
    place = gr.HTML(list_html(language, None) if there else "", elem_id="worklist", visible=there)
    opening = gr.Button(elem_id="worklist-open", visible="hidden" if there else False)
    return Worklist(place, opening)


def list_html(language: Language, row: StudyRow | None) -> str:
    """Show the worklist.

    Args:
        language: Of its words.
        row: The study that lies on the page.
    """
    words = escape_text(json.dumps({k: _say(language, v) for k, v in WORDS.items()}))
    opened, status = ("", "") if row is None else (row.id, row.status)
    told = ""
    if row is not None:
        said = language.text(
            "Study {label}: {status}", label=row.label, status=language.text(WORDS[row.status])
        )
        told = f'<span hidden data-leads-to="image" data-told="{escape_text(said)}"></span>'
    return (
        f'<mf-worklist data-words="{words}" data-opened="{opened}" data-status="{status}">'
        f"</mf-worklist>{told}"
    )


def _say(language: Language, text: str) -> str:
    """Say a message with its values left open."""
    names = (name for _, name, _, _ in Formatter().parse(text) if name)
    return language.text(text, **{name: f"{{{name}}}" for name in names})
