"""Batches for training: cached features and labels in, padded tensors by modality out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medfuse.config import Balance, PrepareSettings, Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.data.prepare import SHORTEST_VOICE
from medfuse.models.fused import FusedModel
from medfuse.text.vocabulary import PADDING, Vocabulary
from medfuse.training.features import Features, pad
from medfuse.training.processes import WHOLE, Share
from medfuse.trust.calibration import label_slices
from medfuse.types import MODALITIES, Modality


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence to learn.

    Attributes:
        finding: The decoder's number of what it is of.
        needs: The modalities it rests on; None for all that the study has.
        words: Their numbers, start and end included.
    """

    finding: int
    needs: frozenset[Modality] | None
    words: Int64[np.ndarray, " l"]


@dataclass(frozen=True, slots=True)
class Example:
    """One study: its features by modality (None where absent), its labels and its sentences."""

    features: Mapping[Modality, np.ndarray | None]
    labels: Float64[np.ndarray, " c"]
    told: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class SentenceBatch:
    """The sentences of several studies.

    Attributes:
        study: Each one's study, by its place in the batch.
        finding: What it is of.
        needs: The modalities it rests on, in the order of `MODALITIES`.
        whole: Whether it rests on all that the study has, and `needs` says nothing.
        words: Padded with zeros.
    """

    study: Int64[Tensor, " n"]
    finding: Int64[Tensor, " n"]
    needs: Bool[Tensor, "n 3"]
    whole: Bool[Tensor, " n"]
    words: Int64[Tensor, "n l"]

    def to(self, device: torch.device) -> "SentenceBatch":
        """Move it to a device."""
        moved = (self.study, self.finding, self.needs, self.whole, self.words)
        return SentenceBatch(*(tensor.to(device) for tensor in moved))


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Several studies: what frozen encoders made of them, and what the others read.

    Attributes:
        values: By modality, (B, N, ...).
        masks: Bool (B, N): where a token is real.
        labels: (B, C), NaN where not known; quantities standardised.
        sentences: What there is to learn of findings text; None where there is nothing.
    """

    values: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]
    labels: Float[Tensor, "b c"]
    sentences: SentenceBatch | None = None

    def __len__(self) -> int:
        """How many studies there are."""
        return len(self.labels)

    @property
    def present(self) -> Bool[Tensor, "b m"]:
        """Which modalities each study has."""
        return torch.stack([self.masks[m].any(dim=1) for m in MODALITIES], dim=1)

    def to(self, device: torch.device) -> "FeatureBatch":
        """Move it to a device."""
        return replace(
            self,
            values={m: v.to(device) for m, v in self.values.items()},
            masks={m: v.to(device) for m, v in self.masks.items()},
            labels=self.labels.to(device),
            sentences=None if self.sentences is None else self.sentences.to(device),
        )


class FeatureDataset(Dataset[Example]):
    """Some of the studies of `Features`, with labels and sentences ready for the loss."""

    def __init__(
        self,
        features: Features,
        studies: Sequence[int],
        labels: Float64[np.ndarray, "n c"],
        told: Sequence[tuple[Told, ...]] = (),
    ) -> None:
        self.features, self.studies, self.labels, self.told = features, studies, labels, told

    def __len__(self) -> int:
        """How many studies there are."""
        return len(self.studies)

    def __getitem__(self, i: int | None) -> Example:
        """Give one study; of None, one with nothing in it, which teaches nothing."""
        if i is None:
            return Example(dict.fromkeys(MODALITIES), np.full(self.labels.shape[1], np.nan))
        study = self.studies[i]
        features = {m: self.features.get(study, m) for m in MODALITIES}
        return Example(features, self.labels[study], self.told[study] if self.told else ())


class Collator:
    """Pads examples to one batch; an absent modality is padding alone."""

    def __init__(self, model: FusedModel, prepare: PrepareSettings) -> None:
        side, bands = prepare.image.size, prepare.voice.mel_bands
        padding: dict[Modality, np.ndarray] = {
            Modality.IMAGE: np.zeros((1, side, side), np.float32),
            Modality.NOTE: np.zeros(1, np.int64),
            Modality.VOICE: np.zeros((SHORTEST_VOICE, bands), np.float32),
        }
        for m in model.frozen:
            padding[m] = np.zeros((1, *model.encoders[m].feature_shape), np.float32)
        self.padding = padding

    def __call__(self, examples: Sequence[Example]) -> FeatureBatch:
        """Stack examples."""
        values, masks = {}, {}
        for modality, padding in self.padding.items():
            stacked, mask = pad([e.features[modality] for e in examples], padding)
            values[modality], masks[modality] = torch.from_numpy(stacked), torch.from_numpy(mask)
        labels = np.stack([e.labels for e in examples]).astype(np.float32)
        sentences = stack_sentences([e.told for e in examples])
        return FeatureBatch(values, masks, torch.from_numpy(labels), sentences)


def stack_sentences(told: Sequence[tuple[Told, ...]]) -> SentenceBatch | None:
    """Pad the sentences of a batch's studies; None where no study has one."""
    flat = [(i, each) for i, own in enumerate(told) for each in own]
    if not flat:
        return None
    words = np.full((len(flat), max(len(each.words) for _, each in flat)), PADDING, np.int64)
    for row, (_, each) in zip(words, flat, strict=True):
        row[: len(each.words)] = each.words
    return SentenceBatch(
        study=torch.tensor([i for i, _ in flat]),
        finding=torch.tensor([each.finding for _, each in flat]),
        needs=torch.tensor([[m in (each.needs or ()) for m in MODALITIES] for _, each in flat]),
        whole=torch.tensor([each.needs is None for _, each in flat]),
        words=torch.from_numpy(words),
    )


def tell(
    rows: Sequence[CohortRow], findings: Sequence[str], vocabulary: Vocabulary
) -> list[tuple[Told, ...]]:
    """Number the words of every study's sentences."""
    return [
        tuple(
            Told(findings.index(each.target), each.modalities, vocabulary.encode(each.text))
            for each in row.sentences
        )
        for row in rows
    ]


class EpochSampler(Sampler[int]):
    """Draws each epoch's order of studies from (seed, epoch) alone, so that resuming repeats it.

    Args:
        chances: How likely each study is drawn, with replacement; None for a plain shuffle.
        size: How many studies there are.
        seed: Of the run.
    """

    def __init__(self, size: int, seed: int, chances: Float64[np.ndarray, " n"] | None) -> None:
        self.size, self.seed, self.chances = size, seed, chances
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Hear from Lightning which epoch is next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """How many draws an epoch has."""
        return self.size

    def __iter__(self) -> Iterator[int]:
        """Draw the epoch's order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.chances is None:
            return iter(rng.permutation(self.size).tolist())
        return iter(rng.choice(self.size, self.size, p=self.chances).tolist())


class BatchShares(Sampler[list[int | None]]):
    """A process's share of every batch; one that is left none has an empty study in its place.

    Attributes:
        sampler: Of the whole order, the same in every process; Lightning tells it the epoch.
    """

    def __init__(self, sampler: Sampler[int] | range, batch_size: int, share: Share) -> None:
        self.sampler, self.batch_size, self.share = sampler, batch_size, share

    def __len__(self) -> int:
        """How many batches there are."""
        return math.ceil(len(self.sampler) / self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int | None]]:
        """Cut the order into batches and each batch into shares."""
        order = iter(self.sampler)
        while batch := list(islice(order, self.batch_size)):
            own: list[int | None] = [*batch[self.share.index :: self.share.of]]
            yield own or [None]


def make_loader(
    dataset: FeatureDataset,
    collator: Collator,
    batch_size: int,
    sampler: Sampler[int] | None,
    share: Share = WHOLE,
) -> DataLoader[Example]:
    """Give batches in the sampler's order, or in the dataset's without one.

    Args:
        dataset: The studies.
        collator: Makes a batch of some.
        batch_size: Of all processes together.
        sampler: The order.
        share: Which part of each batch.
    """
    shares = BatchShares(range(len(dataset)) if sampler is None else sampler, batch_size, share)
    return DataLoader(dataset, batch_sampler=shares, collate_fn=collator)


def label_weights(
    tasks: Sequence[Task], labels: Float64[np.ndarray, "n c"]
) -> list[Mapping[float, float]]:
    """Give, per label column, how much each value must count for all values to count alike.

    The weights average to one over the studies. A quantity has none.
    """
    weights: list[Mapping[float, float]] = []
    for task, where in label_slices(tasks):
        for column in labels[:, where].T:
            values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            if task.kind is TaskKind.REGRESSION:
                weights.append({})
            else:
                share = counts.sum() / (len(values) * counts)
                weights.append(dict(zip(values.tolist(), share.tolist(), strict=True)))
    return weights


def weigh(
    labels: Float64[np.ndarray, "n c"], weights: Sequence[Mapping[float, float]]
) -> Float64[np.ndarray, "n c"]:
    """Look each label's weight up; one where it has none."""
    columns = [
        [weight.get(value, 1.0) for value in column]
        for column, weight in zip(labels.T.tolist(), weights, strict=True)
    ]
    return np.array(columns, dtype=np.float64).reshape(labels.shape[::-1]).T


def sampling_chances(
    balance: Balance, tasks: Sequence[Task], labels: Float64[np.ndarray, "n c"]
) -> Float64[np.ndarray, " n"] | None:
    """Give how likely each study is drawn: in proportion to its labels' mean weight."""
    if balance != "sample":
        return None
    mean = weigh(labels, label_weights(tasks, labels)).mean(axis=1)
    return np.asarray(mean / mean.sum())


@dataclass(frozen=True, slots=True)
class QuantityScale:
    """How each label column is standardised for training; (0, 1) but for quantities."""

    offset: Float64[np.ndarray, " c"]
    scale: Float64[np.ndarray, " c"]

    def standardise(self, labels: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
        """Bring quantities to mean 0 and spread 1."""
        return np.asarray((labels - self.offset) / self.scale)


def fit_scale(tasks: Sequence[Task], labels: Float64[np.ndarray, "n c"]) -> QuantityScale:
    """Measure the mean and spread of each quantity on the training studies."""
    offset, scale = np.zeros(labels.shape[1]), np.ones(labels.shape[1])
    for task, where in label_slices(tasks):
        known = labels[:, where][~np.isnan(labels[:, where])]
        if task.kind is TaskKind.REGRESSION and known.size:
            offset[where], scale[where] = known.mean(), known.std() or 1.0
    return QuantityScale(offset, scale)
