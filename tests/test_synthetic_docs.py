"""What docs/cohort.md says of the cohort is so."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from medfuse.synthetic.cohort import by_target
from medfuse.synthetic.command import cohort
from medfuse.synthetic.network import cohort_auc
from medfuse.synthetic.options import CohortOptions, Mechanism
from medfuse.synthetic.patient import find_patient
from medfuse.synthetic.report import COLUMNS
from medfuse.synthetic.study import draw_answers
from medfuse.synthetic.world import (
    CAUSES,
    DISCORDANCE,
    LOW_MOOD,
    MISSING_WITH,
    SIGNS,
    TARGETS,
    as_array,
    build_variables,
    build_world,
)
from medfuse.types import SUBSETS, subset_name

PAGE = (Path(__file__).parent.parent / "docs" / "cohort.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def read_section(title: str) -> dict[str, list[float]]:
    """The areas that the page prints below a title, by subset."""
    (text,) = blocks("text")
    lines = text.split(f"\n{title}")[1].split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: [float(value) for value in line.split()[1:]] for line in lines}


def in_columns(areas: np.ndarray) -> list[float | None]:
    named = by_target(areas)
    return [named[column] for column in COLUMNS]


def test_the_table_for_any_studies_is_what_enumeration_gives() -> None:
    areas = build_world(CohortOptions()).clinical_auc()
    for subset, row in zip(SUBSETS, areas, strict=True):
        expected = in_columns(row)
        assert read_section("any studies")[subset_name(subset)] == pytest.approx(expected, abs=6e-4)


def test_the_tables_for_the_studies_drawn_are_what_their_posteriors_give() -> None:
    options = CohortOptions()
    world = build_world(options)
    drawn = [draw_answers(options, index) for index in range(options.studies)]
    test = [find_patient(options, index)[0].split == "test" for index in range(options.studies)]
    labels = np.array([as_array(answers) for answers in drawn])
    for title, rows in (
        ("these 1000", np.full(len(test), True)),
        (f"their test split, {sum(test)}", np.array(test)),
    ):
        for i, subset in enumerate(SUBSETS):
            scores = np.array([world.clinical(i, answers) for answers in drawn])
            expected = in_columns(cohort_auc(scores[rows], labels[rows]))
            assert read_section(title)[subset_name(subset)] == pytest.approx(expected, abs=6e-4)


def test_the_chances_on_the_page_are_those_of_the_network() -> None:
    for cause in (*CAUSES, LOW_MOOD):
        assert f"| `{cause.name}` | {cause.chances[0]:.2f} |" in PAGE
    for signs in SIGNS.values():
        for sign in signs:
            if len(sign.parents) == 1:
                absent, present = sign.chances
                stated = rf"`{sign.name}` {absent:.2f}, {present:.2f}"
                assert re.search(stated.replace("0.88", "0.875") + r"(?!\d)", PAGE), stated
            else:
                first, second = (parent.replace("_", " ") for parent in sign.parents)
                causes = ("neither", second, first, "both")
                pairs = zip(causes, sign.chances, strict=True)
                assert f"({', '.join(f'{who} {chance:.2f}' for who, chance in pairs)})" in PAGE
    assert f"right in {DISCORDANCE.chances[1]:.0%}".replace("%", " %") in PAGE
    decision = Path(__file__).parent.parent / "docs" / "decisions" / "0001-known-truth.md"
    for variables in build_variables(CohortOptions()):
        assert f"{2 ** len(variables):,} states" in decision.read_text(encoding="utf-8")
    findings, _ = build_world(CohortOptions()).networks
    patterns = max(table.mass.size for table in findings.clinical)
    assert f"{patterns:,} patterns" in decision.read_text(encoding="utf-8")


def test_the_shares_of_missing_modalities_on_the_page_are_those_of_the_network() -> None:
    header, _, *lines = PAGE.split("| `--missing-rate` |")[1].split("\n\n")[0].splitlines()
    rates = [float(cell) for cell in header.split("|")[:-1]]
    assert len(rates) == 5
    for line, mechanism in zip(
        lines, (Mechanism.RANDOM, Mechanism.FINDING, Mechanism.SITE), strict=True
    ):
        _, name, *cells, _ = line.split("|")
        assert f"`{mechanism.value}`" in name
        worlds = [build_world(CohortOptions(missing=mechanism, missing_rate=r)) for r in rates]
        found = [world.absence().mean() for world in worlds]
        assert [float(cell) for cell in cells] == pytest.approx(found, abs=6e-4)
    for modality, (finding, absent, present) in MISSING_WITH.items():
        assert f"{modality.value} {present} with `{finding}`, {absent} without" in PAGE


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "cohort.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(subset_name(subset) in printed for subset in SUBSETS)
    assert all(name in printed for name in TARGETS)


@pytest.mark.parametrize(
    "line", [line for block in blocks("") for line in block.splitlines() if line[:8] == "medfuse "]
)
def test_each_command_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(cohort)
    words = shlex.split(line)[2:]
    words[words.index("--studies") + 1] = "2"  # the page's thousand take a minute
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / words[0] / "cohort.csv").is_file()
