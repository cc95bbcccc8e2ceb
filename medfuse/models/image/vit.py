"""MONAI's vision transformer: frames in, a map of one cell per 16 x 16 pixels out.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", in the size that Touvron et al. 2021
("Training data-efficient image transformers") call tiny.
"""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from medfuse.errors import SettingsError
from medfuse.models.image.backbone import Backbone, load_weights

PATCH = 16
WIDTH, HEADS, LAYERS = 192, 3, 12


class Maps(nn.Module):
    """A transformer over patches, its last tokens laid out as the patches lie.

    Args:
        network: MONAI's ``ViT``, without a class token.
        side: Patches along a frame.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c i j"]:
        """Return the map of each channel."""
        tokens, _ = self.network(x)
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        return maps


def build_vit_tiny(weights: Path | None, size: int, *, pretrained: bool) -> Backbone:
    """Build the network, with weights only from a file of the user's.

    Raises:
        SettingsError: Patches do not fill the frame, or the weights are of another network.
    """
    from monai.networks.nets.vit import ViT  # a second of imports that others do without

    if size % PATCH:
        raise SettingsError(
            f"image = 'vit_tiny' reads patches of {PATCH} pixels, which do not fill image.size = "
            f"{size}; choose a multiple"
        )
    network = ViT(3, size, PATCH, WIDTH, 4 * WIDTH, LAYERS, HEADS, spatial_dims=2)
    if pretrained and weights is not None:
        load_weights(network, weights)
    return Backbone(Maps(network, size // PATCH), WIDTH)
