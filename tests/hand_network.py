"""The hand-written graph as a network that differentiates, worked out in NumPy."""

import threading
import time
from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int64

from medfuse.attribution.network import Cells, Gradients, Inputs
from medfuse.types import MODALITIES, Modality
from tests.hand_bundle import TASKS, WORDS

PIECE = 0.1
"""What each word piece adds to the note's logit; a masked or empty one adds nothing."""


MIXED = np.array([[1.0, 1.0, -0.2], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
"""Logits by modality with which the first rests on all three, on the voice against it."""


class HandNetwork:
    """Answers as `tests.hand_bundle.compute_logits`, and counts how often it is asked.

    Args:
        weights: Logits by modality; by default each modality has a logit of its own.
        slope: What the gradients are multiplied with; other than 1 they are wrong, so that no
            explanation is complete. It may be changed, as may ``delay_s``, which every answer
            takes.
    """

    def __init__(self, weights: Float[np.ndarray, "3 3"] | None = None, slope: float = 1.0) -> None:
        self.weights = np.eye(3) if weights is None else weights
        self.slope = slope
        self.delay_s = 0.0
        self.asked = 0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target for task in TASKS for target in task.targets)

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l 2"]:
        """Give each piece what it adds, and its number, which adds nothing."""
        nothing = [WORDS.index(word) for word in ("[MASK]", "[PAD]")]
        adds = np.where(np.isin(pieces, nothing), 0.0, PIECE)
        return np.stack([adds, pieces], axis=2).astype(np.float32)

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n 3"]:
        self._count(1)
        time.sleep(self.delay_s)
        parts = np.stack([self._weigh(m, inputs)[1] for m in MODALITIES], axis=1)
        self._count(-1)
        return np.asarray(parts @ self.weights.T, np.float32)

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n 3"], wanted: Collection[Modality]
    ) -> Gradients:
        slopes = self.slope * weights @ self.weights  # (N, 3)
        found = {
            m: (
                self._weigh(m, inputs)[0]
                * slopes[:, MODALITIES.index(m)].reshape(-1, *[1] * (inputs.values[m].ndim - 1))
            ).astype(np.float32)
            for m in wanted
        }
        return Gradients(self.answer(inputs), found)

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        """Look at each frame in proportion to its number, from 1."""
        mask = inputs.masks[Modality.IMAGE]
        weights = mask * np.arange(1.0, mask.shape[1] + 1)
        return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1.0))

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n 3"]) -> Cells:
        """Show each frame's quarters as cells of one channel."""
        n, s, h, w = inputs.values[Modality.IMAGE].shape
        cells = inputs.values[Modality.IMAGE].reshape(n, s, 2, h // 2, 2, w // 2).mean(axis=(3, 5))
        slopes = np.full((n, s, 4, 1), 0.25) * (weights @ self.weights)[:, 0].reshape(-1, 1, 1, 1)
        return Cells(self.answer(inputs), cells.reshape(n, s, 4, 1), slopes)

    def _weigh(
        self, modality: Modality, inputs: Inputs
    ) -> tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, " n"]]:
        """What each element weighs in its modality's logit, and the logit."""
        values, mask = inputs.values[modality].astype(np.float64), inputs.masks[modality]
        real = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
        if modality is Modality.NOTE:
            each = real * np.array([1.0, 0.0])
        else:
            count = mask.sum(axis=1) * np.prod(values.shape[2:])
            each = real / np.maximum(count, 1).reshape(-1, *[1] * (values.ndim - 1))
        each = np.broadcast_to(each, values.shape)
        return each, (each * values).reshape(len(values), -1).sum(axis=1)

    def _count(self, change: int) -> None:
        with self._lock:
            self.asked += change > 0
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)
