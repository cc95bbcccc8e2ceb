"""The task heads: a fused embedding in, a task's logits out, each with its loss beside it.

Labels of every kind are float (B, C): one column per class of a binary or multilabel task (0 or 1),
one column otherwise (the class or level counted from 0, or the quantity). NaN means unknown, and so
does a negative label of a classification; unknown labels cost nothing.
"""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.config import Task, TaskKind


class Head(Protocol):
    """What every head offers besides ``forward``."""

    def loss(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b c"],
        weights: Float[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean loss over known labels, each counted by its weight."""
        ...


def label_columns(task: Task) -> int:
    """Count the columns that a task's labels take."""
    yes_no = task.kind in (TaskKind.BINARY, TaskKind.MULTILABEL)
    return len(task.classes) if yes_no else 1


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
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy."""
        known = labels >= 0
        target = torch.where(known, labels, 0.0)
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
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
    ) -> Float[Tensor, ""]:
        """Cross-entropy."""
        known = labels >= 0
        target = torch.where(known, labels, 0.0).long().squeeze(1)
        losses = functional.cross_entropy(logits, target, reduction="none")
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
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy of each threshold, averaged."""
        known = labels >= 0
        levels = torch.arange(1, logits.shape[1] + 1, dtype=labels.dtype, device=labels.device)
        target = (torch.where(known, labels, 0.0) >= levels).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return mean_known(losses.mean(dim=1, keepdim=True), known, weights)


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
    ) -> Float[Tensor, ""]:
        """Huber's loss with a knee at one unit; negative quantities are known, NaN is not."""
        known = ~labels.isnan()
        target = torch.where(known, labels, 0.0)
        losses = functional.huber_loss(logits, target, reduction="none")
        return mean_known(losses, known, weights)


HEADS: dict[TaskKind, type[YesNoHead | ClassHead | OrdinalHead | RegressionHead]] = {
    TaskKind.BINARY: YesNoHead,
    TaskKind.MULTILABEL: YesNoHead,
    TaskKind.MULTICLASS: ClassHead,
    TaskKind.ORDINAL: OrdinalHead,
    TaskKind.REGRESSION: RegressionHead,
}


def mean_known(
    losses: Float[Tensor, "b c"],
    known: Tensor,
    weights: Float[Tensor, "b c"] | None,
) -> Float[Tensor, ""]:
    """Average the losses of known labels by weight; zero, with gradients, when none is known."""
    share = known.to(losses.dtype)
    if weights is not None:
        share = share * weights
    total = share.sum()
    return (losses * share).sum() / torch.where(total > 0, total, 1.0)
