"""A checkpoint to begin from: its encoders in, the same encoders in a new model out."""

from pathlib import Path

from medfuse.errors import TrainingError
from medfuse.models.fused import FusedModel
from medfuse.models.settings import ModelSettings
from medfuse.training.checkpoint import load_checkpoint

ENCODERS = ("image", "note", "voice", "width")
"""What must be named alike for the encoders to fit."""


def begin_from(model: FusedModel, settings: ModelSettings, folder: Path) -> None:
    """Give a model the encoders of a checkpoint; fusion and heads stay as they are.

    Args:
        model: Changed in place.
        settings: Its settings.
        folder: The checkpoint's.

    Raises:
        TrainingError: It is not a checkpoint, or its encoders are others.
    """
    earlier = load_checkpoint(folder)
    for name in ENCODERS:
        wanted, found = getattr(settings, name), getattr(earlier.model_settings, name)
        if wanted != found:
            raise TrainingError(
                f"fit.start = {folder}: its model.{name} is {found!r}, not {wanted!r}; begin from "
                "a checkpoint with the same encoders"
            )
    parts = ("image.", "note.", "voice.")
    state = earlier.model.state_dict()
    encoders = {key: value for key, value in state.items() if key.startswith(parts)}
    try:
        model.load_state_dict(encoders, strict=False)
    except RuntimeError as error:
        raise TrainingError(
            f"fit.start = {folder}: its encoders were built for other prepare settings"
        ) from error
