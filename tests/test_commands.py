"""The commands verify, predict and serve, as a reader of their output meets them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from medfuse.errors import BundleError, DicomError, InputError, LimitError
from medfuse.types import Study
from medfuse_serving.answer import Answer, StudyLine, format_probability, to_answer, to_json
from medfuse_serving.commands import predict, serve, verify
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import NOTE, SETTINGS, make_bundle, make_study

APP = typer.Typer()
for command in (verify, predict, serve):
    APP.command()(command)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with one study: two images, a note and a recording."""
    study = make_study()
    (tmp_path / "a.dcm").write_bytes(study.images[0])
    (tmp_path / "b.dcm").write_bytes(study.images[0])
    (tmp_path / "n.txt").write_bytes(NOTE)
    (tmp_path / "v.wav").write_bytes(study.voice or b"")
    return tmp_path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_verify_says_what_it_checked(hand_bundle: Path) -> None:
    lines = run("verify", hand_bundle).stdout.splitlines()
    assert [line[:11] for line in lines] == [
        "files   ok ",
        "graph   ok ",
        "golden  ok ",
        "explain    ",
        "digest     ",
    ]
    assert "7 subsets" in lines[2]
    assert "exported without explanations" in lines[3]
    assert lines[4].split()[-1] == Predictor(hand_bundle).bundle.digest


def test_verify_refuses_an_altered_file_and_a_wrong_answer(
    hand_bundle: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(hand_bundle, tmp_path / "altered")
    (bundle / "model_card.md").write_text("another model")
    with pytest.raises(BundleError, match=r"model_card\.md"):
        run("verify", bundle)
    with pytest.raises(BundleError, match="golden"):
        run("verify", make_bundle(tmp_path / "wrong", shift=1.0))


def test_strict_verify_refuses_another_provider(hand_bundle: Path) -> None:
    with pytest.raises(BundleError, match="'cuda' was wanted"):
        run("verify", hand_bundle, "--provider", "cuda", "--strict")


def test_predict_prints_the_json_form(hand_bundle: Path, files: Path) -> None:
    options = ("--dicom", files / "a.dcm", "--note", files / "n.txt", "--voice", files / "v.wav")
    printed = run("predict", hand_bundle, *options, "--json").stdout
    expected = to_answer(Predictor(hand_bundle).predict([make_study()])[0])
    assert printed == to_json(expected, indent=2) + "\n"


@pytest.mark.parametrize(
    ("option", "file", "used"),
    [("--dicom", "a.dcm", "image"), ("--note", "n.txt", "note"), ("--voice", "v.wav", "voice")],
)
def test_any_part_may_be_given_alone(
    hand_bundle: Path, files: Path, option: str, file: str, used: str
) -> None:
    printed = run("predict", hand_bundle, option, files / file, "--json").stdout
    assert [str(m) for m in Answer.model_validate_json(printed).used] == [used]


def test_several_images_may_follow_one_flag_or_several(hand_bundle: Path, files: Path) -> None:
    a, b, note = files / "a.dcm", files / "b.dcm", files / "n.txt"
    one = run("predict", hand_bundle, "--dicom", a, b, "--note", note, "--json").stdout
    two = run("predict", hand_bundle, "--dicom", a, "--dicom", b, "--note", note, "--json").stdout
    image = make_study().images[0]
    (expected,) = Predictor(hand_bundle).predict([Study(images=(image, image), note=NOTE)])
    assert one == two == to_json(to_answer(expected), indent=2) + "\n"


def test_predict_prints_bars_with_numbers_and_the_notice(hand_bundle: Path, files: Path) -> None:
    printed = run("predict", hand_bundle, "--note", files / "n.txt").stdout
    (prediction,) = Predictor(hand_bundle).predict([Study(note=NOTE)])
    answer = to_answer(prediction)
    for name, probability in answer.tasks[0].probabilities.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        assert format_probability(probability) in line
        assert line.count("\N{FULL BLOCK}") == round(24 * probability)
    assert "used    note   (no image, voice)" in printed
    assert answer.remarks[0].message in printed
    assert answer.model_digest in printed
    assert " ".join(printed.split()).endswith(answer.notice)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--dicom", "gone.dcm"),
        ("stray.dcm", "--note", "n.txt"),
        ("--studies", ".", "--note", "n.txt"),
    ],
    ids=["nothing", "no such file", "stray file", "both ways"],
)
def test_a_wrong_command_line_is_a_usage_error(
    hand_bundle: Path, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(files)
    result = run("predict", hand_bundle, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_file_that_cannot_be_used_is_an_error(hand_bundle: Path, files: Path) -> None:
    (files / "a.dcm").write_bytes(b"Doe^Jane")
    with pytest.raises(DicomError) as caught:
        run("predict", hand_bundle, "--dicom", files / "a.dcm")
    assert "Doe" not in str(caught.value)
    (files / "a.dcm").write_bytes(bytes(SETTINGS.limits.file_bytes + 1))
    with pytest.raises(LimitError):
        run("predict", hand_bundle, "--dicom", files / "a.dcm")


def make_folder(root: Path) -> None:
    study = make_study()
    for name, image in (("good", study.images[0]), ("bad", b"not DICOM"), ("last", b"")):
        (root / name).mkdir(parents=True)
        (root / name / "note.txt").write_bytes(NOTE)
        if image:
            (root / name / "i.dcm").write_bytes(image)


def test_a_bad_study_of_a_folder_is_reported_and_the_rest_done(
    hand_bundle: Path, tmp_path: Path
) -> None:
    make_folder(tmp_path / "studies")
    result = run("predict", hand_bundle, "--studies", tmp_path / "studies")
    lines = [StudyLine.model_validate(json.loads(line)) for line in result.stdout.splitlines()]
    assert [line.study for line in lines] == ["bad", "good", "last"]
    assert [line.failure.error if line.failure else None for line in lines] == [
        "DicomError",
        None,
        None,
    ]
    image = make_study().images
    expected = Predictor(hand_bundle).predict([Study(image, NOTE), Study(note=NOTE)])
    assert [line.answer for line in lines[1:]] == [to_answer(each) for each in expected]
    assert result.exit_code == 1
    assert "1 of 3 studies could not be answered" in result.stderr


def test_a_folder_without_a_bad_study_exits_with_0(hand_bundle: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "studies")
    shutil.rmtree(tmp_path / "studies" / "bad")
    result = run("predict", hand_bundle, "--studies", tmp_path / "studies")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert "studies" in result.stderr  # the progress bar


def test_a_folder_without_studies_is_refused(hand_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no studies"):
        run("predict", hand_bundle, "--studies", tmp_path)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_stopped_and_leaves_no_upload(
    hand_bundle: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys, typer; from medfuse_serving.commands import serve; typer.run(serve)"
    command = [sys.executable, "-c", program, str(hand_bundle), "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                ready = httpx.get(f"{url}/readyz", timeout=10)
                break
            except httpx.TransportError:
                assert process.poll() is None
                time.sleep(0.1)
        page = httpx.get(url, timeout=30).text
        note = {"note": ("Doe_Jane.txt", NOTE)}
        answer = httpx.post(f"{url}/v1/predict", files=note, timeout=30)
        process.send_signal(stop)
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert ready.json()["status"] == "ready"
    assert "medfuse" in page
    assert answer.json()["used"] == ["note"]
    assert f"{url}/" in said
    assert "predict 200" in said
    assert "Doe" not in said
    assert "Traceback" not in said
    assert [path for path in tmp_path.iterdir() if "medfuse" in path.name] == []


def test_serve_does_not_start_on_a_machine_that_answers_wrongly(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="golden"):
        run("serve", make_bundle(tmp_path / "bundle", shift=1.0))
