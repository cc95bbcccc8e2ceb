"""Pictures of attributions: signed numbers in a modality's own axes in, PNG or HTML out; no torch.

Only the pictures are scaled and smoothed; the numbers stay what they are.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.ndimage import gaussian_filter

from medfuse.config import VoiceSettings
from medfuse.data.image import to_native
from medfuse.data.voice import mel_corners_hz
from medfuse.types import FrameGeometry, PreparedVoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "RdBu_r"  # red for, blue against; told apart in every common colour blindness
SMOOTHING = 1 / 64
"""Width of the display's smoothing, as a share of a picture's longer side."""

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a punctuation mark, that the model read: its characters in the decoded note."""

    start: int
    end: int
    value: float


def sum_words(
    text: str, spans: Int64[np.ndarray, "l 2"], values: Float[np.ndarray, " l"]
) -> tuple[Word, ...]:
    """Add up word pieces to words; special pieces, which have no characters, are left out.

    Every piece goes to one word, the one it starts in, so nothing is lost or counted twice.
    """
    words: dict[tuple[int, int], float] = {}
    places = [match.span() for match in _WORD.finditer(text)]
    starts = np.array([start for start, _ in places])
    for (start, end), value in zip(spans.tolist(), values.tolist(), strict=True):
        if end > start:
            place = places[int(np.searchsorted(starts, start, side="right")) - 1]
            words[place] = words.get(place, 0.0) + value
    return tuple(Word(start, end, value) for (start, end), value in sorted(words.items()))


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


def draw_frame(
    image: Float32[np.ndarray, "rows columns"],
    attribution: Float32[np.ndarray, "rows columns"],
    title: str,
) -> bytes:
    """Lay a frame's attribution over it, in native pixels, as a PNG.

    Red and solid lines speak for the target, blue and dashed lines against it; lines are at half
    of the strongest value.
    """
    rows, columns = image.shape
    smooth = gaussian_filter(attribution, max(rows, columns) * SMOOTHING)
    figure = _new_figure(8.0, 1.0 + 6.5 * rows / columns)
    axes = figure.add_subplot()
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    _lay_over(figure, smooth, (-0.5, columns - 0.5, rows - 0.5, -0.5))
    axes.set(title=title, xlabel="column", ylabel="row")
    return _to_png(figure)


def draw_voice(
    voice: PreparedVoice,
    attribution: Float[np.ndarray, "t f"],
    settings: VoiceSettings,
    title: str,
) -> bytes:
    """Lay a recording's attribution over its spectrogram, in seconds and hertz, as a PNG.

    Below it stands the sum over all bands at each time, which tells the sign without colour.
    """
    times, hz = mel_times_s(voice), mel_centres_hz(settings)
    half = voice.step_s / 2
    extent = (times[0] - half, times[-1] + half, -0.5, len(hz) - 0.5)
    figure = _new_figure(9.0, 5.0)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.imshow(voice.values.T, cmap="gray", aspect="auto", origin="lower", extent=extent)
    smooth = gaussian_filter(attribution.T.astype(np.float32), 1.0)
    _lay_over(figure, smooth, extent)
    ticks = np.linspace(0, len(hz) - 1, 6).round().astype(int)
    axes.set_yticks(ticks, [f"{hz[i]:.0f}" for i in ticks])
    axes.set(title=title, ylabel="Hz")
    below.axhline(0, color="black", linewidth=0.5)
    below.plot(times, attribution.sum(axis=1), color="black", linewidth=0.8)
    below.set(xlabel="seconds", ylabel="sum")
    return _to_png(figure)


def render_note(text: str, words: Sequence[Word], title: str) -> str:
    """Show a note as an HTML page with each read word's signed number under it.

    What the model did not read is grey and in italics. Colour repeats the sign and is not needed.
    """
    most = max((abs(word.value) for word in words), default=0.0)
    decimals = 2 if most == 0 else max(2, 2 - math.floor(math.log10(most)))
    parts, at = [], 0
    for word in words:
        parts.append(_unread(text[at : word.start]))
        parts.append(_ruby(text[word.start : word.end], word.value, most, decimals))
        at = word.end
    parts.append(_unread(text[at:]))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>body{font:16px/2.4 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "p{white-space:pre-wrap}ruby{ruby-position:under;padding:0 1px}"
        "rt{font-size:10px;color:#333}.unread{color:#777;font-style:italic}</style>"
        f"<h1>{escape(title)}</h1><p>{''.join(parts)}</p>"
        "<p>Under each word: how far it moved the logit, + for and \N{MINUS SIGN} against. Grey "
        "italics were not read by the model.</p></html>\n"
    )


def _ruby(word: str, value: float, most: float, decimals: int) -> str:
    share = abs(value) / most if most else 0.0
    colour = "178,24,43" if value > 0 else "33,102,172"
    number = f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return (
        f'<ruby style="background:rgba({colour},{0.6 * share:.2f})">{escape(word)}'
        f"<rt>{number}</rt></ruby>"
    )


def _unread(text: str) -> str:
    return f'<span class="unread">{escape(text)}</span>' if text.strip() else escape(text)


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _lay_over(
    figure: "Figure",
    values: Float[np.ndarray, "h w"],
    extent: tuple[float, float, float, float],
) -> None:
    """Draw a signed map over the first axes, see-through where it is weak, with its scale."""
    axes = figure.axes[0]
    most = float(np.abs(values).max()) or 1.0
    origin: Literal["lower", "upper"] = "lower" if extent[3] > extent[2] else "upper"
    shown = axes.imshow(
        values,
        cmap=COLOURS,
        vmin=-most,
        vmax=most,
        alpha=np.clip(1.5 * np.abs(values) / most, 0, 0.75),
        extent=extent,
        aspect=axes.get_aspect(),
        origin=origin,
    )
    for sign, style in ((1, "solid"), (-1, "dashed")):
        if (sign * values).max() > most / 2:
            axes.contour(
                sign * values,
                levels=[most / 2],
                colors="white",
                linewidths=1.0,
                linestyles=style,
                extent=extent,
                origin=origin,
            )
    figure.colorbar(shown, ax=axes, label="attribution, logits (smoothed)")


def _to_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
