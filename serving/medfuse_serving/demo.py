"""The command demo: from nothing to the page, each step a command of its own that is done once."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from medfuse.errors import MedfuseError
from medfuse.place import check_folder

STUDIES = 1_300
SEED = 0
WORKLIST = "worklist.sqlite"
LISTED = 100
"""Studies of the worklist, which keeps a copy of each."""

MEDFUSE = (sys.executable, "-m", "medfuse")


class DemoError(MedfuseError):
    """A step of the demo failed, or its folder holds something else."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command that makes one folder.

    Attributes:
        title: What the reader is told.
        output: The folder it makes, whole.
        arguments: Of the command ``medfuse``.
        inputs: Files and folders that its result depends on, code included.
    """

    title: str
    output: Path
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all it makes.")] = Path("demo"),
    no_serve: Annotated[
        bool, typer.Option("--no-serve", help="Stop before the page and say where all is.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the page.", min=0, max=65535)] = 7860,
) -> None:
    """Make a cohort, train on it, export and verify the model, and open the page."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    out = out.resolve()
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    steps = plan_steps(out)
    for number, step in enumerate(steps, start=1):
        run_step(step, f"{number}/{len(steps) + 1} {step.title}", out / "stamps", console)
    console.rule(f"{len(steps) + 1}/{len(steps) + 1} Verify the bundle without torch", align="left")
    run_medfuse(("verify", str(out / "bundle")))
    # Not a step: its file changes as studies are read, and what was read is kept.
    place, cohort = str(out / WORKLIST), str(out / "cohort")
    run_medfuse(("worklist", "add", place, cohort, "--first", str(LISTED)))
    print_places(out, console)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    if not no_serve:
        console.rule("The page", align="left")
        cohort = str(out / "cohort")
        studies = ("--examples", cohort, "--background", cohort, "--worklist", str(out / WORKLIST))
        arguments = ("serve", str(out / "bundle"), "--port", str(port), *studies)
        sys.stdout.flush()
        # Become the server, so that Ctrl-C reaches it alone and it can clean up.
        os.execv(sys.executable, [*MEDFUSE, *arguments])


def plan_steps(out: Path) -> tuple[Step, ...]:
    """Lay out the steps; each takes the folder before it as an input."""
    code = Path(str(files("medfuse")))
    export_code = Path(str(files("medfuse_export")))
    config = write_config(out)
    cohort, run, bundle = out / "cohort", out / "run", out / "bundle"
    number = ("--studies", str(STUDIES), "--seed", str(SEED))
    return (
        Step(
            f"Make a cohort of {STUDIES} studies whose truth is known",
            cohort,
            ("cohort", str(cohort), *number),
            (code / "synthetic", code / "config.py", code / "presence.py", code / "types.py"),
        ),
        Step(
            "Train a model on it",
            run,
            ("train", str(config), "--out", str(run)),
            (config, cohort, code),
        ),
        Step(
            "Export it as a bundle",
            bundle,
            ("export", str(run / "checkpoint"), str(bundle)),
            (run / "checkpoint", code, export_code),
        ),
    )


def write_config(out: Path) -> Path:
    """Copy the packaged demo's training settings, pointed at the demo's cohort."""
    text = files("medfuse").joinpath("training/demo.toml").read_text(encoding="utf-8")
    table = json.dumps(str(out / "cohort" / "cohort.csv"))  # a JSON string is a TOML string
    text, found = re.subn(r"^table\s*=.*$", lambda _: f"table = {table}", text, flags=re.MULTILINE)
    if found != 1:
        raise DemoError("the packaged demo.toml names no one table; install medfuse again")
    config = out / "demo.toml"
    config.write_text(text, encoding="utf-8")
    return config


def run_step(step: Step, title: str, stamps: Path, console: Console) -> None:
    """Run a step unless its folder is as an earlier run with the same inputs left it.

    Raises:
        DemoError: The command failed, or the folder was not made by the demo.
    """
    stamp = stamps / f"{step.output.name}.json"
    inputs = digest_inputs(step)
    known = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}
    console.rule(title, align="left")
    if known == {"inputs": inputs, "output": list_digest(step.output)}:
        console.print(f"already done: {step.output}")
        return
    if step.output.exists():
        if not stamp.is_file():
            raise DemoError(
                f"{step.output}: not made by the demo, and it is left alone; choose another --out"
            )
        shutil.rmtree(step.output)
    stamps.mkdir(exist_ok=True)
    stamp.write_text("{}", encoding="utf-8")  # from here on the folder is ours
    started = time.monotonic()
    run_medfuse(step.arguments)
    content = {"inputs": inputs, "output": list_digest(step.output)}
    stamp.write_text(json.dumps(content), encoding="utf-8")
    console.print(f"took {time.monotonic() - started:.0f} s: {step.output}")


def run_medfuse(arguments: Sequence[str]) -> None:
    """Run one command as the reader would, its progress and messages theirs.

    Raises:
        DemoError: It failed; it has said why.
    """
    done = subprocess.run([*MEDFUSE, *arguments], check=False)
    if done.returncode:
        raise DemoError(f"'medfuse {arguments[0]}' failed with status {done.returncode}")


def digest_inputs(step: Step) -> str:
    """Digest a step's command and its inputs: code by content, data by names and sizes."""
    digest = hashlib.sha256("\0".join(step.arguments).encode())
    for path in step.inputs:
        for file in _files(path):
            digest.update(file.name.encode())
            if file.suffix in {".py", ".toml", ".json"}:
                digest.update(file.read_bytes())
            else:
                digest.update(str(file.stat().st_size).encode())
    return digest.hexdigest()


def list_digest(folder: Path) -> str:
    """Digest the names and sizes of all files in a folder; cheap even for thousands."""
    digest = hashlib.sha256()
    for file in _files(folder):
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
    return digest.hexdigest()


def print_places(out: Path, console: Console) -> None:
    """Say where everything is and how to go on."""
    console.rule("What there is now", align="left")
    cohort, bundle = _short(out / "cohort"), _short(out / "bundle")
    places = {
        "cohort": cohort / "cohort.csv",
        "metrics": _short(out / "run" / "metrics.md"),
        "plots": _short(out / "run" / "plots"),
        "checkpoint": _short(out / "run" / "checkpoint"),
        "bundle": bundle,
        "worklist": _short(out / WORKLIST),
    }
    for name, place in places.items():
        console.print(f"{name:<12}{place}")
    study = min((cohort / "studies").iterdir())
    parts = (("--dicom", "image_*.dcm"), ("--note", "note.txt"), ("--voice", "voice.wav"))
    found = ((option, sorted(study.glob(pattern))) for option, pattern in parts)
    given = " ".join(f"{option} {' '.join(map(str, paths))}" for option, paths in found if paths)
    console.print(f"\nmedfuse predict {bundle} {given}")
    console.print(f"medfuse serve {bundle} --examples {cohort} --worklist {places['worklist']}")


def _short(path: Path) -> Path:
    """Name a path from the working directory where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
