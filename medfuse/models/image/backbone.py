"""What carries any 2-D network: grey frames in, each frame's cells out."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfuse.errors import SettingsError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Any 2-D network, fed with grey frames: one channel three times, scaled as in its training.

    Args:
        network: From (N, 3, H, W) to maps (N, C, h, w); a transformer lays its tokens out as such.
        channels: C.
        mean: Of the pixels it was trained on.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: Float[Tensor, "n h w"]) -> Float[Tensor, "n p c"]:
        """Return each frame's feature maps, flattened row by row to cells."""
        maps: Tensor = self.network((frames[:, None] - self.mean) / self.std)
        if maps.requires_grad:
            # The gradient comes back transposed. For a single frame its batch stride then says
            # nothing, and torch 2.13's batch norm in evaluation mode reads it in the wrong order
            # on a processor: a wrong gradient and no error.
            maps.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        return maps.flatten(2).transpose(1, 2)


def load_weights(network: nn.Module, path: Path, classifier: str | None = None) -> None:
    """Load a state dict of the user's, which must be this network's own.

    Args:
        network: Loaded into.
        path: What `torch.save` wrote of a state dict.
        classifier: The prefix of weights that the network is built without.

    Raises:
        SettingsError: It cannot be read without unpickling code, or does not fit.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if classifier is not None:
            state = {key: value for key, value in state.items() if not key.startswith(classifier)}
        network.load_state_dict(state, strict=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise SettingsError(f"image_weights = {path}: not this network's state dict") from error
