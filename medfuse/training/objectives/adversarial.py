"""The adversarial objective: a step in, the loss with features moved against the answer out."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.fused import FusedModel
from medfuse.training.objectives.step import Step, settled
from medfuse.training.objectives.supervised import SupervisedObjective
from medfuse.training.settings import AdversarialSettings
from medfuse.types import MODALITIES, Modality


class AdversarialObjective(nn.Module):
    """Adversarial training with the fast gradient sign method (Goodfellow et al. 2015).

    Features are what the trained part of the network reads: where an encoder is frozen that is what
    it makes of the input, as Miyato et al. 2017 move embeddings instead of words.
    """

    def __init__(self, settings: AdversarialSettings, supervised: SupervisedObjective) -> None:
        super().__init__()
        self.weight = settings.weight
        self.epsilon = settings.epsilon
        # Held without registering it: its parameters are another objective's.
        self._losses = [supervised]

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Give the loss on moved features."""
        (supervised,) = self._losses
        labels = step.batch.labels
        with settled(step.model):
            moved = attack(step.model, supervised, step.features, step.masks, labels, self.epsilon)
            encoded = step.model.encode(moved, step.masks)
        return supervised.of_answers(step.model, encoded, labels)


def attack(
    model: FusedModel,
    supervised: SupervisedObjective,
    features: Mapping[Modality, Tensor],
    masks: Mapping[Modality, Tensor],
    labels: Float[Tensor, "b c"],
    epsilon: float,
) -> dict[Modality, Tensor]:
    """Move every real feature by ``epsilon`` standard deviations of its channel against the answer.

    Args:
        model: The one attacked.
        supervised: Its loss.
        features: What `FusedModel.extract` gave.
        masks: Of the features.
        labels: Of the studies.
        epsilon: In standard deviations, over the batch's real tokens.
    """
    with torch.enable_grad():
        held = {m: features[m].detach().float().requires_grad_() for m in MODALITIES}
        loss = supervised.of_answers(model, model.encode(held, masks), labels)
        gradients = torch.autograd.grad(loss, list(held.values()), allow_unused=True)
    moved = {}
    for (modality, values), gradient in zip(held.items(), gradients, strict=True):
        plain = values.detach()
        if gradient is None:
            moved[modality] = plain
            continue
        step = epsilon * _spread(plain, masks[modality]) * gradient.sign()
        moved[modality] = plain + step
    return moved


def _spread(values: Float[Tensor, "b n *c"], mask: Bool[Tensor, "b n"]) -> Tensor:
    """Measure each channel's standard deviation over the real tokens."""
    real = values[mask].flatten(0, -2) if values.ndim > 3 else values[mask]
    if len(real) < 2:
        return torch.zeros(values.shape[-1], device=values.device)
    return real.std(dim=0, correction=0)
