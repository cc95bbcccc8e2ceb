"""The task heads: a fused embedding in, a task's logits out, each with its loss beside it.

Labels of every kind are float (B, C) with C = `Task.label_columns`: 0 or 1 for each finding of a
binary or multilabel task, otherwise the class or level counted from 0, or the quantity. NaN means
unknown, and so does a negative label of a classification; unknown labels cost nothing. Weights, one
per label, balance classes or studies; a `Focus` weighs hard answers against easy ones.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.config import Task, TaskKind
from medfuse.models.focus import PLAIN, Focus
from medfuse.models.processes import count_processes, sum_across


class YesNoHead(nn.Module):
    """Binary and multilabel: each class is there or not, whatever the others are."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, task.logits)

    def forward(self, fused: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return log odds."""
        logits: Tensor = self.out(fused)
        return logits

    def loss(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b k"],
        weights: Float[Tensor, "b k"] | None = None,
        focus: Focus = PLAIN,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy, focused."""
        known = labels >= 0
        target = torch.where(known, labels, 0.0)
        if focus == PLAIN:
            losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            chance = (logits.sigmoid() - focus.margin).clamp(min=0.0)
            there = functional.softplus(-logits) * logits.neg().sigmoid() ** focus.present
            gone = -torch.log1p(-chance.clamp(max=1 - 1e-7)) * chance**focus.absent
            losses = target * there + (1 - target) * gone
        return mean_known(losses, known, weights)


class ClassHead(nn.Module):
    """Multiclass: exactly one class is there."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, task.logits)

    def forward(self, fused: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return unnormalised log probabilities."""
        logits: Tensor = self.out(fused)
        return logits

    def loss(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b 1"],
        weights: Float[Tensor, "b 1"] | None = None,
        focus: Focus = PLAIN,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, focused."""
        known = labels >= 0
        target = torch.where(known, labels, 0.0).long().squeeze(1)
        losses = _focus(functional.cross_entropy(logits, target, reduction="none"), focus)
        return mean_known(losses[:, None], known, weights)


class OrdinalHead(nn.Module):
    """Ordinal: one score against rising thresholds (the proportional-odds model, McCullagh 1980).

    Logit ``k`` says that the level is at least ``k + 1``, so logits never rise with ``k``.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.first = nn.Parameter(torch.zeros(1))
        # softplus(0.5413) = 1: thresholds begin one apart.
        self.steps = nn.Parameter(torch.full((task.logits - 1,), 0.5413))

    def thresholds(self) -> Float[Tensor, " k"]:
        """Return where the score passes from each level to the next."""
        steps = torch.cat([self.first, functional.softplus(self.steps)])
        return steps.cumsum(dim=0)

    def forward(self, fused: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return the log odds that the level is at least 1, 2, and so on."""
        logits: Tensor = self.score(fused) - self.thresholds()
        return logits

    def loss(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b 1"],
        weights: Float[Tensor, "b 1"] | None = None,
        focus: Focus = PLAIN,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy of each threshold, focused and averaged."""
        known = labels >= 0
        levels = torch.arange(1, logits.shape[1] + 1, dtype=labels.dtype, device=labels.device)
        target = (torch.where(known, labels, 0.0) >= levels).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return mean_known(_focus(losses, focus).mean(dim=1, keepdim=True), known, weights)


class RegressionHead(nn.Module):
    """Regression: one quantity in its unit."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, task.logits)

    def forward(self, fused: Float[Tensor, "b d"]) -> Float[Tensor, "b 1"]:
        """Return the estimate."""
        logits: Tensor = self.out(fused)
        return logits

    def loss(
        self,
        logits: Float[Tensor, "b 1"],
        labels: Float[Tensor, "b 1"],
        weights: Float[Tensor, "b 1"] | None = None,
        focus: Focus = PLAIN,
    ) -> Float[Tensor, ""]:
        """Huber's loss with a knee at one unit, never focused; NaN alone is unknown."""
        known = ~labels.isnan()
        target = torch.where(known, labels, 0.0)
        losses = functional.huber_loss(logits, target, reduction="none")
        return mean_known(losses, known, weights)


def _focus(losses: Float[Tensor, "*n"], focus: Focus) -> Float[Tensor, "*n"]:
    """Weigh cross-entropies by how far the right answer's chance is from one (Lin et al. 2017)."""
    if not focus.present:
        return losses
    return losses * (-torch.expm1(-losses)) ** focus.present


Head = YesNoHead | ClassHead | OrdinalHead | RegressionHead

HEADS: dict[TaskKind, type[Head]] = {
    TaskKind.BINARY: YesNoHead,
    TaskKind.MULTILABEL: YesNoHead,
    TaskKind.MULTICLASS: ClassHead,
    TaskKind.ORDINAL: OrdinalHead,
    TaskKind.REGRESSION: RegressionHead,
}


def mean_known(
    losses: Float[Tensor, "b c"],
    known: Bool[Tensor, "b c"],
    weights: Float[Tensor, "b c"] | None,
) -> Float[Tensor, ""]:
    """Average the losses of known labels by weight; zero, with gradients, when none is known.

    Where several processes have a share of the batch each, the mean of what they return is the
    average over the whole batch.
    """
    share = known.to(losses.dtype)
    if weights is not None:
        share = share * weights
    total = sum_across(share.sum()) / count_processes()
    return (losses * share).sum() / torch.where(total > 0, total, 1.0)
