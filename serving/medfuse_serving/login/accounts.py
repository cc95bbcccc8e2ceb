"""A file of accounts in, whose password is right out; a password is only ever kept as its hash."""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError, field_validator

from medfuse.config import Settings
from medfuse.errors import SettingsError

SCHEMA: Final = "medfuse.accounts/1"

COST, BLOCK, LANES = 2**15, 8, 3
"""Of scrypt (RFC 7914): 32 MiB and about 0.3 s for each try, as OWASP's cheat sheet advises."""

FEWEST_CHARACTERS = 12
"""Of a password (NIST SP 800-63B-4 asks for 15 where it is the only factor, 8 at the least)."""

MOST_CHARACTERS = 256
MOST_BYTES = 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Account(Settings):
    """One reader's account."""

    name: str
    salt: str = Field(description="16 random bytes, base64")
    hash: str = Field(description="scrypt's 32 bytes, base64")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("expected letters, digits and . _ @ -, at most 64")
        return name


class _File(Settings):
    schema_: str = Field(alias="schema", pattern=f"^{re.escape(SCHEMA)}$")
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts by name."""

    by_name: Mapping[str, Account]

    def check(self, name: str, password: str) -> bool:
        """Tell whether a password is an account's; it takes as long where there is no account."""
        account = self.by_name.get(name, _NOBODY)
        made = _hash(password, base64.b64decode(account.salt))
        right = hmac.compare_digest(made, base64.b64decode(account.hash))
        return right and name in self.by_name


def read_accounts(path: Path) -> Accounts:
    """Read a file of accounts.

    Raises:
        SettingsError: There is none, or it is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"the file of accounts cannot be read ({error.strerror}); make it with "
            "'medfuse accounts add FILE NAME'"
        ) from error
    if len(data) > MOST_BYTES:
        raise SettingsError(f"the file of accounts has more than {MOST_BYTES} bytes")
    try:
        accounts = _File.model_validate_json(data).accounts
    except ValidationError as error:
        raise SettingsError(
            f"the file of accounts is not of the form {SCHEMA}; make it with 'medfuse accounts add'"
        ) from error
    by_name = {account.name: account for account in accounts}
    if len(by_name) != len(accounts):
        raise SettingsError("the file of accounts has one name twice")
    return Accounts(by_name)


def write_accounts(path: Path, accounts: Accounts) -> None:
    """Write a file of accounts, whole or not at all, for its owner's eyes alone.

    Raises:
        SettingsError: It cannot be written.
    """
    written = _File(schema=SCHEMA, accounts=tuple(accounts.by_name.values()))
    text = written.model_dump_json(by_alias=True, indent=2) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"the file of accounts cannot be written ({error.strerror})") from error


def make_account(name: str, password: str) -> Account:
    """Make an account.

    Raises:
        SettingsError: The name or the password is not fit.
    """
    if not FEWEST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise SettingsError(
            f"expected a password of {FEWEST_CHARACTERS} to {MOST_CHARACTERS} characters"
        )
    salt = secrets.token_bytes(16)
    try:
        return Account(
            name=name,
            salt=base64.b64encode(salt).decode(),
            hash=base64.b64encode(_hash(password, salt)).decode(),
        )
    except ValidationError as error:
        raise SettingsError(
            "expected an account's name of letters, digits and . _ @ -, at most 64"
        ) from error


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=COST,
        r=BLOCK,
        p=LANES,
        maxmem=2 * 128 * COST * BLOCK,
        dklen=32,
    )


_NOBODY = Account(
    name="nobody",
    salt=base64.b64encode(bytes(16)).decode(),
    hash=base64.b64encode(bytes(32)).decode(),
)
"""Stands in for an account that there is not."""
