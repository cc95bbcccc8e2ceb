"""The folder of the page's uploads: what stays behind in it goes."""

import json
import os
import time
from pathlib import Path

import pytest

from medfuse_serving.uploads import Sent, keep_uploads, mark_sent, move_apart, sweep_uploads


def test_what_has_stayed_is_swept_and_what_is_new_is_not(tmp_path: Path) -> None:
    left, arriving = tmp_path / "left", tmp_path / "arriving"
    for folder in (left, arriving, tmp_path / "empty"):
        folder.mkdir()
    (left / "Doe.dcm").write_bytes(b"broken off")
    (tmp_path / "tmp1").touch()
    time.sleep(0.05)
    before_s = time.time()
    time.sleep(0.05)
    (arriving / "Doe.dcm").write_bytes(b"not taken up yet")
    sweep_uploads(tmp_path, before_s, before_s)
    # A folder changes as its file goes, so it is swept the next time.
    assert {path.name for path in tmp_path.iterdir()} == {"left", "arriving"}
    assert [path.name for path in arriving.iterdir()] == ["Doe.dcm"]
    assert list(left.iterdir()) == []
    sweep_uploads(tmp_path, time.time() + 1, time.time() + 1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_broken_off_or_left_goes_before_what_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "digest").mkdir()
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "Doe.wav").write_bytes(b"its page was closed before it was sent")
    waits = tmp_path / "digest" / "Doe.wav"
    waits.write_bytes(b"a dictation in the queue")
    asked = json.dumps({"data": ["0", {"path": str(waits)}, {"path": "/etc/passwd"}]})
    assert mark_sent(asked.encode()) == [waits]
    (tmp_path / "tmp1").write_bytes(b"broken off")
    sweep_uploads(tmp_path, time.time() - 600, time.time() - 40)
    assert (tmp_path / "tmp1").exists()  # its next byte may come
    sweep_uploads(tmp_path, time.time() - 600, time.time() + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["digest"]
    assert (tmp_path / "digest" / "Doe.wav").exists()


def test_the_folder_is_swept_while_the_server_runs_and_gone_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "as it was")
    with keep_uploads(forget_s=0.1, broken_s=0.1, sweep_s=0.02) as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "digest").mkdir()
        (folder / "digest" / "Doe.dcm").write_bytes(b"never taken up")
        (folder / "tmp1").touch()
        for _ in range(500):
            if not any(folder.iterdir()):
                break
            time.sleep(0.02)
        assert list(folder.iterdir()) == []
        (folder / "tmp2").touch()
    assert not folder.exists()


def test_who_gives_the_same_file_has_it_alone_under_a_name_that_says_nothing(
    tmp_path: Path,
) -> None:
    first, other = (tmp_path / digest / "Doe, J.DCM" for digest in ("one", "two"))

    def arrive() -> None:
        for path in (first, other):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(path.parent.name.encode())

    arrive()
    mine = move_apart([str(first), str(other), str(first)])
    arrive()  # as of another user, before the first one's are taken up
    theirs = move_apart([str(first)])
    paths = [Path(path) for path in mine + theirs]
    assert len({path.parent for path in paths}) == 4
    assert {path.name for path in paths} == {"upload.dcm"}
    for path, content in zip(paths, (b"one", b"two", b"one", b"one"), strict=True):
        assert path.read_bytes() == content
        path.unlink()
    assert move_apart([str(first)]) == [str(first)]  # it is gone
    assert {path.name for path in tmp_path.iterdir()} >= {"one", "two"}


def test_what_a_session_sent_and_nobody_took_up_goes_with_it(tmp_path: Path) -> None:
    sent, own, other = Sent(), tmp_path / "own", tmp_path / "other"
    taken = tmp_path / "taken"
    for path in (own, other, taken):
        path.touch()
    sent.add("one", [taken])
    sent.add("one", [own])
    sent.add("two", [other])
    taken.unlink()
    sent.forget("one")
    sent.forget("none")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
