"""Augmentation: a training batch in, the same studies seen, read and heard a little otherwise out.

It acts on what the trained part of the network reads, anew in every step, and draws from the step's
own generator, so that a resumed run sees the same.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medfuse.data.voice import SILENCE
from medfuse.training.dataset import FeatureBatch
from medfuse.training.settings import AugmentSettings
from medfuse.types import Modality

PER_DB = 2 / 100
"""What a decibel is in log-mel, which reaches from -1 at -100 dB to 1 at 0 dB."""

GAIN_DB = 6.0
BAND_SHARE = 0.1
TIME_SHARE = 0.1
MASKS = 2


def augment(
    batch: FeatureBatch, settings: AugmentSettings, rng: np.random.Generator
) -> FeatureBatch:
    """Change a batch as the settings say; labels, and which modalities there are, stay."""
    values, masks = dict(batch.values), dict(batch.masks)
    if settings.image:
        values[Modality.IMAGE] = move_images(values[Modality.IMAGE], masks[Modality.IMAGE], rng)
    if settings.note:
        values[Modality.NOTE], masks[Modality.NOTE] = drop_words(
            values[Modality.NOTE], masks[Modality.NOTE], settings.note, rng
        )
    if settings.voice:
        values[Modality.VOICE] = mask_spectrum(values[Modality.VOICE], masks[Modality.VOICE], rng)
    return replace(batch, values=values, masks=masks)


def move_images(
    image: Float[Tensor, "b s h w"], mask: Bool[Tensor, "b s"], rng: np.random.Generator
) -> Float[Tensor, "b s h w"]:
    """Turn, shift, scale, brighten and roughen each study's frames, all of them alike.

    Never mirrored: which side the heart is on is evidence. MONAI's random affine, contrast and
    Gaussian noise transforms.
    """
    moved = image.clone()
    for i in np.flatnonzero(mask.any(dim=1).cpu().numpy()):
        changed = _image_transform(image.shape[-1])(image[i], int(rng.integers(2**31)))
        moved[i] = torch.where(mask[i, :, None, None], changed, image[i])
    return moved


@lru_cache(maxsize=4)
def _image_transform(side: int) -> Callable[[Tensor, int], Tensor]:
    # A second of imports that a run without augmentation does without.
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import RandAdjustContrast, RandGaussianNoise
    from monai.transforms.spatial.array import RandAffine

    transform = Compose(
        [
            RandAffine(
                prob=1.0,
                rotate_range=np.deg2rad(7),
                translate_range=(0.05 * side, 0.05 * side),
                scale_range=(0.1, 0.1),
                padding_mode="zeros",
            ),
            RandAdjustContrast(prob=0.5, gamma=(0.8, 1.25)),
            RandGaussianNoise(prob=0.5, std=0.02),
        ]
    )

    def apply(frames: Tensor, seed: int) -> Tensor:
        transform.set_random_state(seed=seed)
        return torch.as_tensor(transform(frames)).clamp(0.0, 1.0)

    return apply


def drop_words(
    note: Tensor, mask: Bool[Tensor, "b l"], rate: float, rng: np.random.Generator
) -> tuple[Tensor, Bool[Tensor, "b l"]]:
    """Delete each word piece with chance ``rate``, but never a note's last one.

    Random deletion (Wei & Zou 2019); what is left moves together, so that a mask stays a prefix.
    """
    draws = torch.from_numpy(rng.random(mask.shape)).to(mask.device)
    spared = torch.where(mask, draws, -1.0).argmax(dim=1, keepdim=True)
    kept = mask & (draws >= rate)
    kept = kept | (mask & torch.zeros_like(mask).scatter(1, spared, True))
    order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
    index = order.reshape(*order.shape, *[1] * (note.ndim - 2)).expand_as(note)
    return note.gather(1, index), kept.gather(1, order)


def mask_spectrum(
    voice: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"], rng: np.random.Generator
) -> Float[Tensor, "b t f"]:
    """Make each recording a little louder or softer, and hide spans of time and bands in its mean.

    SpecAugment without warping (Park et al. 2019).
    """
    changed = voice.clone()
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        if not length:
            continue
        real = changed[i, :length] + PER_DB * float(rng.uniform(-GAIN_DB, GAIN_DB))
        mean = real.mean(dim=0)
        for _ in range(MASKS):
            first, last = _draw_span(length, TIME_SHARE, rng)
            real[first:last] = mean
            low, high = _draw_span(real.shape[1], BAND_SHARE, rng)
            real[:, low:high] = mean[low:high].mean()
        changed[i, :length] = real.clamp(min=SILENCE)
    return changed


def _draw_span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    width = int(rng.integers(0, max(1, round(share * length)) + 1))
    first = int(rng.integers(0, length - width + 1))
    return first, first + width
