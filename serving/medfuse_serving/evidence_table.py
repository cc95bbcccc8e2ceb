"""An explanation's evidence in; the page's table of it, and the switches of its pictures, out.

A row, an outline, a group of words and a span of the recording that are the same piece of evidence
have the same `data-evidence`, by which `web/evidence.js` links them.
"""

from collections.abc import Mapping, Sequence

from medfuse.attribution.record import ExplanationRecord
from medfuse.attribution.scale import DisplayScale
from medfuse.dictation.record import Span
from medfuse.overlay import (
    MINUS,
    OPACITY,
    Scale,
    escape_text,
)
from medfuse.types import MODALITIES, Modality
from medfuse_serving.evidence import AreaPlace, Piece, SpanPlace
from medfuse_serving.language import Language
from medfuse_serving.report.words import (
    UNITS,
    capital,
    look_up,
    say_difference,
    say_number,
    say_piece,
    say_sum,
    say_target,
    title,
)
from medfuse_serving.shelves import Shelf


def row_id(name: str) -> str:
    """Give the id of a piece's row."""
    return f"row-{name}"


def play_attribute(place: SpanPlace) -> str:
    """Write which seconds of the recording something plays."""
    return f'data-play="{place.start_s:.4f} {place.end_s:.4f}"'


def play_dictated(span: Span) -> str:
    """Write which seconds of the dictation something plays."""
    return f'data-play="{span.start_s:.4f} {span.end_s:.4f}" data-sound="dictation"'


def number_frames(pieces: Sequence[Piece], read: Sequence[int | None]) -> tuple[Piece, ...]:
    """Count frames as the viewer does, which has those too that the model does not read.

    Args:
        pieces: Whose frames count those that the model read.
        read: Of each frame in the viewer, its number among those, from 0.
    """
    return tuple(
        piece.model_copy(
            update={"place": piece.place.model_copy(update={"frame": _find(piece.place, read) + 1})}
        )
        if isinstance(piece.place, AreaPlace)
        else piece
        for piece in pieces
    )


def _find(place: AreaPlace, read: Sequence[int | None]) -> int:
    return list(read).index(place.frame - 1)


def strength_html(maps: Shelf) -> str:
    """Offer how strong the maps are drawn; `web/strength.js` does it."""
    return f'<mf-strength data-shelf="{maps.token}" data-full="{255 * OPACITY:.4f}"></mf-strength>'


def table_html(
    language: Language,
    record: ExplanationRecord,
    pieces: Sequence[Piece],
    scale: DisplayScale,
    maps: Shelf,
    sounds: Mapping[str, Span],
) -> str:
    """Show each piece of evidence as a row of a table that is closed at first.

    Args:
        language: The reader's.
        record: The explanation's.
        pieces: Its evidence, frames counted as in the viewer; nothing is shown where there is none.
        scale: Of the pictures.
        maps: By which it is told from another explanation's.
        sounds: Of the pieces that were dictated, by name, where they are in the dictation.
    """
    if not pieces:
        return ""
    bodies = "".join(
        _body_html(language, record, modality, own, scale, sounds)
        for modality in MODALITIES
        if (own := [piece for piece in pieces if piece.modality is modality])
    )
    finding = say_target(language, record.target)
    caption = language.text("Evidence for and against {finding}", finding=finding)
    heads = "".join(
        f'<th scope="col">{escape_text(head)}</th>'
        for head in (
            language.text("Evidence"),
            language.text("For (+) or against ({minus})", minus=MINUS),
            language.text("Part of the map's sum"),
            language.text("Go there"),
        )
    )
    summary = escape_text(language.text("The evidence as a table"))
    hint = language.text(
        "Point at a row, or go to its buttons, to see where it is; Escape takes the mark off. "
        "Evidence for and against cancels in a sum, so a part can be more than all of it."
    )
    additive = any(part.additive for part in scale.parts.values())
    said = (hint, say_difference(language, record)) if additive else (hint,)
    hints = "".join(f'<p class="mf-legend">{escape_text(paragraph)}</p>' for paragraph in said)
    return (
        f'<details class="mf-pieces" data-shelf="{maps.token}"><summary>{summary}</summary>'
        f'{hints}<div class="mf-wide-table"><table>'
        f"<caption>{escape_text(caption)}</caption><thead><tr>{heads}</tr></thead>{bodies}</table>"
        '</div></details><p class="mf-spoken" role="status"></p>'
    )


def _body_html(
    language: Language,
    record: ExplanationRecord,
    modality: Modality,
    pieces: Sequence[Piece],
    scale: DisplayScale,
    sounds: Mapping[str, Span],
) -> str:
    part = scale.parts[modality]
    name = title(language, modality)
    if part.additive:
        head = language.text(
            "{modality}. {name}: {sum} logits",
            modality=name,
            name=say_sum(language, record),
            sum=say_number(record.sums[modality], modality, part.full),
        )
    else:
        head = language.text(
            "{modality}: each area's strongest value, in {unit}",
            modality=name,
            unit=look_up(language, UNITS, part.unit),
        )
    rows = "".join(_row_html(language, piece, part, sounds.get(piece.id)) for piece in pieces)
    return (
        f'<tbody><tr><th scope="rowgroup" colspan="4">{escape_text(head)}</th></tr>{rows}</tbody>'
    )


def _row_html(language: Language, piece: Piece, scale: Scale, sound: Span | None) -> str:
    said = say_piece(language, piece)
    number = say_number(piece.value, piece.modality, scale.full)
    share = "" if piece.share is None else f"{round(100 * piece.share)} %".replace("-", MINUS)
    name = "" if piece.place is None else f' id="{row_id(piece.id)}" data-evidence="{piece.id}"'
    spoken = escape_text(f"{said}: {number}")
    return (
        f'<tr{name} data-said="{spoken}"><th scope="row">{escape_text(capital(said))}</th>'
        f"<td>{number}</td><td>{share}</td>"
        f"<td>{_buttons_html(language, piece, said, sound)}</td></tr>"
    )


def _buttons_html(language: Language, piece: Piece, said: str, sound: Span | None) -> str:
    if piece.place is None:
        return ""
    frame = f' data-frame="{piece.place.frame - 1}"' if isinstance(piece.place, AreaPlace) else ""
    label = escape_text(language.text("Show {place}", place=said))
    shown = (
        f'<button type="button" data-show="{piece.id}"{frame} aria-label="{label}">'
        f"{escape_text(language.text('Show'))}</button>"
    )
    if isinstance(piece.place, SpanPlace):
        played = play_attribute(piece.place)
    elif sound is not None:
        played = play_dictated(sound)
    else:
        return shown
    label = escape_text(language.text("Play {place}", place=said))
    return shown + (
        f' <button type="button" {played} aria-pressed="false" '
        f'aria-label="{label}">{escape_text(language.text("Play"))}</button>'
    )
