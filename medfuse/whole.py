"""A folder's name in; a place to fill, which gets that name only once all is written, out."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from medfuse.errors import MedfuseError


@contextmanager
def write_whole(out: Path, error: type[MedfuseError]) -> Iterator[Path]:
    """Write a new folder whole, or not at all.

    Until the block ends, what is written stands beside ``out`` under a hidden name. If the block
    fails, or the process is interrupted or told to end, it is removed. Only a process that is
    killed (SIGKILL) leaves it, as ``.NAME.PROCESS.part``.

    Args:
        out: A folder that is new or empty; the folders above it are made.
        error: Raised where it can't be written.

    Raises:
        error: ``out`` holds something or is a mount, or a file can't be read or written.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise error(f"{out}: expected a new or an empty folder")
    if out.is_mount():
        raise error(f"{out}: something is mounted there; name a folder inside it")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with _end_by_exception():
            yield part
            part.rename(out)
    except OSError as fault:
        raise error(f"{out}: a file cannot be read or written ({fault.strerror})") from fault
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _end_by_exception() -> Iterator[None]:
    """Let SIGTERM raise, as SIGINT does, so that what is half done can be removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals can't be handled
        return

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
