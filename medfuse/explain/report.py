"""An attribution and its study in; arrays, a JSON record and overlays in native geometry out."""

from pathlib import Path

import numpy as np

from medfuse.config import PrepareSettings, Settings
from medfuse.data.dicom import decode_frames
from medfuse.overlay import (
    draw_frame,
    draw_voice,
    mel_centres_hz,
    mel_times_s,
    native_maps,
    render_note,
    sum_words,
)
from medfuse.types import Attribution, Modality, Prepared, Study

RECORD = "attribution.json"
ARRAYS = "attribution.npz"


class WordRecord(Settings):
    """A word that the model read: its place in the decoded note, and how far it moved the logit."""

    start: int
    end: int
    text: str
    value: float


class AttributionRecord(Settings):
    """What ``attribution.json`` says.

    Attributes:
        sums: Each present modality's whole attribution; with `baseline_output` they add up to
            `output`, but for the gap.
        words: None without a note.
    """

    target: str
    model_digest: str
    method: str
    baseline: str
    output: float
    baseline_output: float
    completeness_gap: float
    steps: int
    internal_batch_size: int
    sums: dict[Modality, float]
    words: tuple[WordRecord, ...] | None
    files: tuple[str, ...]


def write_report(
    folder: Path,
    study: Study,
    prepared: Prepared,
    attribution: Attribution,
    settings: PrepareSettings,
    model_digest: str,
) -> AttributionRecord:
    """Write ``attribution.npz``, ``attribution.json`` and an overlay per frame, note and recording.

    The arrays are as `Attribution` holds them, and beside them ``image_native_0`` and so on in
    native pixels, ``note_spans`` (L, 2) in characters, ``voice_times_s`` (T,) and ``voice_hz``
    (F,).
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {m.value: values for m, values in attribution.values.items()}
    files, words = [ARRAYS], None
    title = f"{attribution.target}, {attribution.method.replace('_', ' ')}"

    if prepared.image is not None:
        maps = native_maps(attribution.values[Modality.IMAGE], prepared.image.geometry)
        frames = decode_frames(study.images, settings.image, settings.limits)
        for i, (frame, native) in enumerate(zip(frames, maps, strict=True)):
            arrays[f"image_native_{i}"] = native
            files.append(f"image_{i}.png")
            (folder / files[-1]).write_bytes(draw_frame(frame.image, native, title))
    if prepared.note is not None:
        text, spans = prepared.note.text, prepared.note.spans
        found = sum_words(text, spans, attribution.values[Modality.NOTE])
        words = tuple(
            WordRecord(start=w.start, end=w.end, text=text[w.start : w.end], value=w.value)
            for w in found
        )
        arrays["note_spans"] = spans
        files.append("note.html")
        (folder / files[-1]).write_text(render_note(text, found, title), encoding="utf-8")
    if prepared.voice is not None:
        values = attribution.values[Modality.VOICE]
        arrays["voice_times_s"] = mel_times_s(prepared.voice)
        arrays["voice_hz"] = mel_centres_hz(settings.voice)
        files.append("voice.png")
        picture = draw_voice(prepared.voice, values, settings.voice, title)
        (folder / files[-1]).write_bytes(picture)

    np.savez_compressed(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
    details = attribution.details
    record = AttributionRecord(
        target=attribution.target,
        model_digest=model_digest,
        method=attribution.method,
        baseline=attribution.baseline,
        output=details["output"],
        baseline_output=details["baseline_output"],
        completeness_gap=attribution.completeness_gap,
        steps=int(details["steps"]),
        internal_batch_size=int(details["internal_batch_size"]),
        sums={m: float(v.sum(dtype=np.float64)) for m, v in attribution.values.items()},
        words=words,
        files=tuple(files),
    )
    (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record
