"""The image encoders: the table of networks, and how one is built."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from medfuse.models.image.backbone import Backbone
from medfuse.models.image.densenet import build_densenet121
from medfuse.models.image.efficientnet import build_efficientnet_lite0
from medfuse.models.image.encoder import ImageEncoder
from medfuse.models.image.folder import build_image_folder
from medfuse.models.image.repvgg import build_repvgg_a0
from medfuse.models.image.vit import build_vit_tiny
from medfuse.models.settings import ModelSettings

IMAGE_NETWORKS: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": build_efficientnet_lite0,
    "efficientnet_lite0_stage4": partial(build_efficientnet_lite0, stages=4),
    "densenet121": build_densenet121,
    "repvgg_a0": build_repvgg_a0,
    "vit_tiny": build_vit_tiny,
}
"""By name, what takes a file of weights or None, the frames' side, and ``pretrained``: whether to
load weights at all."""


def build_image_encoder(settings: ModelSettings, size: int, *, pretrained: bool) -> ImageEncoder:
    """Build the encoder for frames of side ``size``.

    Raises:
        SettingsError: The weights are not installed, or do not fit the network; or a folder's
            network does not fit in here.
    """
    build: Callable[..., Backbone]
    if isinstance(settings.image, Path):
        build = partial(build_image_folder, settings.image)
    else:
        build = IMAGE_NETWORKS[settings.image]
    backbone = build(settings.image_weights, size, pretrained=pretrained)
    with torch.no_grad():
        cells = backbone.eval()(torch.zeros(1, size, size)).shape[1]
    backbone.train()
    return ImageEncoder(
        backbone,
        cells,
        settings.width,
        settings.dropout,
        frozen=settings.freeze_image,
        pretrained=settings.image_has_weights,
    )
