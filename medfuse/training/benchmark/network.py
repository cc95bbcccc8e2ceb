"""The fused network as a contender: a benchmark's material and folds in, its answers out."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from medfuse.data.cohort import Split as Part
from medfuse.training.benchmark.contest import Said, Split, deal_folds
from medfuse.training.benchmark.material import Material
from medfuse.training.fit import ask_fitted, choose_device, fit_model
from medfuse.trust.answers import AS_GIVEN

VALIDATION_FOLDS = 5
"""One of so many parts of the training patients says when to stop, and calibrates."""


def answer_by_network(
    material: Material,
    repeats: Sequence[Sequence[Split]],
    take_part: int,
    folder: Path,
    seed: int,
    console: Console | None,
) -> Said:
    """Fit the fused network on each fold's training patients, and ask it about the others.

    Args:
        material: Studies with cached features, and the settings to fit by.
        repeats: Of each repeat the folds.
        take_part: In how many of them the network takes part; a fit takes minutes.
        folder: For what a fit leaves behind; removed afterwards.
        seed: Of the first repeat.
        console: Where progress is shown; nowhere without one.
    """
    cohort, labels = material.cohort, material.labels
    shape = (len(repeats), len(labels))
    logits, log_odds = np.full(shape, np.nan), np.zeros(shape)
    device = choose_device(material.settings)
    for r, folds in enumerate(repeats[:take_part]):
        fit = material.settings.fit.model_copy(update={"seed": seed + r})
        settings = material.settings.model_copy(update={"fit": fit})
        for f, fold in enumerate(folds):
            own = [material.patients[i] for i in fold.train]
            first = deal_folds(labels[fold.train], own, VALIDATION_FOLDS, seed + r)[0]
            parts = dict.fromkeys(fold.train.tolist(), Part.TRAIN)
            parts |= dict.fromkeys(fold.train[first.test].tolist(), Part.VALIDATION)
            parts |= dict.fromkeys(fold.test.tolist(), Part.TEST)
            rows = tuple(replace(row, split=parts[i]) for i, row in enumerate(cohort.rows))
            divided = replace(cohort, rows=rows)
            place = folder / f"{r}-{f}"
            fitted = fit_model(settings, divided, material.features, place, device, console)
            answers = ask_fitted(settings, fitted, divided, material.features, Part.TEST)
            logits[r, fold.test] = answers.logits[AS_GIVEN][:, 0]
            shutil.rmtree(place)
    return Said(logits, log_odds)
