"""Telling novel inputs: known answers, the false-alarm rate, privacy, and really wrong inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from medfuse.errors import BundleError
from medfuse.trust.descriptors import describe_image, describe_voice
from medfuse.trust.novelty import (
    PAIRS,
    Language,
    NoveltyModel,
    Usual,
    describe_note,
    from_bytes,
    hash_pairs,
    to_bytes,
)
from medfuse.trust.novelty_fitting import FEWEST, SHARED, Described, count_words, fit_novelty
from medfuse.types import Modality

USUAL = Usual(
    mean=np.array([1.0, 2.0], np.float32),
    whiten=np.diag([1.0, 0.5]).astype(np.float32),
    distances=np.array([0.5, 1.0, 1.0, 2.0], np.float32),
)


def test_distance_and_p_value_are_those_worked_out_on_paper() -> None:
    # Whitened: (1, 1), whose root mean square is 1; three of four are as far.
    assert USUAL.distance(np.array([2.0, 4.0])) == pytest.approx(1.0)
    assert USUAL.p_value(np.array([2.0, 4.0])) == pytest.approx(4 / 5)
    assert USUAL.p_value(np.array([1.0, 2.0])) == 1.0
    assert USUAL.p_value(np.array([99.0, 2.0])) == pytest.approx(1 / 5)


def test_words_are_counted_only_where_several_patients_have_them() -> None:
    notes = [np.array([1, 2, 3, 3]), np.array([1, 2, 5]), np.array([1, 2, 4])]
    assert SHARED == 3
    language = count_words(notes)
    assert language.pieces.tolist() == [0, 3, 3, 0, 0, 0]
    assert np.flatnonzero(language.pairs).tolist() == hash_pairs(np.array([1, 2])).tolist()
    assert language.pairs.sum() == 3


def test_a_note_is_described_by_how_usual_its_words_are() -> None:
    language = Language(np.array([0, 6, 2], np.float32), np.zeros(PAIRS, np.float32))
    described = describe_note(np.array([1, 2, 0, 9]), language)
    # Laplace: (6 + 1) / (8 + 3), (2 + 1) / 11 and 1 / 11; number 9 was never seen by training.
    assert described[0] == pytest.approx(np.mean(np.log([7 / 11, 3 / 11, 1 / 11])))
    assert described[1] == pytest.approx(np.log(1 / PAIRS))
    assert described[2:].tolist() == pytest.approx([0.5, 1.0, 1.0, np.log(4)])
    assert np.isfinite(describe_note(np.array([7]), language)).all()


@given(st.integers(1, 3), st.integers(8, 40), st.integers(8, 40))
def test_any_image_has_a_finite_description_of_one_length(
    frames: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(0)
    for image in (rng.random((frames, rows, columns)), np.zeros((frames, rows, columns))):
        described = describe_image(image.astype(np.float32))
        assert described.shape == describe_image(np.ones((1, 8, 8), np.float32)).shape
        assert np.isfinite(described).all()


@given(st.integers(1, 80))
def test_any_recording_has_a_finite_description_of_one_length(frames: int) -> None:
    rng = np.random.default_rng(0)
    for log_mel in (rng.normal(size=(frames, 64)), np.full((frames, 64), -1.0)):
        described = describe_voice(log_mel.astype(np.float32))
        assert described.shape == describe_voice(np.ones((5, 64), np.float32)).shape
        assert np.isfinite(described).all()


def draw(n: int, rng: np.random.Generator, offset: int = 0) -> list[Described]:
    return [
        Described(
            str(offset + i),
            {
                Modality.IMAGE: rng.gamma(2.0, size=12),  # far from normal
                Modality.NOTE: rng.zipf(1.6, size=rng.integers(5, 60)) % 400,
            },
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.NOTE])
def test_usual_studies_are_called_novel_as_rarely_as_said(modality: Modality) -> None:
    rng = np.random.default_rng(0)
    model = fit_novelty(draw(400, rng), 0.01, 0)
    p = np.array([model.p_values(d.descriptions)[modality] for d in draw(2000, rng, 2000)])
    for rate in (0.01, 0.05, 0.2):
        # Binomial spread of 2,000 judged and of the 400 they are held to.
        spread = np.sqrt(rate * (1 - rate) * (1 / 2000 + 1 / 400))
        assert abs((p <= rate).mean() - rate) < 4 * spread + 1 / 400


def test_what_is_usual_of_notes_is_measured_on_notes_that_were_not_counted() -> None:
    # Of rare words a count knows more of the notes that it was made of than of others.
    rng = np.random.default_rng(0)

    def draw_notes(n: int) -> list[Described]:
        notes = rng.integers(0, 2000, (n, 60))
        return [Described(str(rng.random()), {Modality.NOTE: own}) for own in notes]

    model = fit_novelty(draw_notes(200), 0.01, 0)
    assert model.language is not None
    new = [describe_note(d.descriptions[Modality.NOTE], model.language) for d in draw_notes(400)]
    spread = np.std(new, axis=0) * np.sqrt(1 / 100 + 1 / 400)
    gap = np.abs(model.usual[Modality.NOTE].mean - np.mean(new, axis=0))
    assert (gap <= 5 * spread + 1e-4).all()


def test_too_few_patients_tell_nothing_however_many_studies_they_have() -> None:
    rng = np.random.default_rng(0)
    same = [Described("one", d.descriptions) for d in draw(300, rng)]
    assert not fit_novelty(same, 0.05, 0).usual
    assert not fit_novelty(draw(FEWEST - 1, rng), 0.05, 0).usual
    model = fit_novelty(draw(FEWEST, rng), 0.05, 0)
    assert set(model.usual) == {Modality.IMAGE, Modality.NOTE}
    assert model.p_values({Modality.VOICE: np.zeros(75)}) == {}
    # Of 98 the most unusual is one of 99 with the new one: more than 1 %.
    assert not fit_novelty(draw(98, rng), 0.01, 0).usual
    strange = {Modality.IMAGE: np.full(12, 1e3)}
    assert fit_novelty(draw(99, rng), 0.01, 0).p_values(strange) == {Modality.IMAGE: 0.01}


def test_what_is_written_is_read_back_and_anything_else_refused() -> None:
    rng = np.random.default_rng(0)
    model = fit_novelty(draw(120, rng), 0.01, 0)
    data = to_bytes(model)
    again = from_bytes(data)
    assert to_bytes(again) == data
    for study in draw(5, rng):
        assert again.p_values(study.descriptions) == model.p_values(study.descriptions)
    assert from_bytes(to_bytes(NoveltyModel({}))).usual == {}
    arrays = load(data)
    for name, wrong in (
        ("image.whiten", np.eye(3, dtype=np.float32)),
        ("image.mean", np.full(12, np.inf, np.float32)),
        ("image.distances", np.zeros(3)),
        ("language.pairs", np.zeros((2, 2), np.float32)),
    ):
        with pytest.raises(BundleError, match="novel"):
            from_bytes(save(arrays | {name: wrong}))
    wordless = {name: array for name, array in arrays.items() if name != "language.pieces"}
    for rubbish in (b"", data[:50], save(wordless)):
        with pytest.raises(BundleError, match="novel"):
            from_bytes(rubbish)
