"""What Lightning does with each batch: features and labels in, the objectives' descent out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from medfuse.models.fused import FusedModel
from medfuse.models.processes import sum_across
from medfuse.models.tokens import Tokens
from medfuse.training.augment import augment
from medfuse.training.dataset import FeatureBatch
from medfuse.training.dropout import step_rng
from medfuse.training.objectives import build_objectives
from medfuse.training.objectives.step import Step
from medfuse.training.objectives.supervised import SupervisedObjective
from medfuse.training.processes import WHOLE, Share
from medfuse.training.settings import AugmentSettings, FitSettings, ObjectiveSettings
from medfuse.types import Modality

AUGMENTING = 1
"""Makes augmentation's draws others than modality dropout's in the same step."""


class TrainingModule(lightning.LightningModule):
    """What is done with a batch; every draw in it comes from (seed, epoch, step).

    Args:
        model: Trained in place.
        settings: How.
        steps: Optimiser steps of the whole run, over which the learning rate falls.
        weights: Of each label column's values, for the balance ``weight``; empty for none.
        objectives: What it is trained for.
        augmentation: How its training studies are varied.
        share: Which part of each batch this process has.
    """

    def __init__(
        self,
        model: FusedModel,
        settings: FitSettings,
        steps: int,
        weights: Sequence[Mapping[float, float]] = (),
        objectives: ObjectiveSettings | None = None,
        augmentation: AugmentSettings | None = None,
        share: Share = WHOLE,
    ) -> None:
        super().__init__()
        self.model = model
        self.fit_settings = settings
        self.steps = steps
        self.augmentation = augmentation or AugmentSettings()
        parts = build_objectives(model, objectives or ObjectiveSettings(), settings, weights)
        self.objectives = nn.ModuleDict(parts)
        self.weights = {name: part.weight for name, part in parts.items()}
        found = [part for part in parts.values() if isinstance(part, SupervisedObjective)]
        self.supervised = found[0] if found else None
        self.share = share
        self.strict_loading = False  # a frozen encoder's weights are not in Lightning's checkpoint

    def extract(self, batch: FeatureBatch) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
        """Run what of the backbones was not run before; give features and their masks."""
        features = {
            m: values if m in self.model.frozen else self.model.extract(m, values, batch.masks[m])
            for m, values in batch.values.items()
        }
        covered = self.model.cover(batch.masks)
        masks = {
            m: mask if m in self.model.frozen else covered[m] for m, mask in batch.masks.items()
        }
        return features, masks

    def encode(self, batch: FeatureBatch) -> dict[Modality, Tokens]:
        """Run the encoders, but for what was run before."""
        return self.model.encode(*self.extract(batch))

    def training_step(self, batch: FeatureBatch, step: int) -> Float[Tensor, ""]:
        """Give the loss of one batch."""
        seed = (self.fit_settings.seed, self.current_epoch, step)
        part = self.share.index
        # For the dropout inside the network, whose draws must not repeat in the next share.
        torch.manual_seed(int(step_rng(*seed).integers(2**62)) + part)
        batch = augment(batch, self.augmentation, np.random.default_rng([*seed, AUGMENTING, part]))
        losses = self._losses(batch, seed)
        loss = self._add(losses)
        for name, value in {"loss": loss, **losses}.items():
            self._note(f"train_{name}", value.detach(), batch)
        return loss

    def validation_step(self, batch: FeatureBatch, step: int) -> None:
        """Log the loss on studies as they are; without a supervised one, that of the others.

        What is said of findings counts beside it, or the epoch would be chosen without it.
        """
        if self.supervised is not None:
            seen = self._see(batch, (self.fit_settings.seed, 0, step))
            labels, encoded = batch.labels, seen.encoded
            loss = self.supervised.of_answers(self.model, encoded, labels, learnt=False)
            if "findings_text" in self.objectives:
                said = self.objectives["findings_text"](seen)
                loss = loss + self.weights["findings_text"] * said
        else:
            loss = self._add(self._losses(batch, (self.fit_settings.seed, 0, step)))
        self._note("validation_loss", loss, batch)

    def _note(self, name: str, value: Tensor, batch: FeatureBatch) -> None:
        """Log the mean over an epoch's studies."""
        several = self.share.of > 1
        studies = count_studies(batch) if several else len(batch)
        shown = name == "validation_loss"
        self.log(
            name,
            value,
            prog_bar=shown,
            on_step=False,
            on_epoch=True,
            batch_size=studies,
            sync_dist=several,
        )

    def _losses(self, batch: FeatureBatch, seed: tuple[int, int, int]) -> dict[str, Tensor]:
        step = self._see(batch, seed)
        return {name: objective(step) for name, objective in self.objectives.items()}

    def _see(self, batch: FeatureBatch, seed: tuple[int, int, int]) -> Step:
        features, masks = self.extract(batch)
        encoded = self.model.encode(features, masks)
        return Step(self.model, batch, features, masks, encoded, seed, self.share)

    def _add(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, its rate warmed up linearly, then lowered to zero along half a cosine."""
        settings = self.fit_settings
        optimizer = AdamW(parameter_groups(self, settings))
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
        prefixes = tuple(f"model.{m}.backbone." for m in self.model.frozen)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith(prefixes)}


def count_studies(batch: FeatureBatch) -> int:
    """Count the studies of the whole batch; one without a label only fills an empty share."""
    return int(sum_across((~batch.labels.isnan()).any(dim=1).sum()))


def parameter_groups(module: TrainingModule, settings: FitSettings) -> list[dict[str, Any]]:
    """Group what is trained: pretrained encoders slower, norms and biases without decay."""
    pretrained = {id(p) for p in module.model.pretrained_parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
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
