"""Small pictures and labels in; a convolutional network of 200,000 weights, fitted to them, out."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (24, 48, 96)
EPOCHS = 12
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.05
DROPOUT = 0.3

TURN, SCALE, SHIFT = 0.175, 0.125, 0.125
"""Most that a picture is turned (radians), scaled, and shifted (of half its side)."""

CONTRAST, BRIGHTNESS = 0.2, 0.1


def fit_small_network(
    images: Float32[np.ndarray, "n h w"],
    labels: Bool[np.ndarray, " n"],
    seed: int,
    epochs: int = EPOCHS,
    advance: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Fit a network from nothing, for a number of epochs that no figure chooses.

    Args:
        images: In [0, 1].
        labels: Of each.
        seed: Of its weights, the order of pictures and how they are varied.
        epochs: Times that each picture is seen, varied anew.
        advance: Called after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build()
        pictures = torch.from_numpy(images)[:, None]
        wanted = torch.from_numpy(labels.astype(np.float32))
        balance = (1 - wanted).sum() / wanted.sum()
        optimiser = torch.optim.AdamW(
            network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        steps = epochs * -(-len(pictures) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, LEARNING_RATE, total_steps=max(2, steps)
        )
        network.train()
        for _ in range(epochs):
            order = torch.randperm(len(pictures), generator=generator)
            for chosen in torch.split(order, BATCH):
                varied = vary_pictures(pictures[chosen], generator)
                loss = functional.binary_cross_entropy_with_logits(
                    network(varied)[:, 0], wanted[chosen], pos_weight=balance
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            advance()
    return network.eval()


@torch.inference_mode()
def ask_small_network(
    network: nn.Module, images: Float32[np.ndarray, "n h w"]
) -> Float[np.ndarray, " n"]:
    """Give the mean logit of each picture as it is and mirrored."""
    parts = torch.split(torch.from_numpy(images)[:, None], 256)
    logits = [(network(part)[:, 0] + network(part.flip(3))[:, 0]) / 2 for part in parts]
    return np.asarray(torch.cat(logits).numpy(), dtype=np.float64)


def vary_pictures(pictures: Float[Tensor, "b 1 h w"], generator: torch.Generator) -> Tensor:
    """Turn, scale, shift, mirror and brighten each picture by itself, a batch at once.

    One by one, as `medfuse.training.augment` does for radiographs of full size, would cost more
    than fitting so small a network.
    """
    n = len(pictures)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(n, *shape, generator=generator) - 1

    turn, scale = TURN * draw(), 1 + SCALE * draw()
    mirror = torch.where(draw() < 0, -1.0, 1.0)
    moves = torch.zeros(n, 2, 3)
    moves[:, 0, 0], moves[:, 0, 1] = mirror * scale * turn.cos(), -mirror * scale * turn.sin()
    moves[:, 1, 0], moves[:, 1, 1] = scale * turn.sin(), scale * turn.cos()
    moves[:, :, 2] = SHIFT * draw(2)
    grid = functional.affine_grid(moves, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures, grid, align_corners=False)
    return moved * (1 + CONTRAST * draw(1, 1, 1)) + BRIGHTNESS * draw(1, 1, 1)


def _build() -> nn.Module:
    blocks: list[nn.Module] = []
    before = 1
    for i, channels in enumerate(CHANNELS):
        for stride, inside in ((1 if i == 0 else 2, before), (1, channels)):
            blocks += [
                nn.Conv2d(inside, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        before = channels
    return nn.Sequential(
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(before, 1),
    )
