"""Nothing in; the versions of all that decides how a report's pages are drawn out."""

import hashlib
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

LIBRARIES = ("fpdf2", "fonttools", "pillow", "segno", "pylopdf-fonts-zh-cn", "matplotlib")
"""The last two bring the fonts."""

DRAWN_BY = ("report", "locale", "answer.py", "language.py", "sentences.py")
"""What in this part decides it."""


@cache
def find_versions() -> dict[str, str]:
    """Name each library's version, and this part's own text by its SHA-256."""
    found = {name: version(name) for name in ("medfuse", *LIBRARIES)}
    digest = hashlib.sha256()
    for name in DRAWN_BY:
        for path, data in _read(files("medfuse_serving").joinpath(name), name):
            digest.update(f"{path}\n{len(data)}\n".encode() + data)
    return found | {"zlib": zlib.ZLIB_RUNTIME_VERSION, "pages": digest.hexdigest()[:16]}


def _read(place: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    """List a file, or all files below a folder, in the order of their names."""
    if place.is_file():
        if path.endswith((".py", ".po")):
            yield path, place.read_bytes()
        return
    for child in sorted(place.iterdir(), key=lambda one: one.name):
        yield from _read(child, f"{path}/{child.name}")
