"""The contrastive objective: a step in, how badly its studies' modalities find each other out."""

from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.tokens import hide
from medfuse.training.objectives.step import Step
from medfuse.training.settings import ContrastiveSettings
from medfuse.types import MODALITIES

MOST_SCALE = 100.0
"""CLIP's bound on how sharp the comparison may become (Radford et al. 2021, section 2.5)."""


class ContrastiveObjective(nn.Module):
    """InfoNCE in both directions between every two modalities (van den Oord et al. 2018).

    As CLIP (Radford et al. 2021), for three modalities pair by pair as AudioCLIP (Guzhov et al.
    2022). A study that lacks one of a pair takes no part in it, neither as a question nor as an
    answer.
    """

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__()
        self.weight = settings.weight

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Average over the pairs of modalities that at least two of the studies have."""
        alignment = step.model.alignment
        assert alignment is not None
        vectors = alignment(step.encoded)
        scale = alignment.log_scale.exp().clamp(max=MOST_SCALE)
        present = dict(zip(MODALITIES, step.present.unbind(dim=1), strict=True))
        losses = [
            contrast(vectors[a], vectors[b], present[a] & present[b], scale)
            for a, b in combinations(MODALITIES, 2)
            if int((present[a] & present[b]).sum()) > 1
        ]
        return torch.stack(losses).mean() if losses else scale * 0.0


def contrast(
    ones: Float[Tensor, "b e"],
    others: Float[Tensor, "b e"],
    both: Bool[Tensor, " b"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy of finding each study's other modality among the batch's."""
    scores = hide(scale * ones @ others.T, both[None] & both[:, None])
    aim = torch.arange(len(ones), device=ones.device)
    there = functional.cross_entropy(scores, aim, reduction="none")
    back = functional.cross_entropy(scores.T, aim, reduction="none")
    losses = torch.where(both, (there + back) / 2, 0.0)
    return losses.sum() / both.sum()
