"""The array store: named arrays appended to one file, read back as views of mapped memory."""

import fcntl
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def end(self) -> int:
        return self.offset + prod(self.shape) * np.dtype(self.dtype).itemsize


class ArrayStore:
    """Arrays by key in ``FOLDER/data.bin``, their places in ``FOLDER/index.jsonl``; no pickle.

    Several runs may use one store at once: writers lock it, and an array's bytes are written
    before its place, so a reader never sees half of one. A write that was cut short leaves bytes
    that no place points to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._data, self._index = folder / "data.bin", folder / "index.jsonl"
        self._data.touch()
        self._index.touch()
        self._places: dict[str, _Place] = {}
        self._read_to = 0
        self._map: mmap.mmap | None = None
        self.refresh()

    def __contains__(self, key: str) -> bool:
        """Whether there is an array by that name."""
        return key in self._places

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self._places)

    def get(self, key: str) -> np.ndarray:
        """Give an array as a read-only view of the file.

        Raises:
            KeyError: There is none by that name.
        """
        place = self._places[key]
        dtype = np.dtype(place.dtype)
        if not prod(place.shape):
            return np.zeros(place.shape, dtype)
        if self._map is None or len(self._map) < place.end:
            with self._data.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.frombuffer(self._map, dtype, prod(place.shape), place.offset)
        return flat.reshape(place.shape)

    def put(self, key: str, array: np.ndarray) -> None:
        """Append an array; one that is there already is kept."""
        with self._locked():
            self.refresh()
            if key in self._places:
                return
            with self._data.open("ab") as data:
                data.write(bytes(-data.tell() % 64))  # views must be aligned to their items
                place = _Place(data.tell(), array.shape, array.dtype.str)
                data.write(np.ascontiguousarray(array).tobytes())
            line = {"key": key, "offset": place.offset, "shape": place.shape, "dtype": place.dtype}
            with self._index.open("ab") as index:
                # Ends whatever line was cut short, and this one; an empty line names no array.
                index.write(b"\n" * (index.tell() > self._read_to))
                index.write(json.dumps(line).encode() + b"\n")
            self.refresh()

    def refresh(self) -> None:
        """Learn of arrays that others have written since."""
        with self._index.open("rb") as index:
            index.seek(self._read_to)
            lines = [line for line in index if line.endswith(b"\n")]
        self._read_to += sum(map(len, lines))
        size = self._data.stat().st_size
        for place in map(_parse, lines):
            if place is not None and place[1].end <= size:
                self._places.setdefault(*place)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._index.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _parse(line: bytes) -> tuple[str, _Place] | None:
    """Read a line of the index; a line that was cut short is none."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry["key"], _Place(entry["offset"], tuple(entry["shape"]), entry["dtype"])
    except ValueError:
        return None
