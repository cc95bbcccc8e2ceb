"""One study's tokens and a decoder in; a sentence for each finding asked of, with its reading, out.

The loop takes the likeliest word each time, so the same study always gets the same sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import log_softmax

from medfuse.text.vocabulary import END, MOST_WORDS, PADDING, START, UNKNOWN


@dataclass(frozen=True, slots=True)
class Steps:
    """What a decoder says after each word of each row, and where it read it.

    Attributes:
        logits: Of every word of the vocabulary, to stand next.
        energy: The squared length of what each token added to each word.
    """

    logits: Float[np.ndarray, "r l v"]
    energy: Float[np.ndarray, "r l n"]


@runtime_checkable
class Writer(Protocol):
    """A decoder, whatever runs it."""

    def __call__(
        self,
        memory: Float[np.ndarray, "b n d"],
        mask: Bool[np.ndarray, "b n"],
        study: Int64[np.ndarray, " r"],
        finding: Int64[np.ndarray, " r"],
        words: Int64[np.ndarray, "r l"],
    ) -> Steps:
        """Say what comes next after every word."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A sentence in numbers.

    Attributes:
        words: Without `START` and `END`.
        likelihood: The geometric mean of its words' probabilities, that of its end included.
        reading: The length of what each token added, averaged over the words.
        lead: The least by which a word was ahead of the next likely one, in logits.
    """

    words: Int64[np.ndarray, " l"]
    likelihood: float
    reading: Float[np.ndarray, " n"]
    lead: float


def write_drafts(
    writer: Writer,
    memory: Float[np.ndarray, "n d"],
    mask: Bool[np.ndarray, " n"],
    findings: Sequence[int],
) -> list[Draft | None]:
    """Write a sentence of each finding of one study, the likeliest word at a time.

    Returns:
        In the order of the findings; None for a sentence that is empty or finds no end.
    """
    rows = len(findings)
    if not rows:
        return []
    asked = np.array(findings, np.int64)
    study = np.zeros(rows, np.int64)
    words = np.full((rows, 1), START, np.int64)
    total, lead, done = np.zeros(rows), np.full(rows, np.inf), np.zeros(rows, bool)
    for _ in range(MOST_WORDS + 1):
        steps = writer(memory[None], mask[None], study, asked, words)
        logits = steps.logits[:, -1].astype(np.float64)
        logits[:, [PADDING, START, UNKNOWN]] = -np.inf
        chances = log_softmax(logits, axis=1)
        best = chances.argmax(axis=1)
        second, first = np.partition(chances, -2, axis=1)[:, -2:].T
        lead = np.where(done, lead, np.minimum(lead, first - second))
        total += np.where(done, 0.0, first)
        best[done] = PADDING
        done = done | (best == END)
        words = np.concatenate([words, best[:, None]], axis=1)
        if done.all():
            break
    return [
        _cut(words[i, 1:], total[i], lead[i], steps.energy[i]) if done[i] else None
        for i in range(rows)
    ]


def _cut(
    words: Int64[np.ndarray, " l"], total: float, lead: float, energy: Float[np.ndarray, "l n"]
) -> Draft | None:
    length = int((words == END).argmax())
    if not length:
        return None
    # The word at a place is read from the place before it, where the one before it stands.
    reading = np.sqrt(np.maximum(energy[:length].astype(np.float64), 0.0)).mean(axis=0)
    return Draft(words[:length], float(np.exp(total / (length + 1))), reading, float(lead))


def weigh_parts(
    writer: Writer,
    memory: Float[np.ndarray, "n d"],
    mask: Bool[np.ndarray, " n"],
    finding: int,
    draft: Draft,
    parts: Sequence[Bool[np.ndarray, " n"]],
) -> Float[np.ndarray, " p"]:
    """Say how much a sentence owes to each part of a study.

    A part's due is how much less likely the whole sentence is, in log probability, where the
    decoder cannot read the part; 0 where it is no less likely.

    Args:
        writer: The decoder.
        memory: The study's tokens.
        mask: Which are real.
        finding: What the sentence is of.
        draft: The sentence.
        parts: Which tokens are of each part.
    """
    masks = np.stack([mask, *(mask & ~part for part in parts)])
    rows = len(masks)
    words = np.concatenate([[START], draft.words, [END]])
    steps = writer(
        np.repeat(memory[None], rows, axis=0),
        masks,
        np.arange(rows),
        np.full(rows, finding),
        np.repeat(words[None, :-1], rows, axis=0),
    )
    logits = steps.logits.astype(np.float64)
    logits[..., [PADDING, START, UNKNOWN]] = -np.inf
    chances = log_softmax(logits, axis=2)[:, np.arange(len(words) - 1), words[1:]].sum(axis=1)
    return np.asarray(np.maximum(chances[0] - chances[1:], 0.0))
