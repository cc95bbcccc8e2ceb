"""The demo's steps: done once, done again when what they rest on changes."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from medfuse_serving import demo as module
from medfuse_serving.demo import DemoError, Step, digest_inputs, plan_steps, run_step


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Commands as they are run, each writing one file into the folder it names last."""
    seen: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...]) -> None:
        seen.append(tuple(arguments))
        if arguments[0] == "fail":
            raise DemoError("it failed")
        folder = Path(arguments[-1])
        folder.mkdir(exist_ok=True)
        (folder / "result.txt").write_text("made")

    monkeypatch.setattr(module, "run_medfuse", run)
    return seen


def make_step(root: Path, *, command: str = "make") -> Step:
    (root / "in").mkdir(exist_ok=True)
    if not (root / "in" / "code.py").exists():
        (root / "in" / "code.py").write_text("a = 1")
    return Step("Make", root / "out", (command, str(root / "out")), (root / "in",))


def do(step: Step, root: Path) -> str:
    said = io.StringIO()
    run_step(step, "1/1 Make", root / "stamps", Console(file=said, width=200))
    return said.getvalue()


def test_a_step_is_done_once(tmp_path: Path, calls: list[tuple[str, ...]]) -> None:
    step = make_step(tmp_path)
    assert "took" in do(step, tmp_path)
    assert "already done" in do(step, tmp_path)
    assert len(calls) == 1


def change_code(root: Path) -> None:
    (root / "in" / "code.py").write_text("a = 2")  # the same size


def add_input(root: Path) -> None:
    (root / "in" / "data.bin").write_bytes(b"1")


def lose_output(root: Path) -> None:
    (root / "out" / "result.txt").unlink()


def cut_output(root: Path) -> None:
    (root / "out" / "result.txt").write_text("")


@pytest.mark.parametrize("change", [change_code, add_input, lose_output, cut_output])
def test_a_step_is_done_again_when_its_inputs_or_its_output_change(
    tmp_path: Path, calls: list[tuple[str, ...]], change: Callable[[Path], None]
) -> None:
    do(make_step(tmp_path), tmp_path)
    change(tmp_path)
    do(make_step(tmp_path), tmp_path)
    assert len(calls) == 2
    assert (tmp_path / "out" / "result.txt").read_text() == "made"


def test_a_step_that_failed_is_done_again(tmp_path: Path, calls: list[tuple[str, ...]]) -> None:
    with pytest.raises(DemoError):
        do(make_step(tmp_path, command="fail"), tmp_path)
    (tmp_path / "out").mkdir()  # as an interrupted command leaves it
    do(make_step(tmp_path), tmp_path)
    assert [call[0] for call in calls] == ["fail", "make"]


def test_a_folder_that_the_demo_did_not_make_is_left_alone(
    tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DemoError, match="not made by the demo"):
        do(make_step(tmp_path), tmp_path)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    assert calls == []


def test_the_digest_depends_on_the_command(tmp_path: Path) -> None:
    assert digest_inputs(make_step(tmp_path)) != digest_inputs(make_step(tmp_path, command="x"))


def test_each_step_rests_on_the_one_before(tmp_path: Path) -> None:
    cohort, train, export = plan_steps(tmp_path)
    assert cohort.output in train.inputs
    assert any(path.is_relative_to(train.output) for path in export.inputs)
    table = json.dumps(str(cohort.output / "cohort.csv"))
    assert f"table = {table}" in (tmp_path / "demo.toml").read_text()


def test_a_command_that_fails_stops_the_demo() -> None:
    with pytest.raises(DemoError, match="'medfuse no-such-command' failed with status 2"):
        module.run_medfuse(("no-such-command",))
