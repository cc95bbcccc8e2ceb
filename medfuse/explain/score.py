"""A study where Captum reaches it: versions of its modalities in, one target's output out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medfuse.attribution.network import Inputs
from medfuse.attribution.target import Target
from medfuse.models.fused import FusedModel
from medfuse.types import MODALITIES, Modality


def answer_embedded(
    model: FusedModel,
    values: Mapping[Modality, Tensor],
    masks: Mapping[Modality, Tensor],
) -> Float[Tensor, "n k"]:
    """Answer from pixels, word-piece embeddings and log-mel.

    Where no version has an image, the image network is left out: what it says there is replaced by
    zeros anyway, and it takes most of the time.

    Args:
        model: In evaluation mode.
        values: (N, S, H, W), (N, L, E) and (N, T, F).
        masks: (N, S), (N, L) and (N, T).
    """
    seen, mask = values[Modality.IMAGE], masks[Modality.IMAGE]
    note, note_mask = values[Modality.NOTE], masks[Modality.NOTE]
    voice, voice_mask = values[Modality.VOICE], masks[Modality.VOICE]
    if mask.any():
        outputs = model.forward_embedded(seen, mask, note, note_mask, voice, voice_mask)
        return outputs.logits
    features = {
        Modality.IMAGE: seen.new_zeros(*mask.shape, *model.image.feature_shape),
        Modality.NOTE: model.note.contextualise(note, note_mask),
        Modality.VOICE: model.voice.extract(voice, voice_mask),
    }
    return model.forward_features(features, model.cover(masks)).logits


@dataclass(frozen=True, slots=True)
class Scorer:
    """The function that Captum attributes: it is called with each present modality's versions.

    Attributes:
        model: In evaluation mode.
        inputs: The study, one version; its masks and its absent modalities stay as they are.
        target: What is answered.
        count: Called with the versions of each pass.
    """

    model: FusedModel
    inputs: Inputs
    target: Target
    count: Callable[[int], None] | None = None

    def __call__(self, *versions: Tensor) -> Float[Tensor, " n"]:
        """Answer; any modality may come in ``n`` versions, the rest in one."""
        n = max(len(part) for part in versions)
        if self.count is not None:
            self.count(n)
        values = dict(zip(self.inputs.present, versions, strict=True))
        masks = {}
        for modality in MODALITIES:
            if modality not in values:
                values[modality] = self._move(self.inputs.values[modality])
            values[modality] = values[modality].expand(n, *values[modality].shape[1:])
            masks[modality] = self._move(self.inputs.masks[modality]).expand(n, -1)
        return answer_embedded(self.model, values, masks) @ self._move(self.target.weights)

    def tensors(self, inputs: Inputs) -> tuple[Float[Tensor, "n ..."], ...]:
        """Give the present modalities' values in the model's precision and on its device."""
        return tuple(self._move(inputs.values[m]) for m in self.inputs.present)

    def leaves(self, inputs: Inputs) -> tuple[Float[Tensor, "n ..."], ...]:
        """Give the same, ready for gradients to be taken to them."""
        return tuple(part.requires_grad_() for part in self.tensors(inputs))

    def answer(self, inputs: Inputs) -> float:
        """Answer one version, with no gradient; it is not counted."""
        with torch.no_grad():
            return float(Scorer(self.model, self.inputs, self.target)(*self.tensors(inputs)))

    def _move(self, values: np.ndarray) -> Tensor:
        first = next(self.model.parameters())
        tensor = torch.from_numpy(np.array(values)).to(first.device)
        return tensor if tensor.dtype is torch.bool else tensor.to(first.dtype)


def to_maps(
    scorer: Scorer, parts: tuple[Float[Tensor, "1 ..."], ...]
) -> dict[Modality, Float[np.ndarray, "..."]]:
    """Give each attribution its modality's axes; a word piece's is summed over its embedding."""
    maps = {}
    for modality, part in zip(scorer.inputs.present, parts, strict=True):
        values = part[0].sum(dim=-1) if modality is Modality.NOTE else part[0]
        maps[modality] = np.asarray(values.detach().double().cpu())
    return maps
