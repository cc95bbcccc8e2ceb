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
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORGET_S = 600.0
"""After this an upload that is sent to a handler is deleted, taken up or not: it may wait for its
turn."""

BROKEN_S = 40.0
"""After so long without another byte an upload that has not arrived is taken for broken off, and
one that was sent to no handler for left."""

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
        before_s: For those that were sent to a handler (`mark_sent`).
        broken_before_s: For all others.
    """
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):  # it was taken up meanwhile
                path = Path(place, name)
                found = path.lstat()
                if found.st_ctime < (before_s if found.st_mode & SENT else broken_before_s):
                    path.unlink()
        for name in folders:
            with suppress(OSError):  # it is not empty
                path = Path(place, name)
                if path.lstat().st_ctime < broken_before_s:
                    path.rmdir()


SENT = stat.S_IXUSR
"""A mark on files that were sent to a handler; nothing runs them."""


def mark_sent(body: bytes) -> list[Path]:
    """Mark the uploads that an event sends to a handler.

    Args:
        body: Of the request that puts it into the queue.

    Returns:
        Where they are.
    """
    folder = os.environ.get("GRADIO_TEMP_DIR", "")
    found = []
    for name in re.findall(rb'"path":\s*"([^"\\]+)"', body):
        path = Path(os.fsdecode(name))
        if folder and path.parent.parent == Path(folder):
            with suppress(OSError):  # it is gone
                path.chmod(path.lstat().st_mode | SENT)
                found.append(path)
    return found


class Sent:
    """The uploads that each session has sent to handlers, until the session is over."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, session: str, paths: list[Path]) -> None:
        """Take down what one has sent."""
        own = [path for path in self._paths.get(session, []) if path.exists()]
        self._paths[session] = own + paths

    def forget(self, session: str) -> None:
        """Delete what of it was not taken up."""
        for path in self._paths.pop(session, []):
            path.unlink(missing_ok=True)


class OwnUploads:
    """Moves each upload apart before the browser is told its path, and marks those that are sent.

    Args:
        app: Passed on to.
        sent: What was.
    """

    def __init__(self, app: ASGIApp, sent: Sent) -> None:
        self.app, self.sent = app, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["path"].endswith("/gradio_api/upload"):
            await self.app(scope, receive, _move_in(send))
        elif scope["type"] == "http" and scope["path"].endswith("/gradio_api/queue/join"):
            body = await Request(scope, receive).body()
            if paths := mark_sent(body):
                self.sent.add(json.loads(body)["session_hash"], paths)
            await self.app(scope, replay(body, receive), send)
        else:
            await self.app(scope, receive, send)


def _move_in(send: Send) -> Send:
    """Write into the answer to an upload that has arrived where it is moved to."""
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
        if start["status"] == HTTPStatus.OK:
            told = json.dumps(move_apart(json.loads(told))).encode()
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(told))
        await send(start)
        await send({"type": "http.response.body", "body": told})

    return send_on


def replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, and then what comes after it."""
    told = False

    async def receive_on() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_on


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
