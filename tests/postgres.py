"""A PostgreSQL server of a test's own, where the machine has its programs."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server on a socket in a folder of its own and give its database's URL."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is the extra postgres")
    places = [shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found = [Path(place).resolve().parent for place in places if place]
    if not found:
        pytest.skip("PostgreSQL's server is not installed here")
    programs = found[0]
    user = _server_user()
    with tempfile.TemporaryDirectory(prefix="pg-") as name:  # a socket's path must be short
        folder = Path(name)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(programs / program), "-D", str(folder / "data"), *arguments],
                user=None if user is None else user.pw_uid,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                check=True,
            )

        run("initdb", "--auth=trust", "--username=medfuse", "--no-sync", "--encoding=UTF8")
        listens = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-w", "-o", listens, "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql://medfuse@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


def _server_user() -> pwd.struct_passwd | None:
    """Choose whom the server runs as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL's server does not run as root, and there is no other user")
