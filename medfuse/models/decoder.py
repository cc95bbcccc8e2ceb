"""Findings text: encoded modalities, a finding and the words so far in, the next word out."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.models.attention import Attention, place_waves
from medfuse.models.tokens import Tokens, hide, perceptron
from medfuse.text.writing import Steps
from medfuse.types import MODALITIES, Modality

DEPTH = 2
"""Layers in which words read the words before them: one before the study is read, one after."""


FIRST_PLACE = 0.3
"""How much of a token its place is before training, beside features of about unit size."""


class Memory(NamedTuple):
    """All tokens of a study in a row: image cells, word pieces, moments of the voice."""

    tokens: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]


class Written(NamedTuple):
    """What comes after each word, and where in the study each was read from.

    Attributes:
        logits: Of every word of the vocabulary, to stand next.
        energy: The squared length of what each token added to each word.
    """

    logits: Float[Tensor, "r l v"]
    energy: Float[Tensor, "r l n"]


class TorchWriter:
    """A `medfuse.text.writing.Writer` over a decoder, which is set to evaluation.

    Args:
        decoder: The decoder.
    """

    def __init__(self, decoder: "FindingsDecoder") -> None:
        self.decoder = decoder.eval()

    @torch.inference_mode()
    def __call__(
        self,
        memory: Float[np.ndarray, "b n d"],
        mask: Bool[np.ndarray, "b n"],
        study: Int64[np.ndarray, " r"],
        finding: Int64[np.ndarray, " r"],
        words: Int64[np.ndarray, "r l"],
    ) -> Steps:
        """Say what comes next after every word."""
        device = self.decoder.kind.device
        given = (memory, mask, study, finding, words)
        written = self.decoder(*(torch.from_numpy(array).to(device) for array in given))
        return Steps(*(output.cpu().numpy() for output in written))


class WordLayer(nn.Module):
    """Words read the words before them, then each thinks: two pre-norm residual steps."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.read = CausalAttention(width)
        self.think = perceptron(width, width, dropout)

    def forward(self, words: Float[Tensor, "r l d"]) -> Float[Tensor, "r l d"]:
        """Refine the words; none hears of those after it."""
        x: Tensor = words + self.read(self.norms[0](words))
        y: Tensor = self.think(self.norms[1](x))
        return x + y


class CausalAttention(Attention):
    """Attention of words to themselves and those before (Vaswani et al. 2017, section 3.2.3)."""

    def forward(self, words: Float[Tensor, "r l d"]) -> Float[Tensor, "r l d"]:  # type: ignore[override]
        """Read what was said."""
        q, k, v = (self._split(x) for x in (self.query(words), self.key(words), self.value(words)))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        place = torch.arange(words.shape[1], device=words.device)
        weights = hide(scores, place[:, None] >= place[None]).softmax(dim=3)
        read = (weights @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.out(read)
        return out


class EvidenceAttention(Attention):
    """Attention of words to a study, or to a learnt nothing where a word needs none of it."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.nothing = nn.Parameter(torch.zeros(2, width))

    def forward(  # type: ignore[override]
        self,
        words: Float[Tensor, "r l d"],
        memory: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
        study: Int64[Tensor, " r"],
    ) -> tuple[Float[Tensor, "r l d"], Float[Tensor, "r l n"]]:
        """Read the real tokens of each row's study; also give the energy of each one's part.

        Weights alone mislead: attention rests on tokens that have next to nothing to say. What a
        token adds is its value, through every head, times that head's weight; its length says how
        much it is (Kobayashi et al. 2020, "Attention is Not Only a Weight").
        """
        key, value = (
            torch.cat([nothing.expand(memory.shape[0], 1, -1), part], dim=1)
            for nothing, part in zip(
                self.nothing, (self.key(memory), self.value(memory)), strict=True
            )
        )
        q, k, v = (self._split(x) for x in (self.query(words), key[study], value[study]))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        seen = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[study]
        weights = hide(scores, seen[:, None, None]).softmax(dim=3)  # (R, heads, L, 1 + N)
        out: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return out, self._measure(weights[..., 1:].detach(), value[:, 1:].detach(), study)

    def _measure(
        self,
        weights: Float[Tensor, "r h l n"],
        value: Float[Tensor, "b n d"],
        study: Int64[Tensor, " r"],
    ) -> Float[Tensor, "r l n"]:
        """Give the squared length of what each token adds, from the heads' products alone.

        Of the parts themselves there would be as many numbers as words, tokens and channels.
        """
        b, n, d = value.shape
        maps = self.out.weight.detach().T.reshape(self.heads, d // self.heads, d)
        heads = value.reshape(b, n, self.heads, 1, d // self.heads)
        parts = (heads @ maps).squeeze(3)  # (B, N, heads, D)
        products = (parts @ parts.transpose(2, 3))[study]  # (R, N, heads, heads)
        each = weights.permute(0, 3, 2, 1)  # (R, N, L, heads)
        energy = ((each @ products) * each).sum(dim=3)  # (R, N, L)
        return energy.transpose(1, 2)


class FindingsDecoder(nn.Module):
    """A causal transformer that writes one sentence of one finding (Vaswani et al. 2017).

    It hears of the study at one place alone, so that what it read there is all that a sentence can
    rest on.

    Args:
        findings: How many findings it may be asked of.
        words: How many words it knows.
        cells: Of an image frame, P; a square of them.
        width: D.
        dropout: Between layers.
    """

    grid: Float[Tensor, "p d"]

    def __init__(self, findings: int, words: int, cells: int, width: int, dropout: float) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("grid", place_on_grid(cells, width), persistent=False)
        self.place = nn.Parameter(torch.full((len(MODALITIES),), FIRST_PLACE))
        self.kind = nn.Parameter(0.02 * torch.randn(len(MODALITIES), width))
        self.memory_norm = nn.LayerNorm(width)
        self.finding = nn.Embedding(findings, width)
        self.word = nn.Embedding(words, width)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(WordLayer(width, dropout) for _ in range(DEPTH))
        self.read_norm = nn.LayerNorm(width)
        self.read = EvidenceAttention(width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, words)

    def remember(self, encoded: Mapping[Modality, Tokens]) -> Memory:
        """Lay all modalities' tokens in a row, each marked by its kind and its place."""
        parts = [encoded[m] for m in MODALITIES]
        image, note, voice = (part.tokens for part in parts)
        b, _, d = image.shape
        frames = image.reshape(b, -1, len(self.grid), d)
        placed = (
            (frames + self.place[0] * self.grid).flatten(1, 2),
            note + self.place[1] * place_waves(note),
            voice + self.place[2] * place_waves(voice),
        )
        tokens = torch.cat([p + kind for p, kind in zip(placed, self.kind, strict=True)], dim=1)
        mask = torch.cat([part.mask for part in parts], dim=1)
        return Memory(torch.where(mask[..., None], self.memory_norm(tokens), 0.0), mask)

    def forward(
        self,
        memory: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"],
        study: Int64[Tensor, " r"],
        finding: Int64[Tensor, " r"],
        words: Int64[Tensor, "r l"],
    ) -> Written:
        """Say what comes next after every word of every row.

        Args:
            memory: Of each study.
            mask: Where it is real.
            study: Which one each row is of.
            finding: What each row is of.
            words: Each row's so far, the first of them `START`; padding comes after.
        """
        x = self.word(words) + self.finding(finding)[:, None]
        x = self.drop(x + place_waves(x))
        x = self.layers[0](x)
        read, energy = self.read(self.read_norm(x), memory, mask, study)
        x = x + self.drop(read)
        for layer in self.layers[1:]:
            x = layer(x)
        return Written(self.out(self.norm(x)), energy)


def place_on_grid(cells: int, width: int) -> Float[Tensor, "p d"]:
    """Give each cell of a frame waves of its row and, in the other half, of its column."""
    side = math.isqrt(cells)
    along = place_waves(torch.zeros(1, side, width // 2))
    rows, columns = along[:, None].expand(-1, side, -1), along[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
