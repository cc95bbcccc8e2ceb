"""An explanation and its study in; arrays, a JSON record and overlays in native geometry out.

Two forms with the same content: a folder for people, with pictures to look at, and an archive for
programs, a zip file that NumPy also reads as ``.npz``. Where the badge failed, either holds the
record alone, which says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from medfuse.attribution.record import (
    VOICE_OVERLAY,
    ArrayRecord,
    ExplanationRecord,
    frame_overlay,
    to_record,
)
from medfuse.attribution.scale import DisplayScale, Scales, find_scale
from medfuse.config import PrepareSettings
from medfuse.data.dicom import decode_frames
from medfuse.data.image import to_native
from medfuse.overlay import (
    draw_frame,
    draw_voice,
    lay_frame,
    lay_voice,
    mel_centres_hz,
    mel_times_s,
    overlay_png,
    render_note,
    sum_words,
)
from medfuse.types import Explanation, Modality, Prepared, Study

RECORD = "attribution.json"
ARRAYS = "attribution.npz"
ARCHIVE_RECORD = "explanation.json"


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of the explanation, with what its record says."""

    name: str
    values: np.ndarray
    axes: tuple[str, ...]
    unit: str

    def describe(self) -> ArrayRecord:
        return ArrayRecord(
            file=f"{self.name}.npy",
            dtype=str(self.values.dtype),
            shape=self.values.shape,
            axes=self.axes,
            unit=self.unit,
        )


def write_report(
    folder: Path,
    study: Study,
    prepared: Prepared,
    explanation: Explanation,
    prepare: PrepareSettings,
    scales: Scales,
    *,
    withhold: bool = True,
) -> ExplanationRecord:
    """Write ``attribution.npz``, ``attribution.json`` and pictures of each frame, note and voice.

    Args:
        folder: Made where it is not there.
        study: The bytes that the frames are decoded from again, for their pictures.
        prepared: The same study as the model saw it.
        explanation: Of it.
        prepare: The model's.
        scales: What the model brings.
        withhold: Leave out the maps of an explanation whose badge failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scale = find_scale(
        scales, explanation.attribution.method, explanation.attribution.target, prepare
    )
    withheld = withhold and not explanation.badge.passed
    arrays: dict[str, ArrayRecord] = {}
    files: list[str] = []
    if not withheld:
        files.append(ARRAYS)
        with ZipFile(folder / ARRAYS, "w", ZIP_DEFLATED) as archive:
            arrays = _write_arrays(archive, prepared, explanation, prepare, scale)
        for name, data in _list_pictures(study, prepared, explanation, prepare, scale):
            files.append(name)
            (folder / name).write_bytes(data)
    record = to_record(
        prepared, explanation, prepare, scale, arrays, tuple(files), withheld=withheld
    )
    text = record.model_dump_json(by_alias=True, indent=2)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    return record


def write_archive(
    file: IO[bytes],
    prepared: Prepared,
    explanation: Explanation,
    prepare: PrepareSettings,
    scales: Scales,
) -> ExplanationRecord:
    """Write a zip file with the arrays (``.npy``), the overlays alone (PNG) and the record (JSON).

    One array or overlay is in memory at a time. The maps of a failed badge are left out.
    """
    scale = find_scale(
        scales, explanation.attribution.method, explanation.attribution.target, prepare
    )
    withheld = not explanation.badge.passed
    arrays: dict[str, ArrayRecord] = {}
    files: list[str] = []
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        if not withheld:
            arrays = _write_arrays(archive, prepared, explanation, prepare, scale)
            for name, data in _list_overlays(prepared, explanation, scale):
                files.append(name)
                archive.writestr(name, data)
        record = to_record(
            prepared, explanation, prepare, scale, arrays, tuple(files), withheld=withheld
        )
        archive.writestr(ARCHIVE_RECORD, record.model_dump_json(by_alias=True))
    return record


def describe(
    prepared: Prepared, explanation: Explanation, prepare: PrepareSettings, scales: Scales
) -> ExplanationRecord:
    """Give the record that `write_archive` would write, without the arrays and overlays."""
    scale = find_scale(
        scales, explanation.attribution.method, explanation.attribution.target, prepare
    )
    withheld = not explanation.badge.passed
    arrays: dict[str, ArrayRecord] = {}
    files: tuple[str, ...] = ()
    if not withheld:
        found = _list_arrays(prepared, explanation, prepare, scale)
        arrays = {array.name: array.describe() for array in found}
        files = _name_overlays(prepared, explanation)
    return to_record(prepared, explanation, prepare, scale, arrays, files, withheld=withheld)


def _write_arrays(
    archive: ZipFile,
    prepared: Prepared,
    explanation: Explanation,
    prepare: PrepareSettings,
    scale: DisplayScale,
) -> dict[str, ArrayRecord]:
    written = {}
    for array in _list_arrays(prepared, explanation, prepare, scale):
        written[array.name] = array.describe()
        with archive.open(written[array.name].file, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array.values, allow_pickle=False)
    return written


def _list_arrays(
    prepared: Prepared, explanation: Explanation, prepare: PrepareSettings, scale: DisplayScale
) -> Iterator[_Array]:
    """Make each array: maps in the model's axes, native maps, and what their axes stand for."""
    values = explanation.attribution.values
    units = {modality: part.unit for modality, part in scale.parts.items()}
    if Modality.IMAGE in values:
        assert prepared.image is not None
        maps, unit = values[Modality.IMAGE], units[Modality.IMAGE]
        yield _Array("image", maps, ("frame", "row", "column"), unit)
        for i, (frame, geometry) in enumerate(zip(maps, prepared.image.geometry, strict=True)):
            native = to_native(frame, geometry)
            yield _Array(f"image_native_{i}", native, ("row", "column"), unit)
    if Modality.NOTE in values:
        assert prepared.note is not None
        unit = units[Modality.NOTE].replace("word", "word piece")
        yield _Array("note", values[Modality.NOTE], ("piece",), unit)
        yield _Array("note_spans", prepared.note.spans, ("piece", "start and end"), "characters")
    if Modality.VOICE in values:
        assert prepared.voice is not None
        maps, unit = values[Modality.VOICE], units[Modality.VOICE]
        yield _Array("voice", maps, ("mel frame", "mel band"), unit)
        yield _Array("voice_times_s", mel_times_s(prepared.voice), ("mel frame",), "seconds")
        yield _Array("voice_hz", mel_centres_hz(prepare.voice), ("mel band",), "hertz")


def _name_overlays(prepared: Prepared, explanation: Explanation) -> tuple[str, ...]:
    values = explanation.attribution.values
    frames = len(values.get(Modality.IMAGE, ()))
    names = [frame_overlay(i) for i in range(frames)]
    return tuple(names + [VOICE_OVERLAY] * (Modality.VOICE in values))


def _list_overlays(
    prepared: Prepared, explanation: Explanation, scale: DisplayScale
) -> Iterator[tuple[str, bytes]]:
    values = explanation.attribution.values
    if Modality.IMAGE in values:
        assert prepared.image is not None
        part = scale.parts[Modality.IMAGE]
        pairs = zip(values[Modality.IMAGE], prepared.image.geometry, strict=True)
        for i, (frame, geometry) in enumerate(pairs):
            yield frame_overlay(i), overlay_png(lay_frame(frame, geometry, part))
    if Modality.VOICE in values:
        part = scale.parts[Modality.VOICE]
        yield VOICE_OVERLAY, overlay_png(lay_voice(values[Modality.VOICE], part))


def _list_pictures(
    study: Study,
    prepared: Prepared,
    explanation: Explanation,
    prepare: PrepareSettings,
    scale: DisplayScale,
) -> Iterator[tuple[str, bytes]]:
    """Draw the overlays alone, and over what they explain with a legend."""
    yield from _list_overlays(prepared, explanation, scale)
    attribution = explanation.attribution
    values = attribution.values
    title = f"{attribution.target}, {attribution.method.replace('_', ' ')}"
    if Modality.IMAGE in values:
        assert prepared.image is not None
        part = scale.parts[Modality.IMAGE]
        frames = decode_frames(study.images, prepare.image, prepare.limits)
        rows = zip(frames, values[Modality.IMAGE], prepared.image.geometry, strict=True)
        for i, (frame, own, geometry) in enumerate(rows):
            layer = lay_frame(own, geometry, part)
            yield f"image_{i}.png", draw_frame(frame.image, layer, title)
    if Modality.NOTE in values:
        assert prepared.note is not None
        text, spans = prepared.note.text, prepared.note.spans
        words = sum_words(text, spans, values[Modality.NOTE])
        page = render_note(text, words, scale.parts[Modality.NOTE], title)
        yield "note.html", page.encode()
    if Modality.VOICE in values:
        assert prepared.voice is not None
        own = values[Modality.VOICE]
        layer = lay_voice(own, scale.parts[Modality.VOICE])
        yield "voice.png", draw_voice(prepared.voice, own, layer, prepare.voice, title)
