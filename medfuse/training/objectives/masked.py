"""The masked objective: a step in, no labels needed, how badly hidden features are guessed out."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medfuse.models.attention import place_waves
from medfuse.models.fused import FusedModel
from medfuse.models.tokens import Tokens
from medfuse.training.objectives.step import Step, settled
from medfuse.training.settings import MaskedSettings
from medfuse.types import MODALITIES, Modality

SPANS: Mapping[Modality, int] = {Modality.IMAGE: 1, Modality.NOTE: 1, Modality.VOICE: 4}
"""Tokens hidden in a row. A sound goes on: between its neighbours one moment is no riddle."""

DEPTH = 2
HEADS = 4


class MaskedObjective(nn.Module):
    """Hide some features of every modality and let all that is left say what they were.

    Masked autoencoding (He et al. 2022) of the features that encoders read, with the squared error
    at hidden places alone, as MultiMAE (Bachmann et al. 2022) over the modalities together. The
    small transformer that guesses is left behind when training ends.

    Args:
        settings: How much is hidden.
        model: Whose features.
    """

    def __init__(self, settings: MaskedSettings, model: FusedModel) -> None:
        super().__init__()
        self.weight = settings.weight
        self.rate = settings.rate
        width = model.width
        self.hidden = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        self.kind = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.mix = nn.TransformerEncoder(
            layer, DEPTH, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.guess = nn.ModuleList(
            nn.Linear(width, model.strides[m] * model.channels[m]) for m in MODALITIES
        )

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Average the modalities' errors; 1 is what guessing each channel's mean would cost."""
        rng = step.rng("masked")
        chosen = {m: self._choose(step.encoded[m].mask, SPANS[m], rng) for m in MODALITIES}
        features = {m: step.features[m].detach().float() for m in MODALITIES}
        covered = {
            m: _cover(features[m], step.masks[m], chosen[m], step.model.strides[m])
            for m in MODALITIES
        }
        with settled(step.model):
            encoded = step.model.encode(covered, step.masks)
        states = self._mix(encoded, chosen)
        errors = []
        for i, m in enumerate(MODALITIES):
            if bool(chosen[m].any()):
                aim = _aim(features[m], step.masks[m], step.model.strides[m])
                guess = self.guess[i](states[m][chosen[m]])
                errors.append((guess - aim[chosen[m]]).square().mean())
        return torch.stack(errors).mean() if errors else self.hidden.sum() * 0.0

    def _choose(
        self, mask: Bool[Tensor, "b n"], span: int, rng: np.random.Generator
    ) -> Bool[Tensor, "b n"]:
        """Draw which real tokens to hide, in spans that may touch."""
        starts = rng.random(mask.shape) < self.rate / span
        hidden = starts.copy()
        for shift in range(1, min(span, mask.shape[1])):
            hidden[:, shift:] |= starts[:, :-shift]
        return torch.from_numpy(hidden).to(mask.device) & mask

    def _mix(
        self, encoded: Mapping[Modality, Tokens], chosen: Mapping[Modality, Bool[Tensor, "b n"]]
    ) -> dict[Modality, Float[Tensor, "b n d"]]:
        """Let all tokens of a study read each other."""
        parts, masks = [], []
        for i, m in enumerate(MODALITIES):
            tokens, mask, _ = encoded[m]
            seen = torch.where(chosen[m][..., None], tokens + self.hidden[i], tokens)
            parts.append(seen + self.kind[i] + place_waves(tokens))
            masks.append(mask)
        mask = torch.cat(masks, dim=1)
        # Attention over nothing is not a number, so a study that has nothing reads its padding.
        ignored = ~mask & mask.any(dim=1, keepdim=True)
        states = self.mix(torch.cat(parts, dim=1), src_key_padding_mask=ignored)
        split = states.split([part.shape[1] for part in parts], dim=1)
        return dict(zip(MODALITIES, split, strict=True))


def _statistics(values: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> tuple[Tensor, Tensor]:
    """Give each channel's mean and standard deviation over the real places."""
    if not bool(mask.any()):
        return values.new_zeros(values.shape[-1]), values.new_ones(values.shape[-1])
    real = values[mask]
    return real.mean(dim=0), real.std(dim=0, correction=0).clamp(min=1e-6)


def _flatten(values: Tensor, mask: Bool[Tensor, "b n"]) -> tuple[Tensor, Tensor]:
    """Give features (B, N, C), and which are real; a frame's cells come one after another."""
    if values.ndim == 3:
        return values, mask
    cells = values.shape[2]
    return values.flatten(1, 2), mask.repeat_interleave(cells, dim=1)


def _cover(
    values: Tensor, mask: Bool[Tensor, "b n"], chosen: Bool[Tensor, "b k"], stride: int
) -> Tensor:
    """Put each channel's mean over what the chosen tokens are made of."""
    flat, real = _flatten(values, mask)
    mean, _ = _statistics(flat, real)
    places = chosen.repeat_interleave(stride, dim=1)[:, : flat.shape[1], None]
    return torch.where(places, mean, flat).reshape(values.shape)


def _aim(values: Tensor, mask: Bool[Tensor, "b n"], stride: int) -> Float[Tensor, "b k c"]:
    """Give what each token is made of, standardised by channel; padding counts as the mean."""
    flat, real = _flatten(values, mask)
    mean, spread = _statistics(flat, real)
    standard = torch.where(real[..., None], (flat - mean) / spread, 0.0)
    short = -standard.shape[1] % stride
    standard = nn.functional.pad(standard, (0, 0, 0, short))
    b, n, c = standard.shape
    return standard.reshape(b, n // stride, stride * c)
