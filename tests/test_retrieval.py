"""Retrieval: nearest and recall by hand, and what they say of embeddings that know nothing."""

import numpy as np
import pytest

from medfuse.trust.retrieval import Embeddings, measure_recall, nearest
from medfuse.types import MODALITIES, Modality

EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def make_gallery(image: list[list[float]], note: list[list[float]]) -> Embeddings:
    vectors = {
        Modality.IMAGE: np.array(image),
        Modality.NOTE: np.array(note),
        Modality.VOICE: np.zeros((len(note), 2)),
    }
    present = np.stack([vectors[m].any(axis=1) for m in MODALITIES], axis=1)
    return Embeddings(vectors, present)


def test_the_nearest_come_first_and_a_study_without_the_modality_is_not_found() -> None:
    gallery = make_gallery([EAST] * 4, [NORTH, [0.0, 0.0], EAST, NORTH_EAST])
    places, cosines = nearest(np.array(EAST), gallery, Modality.NOTE, 2)
    assert places.tolist() == [2, 3]
    np.testing.assert_allclose(cosines, [1.0, 0.6])
    assert nearest(np.array(EAST), gallery, Modality.NOTE, 9)[0].tolist() == [2, 3, 0]


def test_recall_counts_how_often_ones_own_is_among_the_nearest() -> None:
    # The second study's image is nearer to the third's note than to its own.
    gallery = make_gallery([EAST, NORTH, NORTH_EAST], [EAST, NORTH_EAST, NORTH])
    there, back = measure_recall(gallery, ["a", "b", "c"], resamples=50)
    assert (there.asked, there.found, there.studies) == (Modality.IMAGE, Modality.NOTE, 3)
    assert there.recall[1].value == pytest.approx(1 / 3)
    assert there.recall[10].value == 1.0
    assert there.chance == {1: pytest.approx(1 / 3), 10: 1.0}
    assert there.median_rank == 2.0
    assert (back.asked, back.found) == (Modality.NOTE, Modality.IMAGE)
    assert back.recall[1].value == pytest.approx(1 / 3)


def test_embeddings_that_are_all_alike_are_at_chance() -> None:
    gallery = make_gallery([EAST] * 40, [EAST] * 40)
    for recall in measure_recall(gallery, [str(i) for i in range(40)], resamples=20):
        assert recall.recall[1].value == pytest.approx(1 / 40)
        assert recall.recall[10].value == pytest.approx(10 / 40)
        assert recall.median_rank == 20.5


def test_random_embeddings_are_at_chance_and_equal_ones_are_always_found() -> None:
    rng = np.random.default_rng(0)
    image, note = (rng.normal(size=(400, 8)) for _ in range(2))
    image, note = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, note))
    names = [str(i) for i in range(400)]
    recall = measure_recall(make_gallery(image.tolist(), note.tolist()), names)[0].recall[10]
    assert recall.low is not None
    assert recall.high is not None
    assert recall.low <= 10 / 400 <= recall.high
    found = measure_recall(make_gallery(image.tolist(), image.tolist()), names)[0]
    assert found.recall[1].value == 1.0
