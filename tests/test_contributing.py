"""The worked example of CONTRIBUTING: its code, put in the table, holds to the fusions' laws."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from medfuse.models.fusion import FUSIONS
from tests.fusion_laws import (
    Build,
    check_absence_is_told_from_zero,
    check_gradients_reach_everything,
    check_padding_and_company_change_rounding_at_most,
    check_reads_present_modalities_alone,
    learn_exclusive_or,
)

ROOT = Path(__file__).parents[1]


def blocks() -> list[str]:
    """Give the section's blocks of code: the module, its line in the table, the command."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("## A worked example: adding a fusion\n")[1].split("\n## ")[0]
    return [part.partition("\n")[2] for part in section.split("```")[1::2]]


def worked_example() -> dict[str, Build]:
    """Execute the module, and read its line in the table."""
    module, line, _ = blocks()
    names: dict[str, object] = {"__name__": "medfuse.models.fusion.example"}
    exec(compile(module, "CONTRIBUTING.md", "exec"), names)
    found: dict[str, Build] = eval("{" + line.strip() + "}", names)
    return found


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    ((name, build),) = worked_example().items()
    assert name not in FUSIONS
    monkeypatch.setitem(FUSIONS, name, build)
    return name


@pytest.mark.parametrize(
    "check",
    [
        check_reads_present_modalities_alone,
        check_padding_and_company_change_rounding_at_most,
        check_absence_is_told_from_zero,
        check_gradients_reach_everything,
    ],
)
def test_the_worked_example_holds_to_the_laws(name: str, check: Callable[[Build], None]) -> None:
    check(FUSIONS[name])


def test_the_worked_example_learns_what_neither_of_two_modalities_tells_alone(name: str) -> None:
    assert min(learn_exclusive_or(FUSIONS[name])) > 0.97


def test_the_worked_example_names_the_tests_that_run_on_every_fusion(name: str) -> None:
    words = shlex.split(blocks()[2])
    assert words[-2:] == ["-k", name]
    for file in words[1:-2]:
        assert "FUSIONS" in (ROOT / file).read_text(encoding="utf-8")
