"""Late averaging: each modality answers alone, and the answers of those present are averaged."""

from jaxtyping import Float
from torch import Tensor, nn

from medfuse.models.fusion.pooled import apply_each, average_present, gather
from medfuse.models.tokens import Tokens, perceptron
from medfuse.types import MODALITIES, Modality


class LateAverageFusion(nn.Module):
    """One classifier per modality, joined by a fixed rule (the sum rule of Kittler et al. 1998).

    The heads are linear, so the logits of an average embedding are the average of the logits that
    each modality would get alone. The rule therefore works on log odds, where Kittler et al. add
    probabilities. What only two modalities together tell, it cannot express.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.alone = nn.ModuleList(
            nn.Sequential(perceptron(width, width, dropout), nn.LayerNorm(width))
            for _ in MODALITIES
        )

    def forward(self, encoded: dict[Modality, Tokens]) -> Float[Tensor, "b d"]:
        """Fuse whatever modalities are present."""
        study = gather(encoded)
        return average_present(apply_each(self.alone, study.embeddings), study.present)
