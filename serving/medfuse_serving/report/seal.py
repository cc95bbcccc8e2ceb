"""A report and a key in; the same report with a seal over its every byte out, and the check of one.

The seal is HMAC with SHA-256 over the file in which zeros stand in the seal's own place. Unlike a
digest it can't be made without the key, and unlike a signature it can't be checked without it.
"""

import hashlib
import hmac
from pathlib import Path

from medfuse.errors import ReportError, SettingsError

ATTACHMENT = "medfuse-report.hmac"
"""The name under which a seal is attached to a report."""

BLANK = b"medfuse-seal:1:" + b"0" * 64
"""What is attached before there is a seal; one that is made is as long."""

KEY_BYTES = 32
"""The least length of a key."""


def seal(blank: bytes, key: bytes) -> bytes:
    """Put a seal into a file that has `BLANK` in the seal's place."""
    assert blank.count(BLANK) == 1
    return blank.replace(BLANK, _compute(blank, key))


def unseal(sealed: bytes, found: bytes) -> bytes:
    """Put `BLANK` back in a seal's place.

    Args:
        sealed: The file.
        found: Its seal.

    Raises:
        ReportError: The seal is none, or not in the file as it is.
    """
    if len(found) != len(BLANK) or sealed.count(found) != 1:
        raise ReportError("the report's seal is damaged; ask for the report as it was made")
    return sealed.replace(found, BLANK)


def check_seal(blank: bytes, key: bytes, found: bytes) -> bool:
    """Tell whether a file was sealed with a key, and is as it was then."""
    return hmac.compare_digest(_compute(blank, key), found)


def read_key(path: Path) -> bytes:
    """Read a key: a file's bytes as they are.

    Raises:
        SettingsError: It cannot be read, or is too short to be one.
    """
    try:
        with path.open("rb") as file:
            key = file.read(2**16)
    except OSError as error:
        raise SettingsError(f"{path}: the key cannot be read ({error.strerror})") from error
    if len(key) < KEY_BYTES:
        raise SettingsError(
            f"{path}: the key has {len(key)} bytes; expected at least {KEY_BYTES} random ones, as "
            f"`head -c {KEY_BYTES} /dev/urandom` gives"
        )
    return key


def _compute(blank: bytes, key: bytes) -> bytes:
    return b"medfuse-seal:1:" + hmac.new(key, blank, hashlib.sha256).hexdigest().encode()
