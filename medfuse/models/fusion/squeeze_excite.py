"""Squeeze and excite: all modalities together decide which channels of each one's tokens count."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.fusion.pooled import apply_each, average_present, gather, joint_length
from medfuse.models.tokens import AttentionPool, Tokens, perceptron
from medfuse.types import MODALITIES, Modality


class SqueezeExciteFusion(nn.Module):
    """The multimodal transfer module (Joze et al. 2020) over tokens.

    Squeezed embeddings of all modalities make one joint vector, here a quarter as long as they are;
    from it comes a gate between 0 and 2 for every channel of every modality, by which its tokens
    are multiplied. The squeeze is the encoder's own pooled embedding, with presence flags. The
    streams then go on alone, are pooled, and averaged as the predictions there.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        squeezed = len(MODALITIES) * width // 4
        self.squeeze = nn.Linear(joint_length(width), squeezed)
        self.excite = nn.Linear(squeezed, len(MODALITIES) * width)
        self.pools = nn.ModuleList(AttentionPool(width) for _ in MODALITIES)
        self.streams = nn.ModuleList(perceptron(width, width, dropout) for _ in MODALITIES)
        self.norm = nn.LayerNorm(width)

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        gates = self.gates(study.joint)
        pooled = []
        for i, (modality, pool) in enumerate(zip(MODALITIES, self.pools, strict=True)):
            excited = gates[:, i, None] * encoded[modality].tokens
            pooled.append(pool(excited, encoded[modality].mask))
        excited = torch.stack(pooled, dim=1) + gates * study.embeddings
        streams = apply_each(self.streams, excited)
        fused: Tensor = self.norm(average_present(streams, study.present))
        return fused

    def gates(self, joint: Float[Tensor, "b j"]) -> Float[Tensor, "b m d"]:
        """Weigh every channel of every modality; 1 leaves it as it is."""
        excited = self.excite(functional.relu(self.squeeze(joint)))
        return 2 * torch.sigmoid(excited.unflatten(1, (len(MODALITIES), -1)))
