"""One kept fit of a leaderboard: answers and costs to a safetensors file and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medfuse.config import Settings
from medfuse.errors import TrainingError


class Cost(Settings):
    """What one fit took.

    Attributes:
        seconds: To fit and calibrate, on the machine as it was then.
        epochs: Until it stopped.
        parameters: Numbers that were trained.
        fusion_parameters: Those of the fusion alone.
    """

    seconds: float
    epochs: int
    parameters: int
    fusion_parameters: int


@dataclass(frozen=True, slots=True)
class Kept:
    """One model's calibrated answers to the studies of its test fold.

    Attributes:
        studies: Their places in the cohort.
        train: How many studies it was fitted to.
        present: Which modalities each test study has.
        logits: By subset's name, and as given.
        cost: What the fit took.
    """

    studies: Int64[np.ndarray, " n"]
    train: int
    present: Bool[np.ndarray, "n 3"]
    logits: Mapping[str, Float[np.ndarray, "n k"]]
    cost: Cost


def save_kept(path: Path, kept: Kept) -> None:
    """Write a fit; a file by that name is always a whole one."""
    arrays = {"studies": kept.studies, "present": kept.present}
    arrays |= {f"logits/{name}": np.ascontiguousarray(own) for name, own in kept.logits.items()}
    said = {"cost": kept.cost.model_dump_json(), "train": json.dumps(kept.train)}
    part = path.with_suffix(".part")
    save_file(arrays, part, said)
    part.replace(path)


def load_kept(path: Path) -> Kept:
    """Read a fit.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = file.metadata()
    except SafetensorError as error:
        raise TrainingError(f"{path}: damaged; remove it, and it is fitted again") from error
    return Kept(
        studies=arrays.pop("studies"),
        train=json.loads(said["train"]),
        present=arrays.pop("present"),
        logits={name.removeprefix("logits/"): own for name, own in arrays.items()},
        cost=Cost.model_validate_json(said["cost"]),
    )
