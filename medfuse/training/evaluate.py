"""Evaluation: a fitted model and studies in, its answers per modality subset out."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from medfuse.data.cohort import CohortRow
from medfuse.training.dataset import FeatureBatch
from medfuse.training.loop import TrainingModule
from medfuse.training.objectives.step import keep
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.types import MODALITIES, SUBSETS, subset_name


@torch.inference_mode()
def ask(
    module: TrainingModule, rows: Sequence[CohortRow], batches: Iterable[FeatureBatch]
) -> Answers:
    """Ask a model about studies as they are and, with modalities taken away, as every subset."""
    module.eval()
    device = next(module.parameters()).device
    present: list[np.ndarray] = []
    logits: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        there = batch.present.numpy()
        present.append(there)
        encoded = module.encode(batch.to(device))
        for subset in (None, *SUBSETS):
            only = np.array([subset is None or m in subset for m in MODALITIES])
            said = module.model.fuse(keep(encoded, there & only)).logits.double().cpu().numpy()
            if subset is not None:
                said[~there[:, only].all(axis=1)] = np.nan
            name = AS_GIVEN if subset is None else subset_name(subset)
            logits.setdefault(name, []).append(said)
    stacked = {name: np.concatenate(parts) for name, parts in logits.items()}
    return Answers(tuple(rows), np.concatenate(present), stacked)
