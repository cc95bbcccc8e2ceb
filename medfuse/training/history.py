"""What a fit remembers of its epochs, through a resume too: their losses, and that it is over."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping


class History(lightning.Callback):
    """Keeps each epoch's losses in Lightning's checkpoint, so that a resumed run has them all.

    Attributes:
        train: Mean training loss of each epoch.
        validation: Validation loss after each epoch.
    """

    def __init__(self) -> None:
        self.train: list[float] = []
        self.validation: list[float] = []

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note the epoch that ended."""
        metrics = trainer.callback_metrics
        self.train.append(float(metrics["train_loss"]))
        self.validation.append(float(metrics["validation_loss"]))

    def state_dict(self) -> dict[str, Any]:
        """What to keep."""
        return {"train": self.train, "validation": self.validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was kept."""
        self.train, self.validation = list(state_dict["train"]), list(state_dict["validation"])


class Patience(EarlyStopping):
    """Early stopping that stays stopped when a run is resumed after it."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop at once if the run had stopped already."""
        if self.stopped_epoch:
            trainer.should_stop = True
