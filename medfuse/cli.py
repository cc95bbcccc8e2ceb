"""The command ``medfuse``: its subcommands come from the entry-point group ``medfuse.commands``."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NoReturn

import typer
from rich.console import Console

from medfuse.errors import MedfuseError

GROUP = "medfuse.commands"

EXTRAS = {
    "babel": "serve",
    "captum": "train",
    "fastapi": "serve",
    "fpdf": "serve",
    "gradio": "serve",
    "lightning": "train",
    "matplotlib": "train",
    "monai": "train",
    "onnx": "export",
    "onnxruntime": "serve",
    "onnxscript": "export",
    "safetensors": "train",
    "optuna": "train",
    "pylopdf_fonts_zh_cn": "serve",
    "pypdf": "serve",
    "segno": "serve",
    "sqlalchemy": "serve",
    "torch": "train",
    "transformers": "train",
    "uvicorn": "serve",
}
"""The extra that brings a library which only some commands need."""


def build_app() -> typer.Typer:
    """Gather every installed part's subcommands into one command."""
    app = typer.Typer(
        help="Fuse a patient's images, notes and voice into one prediction with its evidence. "
        "For research and evaluation; not a medical device.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback()
    def _root() -> None:
        """Keep one level of subcommands even when a single part is installed."""

    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        loaded = entry.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=entry.name)
        else:
            app.command(name=entry.name)(loaded)
    return app


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit status 1."""
    try:
        build_app()()
    except MedfuseError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_describe(error, sys.argv[1:]))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _fail(f"this command needs {error.name}, which pip install 'medfuse[{extra}]' brings")


def _describe(error: OSError, arguments: Sequence[str]) -> str:
    """Say what the system refused, and of which file only if the user named it."""
    why = error.strerror or type(error).__name__
    named = {part for argument in arguments for part in (argument, argument.partition("=")[2])}
    path = "" if error.filename is None else os.fsdecode(error.filename)
    return f"{path}: {why}" if path in named - {""} else why


def _fail(message: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(f"medfuse: {message}", markup=False, highlight=False)
    sys.exit(1)
