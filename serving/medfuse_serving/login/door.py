"""Every request in; on to the app where its sender is logged in, else to the log-in page or 401."""

import logging
import time
from base64 import b64decode
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

import anyio
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from medfuse_serving.answer import Failure, to_json
from medfuse_serving.language import Language
from medfuse_serving.login.accounts import MOST_CHARACTERS, Accounts
from medfuse_serving.login.form import (
    NAME_CHARACTERS,
    choose_language,
    login_html,
    say_ended,
    say_refused,
)
from medfuse_serving.login.lockout import Lockout
from medfuse_serving.login.sessions import LONGEST_S, Sessions
from medfuse_serving.reader import SCOPE

COOKIE = "medfuse-session"
LANGUAGE_COOKIE = "medfuse-language"
"""By which the page keeps its reader's language (`web/language.js`)."""

LANGUAGE_S = 365 * 24 * 3600
ENDED = "/login?ended"
"""Where those go whose session is over, in which it is said to them."""

OPEN = frozenset({"/login", "/healthz", "/readyz", "/web/login.css"})
"""Paths that need no log-in: nothing of a study is behind them."""

UNATTENDED = "medfuse-unattended"
"""A header of what a page asks by itself, while its reader may be anywhere."""

HEARTBEAT = "/gradio_api/heartbeat/"
"""What Gradio asks by itself."""

FORM_BYTES = 8 * 1024

logger = logging.getLogger(__name__)


class Guard:
    """Checks names and passwords, one at a time, and locks out who guesses."""

    def __init__(self, accounts: Accounts, now_s: Callable[[], float] = time.monotonic) -> None:
        self.accounts = accounts
        self.lockout = Lockout()
        self.sessions = Sessions()
        self.now_s = now_s
        # One try at a time: each takes 32 MiB, and tries side by side would all be made before
        # the first counts.
        self._one = anyio.Lock()

    async def admit(self, name: str, password: str, address: str) -> float | None:
        """Check a password; None where it is right, else how long the next try must wait."""
        async with self._one:
            wait = self.lockout.wait_s(name, address, self.now_s())
            if wait > 0:
                return wait
            right = len(password) <= MOST_CHARACTERS and await anyio.to_thread.run_sync(
                self.accounts.check, name, password
            )
            if right:
                self.lockout.succeed(name)
                return None
            self.lockout.fail(name, address, self.now_s())
            wait = self.lockout.wait_s(name, address, self.now_s())
            # Never the name that was typed: people type passwords there.
            known = name if name in self.accounts.by_name else "an unknown name"
            logger.warning("log-in refused to %s%s", known, ", now locked" if wait > 0 else "")
            return max(wait, 0.0)


class RequireLogin:
    """Lets only those logged in through, by a session's cookie or, of programs, HTTP Basic."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its sender's name in its scope, or refuse it."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        token = request.cookies.get(COOKIE, "")
        used = UNATTENDED not in request.headers and HEARTBEAT not in scope["path"]
        name = self.guard.sessions.find(token, self.guard.now_s(), used=used)
        if name is None and "authorization" in request.headers:
            name_or_wait = await self._check_basic(request)
            if isinstance(name_or_wait, float):
                await _refuse(name_or_wait)(scope, receive, send)
                return
            name = name_or_wait
        if name is None:
            response = _ask_in(request)
            await response(scope, receive, send)
            return
        await self.app({**scope, SCOPE: name}, receive, send)

    async def _check_basic(self, request: Request) -> str | float:
        scheme, _, encoded = request.headers["authorization"].partition(" ")
        try:
            decoded = b64decode(encoded, validate=True).decode("utf-8")
        except ValueError:
            return 0.0
        name, colon, password = decoded.partition(":")
        if scheme.lower() != "basic" or not colon:
            return 0.0
        wait = await self.guard.admit(name, password, _address(request))
        return name if wait is None else wait


def mount_login(app: FastAPI, guard: Guard) -> None:
    """Add the log-in page and the log-out route, and let no one past who is not logged in."""

    @app.get("/login", include_in_schema=False)
    async def show(request: Request) -> Response:
        language = _language(request)
        problem = say_ended(language) if "ended" in request.query_params else ""
        return _keep_language(HTMLResponse(login_html(language, problem)), request)

    @app.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        if not _is_from_here(request):
            return _answer(HTTPStatus.FORBIDDEN, "log in from this server's own page")
        language = _language(request)
        length = request.headers.get("content-length", "")
        if not (length.isdigit() and int(length) <= FORM_BYTES):
            return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "expected a small form")
        async with request.form(max_files=0, max_fields=4, max_part_size=FORM_BYTES) as form:
            name, password = str(form.get("name", "")), str(form.get("password", ""))
        wait = await guard.admit(name, password, _address(request))
        if wait is not None:
            status = HTTPStatus.TOO_MANY_REQUESTS if wait > 0 else HTTPStatus.UNAUTHORIZED
            headers = {"Retry-After": f"{wait:.0f}"} if wait > 0 else {}
            written = login_html(language, say_refused(language, wait), name[:NAME_CHARACTERS])
            return HTMLResponse(written, int(status), headers)
        guard.sessions.end(request.cookies.get(COOKIE, ""))
        response = _keep_language(RedirectResponse("/", HTTPStatus.SEE_OTHER), request)
        response.set_cookie(
            COOKIE,
            guard.sessions.begin(name, guard.now_s()),
            max_age=int(LONGEST_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.post("/logout", include_in_schema=False)
    async def log_out(request: Request) -> Response:
        if not _is_from_here(request):
            return _answer(HTTPStatus.FORBIDDEN, "log out from this server's own page")
        guard.sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE)
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    # Innermost, so that refusals have the security headers too, and bodies are bounded before.
    app.user_middleware.append(Middleware(RequireLogin, guard=guard))


def _ask_in(request: Request) -> Response:
    """Send a person to the log-in page, and tell a program to log in."""
    headers = request.headers
    if "text/html" in headers.get("accept", "") and headers.get("sec-fetch-mode") in {
        None,
        "navigate",
    }:
        place = ENDED if COOKIE in request.cookies else "/login"
        return RedirectResponse(place, HTTPStatus.SEE_OTHER)
    return _refuse(0.0, browser="sec-fetch-mode" in headers)


def _refuse(wait_s: float, *, browser: bool = False) -> Response:
    if wait_s > 0:
        message = f"too many wrong passwords; try again in {wait_s / 60:.0f} minutes"
        response = _answer(HTTPStatus.TOO_MANY_REQUESTS, message)
        response.headers["Retry-After"] = f"{wait_s:.0f}"
        return response
    response = _answer(HTTPStatus.UNAUTHORIZED, "log in, or send a name and password (HTTP Basic)")
    # A challenge that a browser does not know keeps it from asking by a window of its own.
    response.headers["WWW-Authenticate"] = f'{"Form" if browser else "Basic"} realm="medfuse"'
    return response


def _answer(status: HTTPStatus, message: str) -> Response:
    failure = Failure(error=status.phrase.title().replace(" ", ""), message=message)
    return Response(to_json(failure), int(status), media_type="application/json")


def _is_from_here(request: Request) -> bool:
    """Tell whether a form was sent by a page of this server (a browser always says)."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _language(request: Request) -> Language:
    return choose_language(
        request.query_params.get("language"),
        request.cookies.get(LANGUAGE_COOKIE),
        request.headers.get("accept-language", ""),
    )


def _keep_language(response: Response, request: Request) -> Response:
    """Have the browser keep the language that was asked for: the page's is then the same."""
    if "language" in request.query_params:
        response.set_cookie(
            LANGUAGE_COOKIE,
            _language(request).code,
            max_age=LANGUAGE_S,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return response
