"""Where a command is told to write in; nothing out, or what is wrong with it, before any work."""

import os
import tempfile
from pathlib import Path

from medfuse.errors import OutputError


def check_folder(folder: Path) -> None:
    """Check that files can be written into a folder, or that it can be made; leave no trace.

    What a folder may hold already is for the caller to say.

    Raises:
        OutputError: It can't.
    """
    place = folder.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            blocker = "it" if place == folder.absolute() else str(place)
            raise OutputError(
                f"{folder}: expected a folder to write to, and {blocker} is not one; name another"
            )
        # Permissions don't tell of read-only mounts, or of file systems that hold no files.
        with tempfile.TemporaryDirectory(prefix=".medfuse-", dir=place):
            pass
    except OSError as error:
        raise OutputError(
            f"{folder}: expected a folder to write to, and nothing can be written there "
            f"({error.strerror}); name another"
        ) from error


def check_file(path: Path) -> None:
    """Check that a file can be written, without writing it.

    Raises:
        OutputError: It can't.
    """
    check_folder(path.parent)
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, and it is a folder; name another")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path}: expected a file to write, and it may not be changed")
