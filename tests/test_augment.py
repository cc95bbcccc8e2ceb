"""Augmentation: what it may change and what it must leave as it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfuse.data.voice import SILENCE
from medfuse.training.augment import PER_DB, augment, drop_words, mask_spectrum, move_images
from medfuse.training.dataset import FeatureBatch
from medfuse.training.settings import AugmentSettings
from medfuse.types import MODALITIES, Modality

ALL = AugmentSettings(image=True, note=0.5, voice=True)


def make_batch(lengths: tuple[int, ...] = (3, 0, 5)) -> FeatureBatch:
    rng = np.random.default_rng(0)
    n, most = len(lengths), max(*lengths, 1)
    mask = torch.arange(most)[None] < torch.tensor(lengths)[:, None]
    values = {
        Modality.IMAGE: torch.from_numpy(rng.random((n, most, 32, 32))).float(),
        Modality.NOTE: torch.from_numpy(rng.integers(1, 99, (n, most))),
        Modality.VOICE: torch.from_numpy(rng.uniform(-1, 1, (n, most, 20))).float(),
    }
    return FeatureBatch(values, dict.fromkeys(MODALITIES, mask), torch.zeros(n, 1))


def test_the_same_draws_give_the_same_batch_and_others_another() -> None:
    batch = make_batch()
    first, again, other = (augment(batch, ALL, np.random.default_rng(s)) for s in (1, 1, 2))
    for m in MODALITIES:
        assert torch.equal(first.values[m], again.values[m])
        assert torch.equal(first.masks[m], again.masks[m])
    assert not torch.equal(first.values[Modality.IMAGE], other.values[Modality.IMAGE])
    assert not torch.equal(first.values[Modality.VOICE], other.values[Modality.VOICE])


def test_presence_and_padding_stay_and_nothing_changes_unasked() -> None:
    batch = make_batch()
    changed = augment(batch, ALL, np.random.default_rng(0))
    assert torch.equal(changed.present, batch.present)
    for m in (Modality.IMAGE, Modality.VOICE):
        padding = ~batch.masks[m]
        assert torch.equal(changed.values[m][padding], batch.values[m][padding])
    same = augment(batch, AugmentSettings(), np.random.default_rng(0))
    assert all(same.values[m] is batch.values[m] for m in MODALITIES)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(0, 0.99), st.integers(0, 99))
def test_deleted_words_leave_the_others_in_order_and_never_none(
    lengths: list[int], rate: float, seed: int
) -> None:
    batch = make_batch(tuple(lengths))
    note, mask = batch.values[Modality.NOTE], batch.masks[Modality.NOTE]
    left, kept = drop_words(note, mask, rate, np.random.default_rng(seed))
    counts = kept.sum(dim=1)
    assert torch.equal(kept, torch.arange(kept.shape[1])[None] < counts[:, None])
    for i, length in enumerate(lengths):
        assert (counts[i] > 0) == (length > 0)
        words = iter(note[i, :length].tolist())
        assert all(word in words for word in left[i, : counts[i]].tolist())  # a subsequence


def test_words_are_deleted_as_often_as_is_said() -> None:
    batch = make_batch((4_000,))
    kept = drop_words(
        batch.values[Modality.NOTE], batch.masks[Modality.NOTE], 0.3, np.random.default_rng(0)
    )[1]
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.03)


def test_a_spectrum_only_gets_louder_where_nothing_is_hidden() -> None:
    voice = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (1, 200, 40))).float()
    changed = mask_spectrum(voice, torch.ones(1, 200, dtype=torch.bool), np.random.default_rng(3))
    gains = ((changed - voice) / PER_DB).flatten()
    gain = gains.median()
    untouched = (gains - gain).abs() < 1e-3
    assert abs(gain) <= 6.0
    assert 0.5 < untouched.float().mean() < 1.0
    assert changed.min() >= SILENCE


def test_an_image_is_moved_a_little_and_stays_an_image() -> None:
    image = torch.zeros(1, 2, 64, 64)
    image[0, :, 28:36, 28:36] = 1.0
    mask = torch.tensor([[True, True]])
    for seed in range(20):
        moved = move_images(image, mask, np.random.default_rng(seed))
        assert moved.min() >= 0.0
        assert moved.max() <= 1.0
        weights = (moved[0, 0] > 0.5).float()
        place = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
        centre = (place * weights).sum(dim=(1, 2)) / weights.sum()
        assert (centre - 31.5).abs().max() < 0.05 * 64 + 3
        assert 40 < weights.sum() < 100
        assert torch.allclose(moved[0, 0], moved[0, 1], atol=0.15)  # but for the noise
