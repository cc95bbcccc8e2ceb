"""MONAI's DenseNet-121: frames in, 1024 maps at 1/32 of their size out."""

from pathlib import Path

from torch import nn

from medfuse.models.image.backbone import Backbone, load_weights


def build_densenet121(weights: Path | None, size: int, *, pretrained: bool) -> Backbone:
    """Build the 2-D network (Huang et al. 2017), with weights only from a file of the user's."""
    from monai.networks.nets.densenet import (
        DenseNet121,
    )  # a second of imports that Lite0 does without

    network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
    if pretrained and weights is not None:
        load_weights(network, weights)
    return Backbone(nn.Sequential(network.features, nn.ReLU()), 1024)
