"""What every fit of a run shares: its settings in, the cohort and its features out."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from medfuse.data.cohort import Cohort, Split, read_cohort
from medfuse.data.missing import Removal, keep_modalities, thin_row
from medfuse.training.features import Features, build_features
from medfuse.training.fit import build_seeded
from medfuse.training.progress import study_progress
from medfuse.training.settings import TrainSettings

MODEL_ASIDE = {
    *("fusion", "width", "dropout"),
    *("shared_space", "generate_missing", "findings_text"),
}
"""Settings of the model that change no feature."""

HELD_BACK = "test study of the table's own split, held back"


def gather(
    settings: TrainSettings,
    out: Path,
    device: torch.device,
    console: Console | None,
    *,
    hold_back_test: bool = False,
) -> tuple[Cohort, Features]:
    """Read the cohort and prepare its studies, or find them prepared.

    Args:
        settings: The whole run.
        out: The run's folder; the cache is ``features`` beside it where settings name none.
        device: Of the frozen encoders.
        console: Where progress is shown; nowhere without one.
        hold_back_test: Leave out the test studies of a split that the table gives.

    Returns:
        The cohort's rows that can be used, and their features in the same order.

    Raises:
        CohortError: The table cannot be used.
        SettingsError: The model's weights are missing.
        TrainingError: A study cannot be used, and settings do not say to leave it out.
    """
    cohort = read_cohort(settings.cohort, settings.tasks)
    if hold_back_test and (held_back := len(cohort.part(Split.TEST))):
        kept = tuple(row for row in cohort.rows if row.split is not Split.TEST)
        cohort = replace(cohort, rows=kept, excluded={**cohort.excluded, HELD_BACK: held_back})
    model = build_seeded(settings).to(device)
    with study_progress(console) as progress:
        features = build_features(
            cohort.rows,
            settings.prepare,
            model,
            settings.model,
            settings.features,
            settings.features.cache or out.parent / "features",
            progress,
        )
    return replace(cohort, rows=features.rows), features


def describe_features(settings: TrainSettings) -> str:
    """Write down the settings that `gather` goes by: alike, they give the same."""
    parts = {
        "run": settings.model_dump(mode="json", include={"cohort", "tasks", "prepare", "features"}),
        "model": settings.model.model_dump(mode="json", exclude=MODEL_ASIDE),
        "start": None if settings.fit.start is None else str(settings.fit.start),
    }
    return json.dumps(parts, sort_keys=True)


def thin(settings: TrainSettings, cohort: Cohort, features: Features) -> tuple[Cohort, Features]:
    """Take from a cohort whose studies are split what the settings let go missing."""
    if settings.missing.mechanism is Removal.NONE:
        return cohort, features
    kept = keep_modalities(settings.missing, settings.tasks, cohort.rows, features.present)
    rows = tuple(thin_row(row, own) for row, own in zip(cohort.rows, kept, strict=True))
    return replace(cohort, rows=rows), features.thinned(kept)
