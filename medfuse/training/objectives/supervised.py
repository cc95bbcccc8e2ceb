"""The supervised objective: a step and its labels in, the loss of the answers out.

Each step answers every study three times from one pass through the encoders: with all it has, with
some modalities left out, and with each modality alone. So the network learns all seven subsets, and
each encoder gets a signal of its own even where another modality answers sooner.

Several tasks count by their weights. Losses of different kinds are of different sizes, and the
largest would be learnt first; so each can be divided by a variance that is learnt with the network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.config import Task, TaskKind
from medfuse.models.fused import FusedModel
from medfuse.models.processes import sum_across
from medfuse.models.tokens import Tokens
from medfuse.training.dropout import drop_modalities, step_rng
from medfuse.training.objectives.step import Step, keep
from medfuse.training.settings import FitSettings, SupervisedSettings
from medfuse.trust.calibration import label_slices
from medfuse.types import MODALITIES, Modality


class SupervisedObjective(nn.Module):
    """The tasks' losses, over what studies have and over less.

    Args:
        settings: The loss's weight and shape.
        fit: How modalities are left out.
        weights: Of each label column's values, for the balance ``weight``; empty for none.
        tasks: How many there are, for a balance that learns something of each.
    """

    def __init__(
        self,
        settings: SupervisedSettings,
        fit: FitSettings,
        weights: Sequence[Mapping[float, float]] = (),
        tasks: int = 0,
    ) -> None:
        super().__init__()
        self.weight = settings.weight
        self.focus = settings.focus
        self.fit = fit
        self.label_weights = weights
        self.log_variances = (
            nn.Parameter(torch.zeros(tasks)) if settings.task_balance == "uncertainty" else None
        )

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Give the loss of one batch."""
        fit = self.fit
        rng = step_rng(*step.seed)
        loss = self.of_answers(step.model, step.encoded, step.batch.labels)
        present = step.present.cpu().numpy()
        if fit.modality_dropout and fit.dropped_weight:
            kept = drop_modalities(present, fit.modality_dropout, rng, step.share)
            thinned = keep(step.encoded, kept)
            less = self.of_answers(step.model, thinned, step.batch.labels)
            loss = loss + fit.dropped_weight * less
        if fit.single_weight:
            singles = [
                self.of_answers(step.model, keep(step.encoded, present & only), step.batch.labels)
                for only, anywhere in zip(
                    np.eye(len(MODALITIES), dtype=bool), step.anywhere, strict=True
                )
                if anywhere
            ]
            loss = loss + fit.single_weight * torch.stack(singles).mean()
        return loss

    def of_answers(
        self,
        model: FusedModel,
        encoded: Mapping[Modality, Tokens],
        labels: Float[Tensor, "b c"],
        *,
        learnt: bool = True,
    ) -> Float[Tensor, ""]:
        """Add up the tasks' losses over the studies with anything present.

        Args:
            model: Answers.
            encoded: What it has of the studies.
            labels: Of the studies.
            learnt: Whether learnt variances balance the tasks beside their weights. They follow the
                training studies, so other studies are measured without them.
        """
        present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1).any(dim=1)
        labels = torch.where(present[:, None], labels, torch.nan)
        weights = self._weigh(labels) if self.label_weights else None
        logits = model.fuse(encoded).logits
        losses = torch.stack(model.losses(logits, labels, weights, self.focus))
        if learnt and self.log_variances is not None:
            losses = discount(losses, self.log_variances, find_known(model.tasks, labels))
        return (losses.new_tensor([task.weight for task in model.tasks]) * losses).sum()

    def _weigh(self, labels: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        weights = torch.ones_like(labels)
        for column, values in enumerate(self.label_weights):
            for value, weight in values.items():
                weights[:, column] = torch.where(
                    labels[:, column] == value, weight, weights[:, column]
                )
        return weights


def discount(
    losses: Float[Tensor, " t"], log_variances: Float[Tensor, " t"], known: Bool[Tensor, " t"]
) -> Float[Tensor, " t"]:
    """Weigh losses by the noise of their tasks (Kendall, Gal and Cipolla 2018).

    With s the logarithm of a task's variance, its loss L becomes exp(-s) L + s / 2: the negative
    log-likelihood of a quantity with that noise, and near that of classes whose logits are divided
    by it. The gradient of s is 1 / 2 - exp(-s) L, so it settles where the variance is 2 L.

    Args:
        losses: Of each task.
        log_variances: Likewise.
        known: Which tasks have a label; of the others a variance would learn from nothing.
    """
    weighed = torch.exp(-log_variances) * losses + log_variances / 2
    return torch.where(known, weighed, 0.0)


def find_known(tasks: Sequence[Task], labels: Float[Tensor, "b c"]) -> Bool[Tensor, " t"]:
    """Say which tasks any study of the whole batch has a label of."""
    known = [
        (~labels[:, c].isnan() if task.kind is TaskKind.REGRESSION else labels[:, c] >= 0).any()
        for task, c in label_slices(tasks)
    ]
    return sum_across(torch.stack(known).to(labels.dtype)) > 0
