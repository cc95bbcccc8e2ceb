"""The command accounts: a name and a password in, a file of accounts out."""

from pathlib import Path
from typing import Annotated

import typer

from medfuse.errors import SettingsError

accounts = typer.Typer(
    help="Keep the file of accounts of `medfuse serve --accounts`.", no_args_is_help=True
)

AccountsPath = Annotated[Path, typer.Argument(help="The file of accounts.")]
Name = Annotated[str, typer.Argument(help="Of the account: letters, digits and . _ @ -")]


@accounts.command()
def add(
    path: AccountsPath,
    name: Name,
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            help="At least 12 characters; asked for where it is not given, which is safer.",
        ),
    ],
) -> None:
    """Add an account, or give one a new password."""
    from medfuse_serving.login.accounts import Accounts, make_account, read_accounts, write_accounts

    by_name = dict(read_accounts(path).by_name) if path.exists() else {}
    verb = "changed" if name in by_name else "added"
    by_name[name] = make_account(name, password)
    write_accounts(path, Accounts(by_name))
    typer.echo(f"{verb} {name}; a running server reads the file when it is started again")


@accounts.command()
def remove(path: AccountsPath, name: Name) -> None:
    """Remove an account."""
    from medfuse_serving.login.accounts import Accounts, read_accounts, write_accounts

    by_name = dict(read_accounts(path).by_name)
    if by_name.pop(name, None) is None:
        raise SettingsError(f"there is no account {name!r}")
    write_accounts(path, Accounts(by_name))
    typer.echo(f"removed {name}; a running server reads the file when it is started again")


@accounts.command(name="list")
def list_names(path: AccountsPath) -> None:
    """List the accounts' names."""
    from medfuse_serving.login.accounts import read_accounts

    for name in sorted(read_accounts(path).by_name):
        typer.echo(name)
