"""Pictures of attributions: signed numbers in a modality's own axes in, PNG or HTML out; no torch.

Only the pictures are scaled and smoothed; the numbers stay what they are. The scale is one that is
fixed for the target, never the picture's own, so that two studies' pictures can be compared. Sign
and strength are told by outlines and printed numbers; colour repeats them and is not needed.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64, UInt8
from PIL import Image
from scipy.ndimage import find_objects, gaussian_filter, label, maximum_position, sum_labels

from medfuse.config import VoiceSettings
from medfuse.data.image import to_native
from medfuse.data.voice import mel_corners_hz
from medfuse.types import FrameGeometry, Modality, PreparedVoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]
FOR: Colour = (213, 94, 0)
AGAINST: Colour = (86, 180, 233)
"""Vermillion and sky blue of Okabe and Ito 2008, told apart in every common colour blindness."""

OPACITY = 0.75
"""Of the strongest colour, so that the picture shows through."""

SMOOTHING = 1 / 32
"""Width of an image's smoothing, as a share of the model's square."""

VOICE_SMOOTHING = (4.0, 2.0)
"""Width of a spectrogram's smoothing: 0.04 s of mel frames, and bands."""

OUTLINE = 0.5
"""An outline runs where the smoothed map has this share of the value where the colour is full."""

SPOTS = 5
"""Outlined areas of a picture that have their number printed, the strongest first."""

APART = (1 / 14, 1 / 7)
"""Shares of a picture's height and width that a printed number takes; none covers another."""

NUMBERED = 0.2
"""Words weaker than this share of the full value have a sign under them and no number."""

STEPS = 20
"""Steps of strength, up to the full value, by which a page can hide what is weak."""

MINUS = "\N{MINUS SIGN}"

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a punctuation mark, that the model read: its characters in the decoded note."""

    start: int
    end: int
    value: float


@dataclass(frozen=True, slots=True)
class Scale:
    """How strong a map's values are, the same for every study.

    Attributes:
        full: The value of the smoothed map from which on the colour is full.
        unit: Of one element of the map, such as ``logits per pixel``.
        additive: Whether elements add up to what their area does, so that sums are printed; where
            not, it is the strongest value.
    """

    full: float
    unit: str
    additive: bool = True


@dataclass(frozen=True, slots=True)
class Area:
    """A strong area of a map: what hangs together of one sign, where the smoothed map is strong.

    Attributes:
        positive: Whether it speaks for the target.
        value: Its sum, or its strongest value.
        strength: The smoothed map's at its strongest, as a share of the scale's full value, at
            most 1.
        peak: Row and column of its strongest element, in the map's own axes.
        rows: Its first row, and the one after its last.
        columns: Its first column, and the one after its last.
    """

    positive: bool
    value: float
    strength: float
    peak: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outline:
    """One line around a strong area.

    Attributes:
        positive: Whether the area speaks for the target.
        points: Column and row of each corner, from the picture's top left edge, in its pixels.
        area: Which of the layer's areas.
    """

    positive: bool
    points: Float[np.ndarray, "n 2"]
    area: int


@dataclass(frozen=True, slots=True)
class Spot:
    """An outlined area and the number that is printed at it.

    Attributes:
        column: Where it is strongest, in the picture's pixels.
        top: Where it begins.
        bottom: Where it ends.
        value: Its sum, or its strongest value.
        area: Which of the layer's areas.
    """

    column: float
    top: float
    bottom: float
    value: float
    area: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A signed map as it lies over a picture of the same size.

    Attributes:
        colours: Red, green, blue and opacity; see-through where the map is weak.
        areas: All that are outlined, the strongest first.
        outlines: Solid lines speak for the target, dashed lines against it.
        spots: At most `SPOTS`, the strongest first.
        scale: How strong they are.
    """

    colours: UInt8[np.ndarray, "rows columns 4"]
    areas: tuple[Area, ...]
    outlines: tuple[Outline, ...]
    spots: tuple[Spot, ...]
    scale: Scale


def find_words(
    text: str, spans: Int64[np.ndarray, "l 2"]
) -> tuple[tuple[tuple[int, int], ...], Int32[np.ndarray, " l"]]:
    """Tell which word each piece belongs to: the one it starts in.

    Returns:
        The characters of each word that was read, in the note's order; and per piece the number of
        its word, or -1 for special pieces, which have no characters.
    """
    places = [match.span() for match in _WORD.finditer(text)]
    starts = np.array([start for start, _ in places])
    real = spans[:, 1] > spans[:, 0]
    words = np.full(len(spans), -1, np.int32)
    found = np.searchsorted(starts, spans[real, 0], side="right") - 1
    read, words[real] = np.unique(found, return_inverse=True)
    return tuple(places[i] for i in read), words


def sum_words(
    text: str, spans: Int64[np.ndarray, "l 2"], values: Float[np.ndarray, " l"]
) -> tuple[Word, ...]:
    """Add up word pieces to words; special pieces, which have no characters, are left out.

    Every piece goes to one word, the one it starts in, so nothing is lost or counted twice.
    """
    places, words = find_words(text, spans)
    real = words >= 0
    sums = np.bincount(words[real], weights=values[real], minlength=len(places))
    return tuple(
        Word(start, end, float(value)) for (start, end), value in zip(places, sums, strict=True)
    )


def native_maps(
    values: Float[np.ndarray, "s h w"], geometry: Sequence[FrameGeometry]
) -> tuple[Float32[np.ndarray, "_ _"], ...]:
    """Take each frame's attribution back to the native pixels of its instance.

    A native pixel gets the attribution of the model's pixel it lies in, interpolated; sums over an
    area are taken in the model's axes.
    """
    return tuple(to_native(frame, place) for frame, place in zip(values, geometry, strict=True))


def mel_times_s(voice: PreparedVoice) -> Float[np.ndarray, " t"]:
    """Give the time of each mel frame's centre in the recording."""
    return voice.start_s + voice.step_s * np.arange(len(voice.values))


def mel_centres_hz(settings: VoiceSettings) -> Float[np.ndarray, " f"]:
    """Give the frequency at which each mel band peaks."""
    return mel_corners_hz(settings)[1:-1]


def smooth(modality: Modality, values: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Smooth an attribution as every picture of it is smoothed, in the model's axes.

    Args:
        modality: Whose axes they are; a note is left as it is.
        values: Image (..., H, W) or voice (T, F).
    """
    values = values.astype(np.float32)
    if modality is Modality.IMAGE:
        width = SMOOTHING * values.shape[-1]
        return np.asarray(gaussian_filter(values, width, axes=(-2, -1)))
    if modality is Modality.VOICE:
        return np.asarray(gaussian_filter(values, VOICE_SMOOTHING))
    return values


def lay_frame(values: Float[np.ndarray, "h w"], geometry: FrameGeometry, scale: Scale) -> Layer:
    """Make the layer over one frame, in native pixels.

    Args:
        values: The frame's attribution in the model's square.
        geometry: The way back to native pixels.
        scale: Of the target and the method.
    """

    def place(column: float, row: float) -> tuple[float, float]:
        return (
            (column + 0.5 - geometry.left) * geometry.columns / geometry.width,
            (row + 0.5 - geometry.top) * geometry.rows / geometry.height,
        )

    smoothed = _smooth_frame(values, geometry)
    areas, numbers = _find_areas(smoothed, values, scale)
    return Layer(
        colours=to_colours(to_native(smoothed, geometry), scale.full),
        areas=areas,
        outlines=_find_outlines(smoothed, numbers, scale, place),
        spots=_find_spots(areas, numbers.shape, place),
        scale=scale,
    )


def find_frame_areas(
    values: Float[np.ndarray, "h w"], geometry: FrameGeometry, scale: Scale
) -> tuple[tuple[Area, ...], Int32[np.ndarray, "h w"]]:
    """Give the areas of `lay_frame` without its picture, in the model's square.

    Returns:
        The areas, and which of them each element is of, or -1.
    """
    return _find_areas(_smooth_frame(values, geometry), values, scale)


def find_voice_areas(
    values: Float[np.ndarray, "t f"], scale: Scale
) -> tuple[tuple[Area, ...], Int32[np.ndarray, "t f"]]:
    """Give the areas of `lay_voice` without its picture: their rows are bands, the highest first.

    Returns:
        The areas, and which of them each element of the map is of, or -1.
    """
    smoothed = smooth(Modality.VOICE, values).T[::-1]
    areas, numbers = _find_areas(smoothed, values.T[::-1], scale)
    return areas, numbers[::-1].T


def _smooth_frame(
    values: Float[np.ndarray, "h w"], geometry: FrameGeometry
) -> Float32[np.ndarray, "h w"]:
    """Smooth a frame's attribution; the square's padding has nothing."""
    shown = np.zeros(values.shape, bool)
    shown[
        geometry.top : geometry.top + geometry.height,
        geometry.left : geometry.left + geometry.width,
    ] = True
    return np.where(shown, smooth(Modality.IMAGE, values), np.float32(0))


def lay_voice(values: Float[np.ndarray, "t f"], scale: Scale) -> Layer:
    """Make the layer over a spectrogram: a column per mel frame, a row per band, the highest first.

    Args:
        values: The recording's attribution.
        scale: As in `lay_frame`.
    """
    upright = values.T[::-1]
    smoothed = smooth(Modality.VOICE, values).T[::-1]

    def place(column: float, row: float) -> tuple[float, float]:
        return column + 0.5, row + 0.5

    areas, numbers = _find_areas(smoothed, upright, scale)
    return Layer(
        colours=to_colours(smoothed, scale.full),
        areas=areas,
        outlines=_find_outlines(smoothed, numbers, scale, place),
        spots=_find_spots(areas, numbers.shape, place),
        scale=scale,
    )


def to_colours(smoothed: Float[np.ndarray, "h w"], full: float) -> UInt8[np.ndarray, "h w 4"]:
    """Colour a smoothed map: the hue says the sign, the opacity the strength up to ``full``."""
    strength = np.minimum(np.abs(smoothed) / full, 1.0)
    colours = np.empty((*smoothed.shape, 4), np.uint8)
    colours[..., :3] = np.where((smoothed > 0)[..., None], FOR, AGAINST)
    colours[..., 3] = np.rint(255 * OPACITY * strength)
    return colours


def overlay_png(layer: Layer) -> bytes:
    """Draw a layer alone, see-through and in its picture's own size, as a lossless PNG."""
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    rows, columns = layer.colours.shape[:2]
    dots = 128  # a power of two, so that the size in inches gives back every pixel
    figure = Figure(figsize=(columns / dots, rows / dots), dpi=dots)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_axis_off()
    _draw_outlines(axes, layer, width=max(1.0, max(rows, columns) / 400) * 72 / dots)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", transparent=True)
    picture = io.BytesIO()
    with Image.open(drawn) as lines:
        both = Image.alpha_composite(Image.fromarray(layer.colours), lines)
    both.save(picture, format="PNG")
    return picture.getvalue()


def draw_frame(image: Float32[np.ndarray, "rows columns"], layer: Layer, title: str) -> bytes:
    """Lay a frame's attribution over it, in native pixels and with its legend, as a PNG."""
    rows, columns = image.shape
    figure = _new_figure(8.0, 1.6 + 6.5 * rows / columns)
    axes = figure.add_subplot()
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, columns, rows, 0))
    _lay_over(figure, layer)
    axes.set(title=title, xlabel="column", ylabel="row")
    return _to_png(figure)


def draw_voice(
    voice: PreparedVoice,
    attribution: Float[np.ndarray, "t f"],
    layer: Layer,
    settings: VoiceSettings,
    title: str,
) -> bytes:
    """Lay a recording's attribution over its spectrogram, in seconds and hertz, as a PNG.

    Below it stands the sum over all bands at each time.
    """
    frames, bands = voice.values.shape
    figure = _new_figure(9.0, 5.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.imshow(voice.values.T[::-1], cmap="gray", aspect="auto", extent=(0, frames, bands, 0))
    _lay_over(figure, layer)
    hz = mel_centres_hz(settings)
    ticks = np.linspace(0, bands - 1, 6).round().astype(int)
    axes.set_yticks(bands - 0.5 - ticks, [f"{hz[i]:.0f}" for i in ticks])
    axes.set(title=title, ylabel="Hz")
    below.axhline(0, color="black", linewidth=0.5)
    below.plot(np.arange(frames) + 0.5, attribution.sum(axis=1), color="black", linewidth=0.8)
    seconds = np.arange(math.floor(voice.duration_s) + 1)
    below.set_xticks((seconds - voice.start_s) / voice.step_s + 0.5, [str(s) for s in seconds])
    below.set(xlabel="seconds", ylabel="sum", xlim=(0, frames))
    return _to_png(figure)


def render_note(text: str, words: Sequence[Word], scale: Scale, title: str) -> str:
    """Show a note as an HTML page with each read word's signed number under it."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape_text(title)}</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        ".mf-words{white-space:pre-wrap}.mf-skipped{color:#666;font-style:italic}"
        ".mf-word{display:inline-block;text-align:center;vertical-align:top}"
        ".mf-word small{display:block;font-size:11px;line-height:1.4;color:#333}</style>"
        f'<h1>{escape_text(title)}</h1><p class="mf-words">{words_html(text, words, scale)}</p>'
        f"<p>{note_legend(scale)}</p></html>\n"
    )


def words_html(text: str, words: Sequence[Word], scale: Scale) -> str:
    """Show a note's every character, with each read word's sign and number under it.

    A solid line under a word speaks for the target, a dashed one against it; both grow thicker, and
    the word's ground darker, up to the scale. What the model did not read is grey and in italics.
    """
    decimals = count_decimals(scale.full)
    parts, at = [], 0
    for word in words:
        parts.append(_unread(text[at : word.start]))
        parts.append(_mark(text[word.start : word.end], word.value, scale.full, decimals))
        at = word.end
    parts.append(_unread(text[at:]))
    return "".join(parts)


NOTE_LEGEND: Final = (
    "Solid line, +: for. Dashed line, {minus}: against. The number is in {unit}; a sign alone is "
    "less than {least}. Line and colour are full from {full} on, the same for every study; what is "
    "stronger looks the same. Grey italics were not read by the model."
)
"""How to read `words_html`."""

MAP_LEGEND: Final = (
    "Orange, solid outline, +: for. Blue, dashed outline, {minus}: against. Colour is full from "
    "{full} {unit} on (smoothed), the same for every study; what is stronger looks the same. "
    "Outlines run at {share} of that; a number is the {number} within its outline."
)
"""How to read a layer's colours, outlines and numbers."""


def note_legend(scale: Scale) -> str:
    """Say how to read `words_html`."""
    return NOTE_LEGEND.format(**note_legend_values(scale))


def map_legend(scale: Scale) -> str:
    """Say how to read a layer's colours, outlines and numbers."""
    return MAP_LEGEND.format(**map_legend_values(scale))


def note_legend_values(scale: Scale) -> dict[str, str]:
    """Give `NOTE_LEGEND` its values."""
    full, least = f"{scale.full:.2g}", f"{NUMBERED * scale.full:.2g}"
    return {"minus": MINUS, "unit": scale.unit, "least": least, "full": full}


def map_legend_values(scale: Scale) -> dict[str, str]:
    """Give `MAP_LEGEND` its values."""
    number = "sum" if scale.additive else "strongest value"
    values = {"minus": MINUS, "unit": scale.unit, "number": number}
    return values | {"full": f"{scale.full:.2g}", "share": f"{OUTLINE:.0%}"}


def find_step(strength: float) -> int:
    """Give the step that a strength from 0 to 1 has reached, of `STEPS`."""
    return math.floor(STEPS * strength + 1e-9)


def format_signed(value: float, decimals: int = 2) -> str:
    """Write a number with its sign, nought without one."""
    if not round(abs(value), decimals):
        return "0"
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def escape_text(text: str) -> str:
    """Escape text for HTML, and the signs that page templates read."""
    return "".join(_TEMPLATE_SIGNS.get(c, c) for c in escape(text))


_TEMPLATE_SIGNS = {c: f"&#{ord(c)};" for c in "${}`\\"}


def count_decimals(full: float) -> int:
    """Give the decimals that show two digits of a number as large as the scale, at least two."""
    return max(2, 1 - math.floor(math.log10(full)))


def _mark(word: str, value: float, full: float, decimals: int) -> str:
    strength = min(abs(value) / full, 1.0)
    number = format_signed(value, decimals)
    if strength < NUMBERED:
        number = number[:1]
    red, green, blue = FOR if value > 0 else AGAINST
    line = "solid" if value > 0 else "dashed"
    style = (
        f"background:rgb({red} {green} {blue}/calc({0.5 * strength:.2f}*var(--mf-opacity,1)));"
        f"border-bottom:{round(4 * strength)}px {line} currentColor"
    )
    return (
        f'<span class="mf-word" data-step="{find_step(strength)}"><span style="{style}">'
        f"{escape_text(word)}</span><small>{number}</small></span>"
    )


def _unread(text: str) -> str:
    if not text.strip():
        return escape_text(text)
    return f'<span class="mf-skipped">{escape_text(text)}</span>'


Place = Callable[[float, float], tuple[float, float]]
"""From a map's column and row, whole at the middle of an element, to the picture's pixels."""


def _find_areas(
    smoothed: Float32[np.ndarray, "h w"], values: Float[np.ndarray, "h w"], scale: Scale
) -> tuple[tuple[Area, ...], Int32[np.ndarray, "h w"]]:
    """Find the strong areas, the strongest first, and which of them each element is of, or -1."""
    found: list[tuple[Area, Bool[np.ndarray, "h w"]]] = []
    for sign in (1, -1):
        labels, count = label(sign * smoothed > OUTLINE * scale.full)
        numbers = np.arange(1, count + 1)
        sums = sum_labels(values.astype(np.float64), labels, numbers)
        peaks = maximum_position(sign * smoothed, labels, numbers)
        places = find_objects(labels)
        for number, total, peak, (rows, columns) in zip(numbers, sums, peaks, places, strict=True):
            strongest = float(smoothed[peak])
            area = Area(
                positive=sign > 0,
                value=float(total) if scale.additive else strongest,
                strength=min(abs(strongest) / scale.full, 1.0),
                peak=(int(peak[0]), int(peak[1])),
                rows=(rows.start, rows.stop),
                columns=(columns.start, columns.stop),
            )
            found.append((area, labels == number))
    found.sort(key=lambda one: -abs(one[0].value))
    own = np.full(smoothed.shape, -1, np.int32)
    for number, (_, inside) in enumerate(found):
        own[inside] = number
    return tuple(area for area, _ in found), own


def _find_outlines(
    smoothed: Float32[np.ndarray, "h w"],
    numbers: Int32[np.ndarray, "h w"],
    scale: Scale,
    place: Place,
) -> tuple[Outline, ...]:
    from matplotlib.figure import Figure

    found = []
    # A border of zeros closes the lines around areas at the edge.
    padded = np.pad(smoothed, 1)
    own = np.pad(numbers, 1, constant_values=-1)
    for sign in (1, -1):
        if (sign * padded).max() > OUTLINE * scale.full:
            lines = Figure().add_subplot().contour(sign * padded, levels=[OUTLINE * scale.full])
            found += [
                Outline(
                    sign > 0,
                    np.array([place(x - 1, y - 1) for x, y in points]),
                    _find_area_of(points, own),
                )
                for points in lines.allsegs[0]
            ]
    return tuple(found)


def _find_area_of(points: Float[np.ndarray, "n 2"], numbers: Int32[np.ndarray, "h w"]) -> int:
    """Find which area a line is around: that of most elements beside its corners."""
    # A corner lies between two neighbours, one of which is inside; where it lies on one that is
    # exactly as strong as the line, the inside is a step further.
    for reach in (0, 1):
        beside = np.concatenate(
            [
                numbers[rows, columns]
                for columns, rows in (
                    (np.floor(points).astype(int) - reach).T,
                    (np.ceil(points).astype(int) + reach).T,
                )
            ]
        )
        if (beside >= 0).any():
            break
    return int(np.bincount(beside[beside >= 0]).argmax())


def _find_spots(areas: Sequence[Area], shape: tuple[int, int], place: Place) -> tuple[Spot, ...]:
    height, width = shape
    taken: list[tuple[int, int]] = []
    spots = []
    for number, area in enumerate(areas):
        row, column = area.rows[0], area.peak[1]
        if any(
            abs(row - r) < APART[0] * height and abs(column - c) < APART[1] * width
            for r, c in taken
        ):
            continue
        taken.append((row, column))
        left, top = place(float(column), row - 0.5)
        _, bottom = place(float(column), area.rows[1] - 0.5)
        spots.append(Spot(left, top, bottom, area.value, number))
    return tuple(spots[:SPOTS])


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _draw_outlines(axes: "Axes", layer: Layer, width: float) -> None:
    """Draw white lines on black ones, which show on any ground."""
    for outline in layer.outlines:
        dashes = "solid" if outline.positive else (0, (4, 2))
        for colour, wide in (("black", 2.2 * width), ("white", width)):
            axes.plot(
                *outline.points.T,
                color=colour,
                linewidth=wide,
                linestyle=dashes if colour == "white" else "solid",
                solid_joinstyle="round",
                scalex=False,
                scaley=False,
            )


def _lay_over(figure: "Figure", layer: Layer) -> None:
    """Draw a layer over the first axes, which have its picture, with its numbers and its legend."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patheffects import withStroke

    axes = figure.axes[0]
    rows, columns = layer.colours.shape[:2]
    axes.imshow(layer.colours, extent=(0, columns, rows, 0), aspect=axes.get_aspect())
    _draw_outlines(axes, layer, width=1.0)
    for spot in layer.spots:
        above = spot.top > APART[0] * rows  # or else there is no room
        axes.annotate(
            format_signed(spot.value),
            (spot.column, spot.top if above else spot.bottom),
            xytext=(0, 2 if above else -2),
            textcoords="offset points",
            color="white",
            fontsize=9,
            fontweight="bold",
            ha="center",
            va="bottom" if above else "top",
            path_effects=[withStroke(linewidth=2.5, foreground="black")],
        )
    full = layer.scale.full
    ramp = to_colours(np.linspace(-full, full, 201)[None], full)[0] / 255
    opaque = 0.5 * (1 - ramp[:, 3:]) + ramp[:, :3] * ramp[:, 3:]  # as it looks on mid grey
    bar = figure.colorbar(
        ScalarMappable(Normalize(-full, full), ListedColormap(opaque)),
        ax=axes,
        extend="both",
        shrink=0.7,
        aspect=30,
    )
    bar.set_label(f"{layer.scale.unit} (smoothed)")
    figure.supxlabel(fill(map_legend(layer.scale), 110), fontsize=7)


def _to_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
