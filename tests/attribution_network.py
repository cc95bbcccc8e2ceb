"""A network whose answers and gradients one can work out on paper, and studies to ask it about."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
from jaxtyping import Float, Float64, Int64

from medfuse.attribution.network import Cells, Gradients, Inputs
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target
from medfuse.config import ImageSettings, Limits, NoteSettings, PrepareSettings, VoiceSettings
from medfuse.data.image import fit_square
from medfuse.data.note import load_tokenizer, prepare_note
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.types import MODALITIES, Modality, Prepared, PreparedImage, PreparedVoice

SIDE, BANDS = 32, 8
SETTINGS = PrepareSettings(image=ImageSettings(size=SIDE), voice=VoiceSettings(mel_bands=BANDS))
TOKENIZER = load_tokenizer(tokenizer_path(ModelSettings()))
MASK_PIECE, PAD_PIECE, SPECIAL = 103, 0, (101, 102)  # of BERT's vocabulary: [CLS] and [SEP]
NOTE = "Cough and fever, no pneumothorax."

Sums = Float64[np.ndarray, "n 3"]


class SumNetwork:
    """A function of three numbers: each modality's real values, weighted and added up.

    Args:
        function: From the three sums (N, 3) to logits (N, K).
        slopes: Its derivatives (N, K, 3).
        even: Every element weighs 1, else each its own.
    """

    def __init__(
        self,
        function: Callable[[Sums], np.ndarray],
        slopes: Callable[[Sums], np.ndarray],
        *,
        even: bool = False,
    ) -> None:
        self.function, self.slopes, self.even = function, slopes, even
        self.asked: list[Inputs] = []

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"findings.f{i}" for i in range(self.function(np.zeros((1, 3))).shape[1]))

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l e"]:
        return np.stack([pieces / 1000, -pieces / 500], axis=2).astype(np.float32)

    def weights(self, modality: Modality, inputs: Inputs) -> Float64[np.ndarray, "..."]:
        """Each element's weight, zero where the mask is false, in the shape of the values."""
        values, mask = inputs.values[modality], inputs.masks[modality]
        shape = values.shape[1:]
        place = np.arange(np.prod(shape)).reshape(shape)
        each = np.ones(shape) if self.even else np.cos(place + MODALITIES.index(modality))
        return np.asarray(each * mask.reshape(*mask.shape, *[1] * (values.ndim - 2)))

    def sums(self, inputs: Inputs) -> Sums:
        return np.stack(
            [
                (self.weights(m, inputs) * inputs.values[m].astype(np.float64))
                .reshape(len(inputs), -1)
                .sum(axis=1)
                for m in MODALITIES
            ],
            axis=1,
        )

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n k"]:
        self.asked.append(inputs)
        return self.function(self.sums(inputs))

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n k"], wanted: Collection[Modality]
    ) -> Gradients:
        self.asked.append(inputs)
        sums = self.sums(inputs)
        slopes = np.einsum("nk,nkm->nm", weights, self.slopes(sums))
        return Gradients(
            self.function(sums),
            {
                m: self.weights(m, inputs)
                * slopes[:, MODALITIES.index(m)].reshape(-1, *[1] * (inputs.values[m].ndim - 1))
                for m in wanted
            },
        )

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        """Look at each frame in proportion to its number, from 1."""
        mask = inputs.masks[Modality.IMAGE]
        weights = mask * np.arange(1.0, mask.shape[1] + 1)
        return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1.0))

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n k"]) -> Cells:
        """Show four cells a frame, its quarters, of two channels: their sum and its opposite."""
        n, s, h, w = inputs.values[Modality.IMAGE].shape
        quarters = inputs.values[Modality.IMAGE].reshape(n, s, 2, h // 2, 2, w // 2)
        total = quarters.sum(axis=(3, 5)).reshape(n, s, 4)
        sums = self.sums(inputs)
        slope = np.einsum("nk,nk->n", weights, self.slopes(sums)[:, :, 0])
        gradient = np.broadcast_to(slope[:, None, None, None], (n, s, 4, 1))
        return Cells(
            self.function(sums),
            np.stack([total, -total], axis=3),
            np.concatenate([gradient, 0 * gradient], axis=3),
        )


def linear(
    weights: tuple[float, float, float] = (2.0, 3.0, 0.5), *, even: bool = False
) -> SumNetwork:
    """Two logits: the weighted sum of the sums, and its opposite."""
    both = np.stack([weights, np.negative(weights)])  # (K, 3)
    return SumNetwork(
        lambda z: z @ both.T, lambda z: np.broadcast_to(both, (len(z), 2, 3)), even=even
    )


def bent(
    weights: tuple[float, float, float] = (0.05, 0.02, 0.1), pair: float = 0.001
) -> SumNetwork:
    """Two smooth logits: the tanh of the weighted sum; and the product of image and note."""
    w = np.array(weights)

    def slopes(z: Sums) -> np.ndarray:
        first = (1 - np.tanh(z @ w)[:, None] ** 2) * w
        second = pair * np.stack([z[:, 1], z[:, 0], 0 * z[:, 2]], axis=1)
        return np.stack([first, second], axis=1)

    return SumNetwork(
        lambda z: np.stack([np.tanh(z @ w), pair * z[:, 0] * z[:, 1]], axis=1), slopes
    )


def make_prepared(
    present: Collection[Modality] = MODALITIES,
    *,
    seed: int = 0,
    frames: int = 2,
    mel_frames: int = 40,
    note: str = NOTE,
) -> Prepared:
    """Draw a study; its frames are wide, so that they have padding above and below."""
    rng = np.random.default_rng(seed)
    geometry = [
        fit_square(instance=0, frame=i, rows=60, columns=100, size=SIDE) for i in range(frames)
    ]
    values = np.zeros((frames, SIDE, SIDE), np.float32)
    for square, place in zip(values, geometry, strict=True):
        square[place.top : place.top + place.height] = rng.random((place.height, SIDE))
    return Prepared(
        image=PreparedImage(values, tuple(geometry)) if Modality.IMAGE in present else None,
        note=prepare_note(note.encode(), NoteSettings(), Limits(), TOKENIZER)[0]
        if Modality.NOTE in present
        else None,
        voice=PreparedVoice(
            rng.random((mel_frames, BANDS), np.float32) * 2 - 1, 0.0125, 0.01, mel_frames * 0.01
        )
        if Modality.VOICE in present
        else None,
    )


def make_subject(
    network: SumNetwork, present: Collection[Modality] = MODALITIES, **options: int | str
) -> Subject:
    """Draw a study and take it up."""
    return take_up(network, make_prepared(present, **options), SETTINGS)  # type: ignore[arg-type]


def pick(network: SumNetwork, index: int = 0) -> Target:
    """Choose one logit."""
    count = len(network.targets)
    return Target(network.targets[index], np.eye(count, dtype=np.float32)[index])


def parts(values: Mapping[Modality, np.ndarray]) -> float:
    """Add up a whole attribution."""
    return sum(float(part.sum(dtype=np.float64)) for part in values.values())
