"""A study's images in, what the page's viewer shows of them out: true pixels, and maps over them.

Each piece is a JSON header, after its length as a little-endian 32-bit number, and then bytes: a
frame's stored pixels, or a map's colours as a lossless PNG. `web/viewer.js` makes greys of them.
"""

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from medfuse.config import Limits, PrepareSettings
from medfuse.data.dicom import (
    FrameSource,
    Identity,
    choose_frames,
    list_frames,
    read_file_identity,
)
from medfuse.data.grey import LookupTable
from medfuse.data.picture import is_picture
from medfuse.data.viewing import Plane, View, ViewingFrame, read_viewing
from medfuse.overlay import OPACITY, Layer, escape_text
from medfuse_serving.language import Language, message
from medfuse_serving.shelves import Shelf, Shelves

VIEWS = {
    "Window": message("Window {number}"),
    "Table": message("Table {number}"),
    "Full range": message("Full range"),
    "Lung": message("Lung"),
    "Mediastinum": message("Mediastinum"),
    "Bone": message("Bone"),
    "Brain": message("Brain"),
    "Liver": message("Liver"),
}
"""How a window or table is said, by its name."""

LENGTHS: Mapping[Plane, str] = {
    "calibrated": message("{length} mm, calibrated"),
    "detector": message("{length} mm at the detector"),
    "film": message("{length} mm on the film"),
    "unstated": message("{length} mm, plane not stated"),
}
"""How a length is said that does not hold in the patient, by where it does."""


@dataclass(frozen=True, slots=True)
class Frames:
    """A study's frames on a shelf.

    Attributes:
        shelf: All of them, in order.
        read: Of each, its number among those that the model reads; None where it does not.
        images: Of each, the number of the image that it is of, among the study's.
        identities: Whose study each image says it is part of.
    """

    shelf: Shelf
    read: tuple[int | None, ...]
    images: tuple[int, ...]
    identities: frozenset[Identity]


def shelve_frames(
    language: Language, images: Sequence[bytes], settings: PrepareSettings, shelves: Shelves
) -> Frames:
    """Put a study's frames on a shelf; each is decoded when it is asked for.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    sources = list_frames(images, settings.image, settings.limits)
    chosen = [_place(s) for s in choose_frames(images, settings.image, settings.limits).sources]
    numbers = {place: i for i, place in enumerate(chosen)}
    read = tuple(numbers.get(_place(source)) for source in sources)

    def describe(frame: ViewingFrame, number: int) -> str:
        return describe_frame(language, frame, number, read)

    shelf = _put(language, images, sources, describe, settings, shelves)
    own = tuple(source.instance for source in sources)
    return Frames(shelf, read, own, list_identities(images, settings.limits))


def shelve_prior(
    language: Language, images: Sequence[bytes], settings: PrepareSettings, shelves: Shelves
) -> Frames:
    """Put the frames of an earlier study, of which the model reads none, on a shelf.

    Raises:
        DicomError: A file is not an image that can be shown, or is damaged.
        LimitError: A file or the study declares more than a limit allows.
    """
    sources = list_frames(images, settings.image, settings.limits)

    def describe(frame: ViewingFrame, number: int) -> str:
        return describe_prior(language, frame, number, len(sources))

    shelf = _put(language, images, sources, describe, settings, shelves)
    own = tuple(source.instance for source in sources)
    identities = list_identities(images, settings.limits)
    return Frames(shelf, (None,) * len(sources), own, identities)


def list_identities(images: Sequence[bytes], limits: Limits) -> frozenset[Identity]:
    """Read whose study each image says it is part of; a plain picture says nothing.

    Raises:
        DicomError: An image is damaged.
        LimitError: An image holds more than a limit allows.
    """
    return frozenset(
        Identity(None, None) if is_picture(image) else read_file_identity(image, limits)
        for image in images
    )


def _put(
    language: Language,
    images: Sequence[bytes],
    sources: Sequence[FrameSource],
    describe: Callable[[ViewingFrame, int], str],
    settings: PrepareSettings,
    shelves: Shelves,
) -> Shelf:
    def make(number: int) -> bytes:
        frame = read_viewing(images, sources[number], settings.image, settings.limits)
        return pack_frame(language, frame, describe(frame, number))

    return shelves.put(len(sources), make)


def describe_frame(
    language: Language, frame: ViewingFrame, number: int, read: Sequence[int | None]
) -> str:
    """Say which frame it is, its size, and whether the model reads it."""
    caption = _describe_size(language, frame)
    if len(read) == 1:
        return caption
    place = {"number": number + 1, "count": len(read), "caption": caption}
    if read[number] is None:
        return language.text(
            "Frame {number} of {count}, not read by the model \N{MIDDLE DOT} {caption}", **place
        )
    return language.text("Frame {number} of {count} \N{MIDDLE DOT} {caption}", **place)


def describe_prior(language: Language, frame: ViewingFrame, number: int, count: int) -> str:
    """Say that it is of the earlier study, which frame of it, and its size."""
    return language.text(
        "Prior study, frame {number} of {count} \N{MIDDLE DOT} {caption}",
        number=number + 1,
        count=count,
        caption=_describe_size(language, frame),
    )


def _describe_size(language: Language, frame: ViewingFrame) -> str:
    rows, columns = frame.values.shape
    size = {"columns": columns, "rows": rows}
    if not frame.spacing_mm:
        return language.text("{columns} \N{MULTIPLICATION SIGN} {rows} pixels", **size)
    tall, wide = frame.spacing_mm
    spacing = f"{wide:.3g}" if wide == tall else f"{wide:.4g} \N{MULTIPLICATION SIGN} {tall:.4g}"
    return language.text(
        "{columns} \N{MULTIPLICATION SIGN} {rows} pixels of {length}",
        length=say_length(language, spacing, frame.plane),
        **size,
    )


def say_length(language: Language, length: str, plane: Plane | None) -> str:
    """Say a length in mm and where it holds."""
    if plane == "patient":
        return f"{length} mm"
    return language.text(LENGTHS[plane or "unstated"], length=length)


def pack_frame(language: Language, frame: ViewingFrame, caption: str) -> bytes:
    """Write a frame as one piece.

    Args:
        language: Of its words.
        frame: With its values.
        caption: What is said of it.
    """
    rows, columns = frame.values.shape
    header = {
        "rows": rows,
        "columns": columns,
        "type": frame.values.dtype.name,
        "slope": frame.slope,
        "intercept": frame.intercept,
        "table": None if frame.table is None else _write_table(frame.table),
        "padding": frame.padding,
        "inverted": frame.inverted,
        "views": [_write_view(language, view) for view in frame.views],
        "unit": frame.unit,
        "spacing": frame.spacing_mm,
        "caption": caption,
        "length": say_length(language, "{length}", frame.plane),
    }
    return pack(header, frame.values.tobytes())


def pack_map(layer: Layer, marks: str, said: str) -> bytes:
    """Write a map over a frame as one piece.

    Args:
        layer: Over the frame, in its native pixels.
        marks: Its outlines and numbers as the inside of an SVG as large as the frame.
        said: What the reader should know of this frame's map.
    """
    png = io.BytesIO()
    Image.fromarray(layer.colours).save(png, format="PNG", compress_level=1)
    return pack({"marks": marks, "full": 255 * OPACITY, "said": said}, png.getvalue())


def pack(header: dict[str, object], body: bytes) -> bytes:
    """Write a piece."""
    # Spaces bring the body to a multiple of 8, which typed arrays need.
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(4 + len(text)) % 8)
    return struct.pack("<I", len(text)) + text + body


def viewer_html(frames: Frames, name: str = "") -> str:
    """Show a study's frames in the viewer.

    Args:
        frames: On their shelf.
        name: Of the study, where there are two.
    """
    return f"<mf-viewer {_attributes(frames, name)}></mf-viewer>"


def prior_html(frames: Frames, name: str) -> str:
    """Show an earlier study's frames in a second viewer, with the switches that link the two."""
    return (
        f"<mf-viewer data-prior {_attributes(frames, name)}></mf-viewer>"
        f'<mf-pair data-shelf="{frames.shelf.token}"></mf-pair>'
    )


def removed_html(language: Language, removed: tuple[int, int] | None) -> str:
    """Say which image was removed: its number and how many there were; nothing where none was."""
    if removed is None:
        return ""
    number, count = removed
    said = language.text("Image {number} of {count} was removed.", number=number, count=count)
    said = escape_text(said)
    return f'<p class="mf-removed mf-legend" data-told="{said}">{said}</p>'


def _attributes(frames: Frames, name: str) -> str:
    label = f' role="group" aria-label="{escape_text(name)}"' if name else ""
    return f'data-shelf="{frames.shelf.token}" data-read="{json.dumps(frames.read)}"{label}'


def _write_view(language: Language, view: View) -> dict[str, object]:
    transform, values = view.transform, {} if view.number is None else {"number": view.number}
    name = language.text(VIEWS[view.name], **values)
    if isinstance(transform, LookupTable):
        return {"name": name, **_write_table(transform)}
    return {
        "name": name,
        "center": transform.center,
        "width": transform.width,
        "function": transform.function,
    }


def _write_table(table: LookupTable) -> dict[str, object]:
    return {"first": table.first, "top": table.top, "entries": table.entries.tolist()}


def _place(source: FrameSource) -> tuple[int, int]:
    return source.instance, source.frame
