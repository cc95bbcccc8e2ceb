"""Failed log-ins in, how long the next must wait out."""

from collections import OrderedDict
from dataclasses import dataclass

TRIES = 5
"""Failures in a row after which a name is locked."""

ADDRESS_TRIES = 20
"""Failures in a row after which an address is locked, whatever names it tried."""

LOCKED_S = 900.0
"""How long it is locked, and after how long without a failure they are forgotten."""

MOST_KEPT = 10_000
"""Names and addresses that are kept; the one that failed least recently gives way."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_s: float = 0.0


class Lockout:
    """Counts failures by name, whether or not it is an account's, and by address."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait_s(self, name: str, address: str, now_s: float) -> float:
        """Say how long a try must wait; 0 where it may go on.

        Args:
            name: Of the account, as it was typed.
            address: Of the client.
            now_s: On a clock that only goes forward.
        """
        waits = [0.0]
        for key, tries in ((("name", name), TRIES), (("address", address), ADDRESS_TRIES)):
            failures = self._failures.get(key)
            if failures is not None and failures.count >= tries:
                waits.append(failures.last_s + LOCKED_S - now_s)
        return max(waits)

    def fail(self, name: str, address: str, now_s: float) -> None:
        """Count a wrong password; while locked, tries are not made and so not counted."""
        for key in (("name", name), ("address", address)):
            failures = self._failures.pop(key, _Failures())
            if now_s - failures.last_s >= LOCKED_S:
                failures = _Failures()
            failures.count += 1
            failures.last_s = now_s
            self._failures[key] = failures
        while len(self._failures) > MOST_KEPT:
            self._failures.popitem(last=False)

    def succeed(self, name: str) -> None:
        """Forget a name's failures; an address's stay, or one account would free it for others."""
        self._failures.pop(("name", name), None)
