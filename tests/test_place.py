"""Every command that writes looks first whether it can, and what fails later is one line."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medfuse import cli
from medfuse.errors import MedfuseError, OutputError
from medfuse.place import check_file, check_folder

SETTINGS = """
[cohort]
table = {table}
[features]
workers = 1
{features}
[[tasks]]
name = "findings"
kind = "multilabel"
classes = ["nodule"]
[search]
[search.space]
"fit.learning_rate" = {{low = 1e-4, high = 1e-2, log = true}}
"""

# Nothing named NOT_THERE is: a command that began to work would complain of it, and not of OUT.
COMMANDS = {
    "train": "train CONFIG --out OUT",
    "search": "search CONFIG --out OUT",
    "leaderboard": "leaderboard CONFIG --out OUT",
    "benchmark": "benchmark covid --data NOT_THERE --out OUT",
    "check-cohort --out": "check-cohort CONFIG --out OUT",
    "check-cohort --fix": "check-cohort CONFIG --fix OUT",
    "check-cohort --prove": "check-cohort --prove 1 --out OUT",
    "cohort": "cohort OUT --studies 100000",
    "import": "import folder STUDIES OUT",
    "deidentify": "deidentify STUDIES OUT",
    "explain": "explain NOT_THERE --target a.b --out OUT --note NOT_THERE",
    "explain-eval": "explain-eval NOT_THERE --out OUT",
    "export": "export NOT_THERE OUT",
    "evaluate": "evaluate NOT_THERE NOT_THERE.csv --out OUT",
    "recalibrate": "recalibrate NOT_THERE NOT_THERE.csv OUT",
    "demo": "demo --out OUT",
}
FILES = {
    "predict-cohort": "predict-cohort NOT_THERE NOT_THERE.csv OUT",
    "report": "report NOT_THERE --note NOT_THERE --out OUT",
    "dictate": "dictate NOT_THERE.wav --out OUT",
    "dictate a table": "dictate NOT_THERE.csv --out OUT.csv",
    "explain-eval --json": "explain-eval NOT_THERE --json OUT",
    "findings-text": "findings-text NOT_THERE --json OUT",
    "bench-serve": "bench-serve NOT_THERE --json OUT",
    "bench explain": "bench explain NOT_THERE NOT_THERE --json OUT",
    "bench train": "bench train NOT_THERE.toml --json OUT",
    "bench train --features": "bench train NOT_THERE.toml --features OUT/x",
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., BaseException | None]:
    """Give what runs a command of words, and says how it ended."""
    (tmp_path / "studies").mkdir()

    def run_words(words: str, out: Path, features: str = "") -> BaseException | None:
        table = json.dumps(str(tmp_path / "NOT_THERE.csv"))
        config = tmp_path / "config.toml"
        config.write_text(SETTINGS.format(table=table, features=features), encoding="utf-8")
        for name, path in (("CONFIG", config), ("OUT", out), ("STUDIES", tmp_path / "studies")):
            words = words.replace(name, str(path))
        return CliRunner().invoke(cli.build_app(), words.split()).exception

    return run_words


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("where", ["a file", "below a file", "where no folder can be"])
def test_a_folder_that_cannot_be_is_refused_before_any_work(
    words: str, where: str, tmp_path: Path, run: Callable[..., BaseException | None]
) -> None:
    (tmp_path / "file").write_text("kept")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}
    error = run(words, places.get(where, Path("/proc/x")))
    assert isinstance(error, OutputError), repr(error)
    assert "expected a folder" in str(error)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("words", FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_is_refused_before_any_work(
    words: str, tmp_path: Path, run: Callable[..., BaseException | None]
) -> None:
    (tmp_path / "file").write_text("kept")
    error = run(words, tmp_path / "file" / "x")
    assert isinstance(error, OutputError), repr(error)


@pytest.mark.parametrize("command", ["train", "search", "leaderboard"])
def test_a_feature_cache_that_cannot_be_is_refused_before_any_work(
    command: str, tmp_path: Path, run: Callable[..., BaseException | None]
) -> None:
    (tmp_path / "file").write_text("")
    cache = f"cache = {json.dumps(str(tmp_path / 'file'))}"
    error = run(f"{command} CONFIG --out OUT", tmp_path / "out", cache)
    assert isinstance(error, OutputError), repr(error)
    assert str(tmp_path / "file") in str(error)
    assert not (tmp_path / "out").exists()


def test_what_can_be_written_passes_and_nothing_is_left(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "below")
    check_file(tmp_path / "new" / "file.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_and_a_broken_link_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        check_file(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="expected a folder"):
        check_folder(tmp_path / "link")


@pytest.mark.parametrize(
    ("error", "arguments", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["train"], "No space left on device"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/Doe^Jane.dcm"),
            ["train", "c.toml"],
            "Permission denied",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "c.toml"),
            ["train", "c.toml"],
            "c.toml: Permission denied",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"run"),
            ["train", "--out=run"],
            "run: No such file or directory",
        ),
        (OSError("cannot identify Doe^Jane.png"), ["train"], "OSError"),
        (OutputError("run: expected a folder"), ["train"], "run: expected a folder"),
    ],
)
def test_a_fault_in_mid_run_is_one_line_that_names_only_what_the_user_did(
    error: OSError | MedfuseError,
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "build_app", lambda: fail)
    monkeypatch.setattr(sys, "argv", ["medfuse", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"medfuse: {line}\n"
