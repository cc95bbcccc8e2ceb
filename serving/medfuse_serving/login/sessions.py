"""Those logged in: a token in, whose it is out; kept in memory alone, and only as a hash."""

import hashlib
import secrets
from dataclasses import dataclass

IDLE_S = 3600.0
"""A session ends when its reader did nothing for this long,"""

LONGEST_S = 12 * 3600.0
"""and in any case after this."""

MOST_KEPT = 10_000


@dataclass(slots=True)
class _Session:
    name: str
    began_s: float
    last_s: float


class Sessions:
    """The sessions by their tokens' hashes, so that a look into memory gives no token."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Session] = {}

    def begin(self, name: str, now_s: float) -> str:
        """Begin one and give its token, 256 random bits."""
        self._drop_ended(now_s)
        if len(self._sessions) >= MOST_KEPT:
            self._sessions.pop(min(self._sessions, key=lambda k: self._sessions[k].last_s))
        token = secrets.token_urlsafe(32)
        self._sessions[_hash(token)] = _Session(name, now_s, now_s)
        return token

    def find(self, token: str, now_s: float, *, used: bool = True) -> str | None:
        """Give the name of whose session it is; None where it ended.

        Args:
            token: Of the session.
            now_s: On the clock that it began by.
            used: Whether its reader is there; not so where a page asks by itself.
        """
        session = self._sessions.get(_hash(token))
        if session is None or _has_ended(session, now_s):
            self.end(token)
            return None
        if used:
            session.last_s = now_s
        return session.name

    def end(self, token: str) -> None:
        """End one."""
        self._sessions.pop(_hash(token), None)

    def _drop_ended(self, now_s: float) -> None:
        for key in [k for k, session in self._sessions.items() if _has_ended(session, now_s)]:
            del self._sessions[key]


def _has_ended(session: _Session, now_s: float) -> bool:
    return now_s - session.last_s >= IDLE_S or now_s - session.began_s >= LONGEST_S


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
