"""The rules of the house: what may import what, and how little an import does."""

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from medfuse.types import Modality

ROOT = Path(__file__).parent.parent
TORCH_FREE = sorted(
    path
    for path in ROOT.glob("medfuse/**/*.py")
    if path.relative_to(ROOT).parts[1] not in {"models", "training", "explain"}
) + sorted(ROOT.glob("serving/**/*.py"))
PACKAGE = "medfuse_serving.page"
PAGE = (
    "practice",
    "desk",
    "session",
    "desk_view",
    "parts",
    "room",
    "giving",
    "removing",
    "answering",
    "explaining",
    "reporting",
    "turning",
    "owning",
    "mount",
)
"""The rooms of the page; each imports those before it alone."""
HEAVY = {"torch", "monai", "lightning", "transformers", "captum", "gradio", "fastapi", "matplotlib"}


def imported(path: Path) -> set[str]:
    """The modules a file names in any import, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_nothing_in_medfuse_imports_export_or_serving() -> None:
    for path in ROOT.glob("medfuse/**/*.py"):
        assert not packages(path) & {"medfuse_export", "medfuse_serving"}, path


def test_export_and_serving_do_not_import_each_other() -> None:
    for path in ROOT.glob("serving/**/*.py"):
        assert "medfuse_export" not in packages(path), path
    for path in ROOT.glob("export/**/*.py"):
        assert "medfuse_serving" not in packages(path), path


@pytest.mark.parametrize("path", TORCH_FREE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_torch_free_part_names_no_torch_room(path: Path) -> None:
    rooms = {"medfuse.models.", "medfuse.training.", "medfuse.explain."}
    light = {"medfuse.models.settings", "medfuse.training.settings"}  # settings alone, no torch
    for name in imported(path):
        assert name in light or not any(name.startswith(room) for room in rooms), name


def test_the_page_s_rooms_are_imported_in_one_direction() -> None:
    folder = ROOT / "serving/medfuse_serving/page"
    for name in PAGE:
        path = folder / f"{name}.py"
        rooms = {m.removeprefix(f"{PACKAGE}.") for m in imported(path) if m.startswith(PACKAGE)}
        assert rooms <= set(PAGE[: PAGE.index(name)]), name
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", *PAGE}
    for path in ROOT.glob("serving/**/*.py"):
        if path.parent != folder and path.name != "server.py":
            assert not any(name.startswith(PACKAGE) for name in imported(path)), path


def test_every_modality_has_its_data_and_its_model_file() -> None:
    for modality in Modality:
        assert (ROOT / f"medfuse/data/{modality}.py").is_file()
        assert (ROOT / f"medfuse/models/{modality}/__init__.py").is_file()


def test_gathering_the_commands_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from medfuse.cli import build_app\n"
        "build_app()\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_are_those_of_the_readme() -> None:
    names = {entry.name for entry in entry_points(group="medfuse.commands")}
    assert names == {
        "cohort",
        "import",
        "deidentify",
        "check-cohort",
        "train",
        "leaderboard",
        "benchmark",
        "search",
        "export",
        "verify",
        "predict",
        "report",
        "verify-report",
        "predict-cohort",
        "recalibrate",
        "evaluate",
        "dictate",
        "retrieve",
        "findings-text",
        "explain",
        "explain-eval",
        "bench",
        "serve",
        "accounts",
        "bench-serve",
        "worklist",
        "demo",
    }
