"""The supervised objective: a step and its labels in, the loss of the answers out.

Each step answers every study three times from one pass through the encoders: with all it has, with
some modalities left out, and with each modality alone. So the network learns all seven subsets, and
each encoder gets a signal of its own even where another modality answers sooner.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fused import FusedModel
from medfuse.models.tokens import Tokens
from medfuse.training.dropout import drop_modalities, step_rng
from medfuse.training.objectives.step import Step, keep
from medfuse.training.settings import FitSettings, SupervisedSettings
from medfuse.types import MODALITIES, Modality


class SupervisedObjective(nn.Module):
    """The tasks' losses, over what studies have and over less.

    Args:
        settings: The loss's weight and shape.
        fit: How modalities are left out.
        weights: Of each label column's values, for the balance ``weight``; empty for none.
    """

    def __init__(
        self,
        settings: SupervisedSettings,
        fit: FitSettings,
        weights: Sequence[Mapping[float, float]] = (),
    ) -> None:
        super().__init__()
        self.weight = settings.weight
        self.focus = settings.focus
        self.fit = fit
        self.label_weights = weights

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
    ) -> Float[Tensor, ""]:
        """Add up the tasks' losses over the studies with anything present."""
        present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1).any(dim=1)
        labels = torch.where(present[:, None], labels, torch.nan)
        weights = self._weigh(labels) if self.label_weights else None
        losses = model.losses(model.fuse(encoded).logits, labels, weights, self.focus)
        return torch.stack(losses).sum()

    def _weigh(self, labels: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        weights = torch.ones_like(labels)
        for column, values in enumerate(self.label_weights):
            for value, weight in values.items():
                weights[:, column] = torch.where(
                    labels[:, column] == value, weight, weights[:, column]
                )
        return weights
