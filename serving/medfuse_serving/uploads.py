"""Nothing in, a folder for the page's uploads out; whatever stays behind in it is swept away.

The page reads an upload and deletes it at once. Gradio leaves its folder, an empty file beside it,
and what had arrived of an upload that was broken off.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FORGET_S = 600.0
"""After this everything in the folder is deleted, taken up or not: it may wait for its turn."""

BROKEN_S = 40.0
"""After so long without another byte an upload that has not arrived is taken for broken off."""

SWEEP_S = 10.0
"""How often either is looked for."""


@contextmanager
def keep_uploads(
    forget_s: float = FORGET_S, broken_s: float = BROKEN_S, sweep_s: float = SWEEP_S
) -> Iterator[Path]:
    """Give Gradio a folder that is its owner's alone, sweep it, and remove it in the end."""
    stopped = threading.Event()
    with tempfile.TemporaryDirectory(prefix="medfuse-uploads-") as name:
        folder = Path(name)

        def sweep_on() -> None:
            while not stopped.wait(sweep_s):
                now = time.time()
                sweep_uploads(folder, now - forget_s, now - broken_s)

        sweeper = threading.Thread(target=sweep_on, name="sweep-uploads", daemon=True)
        os.environ["GRADIO_TEMP_DIR"] = name
        sweeper.start()
        try:
            yield folder
        finally:
            stopped.set()
            sweeper.join()


def sweep_uploads(folder: Path, before_s: float, broken_before_s: float) -> None:
    """Delete what has not changed since a time, folders once they are empty.

    Args:
        folder: Of all uploads.
        before_s: For those that have arrived, each in a folder of its own.
        broken_before_s: For those that arrive, which lie in the folder itself.
    """
    for place, folders, files in os.walk(folder, topdown=False):
        arrived = Path(place) != folder
        for name in files:
            with suppress(OSError):  # it was taken up meanwhile
                path = Path(place, name)
                if path.lstat().st_ctime < (before_s if arrived else broken_before_s):
                    path.unlink()
        for name in folders:
            with suppress(OSError):  # it is not empty
                path = Path(place, name)
                if path.lstat().st_ctime < before_s:
                    path.rmdir()
