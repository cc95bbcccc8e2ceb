"""Nothing in, a folder for the page's uploads out; whatever stays behind in it is swept away.

The page reads an upload and deletes it at once. Gradio leaves its folder, an empty file beside it,
and what had arrived of an upload that was broken off.

It also makes a file's path of its bytes and its name, so that two who give the same file have one
between them, and whose comes second finds nothing. `OwnUploads` gives each a path of its own, which
says nothing of the file.
"""

import json
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class OwnUploads:
    """Moves each upload apart before the browser is told its path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; of an upload that has arrived, write its own path into the answer."""
        if scope["type"] != "http" or not scope["path"].endswith("/gradio_api/upload"):
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def send_on(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            told = bytes(body)
            if start["status"] == 200:
                told = json.dumps(move_apart(json.loads(told))).encode()
                MutableHeaders(raw=start["headers"])["content-length"] = str(len(told))
            await send(start)
            await send({"type": "http.response.body", "body": told})

        await self.app(scope, receive, send_on)


def move_apart(paths: list[str]) -> list[str]:
    """Move uploads into folders of their own, under names that say nothing of them.

    Args:
        paths: As Gradio made them, below one folder; a file that was given twice has one path.

    Returns:
        Where they are now, in the same order; one that is gone stays where it was.
    """
    moved: dict[str, str] = {}
    own = []
    for path in paths:
        kind = re.fullmatch(r"\.[a-z0-9]{1,5}", Path(path).suffix.lower())
        folder = Path(path).parent.with_name(secrets.token_hex(32))
        place = folder / f"upload{kind[0] if kind else ''}"
        folder.mkdir()
        try:
            if path in moved:
                os.link(moved[path], place)
            else:
                Path(path).rename(place)
        except OSError:
            folder.rmdir()
            own.append(path)
            continue
        moved[path] = str(place)
        own.append(str(place))
    return own
