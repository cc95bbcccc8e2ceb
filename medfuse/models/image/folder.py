"""Any image network in a local Hugging Face folder: ViT, DINOv2, ResNet, ConvNeXt and their like.

Nothing is downloaded, unpickled or run that comes with the folder.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from medfuse.errors import SettingsError
from medfuse.models.image.backbone import Backbone, load_weights

PREFIX_TOKENS = 16
"""Tokens before those of the patches, at most: a class token, a distillation token, registers."""


class Maps(nn.Module):
    """A Hugging Face network whose last hidden state is laid out as maps.

    Args:
        network: Gives maps (N, C, h, w), or tokens (N, prefix + patches, C).
        size: The frames' side.
    """

    def __init__(self, network: PreTrainedModel, size: int) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.network.train(False)
        self.prefix, self.side = 0, 0
        with torch.no_grad():
            state = self._look(torch.zeros(1, 3, size, size))
        if state.ndim == 4 and state.shape[2] == state.shape[3]:
            self.channels = state.shape[1]
        elif state.ndim == 3:
            self.channels = state.shape[2]
            self.prefix, self.side = _find_grid(state.shape[1], network.config, size)
        else:
            raise ValueError(f"its last hidden state has the shape {tuple(state.shape)}")

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c i j"]:
        """Return the maps; tokens that stand for no patch are left out."""
        state = self._look(x)
        if state.ndim == 4:
            return state
        patches = state[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], self.side, self.side)

    def _look(self, x: Tensor) -> Tensor:
        state: Tensor = self.network(pixel_values=x).last_hidden_state
        return state


def build_image_folder(
    folder: Path, weights: Path | None, size: int, *, pretrained: bool
) -> Backbone:
    """Build the network that a folder describes, with the weights beside it or the user's.

    Raises:
        SettingsError: There is no such folder, its weights are no safetensors, it needs code of
            its own, or what it says of a frame is no square map.
    """
    network = _load_network(folder, pretrained=pretrained)
    try:
        maps = Maps(network, size)
    # Whatever a network raises that wants other inputs, or has another output.
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(
            f"image = {str(folder)!r}: its network does not turn one frame of image.size = {size} "
            f"into a square map ({reason})"
        ) from error
    if pretrained and weights is not None:
        load_weights(maps.network, weights)
    mean, std = _read_scaling(folder)
    return Backbone(maps, maps.channels, mean, std)


def _load_network(folder: Path, *, pretrained: bool) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise SettingsError(
            f"image = {str(folder)!r}: neither a network's name nor a folder with a config.json"
        )
    if pretrained and not list(folder.glob("model*.safetensors")):
        raise SettingsError(f"{folder}: has no model.safetensors, and pickled weights are not read")
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, **options)
            if not pretrained:
                network: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
                    config, attn_implementation="eager"
                )
                return _drop_pooler(network)
            network, report = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                attn_implementation="eager",  # plain matrix products: they and gradients export
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(f"{folder}: not a network that can be loaded ({reason})") from error
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing or report["mismatched_keys"]:
        raise SettingsError(f"{folder}: its weights are not those that config.json describes")
    return _drop_pooler(network)


def _drop_pooler(network: PreTrainedModel) -> PreTrainedModel:
    """Leave out the layer over the class token, which nothing reads and no gradient reaches."""
    pooler = getattr(network, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        network.pooler = None  # type: ignore[assignment]
    return network


def _find_grid(tokens: int, config: object, size: int) -> tuple[int, int]:
    """Tell how many tokens stand before those of the patches, and how many patches a side has."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and 0 <= tokens - (size // patch) ** 2 <= PREFIX_TOKENS:
        side = size // patch
        return tokens - side * side, side
    side = math.isqrt(tokens)  # a network that merges patches as it goes, such as Swin
    if side * side != tokens:
        raise ValueError(f"its {tokens} tokens are no square of patches")
    return 0, side


def _read_scaling(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Read the mean and deviation of the pixels it was trained on; one half where none is told."""
    file = folder / "preprocessor_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    half = [0.5, 0.5, 0.5]
    mean, std = (told.get(key) or half for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3:
        raise SettingsError(f"{file}: expected a mean and a deviation for each of three channels")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars and from listing weights that are left out."""
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
