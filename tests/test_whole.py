"""A folder that is written whole or not at all."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from medfuse.errors import CohortError
from medfuse.whole import write_whole


def fill(out: Path, write: Callable[[Path], None]) -> None:
    with write_whole(out, CohortError) as part:
        write(part)


def test_a_folder_gets_its_name_when_all_is_written(tmp_path: Path) -> None:
    out = tmp_path / "above" / "out"
    before = signal.getsignal(signal.SIGTERM)
    with write_whole(out, CohortError) as part:
        (part / "a.txt").write_text("a")
        assert not out.exists()
        assert part.parent == out.parent
    assert [path.name for path in out.parent.rglob("*")] == ["out", "a.txt"]
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(CohortError, match="new or an empty folder"), write_whole(out, CohortError):
        pass
    assert (out / "a.txt").read_text() == "a"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_ends_midway_leaves_an_empty_folder_as_it_was(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    (tmp_path / "out").mkdir()

    def fail(part: Path) -> None:
        (part / "deep").mkdir()
        raise fault

    with pytest.raises(fault):
        fill(tmp_path / "out", fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(CohortError, match="Not a directory"),
        write_whole(tmp_path / "file" / "out", CohortError),
    ):
        pass
    with pytest.raises(CohortError, match="name too long"):
        fill(tmp_path / "out", lambda part: (part / ("x" * 1_000)).mkdir())
    assert not list(tmp_path.glob(".out*"))


def test_a_mount_cannot_be_renamed_so_it_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    with (
        pytest.raises(CohortError, match="name a folder inside it"),
        write_whole(tmp_path / "out", CohortError),
    ):
        raise AssertionError


def test_a_process_that_is_told_to_end_removes_what_it_wrote(tmp_path: Path) -> None:
    def end(part: Path) -> None:
        assert part.is_dir()
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    with pytest.raises(SystemExit) as ended:
        fill(tmp_path / "out", end)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
