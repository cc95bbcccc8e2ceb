"""A study and its maps in; small lossless pictures of them, with their numbers, out."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from medfuse.config import PrepareSettings
from medfuse.data.dicom import choose_frames, decode_frame
from medfuse.data.image import resize
from medfuse.overlay import Layer, Scale, lay_frame, lay_voice, mel_centres_hz
from medfuse.types import FrameGeometry, Modality, Prepared, PreparedVoice, Study
from medfuse_serving.report.record import (
    MOST_FRAMES,
    NOTE_CHARACTERS,
    NOTE_LINES,
    PICTURE_SIDE,
    SPECTROGRAM_COLUMNS,
    EvidenceRecord,
    FrameEvidence,
    LayerRecord,
    NoteEvidence,
    OutlineRecord,
    SpotRecord,
    VoiceEvidence,
)

FEW = 4
"""With more frames than these, each is half as large."""


def choose_numbers(
    prepared: Prepared, maps: Sequence[Mapping[Modality, Float[np.ndarray, "..."]]]
) -> tuple[int, ...]:
    """Choose the frames that a report shows, from 0: all, or those whose maps are strongest."""
    if prepared.image is None:
        return ()
    count = len(prepared.image.geometry)
    weights = np.zeros(count)
    for one in maps:
        if Modality.IMAGE in one:
            weights += np.abs(one[Modality.IMAGE]).sum(axis=(1, 2), dtype=np.float64)
    strongest = np.argsort(-weights, kind="stable")[:MOST_FRAMES]
    return tuple(sorted(strongest.tolist()))


def draw_evidence(
    study: Study, prepared: Prepared, settings: PrepareSettings, numbers: Sequence[int]
) -> EvidenceRecord:
    """Show what the model read, without any map.

    Args:
        study: Decoded again, since a model reads smaller images than these.
        prepared: The same.
        settings: The model's.
        numbers: Which of the frames, from 0.

    Raises:
        InputError: A frame cannot be decoded.
    """
    frames = []
    if prepared.image is not None:
        choice = choose_frames(study.images, settings.image, settings.limits)
        side = PICTURE_SIDE if len(numbers) <= FEW else PICTURE_SIDE // 2
        for number in numbers:
            source = choice.sources[number]
            native = decode_frame(study.images, source, settings.image, settings.limits)
            rows, columns = native.image.shape
            frames.append(
                FrameEvidence(
                    number=number + 1,
                    instance=native.instance,
                    frame=native.frame,
                    rows=rows,
                    columns=columns,
                    spacing_mm=native.spacing_mm,
                    png=_to_png(_to_display(resize(native.image, *_fit(rows, columns, side)))),
                )
            )
    return EvidenceRecord(
        frames=tuple(frames),
        frames_read=0 if prepared.image is None else len(prepared.image.geometry),
        note=None if prepared.note is None else _cut_note(prepared.note.text),
        voice=None if prepared.voice is None else _draw_voice(prepared.voice, settings),
    )


def lay_frames(
    values: Float[np.ndarray, "s h w"],
    geometry: Sequence[FrameGeometry],
    scale: Scale,
    evidence: EvidenceRecord,
) -> tuple[LayerRecord, ...]:
    """Lay a map over each frame that is shown."""
    layers = []
    for frame in evidence.frames:
        with Image.open(io.BytesIO(frame.png)) as picture:
            columns, rows = picture.size
        small = replace(geometry[frame.number - 1], rows=rows, columns=columns)
        layers.append(_to_record(lay_frame(values[frame.number - 1], small, scale)))
    return tuple(layers)


def lay_recording(values: Float[np.ndarray, "t f"], scale: Scale) -> LayerRecord:
    """Lay a map over the spectrogram."""
    return _to_record(_narrow(lay_voice(values, scale)))


def _cut_note(text: str) -> NoteEvidence:
    lines = text.splitlines(keepends=True)[:NOTE_LINES]
    return NoteEvidence(text="".join(lines)[:NOTE_CHARACTERS], characters=len(text))


def _draw_voice(voice: PreparedVoice, settings: PrepareSettings) -> VoiceEvidence:
    upright = voice.values.T[::-1]
    low, high = float(upright.min()), float(upright.max())
    grey: UInt8[np.ndarray, "f t"] = np.rint(255 * (upright - low) / max(high - low, 1e-6)).astype(
        np.uint8
    )
    columns = min(grey.shape[1], SPECTROGRAM_COLUMNS)
    picture = Image.fromarray(grey)
    if columns < grey.shape[1]:
        picture = picture.resize((columns, grey.shape[0]), Image.Resampling.BOX)
    half = voice.step_s / 2
    return VoiceEvidence(
        duration_s=voice.duration_s,
        from_s=voice.start_s - half,
        to_s=voice.start_s + voice.step_s * len(voice.values) - half,
        hz=tuple(mel_centres_hz(settings.voice).tolist()),
        png=_to_png(np.asarray(picture)),
    )


def _narrow(layer: Layer) -> Layer:
    """Make a spectrogram's layer as wide as its picture."""
    rows, columns = layer.colours.shape[:2]
    if columns <= SPECTROGRAM_COLUMNS:
        return layer
    share = SPECTROGRAM_COLUMNS / columns
    picture = Image.fromarray(layer.colours)
    smaller = picture.resize((SPECTROGRAM_COLUMNS, rows), Image.Resampling.BOX)
    return replace(
        layer,
        colours=np.asarray(smaller),
        outlines=tuple(replace(o, points=o.points * (share, 1.0)) for o in layer.outlines),
        spots=tuple(replace(s, column=s.column * share) for s in layer.spots),
    )


def _to_record(layer: Layer) -> LayerRecord:
    return LayerRecord(
        png=_to_png(layer.colours),
        outlines=tuple(
            OutlineRecord(
                positive=outline.positive,
                points=tuple((round(x, 1), round(y, 1)) for x, y in outline.points.tolist()),
            )
            for outline in layer.outlines
        ),
        spots=tuple(
            SpotRecord(column=s.column, top=s.top, bottom=s.bottom, value=s.value)
            for s in layer.spots
        ),
    )


def _fit(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Give the size of a picture that is no larger than a square; none is made larger."""
    share = min(1.0, side / max(rows, columns))
    return max(1, round(rows * share)), max(1, round(columns * share))


def _to_png(pixels: UInt8[np.ndarray, "h w ..."]) -> bytes:
    """Write pixels as a record holds them: a PNG in base 64."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
    return base64.b64encode(file.getvalue())


def _to_display(image: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Give an image in [0, 1] the nearest of a screen's 256 grey values."""
    return np.asarray(np.rint(image * 255).astype(np.uint8))
