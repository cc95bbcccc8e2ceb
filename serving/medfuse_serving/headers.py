"""Every response of the server in, the same under strict policies of running and keeping out."""

import re
import secrets
from collections.abc import Mapping, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = {
    "default-src": "'none'",
    # Gradio makes functions from its own components' templates and from the `js` of events, so
    # 'unsafe-eval' has to stay; what a page may begin to run is named by its nonce or its address.
    "script-src": "'self' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "manifest-src": "'self'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "object-src": "'none'",
}
"""Content Security Policy Level 3: nothing may come from, or go to, another host."""

HEADERS: Mapping[str, str] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "same-origin",  # or forms would not say where they come from
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

EARLY_SCRIPTS: Mapping[str, Sequence[str]] = {
    "/": ("web/language.js", "web/door.js", "web/note.js", "web/files.js")
}
"""What a page runs before anything else, by its path; Gradio would run it too late."""

KEPT = ("/assets/", "/docs-assets/", "/static/", "/svelte/", "/web/")
"""Where files are that are the same for everybody. A browser keeps nothing else: by the button Back
it would show a study to whoever comes after its reader."""

_SCRIPT = re.compile(rb"<script\b")


class SecurityHeaders:
    """Adds the policies and `HEADERS` to every response, and a nonce to each script of a page.

    The nonce is new for every response. What a page holds of a study is escaped before it comes
    here, so each ``<script`` is one that the server wrote.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] in EARLY_SCRIPTS:  # a compressed page could not be written into
            kept = [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]
            scope = {**scope, "headers": kept}
        nonce = secrets.token_urlsafe(16)
        start: Message | None = None
        page = bytearray()

        async def send_on(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                is_page = headers.get("content-type", "").startswith("text/html")
                headers.update(HEADERS)
                if not scope["path"].startswith(KEPT):
                    headers["Cache-Control"] = "no-store"
                headers["Content-Security-Policy"] = _write_policy(nonce if is_page else None)
                if is_page:
                    start = message  # its length is known once it has been written into
                    return
            elif start is not None and message["type"] == "http.response.body":
                page.extend(message.get("body", b""))
                if message.get("more_body", False):
                    return
                body = _write_nonces(bytes(page), nonce, EARLY_SCRIPTS.get(scope["path"], ()))
                headers = MutableHeaders(raw=start["headers"])
                if "content-length" in headers and scope["method"] != "HEAD":
                    headers["content-length"] = str(len(body))
                await send(start)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, send_on)


def _write_policy(nonce: str | None) -> str:
    policy = dict(POLICY)
    if nonce is not None:
        policy["script-src"] += f" 'nonce-{nonce}'"
    return "; ".join(f"{name} {sources}" for name, sources in policy.items())


def _write_nonces(page: bytes, nonce: str, early: Sequence[str]) -> bytes:
    marked = b'<script nonce="' + nonce.encode() + b'"'
    page = _SCRIPT.sub(marked, page)
    first = b"".join(marked + b' src="' + name.encode() + b'"></script>' for name in early)
    return page.replace(marked, first + marked, 1)
