"""One process of a training run in double precision, where rounding can hide no difference.

Run as ``python process_of_several.py CONFIG OUT``; it starts the others that CONFIG asks for.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from medfuse.config import read_settings
from medfuse.models.fused import FusedModel
from medfuse.training import run
from medfuse.training.dataset import Collator, Example, FeatureBatch
from medfuse.training.settings import TrainSettings
from medfuse.types import Modality


def train_widened(
    config: Path, out: Path, patch: Callable[[object, str, object], None] = setattr
) -> None:
    """Train in double precision and draw no plots."""
    extract, collate = FusedModel.extract, Collator.__call__

    def extract_wide(model: FusedModel, m: Modality, values: Tensor, mask: Tensor) -> Tensor:
        return extract(model, m, widen(values), mask)

    def collate_wide(collator: Collator, examples: Sequence[Example]) -> FeatureBatch:
        batch = collate(collator, examples)
        values = {m: widen(v) for m, v in batch.values.items()}
        return replace(batch, values=values, labels=widen(batch.labels))

    patch(FusedModel, "extract", extract_wide)
    patch(Collator, "__call__", collate_wide)
    for plot in ("plot_losses", "plot_roc", "plot_reliability"):
        patch(run, plot, lambda *arguments: None)
    torch.set_default_dtype(torch.float64)
    try:
        run.train_model(read_settings(config, TrainSettings), out)
    finally:
        torch.set_default_dtype(torch.float32)


def widen(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


if __name__ == "__main__":
    train_widened(Path(sys.argv[1]), Path(sys.argv[2]))
