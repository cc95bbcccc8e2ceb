"""RepVGG-A0: three branches a layer while it learns, one 3x3 convolution a layer when it answers.

Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again", table 2.
"""

from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.image.backbone import Backbone, load_weights

STAGES = ((1, 48), (2, 48), (4, 96), (14, 192), (1, 1280))
"""Layers and channels of each stage, which halves the maps at its first layer."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Branches(nn.Module):
    """A layer as it learns: 3x3, 1x1 and, where shapes agree, identity, each with a batch norm.

    Parameters are named as in the authors' code, whose weights therefore load.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None
        self.rbr_dense = _convolve(inputs, outputs, 3, stride)
        self.rbr_1x1 = _convolve(inputs, outputs, 1, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Add the branches up."""
        total: Tensor = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        return functional.relu(total)

    def fold(self) -> "Folded":
        """Give the one convolution that answers as the branches do in evaluation mode (fig. 4)."""
        dense, point = (branch.get_submodule("conv") for branch in (self.rbr_dense, self.rbr_1x1))
        assert isinstance(dense, nn.Conv2d)
        assert isinstance(point, nn.Conv2d)
        parts = [
            (dense.weight, self.rbr_dense.get_submodule("bn")),
            (functional.pad(point.weight, (1, 1, 1, 1)), self.rbr_1x1.get_submodule("bn")),
        ]
        if self.rbr_identity is not None:
            same = torch.zeros_like(dense.weight)
            for i in range(len(same)):
                same[i, i, 1, 1] = 1.0
            parts.append((same, self.rbr_identity))
        folded = Folded(dense.in_channels, dense.out_channels, dense.stride[0])
        folded.to(dense.weight.device, dense.weight.dtype)
        with torch.no_grad():
            kernels, biases = zip(*(_scale(kernel, norm) for kernel, norm in parts), strict=True)
            folded.conv.weight.copy_(torch.stack(kernels).sum(dim=0))
            assert folded.conv.bias is not None
            folded.conv.bias.copy_(torch.stack(biases).sum(dim=0))
        return folded.train(self.training)


class Folded(nn.Module):
    """A layer as it answers."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve."""
        return functional.relu(self.conv(x))


class RepVgg(nn.Sequential):
    """The network without its classifier: 1280 maps at 1/32 of the frame's size."""

    def __init__(self) -> None:
        inputs, stages = 3, []
        for layers, outputs in STAGES:
            stage = []
            for i in range(layers):
                stage.append(Branches(inputs, outputs, 2 if i == 0 else 1))
                inputs = outputs
            stages.append(stage)
        super().__init__()
        (first,) = stages[0]
        self.stage0 = first  # a layer of its own, as in the authors' code
        for number, stage in enumerate(stages[1:], start=1):
            self.add_module(f"stage{number}", nn.Sequential(*stage))


def fold_branches(module: AnyModule) -> AnyModule:
    """Copy a module with every layer of branches folded to one; without any, give it itself."""
    if not any(isinstance(part, Branches) for part in module.modules()):
        return module
    module = deepcopy(module)
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, Branches):
                setattr(parent, name, part.fold().requires_grad_(_is_trained(part)))
    return module


def build_repvgg_a0(weights: Path | None, size: int, *, pretrained: bool) -> Backbone:
    """Build the network, with weights only from a file of the user's, such as the authors'."""
    network = RepVgg()
    if pretrained and weights is not None:
        load_weights(network, weights, classifier="linear.")
    return Backbone(network, STAGES[-1][1])


def _convolve(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    layers = nn.Sequential()
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    layers.add_module("conv", conv)
    layers.add_module("bn", nn.BatchNorm2d(outputs))
    return layers


def _scale(kernel: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Take a batch norm's fixed statistics into the kernel before it (eq. 3)."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * factor[:, None, None, None], norm.bias - norm.running_mean * factor


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
