"""A request of the page in; the same with its session named by whose it is out.

A browser chooses the name of its session by itself (Gradio's ``session_hash``), and sends it in
addresses, which a proxy may write down. What the server knows a session by is made of that name and
of whose it is, by a key that nobody has: who sends another's name finds a session of their own,
which is empty. Nothing is kept for it. A name that comes where `OwnSessions` does not look for one
is no session's; and of Gradio's routes there are only those that the page uses.
"""

import hashlib
import hmac
import json
import re
import secrets
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfuse_serving.answer import Failure, to_json
from medfuse_serving.reader import OWNER, reader_of
from medfuse_serving.uploads import replay

COOKIE: Final = "medfuse-browser"
"""By which browsers are told apart where nobody has to log in."""

NAMES: Final = frozenset({"session_hash", "upload_id"})
"""What a browser names by itself in a request's query or body; an upload's progress tells its
file's name."""

_ROUTES = "/gradio_api/"
_USED = re.compile(
    r".*/gradio_api/"
    r"(queue/(join|data)|run/predict|cancel|reset|upload|upload_progress|heartbeat/[^/]+)"
)
"""Gradio would give out uploads by their paths, and keep what lies on a page as a file."""

_IN_PATH = re.compile(r"(?<=/gradio_api/heartbeat/)[^/]+")


class OwnSessions:
    """Puts whose it is into each request's scope, and into the name of its session."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._key = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its own session."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        reader, browser = reader_of(request), request.cookies.get(COOKIE, "")
        owner = f"reader {reader}" if reader else f"browser {browser}"
        scope = {**scope, OWNER: owner}
        if scope["path"] == "/" and not reader and not browser:
            await self.app(
                scope, receive, _giving_cookie(send, secure=request.url.scheme == "https")
            )
            return
        if _ROUTES in scope["path"]:
            if not _USED.fullmatch(scope["path"]):
                await _say_unused()(scope, receive, send)
                return
            scope, receive = await self._name(scope, receive, owner)
        await self.app(scope, receive, send)

    async def _name(self, scope: Scope, receive: Receive, owner: str) -> tuple[Scope, Receive]:
        path = _IN_PATH.sub(lambda found: self._own(found[0], owner), scope["path"])
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        own = [(name, self._own(value, owner) if name in NAMES else value) for name, value in asked]
        scope = {
            **scope,
            "path": path,
            "raw_path": path.encode(),
            "query_string": scope["query_string"] if own == asked else urlencode(own).encode(),
        }
        headers = MutableHeaders(scope=scope)
        if scope["method"] != "POST" or headers.get("content-type", "").startswith("multipart/"):
            return scope, receive
        body = self._name_in(await Request(scope, receive).body(), owner)
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers["content-length"] = str(len(body))
        return {**scope, "headers": headers.raw}, replay(body, receive)

    def _name_in(self, body: bytes, owner: str) -> bytes:
        try:
            asked = json.loads(body)
        except ValueError:
            return body
        if not isinstance(asked, dict):
            return body
        own = {
            name: self._own(value, owner) if name in NAMES and isinstance(value, str) else value
            for name, value in asked.items()
        }
        return body if own == asked else json.dumps(own).encode()

    def _own(self, name: str, owner: str) -> str:
        """Make the name that the server knows a session by; of the same length for all."""
        told = json.dumps([owner, name]).encode()
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()


def _say_unused() -> Response:
    status = HTTPStatus.NOT_FOUND
    failure = Failure(error="NotFound", message="the page has no use for this route")
    return Response(to_json(failure), int(status), media_type="application/json")


def _giving_cookie(send: Send, *, secure: bool) -> Send:
    """Give the browser that asks for the page its cookie, 256 random bits, until it is closed.

    A strict one would not come by a link from another site, and a new one take its place.
    """
    cookie = f"{COOKIE}={secrets.token_urlsafe(32)}; HttpOnly; Path=/; SameSite=Lax"

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.append("set-cookie", f"{cookie}; Secure" if secure else cookie)
        await send(message)

    return send_on
