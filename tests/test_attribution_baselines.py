"""Baselines: what each puts in a study's place, by hand; and what none of them may touch."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from tokenizers import Tokenizer, models, processors

from medfuse.attribution.background import Background, blank_background
from medfuse.attribution.baselines import (
    BASELINES,
    BLUR,
    available_baselines,
    make_baseline,
    usual_baseline,
)
from medfuse.attribution.network import Inputs
from medfuse.attribution.settings import BASELINE_NAMES, BaselineName
from medfuse.attribution.subject import Subject, take_up
from medfuse.data.voice import SILENCE
from medfuse.errors import SettingsError
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name
from tests.attribution_network import (
    BANDS,
    MASK_PIECE,
    PAD_PIECE,
    SETTINGS,
    SIDE,
    SPECIAL,
    TOKENIZER,
    linear,
    make_prepared,
    make_subject,
)

NETWORK = linear()
IMAGE, NOTE, VOICE = MODALITIES
BACKGROUND = Background(
    image=np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE),
    note=np.array([5, 6], np.float32),
    voice=np.linspace(-1, 0, BANDS, dtype=np.float32),
    studies=9,
)


def sample(
    seed: int, present: frozenset[Modality] = frozenset(MODALITIES), **options: int | str
) -> Inputs:
    prepared = make_prepared(present, seed=seed, **options)  # type: ignore[arg-type]
    return take_up(NETWORK, prepared, SETTINGS).inputs


SAMPLES = (sample(1, frames=1, mel_frames=25, note="Fever."), sample(2, frames=3, mel_frames=90))


def make(name: BaselineName, subject: Subject) -> Inputs:
    (version,) = make_baseline(name, subject, NETWORK, TOKENIZER, BACKGROUND, ()).versions
    return version


def shown(subject: Subject) -> np.ndarray:
    return np.asarray(subject.regions.labels[IMAGE] >= 0)


def look_up(piece: int) -> np.ndarray:
    return np.asarray(NETWORK.embed(np.array([[piece]]))[0, 0])


def bare_tokenizer() -> Tokenizer:
    """A tokenizer with special pieces around a note, but neither [MASK] nor [PAD]."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, "[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def words(subject: Subject) -> np.ndarray:
    return ~np.isin(subject.pieces, SPECIAL)


def test_every_baseline_that_settings_name_is_there_for_every_modality() -> None:
    assert set(BASELINES) == set(BASELINE_NAMES) == set(get_args(BaselineName))
    assert all(set(makers) == set(MODALITIES) for makers in BASELINES.values())


@pytest.mark.parametrize(
    ("name", "piece"), [("blank", MASK_PIECE), ("padding", PAD_PIECE)], ids=["blank", "padding"]
)
def test_blank_and_padding_are_black_and_silent_and_differ_in_their_word_pieces(
    name: BaselineName, piece: int
) -> None:
    subject = make_subject(NETWORK)
    version = make(name, subject)
    assert not version.values[IMAGE].any()
    assert (version.values[VOICE] == SILENCE).all()
    note = version.values[NOTE][0]
    assert (note[1:-1] == look_up(piece)).all()
    assert np.array_equal(note[0], look_up(101))
    assert np.array_equal(note[-1], look_up(102))


def test_blurred_is_smooth_within_what_a_frame_shows_and_keeps_its_mean() -> None:
    subject = make_subject(NETWORK)
    version = make("blurred", subject)
    assert subject.prepared.image is not None
    for frame, own, place in zip(
        version.values[IMAGE][0],
        subject.inputs.values[IMAGE][0],
        subject.prepared.image.geometry,
        strict=True,
    ):
        rows = slice(place.top, place.top + place.height)
        assert place.height < SIDE  # there is padding, which is black and must not bleed in
        expected = own[rows].astype(np.float64)
        for axis in (0, 1):
            expected = gaussian_filter1d(expected, SIDE * BLUR, axis, mode="nearest")
        np.testing.assert_allclose(frame[rows], expected, atol=1e-5)
        assert frame[rows][[0, -1]].mean() > 0.35  # of noise around 0.5
    note = version.values[NOTE][0]
    assert (note[1:-1] == look_up(MASK_PIECE)).all()
    voice = subject.inputs.values[VOICE][0].astype(np.float64)
    expected = gaussian_filter1d(voice, len(voice) * BLUR, 0, mode="nearest")
    expected = gaussian_filter1d(expected, BANDS * BLUR, 1, mode="nearest")
    np.testing.assert_allclose(version.values[VOICE][0], expected, atol=1e-5)


def test_blurring_leaves_what_has_nothing_to_blur() -> None:
    prepared = make_prepared({IMAGE, VOICE})
    assert prepared.image is not None
    assert prepared.voice is not None
    grey = np.where(prepared.image.values > 0, np.float32(0.4), np.float32(0))
    flat = replace(
        prepared,
        image=replace(prepared.image, values=grey),
        voice=replace(prepared.voice, values=np.full_like(prepared.voice.values, -0.3)),
    )
    subject = take_up(NETWORK, flat, SETTINGS)
    version = make("blurred", subject)
    for modality in (IMAGE, VOICE):
        np.testing.assert_allclose(
            version.values[modality], subject.inputs.values[modality], atol=1e-6
        )


def test_mean_is_the_training_set_s_picture_word_piece_and_spectrum() -> None:
    subject = make_subject(NETWORK)
    version = make("mean", subject)
    frames = np.where(shown(subject), BACKGROUND.image, 0)
    assert np.array_equal(version.values[IMAGE][0], frames)
    assert (version.values[NOTE][0][1:-1] == [5, 6]).all()
    assert (version.values[VOICE][0] == BACKGROUND.voice).all()


def test_marginal_takes_each_sample_s_content_cycled_or_cut_to_the_study() -> None:
    subject = make_subject(NETWORK)
    baseline = make_baseline("marginal", subject, NETWORK, TOKENIZER, None, SAMPLES)
    assert baseline.name == "marginal"
    short, long = baseline.versions
    first, second = SAMPLES
    inside = shown(subject)
    for frame in range(2):
        expected = np.where(inside[frame], first.values[IMAGE][0, 0], 0)  # its one frame, twice
        assert np.array_equal(short.values[IMAGE][0, frame], expected)
        expected = np.where(inside[frame], second.values[IMAGE][0, frame], 0)
        assert np.array_equal(long.values[IMAGE][0, frame], expected)
    own = first.values[VOICE][0]
    assert np.array_equal(short.values[VOICE][0], np.concatenate([own, own])[:40])
    assert np.array_equal(long.values[VOICE][0], second.values[VOICE][0, :40])
    pieces = TOKENIZER.encode("Fever.", add_special_tokens=False).ids
    assert len(pieces) == 2
    count = len(subject.pieces) - 2
    expected = np.stack([look_up(pieces[i % 2]) for i in range(count)])
    assert np.array_equal(short.values[NOTE][0, 1:-1], expected)
    assert np.array_equal(long.values[NOTE][0], subject.inputs.values[NOTE][0])  # the same words


def test_a_sample_that_lacks_a_modality_borrows_the_next_one_s() -> None:
    subject = make_subject(NETWORK, {IMAGE, VOICE})
    samples = (
        sample(1, frozenset({IMAGE})),
        sample(2, frozenset({NOTE})),  # has nothing the study has
        sample(3, frozenset({VOICE})),
        sample(4, frozenset({IMAGE, VOICE})),
    )
    baseline = make_baseline("marginal", subject, NETWORK, TOKENIZER, None, samples)
    inside = shown(subject)
    donors = [(0, 2), (3, 2), (3, 3)]  # image and voice of each version
    assert len(baseline.versions) == len(donors)
    for version, (image, voice) in zip(baseline.versions, donors, strict=True):
        expected = np.where(inside, samples[image].values[IMAGE][0], 0)
        assert np.array_equal(version.values[IMAGE][0], expected)
        assert np.array_equal(version.values[VOICE], samples[voice].values[VOICE])


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_a_baseline_keeps_shapes_masks_padding_special_pieces_and_what_is_absent(
    name: BaselineName, subset: frozenset[Modality]
) -> None:
    subject = make_subject(NETWORK, subset)
    before = {m: np.array(v) for m, v in subject.inputs.values.items()}
    baseline = make_baseline(name, subject, NETWORK, TOKENIZER, BACKGROUND, SAMPLES)
    assert baseline.name == name
    assert len(baseline.versions) == (2 if name == "marginal" else 1)
    for version in baseline.versions:
        assert len(version) == 1
        for modality in MODALITIES:
            own = subject.inputs.values[modality]
            assert version.values[modality].shape == own.shape
            assert version.values[modality].dtype == own.dtype
            assert np.array_equal(version.masks[modality], subject.inputs.masks[modality])
            changed = not np.array_equal(version.values[modality], own)
            if modality not in subset:
                assert not changed
            elif (name, modality) != ("marginal", NOTE):  # a sample has the same words
                assert changed
        if IMAGE in subset:
            kept = ~shown(subject)
            assert kept.any()
            assert not version.values[IMAGE][0][kept].any()
        if NOTE in subset:
            kept = ~words(subject)
            assert kept.sum() == 2
            own = subject.inputs.values[NOTE][0]
            assert np.array_equal(version.values[NOTE][0][kept], own[kept])
    for modality in MODALITIES:
        assert np.array_equal(subject.inputs.values[modality], before[modality])


@given(st.integers(1, 7), st.integers(16, 60), st.integers(0, 50))
@examples(max_examples=20, deadline=None)
def test_marginal_content_comes_from_the_samples_alone(
    frames: int, mel_frames: int, seed: int
) -> None:
    subject = make_subject(NETWORK, {IMAGE, VOICE}, frames=frames, mel_frames=mel_frames)
    other = sample(seed + 100, frames=2, mel_frames=30)
    (version,) = make_baseline("marginal", subject, NETWORK, TOKENIZER, None, (other,)).versions
    for at, row in enumerate(version.values[VOICE][0]):
        assert np.array_equal(row, other.values[VOICE][0, at % 30])
    for at, frame in enumerate(version.values[IMAGE][0]):
        assert np.array_equal(frame, other.values[IMAGE][0, at % 2])


def test_what_a_baseline_lacks_is_named() -> None:
    subject = make_subject(NETWORK)
    hand = bare_tokenizer()
    lacking: dict[BaselineName, str] = {"blank": "MASK", "blurred": "MASK", "padding": "PAD"}
    for name, piece in lacking.items():
        with pytest.raises(SettingsError, match=rf"'{name}' .* needs a \[{piece}\] piece"):
            make_baseline(name, subject, NETWORK, hand, None, ())
    for background in (None, blank_background(SIDE, 2, BANDS)):
        with pytest.raises(SettingsError, match="'mean' needs the training set's means"):
            make_baseline("mean", subject, NETWORK, TOKENIZER, background, ())
    with pytest.raises(SettingsError, match=r"'marginal' needs .* that have image"):
        make_baseline("marginal", subject, NETWORK, TOKENIZER, None, ())
    silent = (sample(1, frozenset({IMAGE, NOTE})),)
    with pytest.raises(SettingsError, match=r"'marginal' needs .* that have voice"):
        make_baseline("marginal", subject, NETWORK, TOKENIZER, None, silent)


def test_a_study_without_a_note_needs_no_pieces() -> None:
    subject = make_subject(NETWORK, {IMAGE, VOICE})
    hand = bare_tokenizer()
    names: tuple[BaselineName, ...] = ("blank", "padding", "blurred")
    for name in names:
        version = make_baseline(name, subject, NETWORK, hand, None, ()).versions[0]
        assert not np.array_equal(version.values[IMAGE], subject.inputs.values[IMAGE])


def test_available_baselines_are_those_that_can_be_made() -> None:
    hand = bare_tokenizer()
    some = (sample(1, frozenset({IMAGE, NOTE})),)
    assert available_baselines(TOKENIZER, None, ()) == ("blank", "padding", "blurred")
    assert available_baselines(TOKENIZER, BACKGROUND, SAMPLES) == BASELINE_NAMES
    assert available_baselines(hand, BACKGROUND, ()) == ("mean",)
    for tokenizer in (TOKENIZER, hand):
        for background in (None, blank_background(SIDE, 2, BANDS), BACKGROUND):
            for samples in ((), some, SAMPLES):
                for subset in SUBSETS:
                    subject = make_subject(NETWORK, subset)
                    made = []
                    for name in BASELINE_NAMES:
                        try:
                            make_baseline(name, subject, NETWORK, tokenizer, background, samples)
                        except SettingsError:
                            continue
                        made.append(name)
                    found = available_baselines(tokenizer, background, samples, subset)
                    assert found == tuple(made)


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_the_training_set_s_mean_is_the_usual_baseline_where_it_is_known(
    subset: frozenset[Modality],
) -> None:
    subject = make_subject(NETWORK, subset)
    nameless = make_baseline(None, subject, NETWORK, TOKENIZER, BACKGROUND, SAMPLES)
    mean = make_baseline("mean", subject, NETWORK, TOKENIZER, BACKGROUND, SAMPLES)
    assert nameless.name == usual_baseline(TOKENIZER, BACKGROUND) == "mean"
    for modality in subset:
        assert np.array_equal(
            nameless.versions[0].values[modality], mean.versions[0].values[modality]
        )
    for background in (None, blank_background(SIDE, 2, BANDS)):
        found = make_baseline(None, subject, NETWORK, TOKENIZER, background, ())
        assert found.name == usual_baseline(TOKENIZER, background) == "blank"
