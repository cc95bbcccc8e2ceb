"""What an epoch tells the search: a Lightning callback that reports it, and may end the trial."""

import math
from collections.abc import Callable

import lightning
import optuna

from medfuse.errors import TrainingError
from medfuse.training.loop import TrainingModule


class EpochReporter(lightning.Callback):
    """Reports each epoch's objective to the pruner.

    Args:
        trial: Told of it.
        measure: Gives the objective of a module that has it not as its validation loss.
    """

    def __init__(
        self, trial: optuna.Trial, measure: Callable[[TrainingModule], float] | None = None
    ) -> None:
        self.trial, self.measure = trial, measure

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report; end a trial whose loss is lost.

        Raises:
            TrainingError: The loss is not a finite number.
        """
        loss = float(trainer.callback_metrics["validation_loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss of epoch {trainer.current_epoch + 1} is {loss}"
            )
        value = loss
        if self.measure is not None:
            assert isinstance(pl_module, TrainingModule)
            value = self.measure(pl_module)
            pl_module.train()  # asking it had set the mode
        self.report(value, trainer.current_epoch)

    def report(self, value: float, epoch: int) -> None:
        """Report an epoch's objective; end a trial that the pruner gives up.

        Raises:
            TrialPruned: By optuna's rule, to whoever runs the trial.
        """
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned
