"""EfficientNet-Lite0 without its classifier: scaled RGB in, 1280 maps at 1/32 of the size out.

Its first stages alone give fewer maps at a finer size.
"""

import re
from math import ceil
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.image.backbone import Backbone, load_weights
from medfuse.models.weights import efficientnet_lite0_weights

# Repeats, kernel, stride, expansion, output channels: table 1 of Tan & Le 2019 (B0), which Lite0
# takes without squeeze-and-excitation and with ReLU6 for swish.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

HEAD = 1280


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: ``ceil(size / stride)``, the odd pixel last."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve; the side of the image is fixed when the graph is made."""
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (self._missing(size) for size in x.shape[-2:])
            x = functional.pad(x, (left, right, top, bottom))
        return super().forward(x)

    def _missing(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual: expand by 1x1, filter each channel alone, project back by 1x1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = expansion > 1
        if self.expand:
            self.expand_conv = SameConv2d(inputs, inner, 1)
            self.bn0 = _norm(inner)
        self.depthwise_conv = SameConv2d(inner, inner, kernel, stride=stride, groups=inner)
        self.bn1 = _norm(inner)
        self.project_conv = SameConv2d(inner, outputs, 1)
        self.bn2 = _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Filter the maps, adding the input back where the shapes agree."""
        inner = functional.relu6(self.bn0(self.expand_conv(x))) if self.expand else x
        inner = functional.relu6(self.bn1(self.depthwise_conv(inner)))
        y: Tensor = self.bn2(self.project_conv(inner))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The network of Google's EfficientNet-Lite0 (4.7 M parameters with its classifier).

    Its batch norms always use the statistics they came with, in training too: a batch of a few
    frames, some of them padding, would spoil them. Their scales and offsets do train.

    Args:
        stages: How many of `STAGES` there are. All of them are followed by the head of 1280 maps;
            fewer are not.
    """

    mean = (
        127 / 255,
    ) * 3  # as efficientnet_lite_builder.py of the original, which counts in bytes
    std = (128 / 255,) * 3

    def __init__(self, stages: int = len(STAGES)) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, 32, 3, stride=2)
        self.bn0 = _norm(32)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES[:stages]:
            for i in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.whole = stages == len(STAGES)
        self.channels = HEAD if self.whole else inputs
        if self.whole:
            self.conv_head = SameConv2d(inputs, HEAD, 1)
            self.bn1 = _norm(HEAD)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c i j"]:
        """Return the maps that the original averages before its classifier, or a stage's."""
        maps: Tensor = self.blocks(functional.relu6(self.bn0(self.conv_stem(x))))
        return functional.relu6(self.bn1(self.conv_head(maps))) if self.whole else maps

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Set the mode, batch norms excepted."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_packaged(self, path: Path) -> None:
        """Load the package's weights, whose names differ by leading underscores alone."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = {re.sub(r"(^|\.)_", r"\1", key): value for key, value in state.items()}
        own = self.state_dict()  # neither the classifier nor stages that are left out
        self.load_state_dict({key: value for key, value in names.items() if key in own})


def build_efficientnet_lite0(
    weights: Path | None, size: int, *, pretrained: bool, stages: int = len(STAGES)
) -> Backbone:
    """Build EfficientNet-Lite0, or its first stages; its weights come from an installed package."""
    network = EfficientNetLite0(stages)
    if pretrained and weights is None:
        network.load_packaged(efficientnet_lite0_weights())
    elif pretrained and weights is not None:
        load_weights(network, weights)
    return Backbone(network, network.channels, network.mean, network.std)
