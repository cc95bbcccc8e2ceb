"""The image encoder: frames (B, S, H, W) in [0, 1] to a grid of tokens per frame."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.errors import SettingsError
from medfuse.models.efficientnet import EfficientNetLite0
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import AttentionPool, Standardise, TokenAdapter, Tokens
from medfuse.models.weights import efficientnet_lite0_weights


class Backbone(nn.Module):
    """Any 2-D network, fed with grey frames: one channel three times, scaled as in its training."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: Float[Tensor, "n h w"]) -> Float[Tensor, "n p c"]:
        """Return each frame's feature maps, flattened row by row to cells."""
        maps: Tensor = self.network((frames[:, None] - self.mean) / self.std)
        return maps.flatten(2).transpose(1, 2)


def build_efficientnet_lite0(weights: Path | None, *, pretrained: bool) -> Backbone:
    """Build EfficientNet-Lite0; its own weights come from an installed package."""
    network = EfficientNetLite0()
    if pretrained and weights is None:
        network.load_packaged(efficientnet_lite0_weights())
    elif pretrained:
        _load(network, weights)
    return Backbone(network, network.channels, network.mean, network.std)


def build_densenet121(weights: Path | None, *, pretrained: bool) -> Backbone:
    """Build MONAI's 2-D DenseNet-121, with weights only from a file of the user's."""
    from monai.networks.nets.densenet import (
        DenseNet121,
    )  # a second of imports that Lite0 does without

    network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
    if pretrained and weights is not None:
        _load(network, weights)
    features = nn.Sequential(network.features, nn.ReLU())
    return Backbone(features, 1024, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


IMAGE_NETWORKS: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": build_efficientnet_lite0,
    "densenet121": build_densenet121,
}


def _load(network: nn.Module, path: Path | None) -> None:
    assert path is not None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state, strict=True)
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"image_weights = {path}: not this network's state dict") from error


class ImageEncoder(nn.Module):
    """A 2-D network on each frame, so radiographs, CT slices and cine loops share one path.

    Args:
        backbone: Frames to cells.
        cells: Cells per frame, P.
        width: D.
        dropout: Between the adapter's layers.
        frozen: Whether the backbone stays as it is.
    """

    def __init__(
        self, backbone: Backbone, cells: int, width: int, dropout: float, *, frozen: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
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
        p, c = len(self.position), self.backbone.channels
        cells = frames.new_zeros(b * s, p, c)
        if len(rows):
            cells = cells.index_copy(0, rows, self.backbone(frames[rows]))
        return cells.reshape(b, s, p, c)

    def forward(self, features: Float[Tensor, "b s p c"], mask: Bool[Tensor, "b s"]) -> Tokens:
        """Return one token per cell of every frame, frame by frame."""
        b, s, p, _ = features.shape
        cells = mask[:, :, None].expand(b, s, p).reshape(b, s * p)
        features = self.standardise(features, mask[:, :, None].expand(b, s, p))
        tokens = self.adapter(features, self.position).reshape(b, s * p, -1)
        tokens = torch.where(cells[..., None], tokens, 0.0)
        return Tokens(tokens, cells, self.pool(tokens, cells))


def build_image_encoder(settings: ModelSettings, size: int, *, pretrained: bool) -> ImageEncoder:
    """Build the encoder for frames of side ``size``.

    Raises:
        SettingsError: The weights are not installed, or do not fit the network.
    """
    build = IMAGE_NETWORKS[settings.image]
    backbone = build(settings.image_weights, pretrained=pretrained)
    with torch.no_grad():
        cells = backbone.eval()(torch.zeros(1, size, size)).shape[1]
    backbone.train()
    return ImageEncoder(
        backbone, cells, settings.width, settings.dropout, frozen=settings.freeze_image
    )
