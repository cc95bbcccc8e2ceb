"""The image encoder: frames (B, S, H, W) in [0, 1] to a grid of tokens per frame."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.image.backbone import Backbone
from medfuse.models.processes import count_processes
from medfuse.models.tokens import AttentionPool, Standardise, TokenAdapter, Tokens


class ImageEncoder(nn.Module):
    """A 2-D network on each frame, so radiographs, CT slices and cine loops share one path.

    Args:
        backbone: Frames to cells.
        cells: Cells per frame, P.
        width: D.
        dropout: Between the adapter's layers.
        frozen: Whether the backbone stays as it is.
        pretrained: Whether it came with weights.
    """

    stride = 1

    def __init__(
        self,
        backbone: Backbone,
        cells: int,
        width: int,
        dropout: float,
        *,
        frozen: bool,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        self.pretrained = pretrained
        self.standardise = Standardise(backbone.channels)
        self.adapter = TokenAdapter(backbone.channels, width, dropout)
        self.position = nn.Parameter(0.02 * torch.randn(cells, width))
        self.pool = AttentionPool(width)
        if frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set the mode, a frozen backbone excepted."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    @property
    def feature_shape(self) -> tuple[int, int]:
        """A frame's cells and their channels."""
        return len(self.position), self.backbone.channels

    def extract(
        self, image: Float[Tensor, "b s h w"], mask: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b s p c"]:
        """Run the backbone on every frame; padding frames count as black."""
        b, s, h, w = image.shape
        frames = torch.where(mask[:, :, None, None], image, 0.0).reshape(b * s, h, w)
        if self.training and not self.frozen:
            return self._extract_real(frames, mask)
        cells: Tensor = self.backbone(frames)
        return cells.reshape(b, s, cells.shape[1], cells.shape[2])

    def _extract_real(
        self, frames: Float[Tensor, "n h w"], mask: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b s p c"]:
        # Padding costs nothing and stays out of batch norm's statistics.
        b, s = mask.shape
        rows = mask.flatten().nonzero().squeeze(1)
        p, c = self.feature_shape
        cells = frames.new_zeros(b * s, p, c)
        if len(rows) or count_processes() > 1:  # whose batch norms wait for this one's
            cells = cells.index_copy(0, rows, self.backbone(frames[rows]))
        return cells.reshape(b, s, p, c)

    def cover(self, mask: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """A frame's features are as real as the frame."""
        return mask

    def forward(self, features: Float[Tensor, "b s p c"], mask: Bool[Tensor, "b s"]) -> Tokens:
        """Return one token per cell of every frame, frame by frame."""
        b, s, p, _ = features.shape
        cells = mask[:, :, None].expand(b, s, p).reshape(b, s * p)
        features = self.standardise(features, mask[:, :, None].expand(b, s, p))
        tokens = self.adapter(features, self.position).reshape(b, s * p, -1)
        tokens = torch.where(cells[..., None], tokens, 0.0)
        return Tokens(tokens, cells, self.pool(tokens, cells))

    def attend_frames(self, encoded: Tokens) -> Float[Tensor, "b s"]:
        """Say how much of the pooled embedding comes from each frame.

        A frame's share is the sum of its cells' weights, averaged over the pool's heads; the real
        frames' shares add up to 1, and a study without frames has none.

        Args:
            encoded: What calling this encoder gave.
        """
        weights = self.pool.attention(encoded.tokens, encoded.mask)
        # Not len(weights): a graph would hold the number of studies it was traced with.
        return weights.reshape(weights.shape[0], -1, len(self.position)).sum(dim=2)
