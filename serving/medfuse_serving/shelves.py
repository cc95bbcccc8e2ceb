"""What a page shows in pieces in, an address that nobody can guess out; nothing touches the disk.

A large piece, such as a frame's 16-bit pixels, is not part of the page: the browser asks for it by
the address of its shelf, which only the page that it was made for has been told. That page asks
first, and whoever asked first is the only one who may. A shelf is held by its user's desk alone,
and is gone with it.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, WeakValueDictionary

import anyio
from fastapi import FastAPI, Request
from starlette.responses import Response

from medfuse.errors import MedfuseError
from medfuse_serving.answer import Failure, to_failure, to_json
from medfuse_serving.api import UNFORESEEN, log_unforeseen, status_of
from medfuse_serving.reader import OWNER

CONCURRENT = 2
"""Pieces that are made at once; more wait, so that memory is bounded."""

_HEADERS = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Shelf:
    """Pieces that one user's page may ask for.

    Attributes:
        count: How many there are.
        make: Gives the piece with a number from 0; may raise a `MedfuseError`.
        media_type: Of every piece.
        token: 256 random bits.
    """

    count: int
    make: Callable[[int], bytes] = field(repr=False, compare=False)
    media_type: str = "application/octet-stream"
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


class Shelves:
    """All users' shelves by their tokens, each for as long as somebody holds it."""

    def __init__(self) -> None:
        self._shelves: WeakValueDictionary[str, Shelf] = WeakValueDictionary()
        self._owners: WeakKeyDictionary[Shelf, str] = WeakKeyDictionary()

    def put(
        self,
        count: int,
        make: Callable[[int], bytes],
        media_type: str = "application/octet-stream",
    ) -> Shelf:
        """Make a shelf; it is there until the caller lets go of it."""
        shelf = Shelf(count, make, media_type)
        self._shelves[shelf.token] = shelf
        return shelf

    def find(self, token: str, number: int) -> Shelf | None:
        """Find the shelf that has a piece; None where there is none."""
        shelf = self._shelves.get(token)
        return shelf if shelf is not None and 0 <= number < shelf.count else None

    def claim(self, shelf: Shelf, owner: str) -> bool:
        """Tell whether a shelf is somebody's; it is of whom this was first asked."""
        return self._owners.setdefault(shelf, owner) == owner

    def mount(self, app: FastAPI) -> None:
        """Add the route by which pages ask for pieces."""
        makers = anyio.CapacityLimiter(CONCURRENT)

        @app.get("/shelves/{token}/{number}", include_in_schema=False)
        async def give(request: Request, token: str, number: int) -> Response:
            shelf = self.find(token, number)
            if shelf is None:
                gone = Failure(error="NotFound", message="there is no such piece, or not any more")
                return _fail(404, gone)
            if not self.claim(shelf, request.scope.get(OWNER, "")):
                return _fail(403, Failure(error="Forbidden", message="this is another's study"))
            return await anyio.to_thread.run_sync(_make, shelf, number, limiter=makers)


def _make(shelf: Shelf, number: int) -> Response:
    try:
        piece = shelf.make(number)
    except MedfuseError as error:
        return _fail(status_of(error), to_failure(error))
    except Exception as error:  # noqa: BLE001 - an unforeseen error's text may quote the study
        log_unforeseen(error)
        return _fail(500, UNFORESEEN)
    return Response(piece, media_type=shelf.media_type, headers=_HEADERS)


def _fail(status: int, failure: Failure) -> Response:
    return Response(
        to_json(failure), status_code=status, media_type="application/json", headers=_HEADERS
    )
