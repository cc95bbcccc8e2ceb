"""Identifiers and a secret key in; pseudonyms, UIDs and date shifts that nobody can undo out."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from medfuse.errors import SettingsError

KEY_BYTES = 32
_SHIFT_DAYS = (366, 3_650)
"""Dates go back by one to ten years, so none is in the future and none keeps its year."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whose something is, before and after.

    Attributes:
        pseudonym: What the person is called from now on.
        shift_days: By how many days the person's dates move.
        names: Names known from the table or the DICOM header, to be found in text.
        identifiers: The same of numbers.
    """

    pseudonym: str
    shift_days: int
    names: tuple[str, ...] = field(default=(), repr=False)
    identifiers: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Names for people, studies and UIDs by HMAC-SHA-256, the same for the same key.

    Without the key a pseudonym can't be made from an identifier, so a list of all identifiers is
    of no help in undoing it. The key is never written.
    """

    key: bytes = field(repr=False)

    def name(self, kind: str, identifier: str) -> str:
        """Name a patient (``kind`` "P"), a study ("S") or a site ("C")."""
        return f"{kind}{self._digest(kind, identifier).hex()[:16]}"

    def uid(self, uid: str) -> str:
        """Give a UID in place of another, under the root 2.25 (PS3.5 B.2)."""
        # The version and variant bits of RFC 4122, so that it is a UUID like any other.
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        number = number & ~(0xF << 76) & ~(0x3 << 62) | (0x4 << 76) | (0x2 << 62)
        return f"2.25.{number}"

    def shift_days(self, patient_id: str) -> int:
        """Give the days by which all dates of a patient move, which is below zero."""
        low, high = _SHIFT_DAYS
        number = int.from_bytes(self._digest("shift", patient_id)[:8], "big")
        return -(low + number % (high - low + 1))

    def _digest(self, kind: str, identifier: str) -> bytes:
        return hmac.new(self.key, f"{kind}\0{identifier}".encode(), hashlib.sha256).digest()


def make_pseudonyms(key_file: Path | None = None) -> Pseudonyms:
    """Draw a new key, or read the one of an earlier run so that patients keep their pseudonyms.

    Raises:
        SettingsError: The file can't be read or is too short to be a key.
    """
    if key_file is None:
        return Pseudonyms(secrets.token_bytes(KEY_BYTES))
    try:
        key = key_file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{key_file}: the key cannot be read ({error.strerror})") from error
    if len(key) < KEY_BYTES:
        raise SettingsError(
            f"{key_file}: the key has {len(key)} bytes; expected {KEY_BYTES} random ones, as from "
            f"head -c {KEY_BYTES} /dev/urandom"
        )
    return Pseudonyms(key)
