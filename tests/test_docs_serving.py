"""What docs/predict.md and docs/serve.md say is what happens."""

import json
import re
import shlex
from http import HTTPStatus
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from medfuse.data.studies import IMAGE_SUFFIXES, NOTE_SUFFIXES, VOICE_SUFFIXES
from medfuse_serving.answer import Answer, RemarkAnswer, StudyLine, TaskAnswer
from medfuse_serving.api import STATUS
from medfuse_serving.commands import predict, serve, verify
from tests.hand_bundle import NOTE, make_study

DOCS = Path(__file__).parent.parent / "docs"
PREDICT = (DOCS / "predict.md").read_text(encoding="utf-8")
SERVE = (DOCS / "serve.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(hand_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages' commands name."""
    study = make_study()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bundle").symlink_to(hand_bundle)
    for folder in (tmp_path, tmp_path / "incoming" / "s1"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pa.dcm", "lateral.dcm"):
            (folder / name).write_bytes(study.images[0])
        (folder / "note.txt").write_bytes(NOTE)
        (folder / "voice.wav").write_bytes(study.voice or b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "line", [line for b in blocks(PREDICT) for line in b.splitlines() if line[:8] == "medfuse "]
)
def test_each_command_runs(place: Path, line: str) -> None:
    app = typer.Typer()
    for command in (verify, predict, serve):
        app.command()(command)
    words = shlex.split(line.partition(" > ")[0])[1:]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_the_python_example_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(PREDICT, "python")
    exec(compile(code, "predict.md", "exec"), {})
    assert "wordiness" in capsys.readouterr().out


def test_the_json_forms_are_the_schemas() -> None:
    lines, answer = (blocks(PREDICT, "json")[i] for i in (0, 1))
    shown = json.loads(answer)
    assert list(shown) == list(Answer.model_json_schema(by_alias=True)["properties"])
    assert list(shown["tasks"][0]) == list(TaskAnswer.model_fields)
    assert list(shown["remarks"][0]) == list(RemarkAnswer.model_fields)
    for line in lines.splitlines():
        assert list(json.loads(line)) == list(StudyLine.model_fields)
    for key in ("model_digest", "used", "remarks"):
        assert f"| `{key}` |" in PREDICT


def test_every_ending_of_a_file_is_named() -> None:
    for suffix in (IMAGE_SUFFIXES | NOTE_SUFFIXES | VOICE_SUFFIXES) - {"", ".jpeg", ".oga"}:
        assert f"`{suffix}`" in PREDICT


def test_every_status_stands_in_the_table() -> None:
    documented = {int(status) for status in re.findall(r"^\| (\d{3}) \|", SERVE, re.MULTILINE)}
    assert documented == {HTTPStatus.BAD_REQUEST, *STATUS.values()}
