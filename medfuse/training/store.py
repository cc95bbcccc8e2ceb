"""The array store: named arrays appended to one file, read back as views of mapped memory."""

import fcntl
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from medfuse.errors import TrainingError


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
    on the disk before its place is written, so a reader never sees half of one. A write that was
    cut short leaves bytes that no place points to.
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

    def put(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append arrays; those that are there already are kept."""
        with self._locked():
            self.refresh()
            lines = []
            with self._data.open("ab") as data:
                for key, array in arrays.items():
                    if key in self._places:
                        continue
                    data.write(bytes(-data.tell() % 64))  # views must be aligned to their items
                    place = {"offset": data.tell(), "shape": array.shape, "dtype": array.dtype.str}
                    lines.append(json.dumps({"key": key} | place).encode() + b"\n")
                    data.write(np.ascontiguousarray(array).tobytes())
                data.flush()
                os.fsync(data.fileno())
            with self._index.open("ab") as index:
                # Ends a line that was cut short; else an empty line, which names no array.
                index.write(b"\n" * (index.tell() > self._read_to))
                index.writelines(lines)
            self.refresh()

    def refresh(self) -> None:
        """Learn of arrays that others have written since.

        Raises:
            TrainingError: The file is shorter than its index says.
        """
        with self._index.open("rb") as index:
            index.seek(self._read_to)
            lines = [line for line in index if line.endswith(b"\n")]
        self._read_to += sum(map(len, lines))
        size = self._data.stat().st_size
        for key, place in filter(None, map(_parse, lines)):
            if place.end > size:
                raise TrainingError(
                    f"{self._data}: shorter than its index says; remove the folder, and features "
                    "are computed again"
                )
            self._places[key] = place

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
