"""DICOM headers in, the order of a study's frames out."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from jaxtyping import Float
from pydicom import Dataset

from medfuse.data.grey import functional_group


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame stands in its study.

    Attributes:
        series: SeriesNumber and SeriesInstanceUID; a file without the latter is a series by itself.
        number: InstanceNumber, infinite where there is none.
        sop_instance_uid: Tells files apart that have the same number.
        instance: Index of the file among those given, the last resort.
        frame: Number of the frame in its file.
        position: ImagePositionPatient in mm, if known.
        orientation: ImageOrientationPatient, if known.
    """

    series: tuple[float, str, int]
    number: float
    sop_instance_uid: str
    instance: int
    frame: int
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None


def read_place(ds: Dataset, instance: int, frame: int) -> Place:
    """Read where a frame stands in its study; per-frame functional groups come first."""
    series_uid = str(ds.get("SeriesInstanceUID") or "")
    position = functional_group(ds, frame, "PlanePositionSequence")
    orientation = functional_group(ds, frame, "PlaneOrientationSequence")
    return Place(
        series=(_read_number(ds, "SeriesNumber"), series_uid, -1 if series_uid else instance),
        number=_read_number(ds, "InstanceNumber"),
        sop_instance_uid=str(ds.get("SOPInstanceUID") or ""),
        instance=instance,
        frame=frame,
        position=read_vector(position, "ImagePositionPatient", 3),
        orientation=read_vector(orientation, "ImageOrientationPatient", 6),
    )


def place_picture(instance: int) -> Place:
    """Place a file that says nothing of itself: a series of its own, after those with a number."""
    return Place((inf, "", instance), inf, "", instance, 0)


def order_places(places: Sequence[Place]) -> list[int]:
    """Put frames in order, as indices into ``places``.

    Series go by SeriesNumber, then SeriesInstanceUID. Within a series whose frames share an
    orientation (to 0.01), frames go by position along its normal (PS3.3 C.7.6.2.1.1); in any other
    series by InstanceNumber, then by their number in the file.
    """
    stacks: dict[tuple[float, str, int], list[int]] = {}
    for index, place in enumerate(places):
        stacks.setdefault(place.series, []).append(index)
    ordered: list[int] = []
    for series in sorted(stacks):
        stack = stacks[series]
        along = _project([places[index] for index in stack])
        keys = {
            index: (height, place.number, place.sop_instance_uid, place.instance, place.frame)
            for index, height in zip(stack, along, strict=True)
            for place in (places[index],)
        }
        ordered.extend(sorted(stack, key=keys.__getitem__))
    return ordered


def read_vector(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Read that many finite numbers, or None where they are not there."""
    value = ds.get(keyword)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        return None
    numbers = tuple(float(number) for number in value)
    return numbers if np.all(np.isfinite(numbers)) else None


def _project(places: list[Place]) -> list[float]:
    """Measure each frame's height over the series' plane in mm; 0 where they share none."""
    positions = [place.position for place in places if place.position is not None]
    orientations = [place.orientation for place in places if place.orientation is not None]
    flat = [0.0] * len(places)
    if not len(places) == len(positions) == len(orientations):
        return flat
    axes: Float[np.ndarray, "n 6"] = np.array(orientations)
    if np.abs(axes - axes[0]).max() > 0.01:
        return flat
    normal = np.cross(axes[0, :3], axes[0, 3:])
    return [round(float(height), 3) for height in np.array(positions) @ normal]


def _read_number(ds: Dataset, keyword: str) -> float:
    """Read a number to sort by; what has none comes last."""
    value = ds.get(keyword)
    return inf if value is None or value == "" else float(value)
