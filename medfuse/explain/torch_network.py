"""A torch model in; the network that attribution methods ask out: the reference and the judge."""

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from medfuse.attribution.network import Cells, Gradients, Inputs
from medfuse.explain.score import answer_embedded
from medfuse.models.fused import FusedModel
from medfuse.types import MODALITIES, Modality

ROWS = 8
"""Versions that go through the model at once."""


class TorchNetwork:
    """A `Network` by torch's own autograd, in the model's precision and on its device.

    Args:
        model: In evaluation mode.
        rows: Versions in one pass; it changes the last bits of a result.
    """

    def __init__(self, model: FusedModel, rows: int = ROWS) -> None:
        assert not model.training
        self.model = model.requires_grad_(False)
        self.rows = rows
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    @property
    def targets(self) -> tuple[str, ...]:
        """The name of each logit, in order."""
        return tuple(name for task in self.model.tasks for name in task.targets)

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l e"]:
        """Look up word pieces."""
        with torch.no_grad():
            embedded = self.model.embed_note(torch.from_numpy(np.array(pieces)).to(self._device))
        return np.asarray(embedded.float().cpu())

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n k"]:
        """Give the logits of every version."""
        with torch.no_grad():
            parts = [
                answer_embedded(self.model, *self._take(inputs, at)) for at in self._split(inputs)
            ]
        return _join(parts)

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n k"], wanted: Collection[Modality]
    ) -> Gradients:
        """Give the gradient of each version's weighted sum of logits to the wanted modalities."""
        logits: list[Tensor] = []
        found: dict[Modality, list[Tensor]] = {m: [] for m in MODALITIES if m in wanted}
        for at in self._split(inputs):
            values, masks = self._take(inputs, at)
            reached = [values[m].requires_grad_() for m in found]
            answered = answer_embedded(self.model, values, masks)
            total = (answered * self._tensor(weights[at])).sum()
            parts = torch.autograd.grad(total, reached, allow_unused=True, materialize_grads=True)
            for modality, part in zip(found, parts, strict=True):
                found[modality].append(part)
            logits.append(answered.detach())
        return Gradients(_join(logits), {m: _join(parts) for m, parts in found.items()})

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n k"]) -> Cells:
        """Give the image encoder's last map with the gradient to it."""
        logits, activations, gradients = [], [], []
        for at in self._split(inputs):
            answered, cells = self._answer_seen(*self._take(inputs, at))
            total = (answered * self._tensor(weights[at])).sum()
            gradients.append(torch.autograd.grad(total, cells)[0])
            logits.append(answered.detach())
            activations.append(cells.detach())
        return Cells(_join(logits), _join(activations), _join(gradients))

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        """Say how much of the image's embedding comes from each frame."""
        parts = []
        with torch.no_grad():
            for at in self._split(inputs):
                values, masks = self._take(inputs, at)
                features = self.model.extract_embedded(values, masks)
                encoded = self.model.encode(features, self.model.cover(masks))
                parts.append(self.model.image.attend_frames(encoded[Modality.IMAGE]))
        return _join(parts)

    def _answer_seen(
        self, values: dict[Modality, Tensor], masks: dict[Modality, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Answer from the image encoder's last map, to which gradients can be taken."""
        model = self.model
        with torch.no_grad():
            features = model.extract_embedded(values, masks)
        cells = features[Modality.IMAGE].requires_grad_()
        return model.forward_features(features, model.cover(masks)).logits, cells

    def _split(self, inputs: Inputs) -> list[slice]:
        return [slice(start, start + self.rows) for start in range(0, len(inputs), self.rows)]

    def _take(
        self, inputs: Inputs, at: slice
    ) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
        values = {m: self._tensor(inputs.values[m][at]) for m in MODALITIES}
        masks = {
            m: torch.from_numpy(np.array(inputs.masks[m][at])).to(self._device) for m in MODALITIES
        }
        return values, masks

    def _tensor(self, values: Float[np.ndarray, "..."]) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._device, self._dtype)


def _join(parts: list[Tensor]) -> np.ndarray:
    return np.concatenate([part.cpu().numpy() for part in parts])
