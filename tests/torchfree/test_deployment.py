"""What a hospital installs: the extra ``serve`` alone, run as it is run there.

`make test-serve` runs this in an environment without torch, on a bundle made outside it.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import httpx
import numpy as np
import pytest

BUNDLE = Path(os.environ["MEDFUSE_TEST_BUNDLE"])
GOLDEN = BUNDLE / "golden"
START_S = 60


def medfuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medfuse", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def golden_files() -> tuple[list[Path], Path, Path]:
    answer = json.loads((GOLDEN / "answer.json").read_text(encoding="utf-8"))
    images = [BUNDLE / name for name in answer["images"]]
    return images, BUNDLE / answer["note"], BUNDLE / answer["voice"]


def golden_probabilities(subset: str) -> list[float]:
    answer = json.loads((GOLDEN / "answer.json").read_text(encoding="utf-8"))
    found: list[float] = answer["probabilities"][subset]
    return found


def probabilities(answer: dict[str, list[dict[str, dict[str, float]]]]) -> list[float]:
    return [p for task in answer["tasks"] for p in task["probabilities"].values()]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "medfuse", "serve", str(BUNDLE), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield wait_for(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz", timeout=2).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return url
    process.kill()
    assert process.stderr is not None
    raise AssertionError(process.stderr.read().decode())


@pytest.mark.parametrize(
    "library", ["torch", "monai", "lightning", "transformers", "captum", "onnx"]
)
def test_the_environment_has_no_training_library(library: str) -> None:
    assert importlib.util.find_spec(library) is None


def test_exactly_one_onnxruntime_is_installed() -> None:
    names = [dist.metadata["Name"].lower() for dist in distributions()]
    assert len([name for name in names if name in {"onnxruntime", "onnxruntime-gpu"}]) == 1


def test_verify_accepts_the_bundle() -> None:
    done = medfuse("verify", str(BUNDLE))
    assert done.returncode == 0, done.stderr
    assert "golden  ok" in done.stdout


def test_predict_gives_the_golden_answer() -> None:
    images, note, voice = golden_files()
    dicom = [part for path in images for part in ("--dicom", str(path))]
    done = medfuse(
        "predict", str(BUNDLE), *dicom, "--note", str(note), "--voice", str(voice), "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["used"] == ["image", "note", "voice"]
    assert probabilities(answer) == pytest.approx(
        golden_probabilities("image+note+voice"), abs=1e-4
    )


def test_predict_answers_from_a_note_alone() -> None:
    _, note, _ = golden_files()
    done = medfuse("predict", str(BUNDLE), "--note", str(note), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["used"] == ["note"]
    assert probabilities(answer) == pytest.approx(golden_probabilities("note"), abs=1e-4)


def test_explain_writes_the_maps_of_all_three_modalities(tmp_path: Path) -> None:
    images, note, voice = golden_files()
    dicom = [part for path in images for part in ("--dicom", str(path))]
    target = json.loads((GOLDEN / "answer.json").read_text(encoding="utf-8"))["targets"][0]
    given = (*dicom, "--note", str(note), "--voice", str(voice))
    quick = ("--steps", "2", "--most-steps", "2", "--no-withhold")
    out = tmp_path / "explanation"
    done = medfuse("explain", str(BUNDLE), "--target", target, *given, *quick, "--out", str(out))
    assert done.returncode in (0, 3), done.stderr  # 3: its checks failed, as two points may
    with np.load(next(out.glob("*.npz"))) as arrays:
        for modality in ("image", "note", "voice"):
            assert arrays[modality].any(), modality


def test_a_file_that_is_no_dicom_is_one_line_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "notes.dcm"
    path.write_text("not DICOM at all", encoding="utf-8")
    done = medfuse("predict", str(BUNDLE), "--dicom", str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_training_without_its_extra_says_which_to_install(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("", encoding="utf-8")
    done = medfuse("train", str(config), "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "medfuse[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_is_ready_and_answers_over_http(server: str) -> None:
    assert httpx.get(f"{server}/readyz", timeout=30).status_code == 200
    images, note, voice = golden_files()
    files = [
        *(("images", (path.name, path.read_bytes())) for path in images),
        ("voice", (voice.name, voice.read_bytes())),
    ]
    response = httpx.post(
        f"{server}/v1/predict",
        files=files,
        data={"note": note.read_text(encoding="utf-8")},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    expected = golden_probabilities("image+note+voice")
    assert probabilities(response.json()) == pytest.approx(expected, abs=1e-4)


def test_the_page_names_no_host_but_its_own(server: str) -> None:
    page = httpx.get(server, timeout=30).text
    for host in ("googleapis.com", "gstatic.com", "cdn.", "unpkg.com", "jsdelivr"):
        assert host not in page


def test_a_request_without_a_study_is_refused(server: str) -> None:
    assert httpx.post(f"{server}/v1/predict", data={"note": ""}, timeout=30).status_code == 422
