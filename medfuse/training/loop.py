"""What Lightning does with each batch: features and labels in, the loss and its descent out.

Each step answers every study three times from one pass through the encoders: with all it has, with
some modalities left out, and with each modality alone. So the network learns all seven subsets, and
each encoder gets a signal of its own even where another modality answers sooner.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from medfuse.models.fused import FusedModel
from medfuse.models.tokens import Tokens
from medfuse.training.dataset import FeatureBatch
from medfuse.training.dropout import drop_modalities, step_rng
from medfuse.training.settings import FitSettings
from medfuse.types import MODALITIES, Modality

FROZEN_PREFIXES = {Modality.IMAGE: "model.image.backbone.", Modality.NOTE: "model.note.bert."}


class TrainingModule(lightning.LightningModule):
    """What is done with a batch; every draw in it comes from (seed, epoch, step).

    Args:
        model: Trained in place.
        settings: How.
        steps: Optimiser steps of the whole run, over which the learning rate falls.
        weights: Of each label column's values, for the balance ``weight``; empty for none.
    """

    def __init__(
        self,
        model: FusedModel,
        settings: FitSettings,
        steps: int,
        weights: Sequence[Mapping[float, float]] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.fit_settings = settings
        self.steps = steps
        self.label_weights = weights
        self.strict_loading = False  # a frozen encoder's weights are not in Lightning's checkpoint

    def encode(self, batch: FeatureBatch) -> dict[Modality, Tokens]:
        """Run what of the encoders was not run before."""
        features = {
            m: values if m in self.model.frozen else self.model.extract(m, values, batch.masks[m])
            for m, values in batch.values.items()
        }
        return self.model.encode(features, batch.masks)

    def training_step(self, batch: FeatureBatch, step: int) -> Float[Tensor, ""]:
        """Give the loss of one batch."""
        settings = self.fit_settings
        rng = step_rng(settings.seed, self.current_epoch, step)
        torch.manual_seed(int(rng.integers(2**62)))  # for the dropout inside the network
        encoded = self.encode(batch)
        loss = self._loss(encoded, batch)
        present = batch.present.cpu().numpy()
        if settings.modality_dropout and settings.dropped_weight:
            kept = drop_modalities(present, settings.modality_dropout, rng)
            loss = loss + settings.dropped_weight * self._loss(keep(encoded, kept), batch)
        if settings.single_weight:
            singles = [
                self._loss(keep(encoded, present & only), batch)
                for only in np.eye(len(MODALITIES), dtype=bool)
                if (present & only).any()
            ]
            loss = loss + settings.single_weight * torch.stack(singles).mean()
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(present))
        return loss

    def validation_step(self, batch: FeatureBatch, step: int) -> None:
        """Log the loss on studies as they are."""
        loss = self._loss(self.encode(batch), batch)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch.labels))

    def _loss(self, encoded: dict[Modality, Tokens], batch: FeatureBatch) -> Float[Tensor, ""]:
        """Add up the tasks' losses over the studies with anything present."""
        present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1).any(dim=1)
        labels = torch.where(present[:, None], batch.labels, torch.nan)
        weights = self._weigh(labels) if self.label_weights else None
        losses = self.model.losses(self.model.fuse(encoded).logits, labels, weights)
        return torch.stack(losses).sum()

    def _weigh(self, labels: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        weights = torch.ones_like(labels)
        for column, values in enumerate(self.label_weights):
            for value, weight in values.items():
                weights[:, column] = torch.where(
                    labels[:, column] == value, weight, weights[:, column]
                )
        return weights

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, its rate warmed up linearly, then lowered to zero along half a cosine."""
        settings = self.fit_settings
        optimizer = AdamW(parameter_groups(self.model, settings))
        warmup = max(1, round(self.steps * settings.warmup))

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = (step - warmup) / max(1, self.steps - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the frozen encoders, which the next process builds again as they came."""
        prefixes = tuple(FROZEN_PREFIXES[m] for m in self.model.frozen)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith(prefixes)}


def keep(
    encoded: Mapping[Modality, Tokens], kept: Bool[np.ndarray, "b m"]
) -> dict[Modality, Tokens]:
    """Take modalities away from studies, exactly as if they had never had them."""
    thinned = {}
    for m, column in zip(MODALITIES, kept.T, strict=True):
        tokens, mask, pooled = encoded[m]
        there = torch.from_numpy(np.ascontiguousarray(column)).to(mask.device)[:, None]
        thinned[m] = Tokens(
            torch.where(there[..., None], tokens, 0.0),
            mask & there,
            torch.where(there, pooled, 0.0),
        )
    return thinned


def parameter_groups(model: FusedModel, settings: FitSettings) -> list[dict[str, Any]]:
    """Group what is trained: pretrained encoders slower, norms and biases without decay."""
    pretrained = {
        id(p) for part in (model.image.backbone, model.note.bert) for p in part.parameters()
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in pretrained, parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.backbone_learning_rate if old else settings.learning_rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (old, decays), parameters in groups.items()
    ]
