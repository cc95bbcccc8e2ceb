"""What a missing modality might have said: the present ones in, an embedding in its place out."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality


class Generator(nn.Module):
    """One small network per modality that reads the other two, whichever of them are there.

    As Cai et al. 2018 and Zhao et al. 2021 complete what is missing, but in one step from pooled
    embeddings. What was generated carries a learnt mark, so that the fusion can tell it from what
    was seen.

    Args:
        width: D.
        dropout: Between its layers.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        joint = (len(MODALITIES) - 1) * (width + 1)
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(joint, 2 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in MODALITIES
        )
        self.mark = nn.Parameter(torch.zeros(len(MODALITIES), width))

    def generate(
        self, pooled: Mapping[Modality, Tensor], present: Bool[Tensor, "b m"]
    ) -> dict[Modality, Float[Tensor, "b d"]]:
        """Guess each modality's embedding from the others', whether it is there or not.

        Args:
            pooled: (B, D) each; zero where absent.
            present: Which are there.
        """
        guesses = {}
        for i, (modality, network) in enumerate(zip(MODALITIES, self.networks, strict=True)):
            parts = []
            for j, other in enumerate(MODALITIES):
                if j != i:
                    parts += [pooled[other], present[:, j : j + 1].to(pooled[other].dtype)]
            guesses[modality] = network(torch.cat(parts, dim=1))
        return guesses

    def forward(self, encoded: Mapping[Modality, Tokens]) -> dict[Modality, Tokens]:
        """Put one generated token where a modality is absent; leave the present ones as they are.

        A study with nothing at all stays without anything.
        """
        pooled = {m: encoded[m].pooled for m in MODALITIES}
        present = torch.stack([encoded[m].mask.any(dim=1) for m in MODALITIES], dim=1)
        anything = present.any(dim=1)
        filled = {}
        guesses = self.generate(pooled, present)
        for i, modality in enumerate(MODALITIES):
            tokens, mask, own = encoded[modality]
            guess = guesses[modality] + self.mark[i]
            needed = (anything & ~present[:, i])[:, None]
            first = (torch.arange(tokens.shape[1], device=tokens.device) == 0)[None]
            place = needed & first
            filled[modality] = Tokens(
                torch.where(place[..., None], guess[:, None], tokens),
                mask | place,
                torch.where(needed, guess, own),
            )
        return filled
