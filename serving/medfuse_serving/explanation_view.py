"""An explanation in, HTML for the page out; readable without colour, every text escaped."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from medfuse.attribution.record import BandRecord, CheckRecord, ExplanationRecord, to_record
from medfuse.attribution.scale import DisplayScale, Scales, find_scale
from medfuse.config import PrepareSettings
from medfuse.data.voice import decode_voice
from medfuse.overlay import (
    APART,
    MINUS,
    Layer,
    Scale,
    Word,
    escape_text,
    find_step,
    format_signed,
    lay_frame,
    lay_voice,
    mel_centres_hz,
    sum_words,
    words_html,
)
from medfuse.types import Modality, Prepared
from medfuse_serving import rendering, viewer
from medfuse_serving.evidence import (
    Piece,
    SpanPlace,
    WordsPlace,
    list_half_seconds,
    list_ninths,
    list_pieces,
    name_area,
    name_span,
)
from medfuse_serving.evidence_table import play_attribute, row_id
from medfuse_serving.explainer import Explained, Glance
from medfuse_serving.language import Language
from medfuse_serving.report.record import ReferralRecord
from medfuse_serving.report.words import (
    BASELINES,
    METHODS,
    capital,
    look_up,
    say_map_legend,
    say_note_legend,
    say_piece,
    say_shares,
    say_target,
    title,
)
from medfuse_serving.shelves import Shelf, Shelves

MAP_SIDE = 1024
"""Most pixels along a side of a map on the page: a model's square has fewer, the viewer draws a map
as large as its frame, and who waits for a map of 2,000 by 2,000 waits for its colours."""

PLOT = (50.0, 6.0, 342.0, 180.0)
"""Left, top, width and height of the spectrogram in its drawing, 400 wide."""

TARGET = 32.0
"""Least side of what can be pressed in it: 24 pixels where the drawing is 300 wide (WCAG 2.5.8)."""


@dataclass(frozen=True, slots=True)
class View:
    """An explanation with all that its pictures are drawn from.

    Attributes:
        prepared: The study as the model saw it.
        record: What is said of it.
        values: The maps; none where they are withheld.
        scale: Of the pictures.
        pieces: The evidence; none where the maps are withheld.
    """

    prepared: Prepared
    record: ExplanationRecord
    values: Mapping[Modality, Float[np.ndarray, "..."]]
    scale: DisplayScale
    pieces: tuple[Piece, ...]


def make_view(explained: Explained, prepare: PrepareSettings, scales: Scales) -> View:
    """Take up an explanation; the maps of a failed badge are left out."""
    explanation = explained.explanation
    attribution = explanation.attribution
    scale = find_scale(scales, attribution.method, attribution.target, prepare)
    withheld = not explanation.badge.passed
    record = to_record(explained.prepared, explanation, prepare, scale, {}, (), withheld=withheld)
    values = {} if withheld else attribution.values
    pieces = list_pieces(explained.prepared, values, scale, prepare)
    return View(explained.prepared, record, values, scale, pieces)


def waiting_html(language: Language) -> str:
    """Say that another explanation comes first."""
    said = escape_text(language.text("Waiting for the explanation before this one to end"))
    return (
        f'<div class="mf-progress" data-told><progress aria-label="{said}"></progress> {said}</div>'
    )


def summary_html(language: Language, record: ExplanationRecord, pieces: Sequence[Piece]) -> str:
    """Show the badge with its checks, each modality's share in words and numbers, and the method.

    Of a failed badge the shares are left out too, since they add up to the score.

    Args:
        language: The reader's.
        record: The explanation's.
        pieces: Its evidence, which the words name.
    """
    finding = say_target(language, record.target)
    heading = f"<h3>{escape_text(language.text('Why {finding}?', finding=finding))}</h3>"
    if record.withheld:
        failed = tuple(check for check in record.badge.checks if not check.passed)
        referral = ReferralRecord(reason="badge", targets=(record.target,), checks=failed)
        told = language.text("Explanation withheld: {finding}. Refer to a human.", finding=finding)
        return (
            f'<div class="mf-answer mf-explanation" data-told="{escape_text(told)}">{heading}'
            f"{rendering.refer_html(language, referral)}{_badge_html(language, record)}</div>"
        )
    said = "".join(
        f"<li>{escape_text(sentence)}</li>" for sentence in say_shares(language, record, pieces)
    )
    told = language.text("Explanation ready: {finding}.", finding=finding)
    return (
        f'<div class="mf-answer mf-explanation mf-mapped" data-told="{escape_text(told)}">{heading}'
        f'{_badge_html(language, record)}<ul class="mf-sentences">{said}</ul>'
        f'<div class="mf-halves"><div>{_shares_html(language, record)}</div>'
        f"<div>{_interactions_html(language, record)}</div></div>{_facts_html(language, record)}"
        "</div>"
    )


def shelve_maps(language: Language, view: View, shelves: Shelves) -> Shelf:
    """Put the map of each frame that the model read on a shelf; none where there is no map."""
    values = view.values.get(Modality.IMAGE, ())
    scale = view.scale.parts.get(Modality.IMAGE)

    def make(number: int) -> bytes:
        assert scale is not None
        said = _say_attention(language, view, number)
        return _pack_map(view.prepared, values[number], number, scale, said, view.pieces)

    return shelves.put(len(values), make)


def shelve_glance(
    language: Language, glance: Glance, scales: Scales, prepare: PrepareSettings, shelves: Shelves
) -> Shelf:
    """Put the coarse map of each frame on a shelf; none where the image has none."""
    attribution = glance.attribution
    values = attribution.values.get(Modality.IMAGE, ())
    whole = find_scale(scales, attribution.method, attribution.target, prepare)
    scale = whole.parts.get(Modality.IMAGE)
    said = language.text("A coarse map, not yet checked: it may change, or be withheld.")

    def make(number: int) -> bytes:
        assert scale is not None
        return _pack_map(glance.prepared, values[number], number, scale, said)

    return shelves.put(len(values), make)


def glance_html(maps: Shelf) -> str:
    """Lay coarse maps over the viewer's frames; nothing where there is none."""
    if not maps.count:
        return ""
    return (
        '<div class="mf-map mf-mapped mf-image-map"><p class="mf-legend">'
        f'<mf-map data-shelf="{maps.token}"></mf-map></p></div>'
    )


def _pack_map(
    prepared: Prepared,
    values: Float[np.ndarray, "h w"],
    number: int,
    scale: Scale,
    said: str,
    pieces: Sequence[Piece] = (),
) -> bytes:
    """Draw a frame's map with its outlines, and lines around its ninths that are evidence."""
    assert prepared.image is not None
    native = prepared.image.geometry[number]
    share = min(1.0, MAP_SIDE / max(native.rows, native.columns))
    rows, columns = (max(1, round(share * side)) for side in (native.rows, native.columns))
    layer = lay_frame(values, replace(native, rows=rows, columns=columns), scale)
    box = (0.0, 0.0, float(columns), float(rows))
    names = [name_area(number, area) for area in range(len(layer.areas))]
    marks = _marks(layer, box, names, size=max(rows, columns) / 30)
    known = {piece.id: piece for piece in pieces}
    for part in list_ninths(number, native):
        if part.name in known:
            top, bottom = (
                rows * (edge - native.top) / native.height
                for edge in (part.rows.start, part.rows.stop)
            )
            left, right = (
                columns * (edge - native.left) / native.width
                for edge in (part.columns.start, part.columns.stop)
            )
            marks += _mark_part(known[part.name], (left, top, right, bottom))
    return viewer.pack_map(layer, marks, said)


def _mark_part(piece: Piece, box: tuple[float, float, float, float]) -> str:
    """Draw a line around a part, which is seen while it is marked; left, top, right, bottom."""
    left, top, right, bottom = box
    kind = "mf-solid" if piece.value > 0 else "mf-dashed"
    line = f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"
    return "".join(
        f'<path class="{c} mf-part" data-evidence="{piece.id}" d="{line}"/>'
        for c in ("mf-case", kind)
    )


def image_html(language: Language, view: View, maps: Shelf) -> str:
    """Lay the maps over the viewer's frames, with their legend; nothing where there is no map."""
    if Modality.IMAGE not in view.values:
        return ""
    scale = view.scale.parts[Modality.IMAGE]
    return (
        f'<div class="mf-map mf-image-map"><p class="mf-legend"><mf-map data-shelf="{maps.token}">'
        f"</mf-map></p>{_legend_html(language, scale)}</div>"
    )


def _say_attention(language: Language, view: View, number: int) -> str:
    """Say how much of the model's attention a frame has, where it has to share it."""
    shares = view.record.frame_attention
    if len(shares) < 2:
        return ""
    return language.text(
        "The model gives this frame {share} of its attention to the image.",
        share=f"{shares[number]:.0%}",
    )


def note_html(language: Language, view: View) -> str:
    """Show the note with each word's number; nothing where there is no map."""
    if Modality.NOTE not in view.values:
        return ""
    assert view.prepared.note is not None
    text, spans = view.prepared.note.text, view.prepared.note.spans
    scale = view.scale.parts[Modality.NOTE]
    words = _grouped_html(view, sum_words(text, spans, view.values[Modality.NOTE]), scale)
    legend = escape_text(say_note_legend(language, scale))
    body = (
        f'<div class="mf-note mf-map"><p class="mf-words" tabindex="0">{words}</p>'
        f'<p class="mf-caption mf-overlay">{legend}</p></div>'
    )
    return rendering.card_html(language.text("Note: what spoke for and against"), body)


def _grouped_html(view: View, words: Sequence[Word], scale: Scale) -> str:
    """Show a note's words, each group of them as one that leads to its row of the table."""
    assert view.prepared.note is not None
    text = view.prepared.note.text
    groups = sorted(
        (piece.place.start, piece.place.end, piece.id)
        for piece in view.pieces
        if isinstance(piece.place, WordsPlace)
    )

    def show(start: int, end: int) -> str:
        own = [
            replace(word, start=word.start - start, end=word.end - start)
            for word in words
            if start <= word.start < end
        ]
        return words_html(text[start:end], own, scale)

    parts, at = [], 0
    for start, end, name in groups:
        parts.append(show(at, start))
        parts.append(
            f'<a class="mf-group" href="#{row_id(name)}" data-evidence="{name}">'
            f"{show(start, end)}</a>"
        )
        at = end
    parts.append(show(at, len(text)))
    return "".join(parts)


def voice_html(language: Language, view: View, data: bytes, prepare: PrepareSettings) -> str:
    """Show the spectrogram under its map with a player; nothing where there is no map.

    Args:
        language: The reader's.
        view: The explanation.
        data: The recording as it was sent.
        prepare: The model's.
    """
    if Modality.VOICE not in view.values:
        return ""
    scale = view.scale.parts[Modality.VOICE]
    body = (
        f'<div class="mf-voice mf-map">{_spectrogram(language, view, prepare)}'
        f"{rendering.player_html(language, decode_voice(data, prepare.limits))}"
        f"{_legend_html(language, scale)}</div>"
    )
    return rendering.card_html(language.text("Recording: what spoke for and against"), body)


def _badge_html(language: Language, record: ExplanationRecord) -> str:
    checks = record.badge.checks
    failed = sum(not check.passed for check in checks)
    if record.withheld:
        said = language.text(
            "\N{BALLOT X} Maps withheld: {failed} of {count} checks failed, so the maps could "
            "mislead",
            failed=failed,
            count=len(checks),
        )
    else:
        said = language.text(
            "\N{CHECK MARK} Reliable: all {count} checks passed", count=len(checks)
        )
    rows = "".join(_check_html(language, check) for check in checks)
    kind = "mf-failed" if record.withheld else "mf-passed"
    return f'<div class="mf-badge {kind}"><p>{escape_text(said)}</p><ul>{rows}</ul></div>'


def _check_html(language: Language, check: CheckRecord) -> str:
    name = language.name(check.name)
    if check.passed:
        said = language.text("passed: {name}.", name=name)
    else:
        said = language.text("FAILED: {name}.", name=name)
    message = rendering.foreign_html(language, check.message)
    return f"<li><b>{escape_text(said)}</b> {message}</li>"


def _shares_html(language: Language, record: ExplanationRecord) -> str:
    numbers = [*record.shares.shares.values(), *record.shares.interactions.values()]
    numbers += [end for band in record.band.values() for end in (band.lowest, band.highest)]
    full = max(map(abs, numbers), default=0.0) or 1.0
    rows = "".join(
        _signed_bar(title(language, modality), value, full, record.band.get(modality))
        for modality, value in record.shares.shares.items()
    )
    none, every = record.shares.outputs["none"], list(record.shares.outputs.values())[-1]
    legend = language.text(
        "Shapley shares against: {baseline}. Without any {none}, with all {every}; the shares add "
        "up to the difference.",
        baseline=look_up(language, BASELINES, record.shares.baseline),
        none=format_signed(none),
        every=format_signed(every),
    )
    if record.band:
        count = len(record.shares_by_baseline) + 1
        legend += " " + language.text(
            "The thin line and the numbers in brackets: lowest and highest over {count} baselines.",
            count=count,
        )
    heading = escape_text(language.text("Shapley share of each modality, in logits"))
    label = escape_text(language.text("Shares"))
    return (
        f'<h4>{heading}</h4><div class="mf-bars mf-signed" role="table" aria-label="{label}">'
        f'{rows}</div><p class="mf-legend">{escape_text(legend)}</p>'
    )


def _interactions_html(language: Language, record: ExplanationRecord) -> str:
    pairs = record.shares.interactions
    if not pairs:
        return ""
    full = max(map(abs, (*record.shares.shares.values(), *pairs.values()))) or 1.0
    rows = "".join(
        _signed_bar(_say_pair(language, name), value, full) for name, value in pairs.items()
    )
    heading = escape_text(language.text("What pairs said beyond each by itself"))
    label = escape_text(language.text("Interactions"))
    legend = language.text("+ they strengthen each other; {minus} they say the same.", minus=MINUS)
    return (
        f'<h4>{heading}</h4><div class="mf-bars mf-signed" role="table" aria-label="{label}">'
        f'{rows}</div><p class="mf-legend">{escape_text(legend)}</p>'
    )


def _say_pair(language: Language, name: str) -> str:
    return capital(language.text(" with ").join(language.name(m) for m in name.split("+")))


def _facts_html(language: Language, record: ExplanationRecord) -> str:
    facts = {
        language.text("Method"): capital(look_up(language, METHODS, record.method)),
        language.text("Measured against"): capital(look_up(language, BASELINES, record.baseline)),
        language.text("Output"): language.text(
            "{logits} logits", logits=format_signed(record.output)
        ),
    }
    if record.baseline_output is not None:
        logits = format_signed(record.baseline_output)
        facts[language.text("Output of the baseline")] = language.text(
            "{logits} logits", logits=logits
        )
    if record.completeness_gap is not None:
        facts[language.text("Completeness gap")] = f"{100 * record.completeness_gap:.2f} %"
    if record.steps is not None:
        facts[language.text("Steps")] = str(record.steps)
    rows = "".join(
        f"<div><dt>{escape_text(name)}</dt><dd>{escape_text(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="mf-facts">{rows}</dl>'


def _signed_bar(name: str, value: float, full: float, band: BandRecord | None = None) -> str:
    """Draw a bar to the right of the middle for a number above 0, to the left below."""
    side = "mf-for" if value > 0 else "mf-against"
    width = 50 * abs(value) / full
    left = 50 if value > 0 else 50 - width
    bar = f'<i class="{side}" style="left:{left:.2f}%;width:{width:.2f}%"></i>'
    number = format_signed(value)
    if band is not None:
        start, end = (50 + 50 * edge / full for edge in (band.lowest, band.highest))
        bar += f'<em style="left:{start:.2f}%;width:{end - start:.2f}%"></em>'
        lowest, highest = format_signed(band.lowest), format_signed(band.highest)
        number += f" <small>[{lowest}, {highest}]</small>"
    return (
        f'<div class="mf-bar" role="row"><span role="cell">{escape_text(name)}</span>'
        f'<span class="mf-track" aria-hidden="true">{bar}</span><b role="cell">{number}</b></div>'
    )


def _legend_html(language: Language, scale: Scale) -> str:
    return (
        f'<div class="mf-ramp mf-overlay" aria-hidden="true"><span>{MINUS}{scale.full:.2g}</span>'
        f"<i></i><span>+{scale.full:.2g}</span></div>"
        f'<p class="mf-overlay">{escape_text(say_map_legend(language, scale))}</p>'
    )


def _marks(
    layer: Layer, box: tuple[float, float, float, float], names: Sequence[str], size: float
) -> str:
    """Draw a layer's outlines and numbers, each with the name and the strength of its area.

    Args:
        layer: Over a picture.
        box: Left, top, width and height of the picture in the drawing.
        names: Of its areas.
        size: Height of the numbers in the drawing.
    """
    known = [
        f'data-evidence="{name}" data-step="{find_step(area.strength)}"'
        for name, area in zip(names, layer.areas, strict=True)
    ]
    left, top, width, height = box
    rows, columns = layer.colours.shape[:2]
    parts = []
    for outline in layer.outlines:
        placed = outline.points * (width / columns, height / rows) + (left, top)
        points = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed.tolist())
        kind = "mf-solid" if outline.positive else "mf-dashed"
        own = known[outline.area]
        parts += [f'<path class="{c}" {own} d="M{points}Z"/>' for c in ("mf-case", kind)]
    for spot in layer.spots:
        above = spot.top > APART[0] * rows  # or else there is no room
        edge = top + height * (spot.top if above else spot.bottom) / rows
        y = edge - 0.3 * size if above else edge + 1.1 * size
        x = left + width * spot.column / columns
        parts.append(
            f'<text class="mf-number" {known[spot.area]} x="{x:.1f}" y="{y:.1f}" '
            f'font-size="{size:.1f}">{format_signed(spot.value)}</text>'
        )
    return "".join(parts)


def _spectrogram(language: Language, view: View, prepare: PrepareSettings) -> str:
    """Draw the spectrogram with its map, in seconds and hertz."""
    voice = view.prepared.voice
    assert voice is not None
    layer = lay_voice(view.values[Modality.VOICE], view.scale.parts[Modality.VOICE])
    names = [name_span(area) for area in range(len(layer.areas))]
    frames, bands = voice.values.shape
    left, top, width, height = PLOT
    low, high = float(voice.values.min()), float(voice.values.max())
    grey = np.rint(255 * (voice.values.T[::-1] - low) / max(high - low, 1e-6)).astype(np.uint8)
    place = f'x="{left}" y="{top}" width="{width}" height="{height}" preserveAspectRatio="none"'
    marks = _marks(layer, PLOT, names, 12.0) + "".join(
        _mark_part(piece, (x, top, x + wide, top + height))
        for piece, (x, wide) in _place_half_seconds(view)
    )
    parts = [
        f'<image {place} href="{_picture(grey)}"/>',
        f'<image {place} class="mf-overlay mf-faded" filter="url(#mf-strong)" '
        f'href="{_picture(layer.colours)}"/>',
        f'<g class="mf-overlay mf-marks" aria-hidden="true">{marks}</g>',
        _span_buttons(language, view, layer),
    ]
    hz = mel_centres_hz(prepare.voice)
    for i in np.linspace(0, bands - 1, 5).round().astype(int):
        y = top + height * (bands - 0.5 - i) / bands
        unit = " Hz" if i == bands - 1 else ""
        parts.append(
            f'<text class="mf-hertz" x="{left - 4}" y="{y + 3:.1f}">{hz[i]:.0f}{unit}</text>'
        )
    step = max(1, round(voice.duration_s / 6))
    for second in range(0, int(voice.duration_s) + 1, step):
        x = left + width * ((second - voice.start_s) / voice.step_s + 0.5) / frames
        if left - 6 <= x <= left + width + 6:  # the first and last frame lie inside
            y = top + height + 13
            parts.append(f'<text class="mf-second" x="{x:.1f}" y="{y}">{second} s</text>')
    label = escape_text(language.text("Spectrogram in seconds and hertz"))
    return (
        f'<svg class="mf-spectrogram" viewBox="0 0 400 {top + height + 18}" role="group" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _place_half_seconds(view: View) -> list[tuple[Piece, tuple[float, float]]]:
    """Give the left edge and the width in the drawing of each half second that is evidence."""
    voice = view.prepared.voice
    assert voice is not None
    left, _, width, _ = PLOT
    known = {piece.id: piece for piece in view.pieces}
    step = width / len(voice.values)
    return [
        (
            known[part.name],
            (left + step * part.rows.start, step * (part.rows.stop - part.rows.start)),
        )
        for part in list_half_seconds(voice)
        if part.name in known
    ]


def _span_buttons(language: Language, view: View, layer: Layer) -> str:
    """Make each piece of the evidence a button over its place that plays its sound."""
    left, top, width, height = PLOT
    rows, columns = layer.colours.shape[:2]
    known = {piece.id: piece for piece in view.pieces}
    # What is outlined lies over its half second.
    parts = [
        _span_button(language, piece, x, wide, top, height)
        for piece, (x, wide) in _place_half_seconds(view)
    ]
    for number, area in enumerate(layer.areas):
        if name_span(number) not in known:
            continue
        (x, wide), (y, tall) = (
            (start + size * first / count, size * (last - first) / count)
            for (first, last), count, start, size in (
                (area.columns, columns, left, width),
                (area.rows, rows, top, height),
            )
        )
        step = f'data-step="{find_step(area.strength)}" '
        parts.append(_span_button(language, known[name_span(number)], x, wide, y, tall, step))
    return f'<g class="mf-overlay mf-spans">{"".join(parts)}</g>'


def _span_button(
    language: Language,
    piece: Piece,
    left: float,
    width: float,
    top: float,
    height: float,
    step: str = "",
) -> str:
    assert isinstance(piece.place, SpanPlace)
    (x, wide), (y, tall) = _grow(left, width), _grow(top, height)
    said = language.text(
        "Play {place}: {value}", place=say_piece(language, piece), value=format_signed(piece.value)
    )
    return (
        f'<rect class="mf-span" role="button" tabindex="0" aria-pressed="false" '
        f'aria-label="{escape_text(said)}" data-evidence="{piece.id}" '
        f"{step}{play_attribute(piece.place)} "
        f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
    )


def _grow(start: float, size: float) -> tuple[float, float]:
    """Make what is too small to be hit larger, around its middle."""
    grown = max(size, TARGET)
    return start - (grown - size) / 2, grown


def _picture(pixels: UInt8[np.ndarray, "h w ..."]) -> str:
    """Write pixels as a lossless PNG in a URL."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG", compress_level=1)
    return rendering.data_url("image/png", png.getvalue())
