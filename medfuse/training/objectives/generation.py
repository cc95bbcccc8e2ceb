"""The generation objective: a step in, how far a guessed modality is from the one that is there."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.fused import FusedModel
from medfuse.training.objectives.step import Step
from medfuse.training.settings import GenerationSettings
from medfuse.types import MODALITIES, Modality


class GenerationObjective(nn.Module):
    """Guess each present modality's embedding from the others, and fool a discriminator with it.

    Squared error and the adversarial game of Goodfellow et al. 2014, conditional on what the
    generator sees (Mirza & Osindero 2014), as Cai et al. 2018 complete missing modalities. Both
    sides descend in one pass: the discriminator's gradient is turned around where it enters the
    generator (Ganin et al. 2016). The encoders learn nothing from it, or they would make all
    embeddings alike, which are easiest to guess.
    """

    def __init__(self, settings: GenerationSettings, model: FusedModel) -> None:
        super().__init__()
        self.weight = settings.weight
        self.adversarial = settings.adversarial
        width = model.width
        joint = len(MODALITIES) * (width + 1)
        self.discriminators = nn.ModuleList(
            nn.Sequential(nn.Linear(joint, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
            for _ in MODALITIES
        )

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Average over the modalities that some study has beside another one."""
        generator = step.model.generator
        assert generator is not None
        present = step.present
        pooled = {m: step.encoded[m].pooled.detach() for m in MODALITIES}
        guesses = generator.generate(pooled, present)
        losses = []
        for i, modality in enumerate(MODALITIES):
            others = torch.arange(len(MODALITIES), device=present.device) != i
            known = present[:, i] & (present & others).any(dim=1)
            if bool(known.any()):
                losses.append(self._compare(i, pooled, guesses[modality], present, known))
        return torch.stack(losses).mean() if losses else generator.mark.sum() * 0.0

    def _compare(
        self,
        i: int,
        pooled: Mapping[Modality, Tensor],
        guess: Float[Tensor, "b d"],
        present: Bool[Tensor, "b m"],
        known: Bool[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Compare a guess with the truth, where it is known."""
        truth = pooled[MODALITIES[i]]
        error = ((guess - truth).square().mean(dim=1))[known].mean()
        if not self.adversarial:
            return error
        context = [present.to(truth.dtype)]
        context += [pooled[m] for j, m in enumerate(MODALITIES) if j != i]
        judge = self.discriminators[i]
        real = judge(torch.cat([*context, truth], dim=1))[known]
        made = judge(torch.cat([*context, turn(guess)], dim=1))[known]
        game = functional.binary_cross_entropy_with_logits(
            real, torch.ones_like(real)
        ) + functional.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
        return error + self.adversarial * game


class _Turn(torch.autograd.Function):
    """The identity, whose gradient is turned around (Ganin et al. 2016, section 4.2)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's own signature
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return -gradient


def turn(values: Tensor) -> Tensor:
    """Give the values as they are, and their gradient turned around."""
    turned: Tensor = _Turn.apply(values)  # type: ignore[no-untyped-call]
    return turned
