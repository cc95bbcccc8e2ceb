import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medfuse.config import ImageSettings, NoteSettings, PrepareSettings, VoiceSettings
from medfuse.data.cohort import CohortRow, CohortSettings, load_study, read_cohort
from medfuse.data.note import load_tokenizer
from medfuse.data.prepare import collate, prepare
from medfuse.errors import TrainingError
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.models.voice.speaker import NEEDED
from medfuse.models.weights import tokenizer_path
from medfuse.synthetic.world import TASK
from medfuse.training.dataset import Collator, FeatureDataset
from medfuse.training.features import Features, Progress, build_features
from medfuse.training.loop import TrainingModule
from medfuse.training.settings import FeatureSettings, FitSettings
from medfuse.training.store import ArrayStore
from medfuse.trust.descriptors import describe
from medfuse.types import MODALITIES, Modality

PREPARE = PrepareSettings(
    image=ImageSettings(size=64),
    note=NoteSettings(word_pieces=48),
    voice=VoiceSettings(mel_bands=32, duration_s=3.0),
)
EXACT = FeatureSettings(dtype="float32", workers=1)


class Counting(Progress):
    def __init__(self) -> None:
        self.total = self.done = 0

    def begin(self, total: int) -> None:
        self.total = total

    def advance(self) -> None:
        self.done += 1


@pytest.fixture(scope="module")
def model_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    from tests.tiny import write_bert

    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    write_bert(folder)
    return ModelSettings(note=folder, width=16)


@pytest.fixture(scope="module")
def model(model_settings: ModelSettings) -> FusedModel:
    torch.manual_seed(1)
    return build_model(model_settings, PREPARE, [TASK], pretrained=True).eval()


@pytest.fixture(scope="module")
def rows(small_cohort: Path) -> tuple[CohortRow, ...]:
    return read_cohort(CohortSettings(table=small_cohort / "cohort.csv"), [TASK]).rows[:12]


def build(
    rows: tuple[CohortRow, ...],
    model: FusedModel,
    model_settings: ModelSettings,
    folder: Path,
    prepare: PrepareSettings = PREPARE,
    how: FeatureSettings = EXACT,
) -> tuple[Features, int]:
    counting = Counting()
    features = build_features(rows, prepare, model, model_settings, how, folder, counting)
    assert counting.done == counting.total
    return features, counting.total


def everything(features: Features) -> list[Mapping[Modality, np.ndarray | None]]:
    return [{m: features.get(i, m) for m in MODALITIES} for i in range(len(features.rows))]


def assert_same(first: Features, second: Features) -> None:
    for a, b in zip(everything(first), everything(second), strict=True):
        for m in MODALITIES:
            np.testing.assert_array_equal(a[m], b[m])


def test_a_second_run_computes_nothing_and_finds_the_same(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    first, computed = build(rows, model, model_settings, tmp_path)
    second, again = build(rows, model, model_settings, tmp_path)
    assert (computed, again) == (len(rows), 0)
    assert_same(first, second)
    assert first.digest == second.digest


def test_descriptions_are_those_of_the_prepared_files_and_go_with_what_is_taken_away(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    features, _ = build(rows, model, model_settings, tmp_path)
    tokenizer = load_tokenizer(tokenizer_path(model_settings))
    kept = features.present & (np.arange(len(rows)) % 2 == 0)[:, None]
    kept |= np.array(MODALITIES) == Modality.NOTE  # all have one
    left = features.thinned(kept)
    for i, row in enumerate(features.rows):
        expected = describe(prepare(load_study(row), PREPARE, tokenizer))
        described = features.describe(i)
        assert set(described) == set(expected)
        for m in expected:
            np.testing.assert_allclose(described[m], expected[m], rtol=1e-6)
        assert set(left.describe(i)) == {
            m for m, yes in zip(MODALITIES, kept[i], strict=True) if yes
        }


def test_workers_give_what_one_process_gives(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    alone, _ = build(rows, model, model_settings, tmp_path / "alone")
    two = EXACT.model_copy(update={"workers": 2})
    together, _ = build(rows, model, model_settings, tmp_path / "together", how=two)
    assert_same(alone, together)


def test_the_model_answers_from_the_cache_as_from_the_files(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    assert_answers_alike(rows, model, model_settings, PREPARE, tmp_path)


def test_a_speaker_network_that_covers_fewer_tokens_answers_from_the_cache_too(
    rows: tuple[CohortRow, ...], model_settings: ModelSettings, tmp_path: Path
) -> None:
    voice = VoiceSettings.model_validate(NEEDED | {"duration_s": 3.0})
    how = PREPARE.model_copy(update={"voice": voice})
    settings = model_settings.model_copy(update={"voice": "speaker"})
    model = build_model(settings, how, [TASK], pretrained=True).eval()
    assert model.frozen == set(MODALITIES)
    features = assert_answers_alike(rows[:4], model, settings, how, tmp_path)
    kept = [features.get(i, Modality.VOICE) for i in range(4)]
    # Of 298 mel frames, the windows from 0, 80 and 160 hold three quarters.
    assert {voices.shape for voices in kept if voices is not None} == {(3, 256)}


def assert_answers_alike(
    rows: tuple[CohortRow, ...],
    model: FusedModel,
    model_settings: ModelSettings,
    how: PrepareSettings,
    folder: Path,
) -> Features:
    features, _ = build(rows, model, model_settings, folder, how)
    tokenizer = load_tokenizer(tokenizer_path(model_settings))
    batch = collate([prepare(load_study(row), how, tokenizer) for row in rows], how)
    arguments = [
        torch.from_numpy(part[m]) for m in MODALITIES for part in (batch.values, batch.masks)
    ]
    data = FeatureDataset(features, range(len(rows)), np.zeros((len(rows), len(TASK.classes))))
    cached = Collator(model, how)([data[i] for i in range(len(rows))])
    module = TrainingModule(model, FitSettings(), steps=1).eval()
    with torch.inference_mode():
        expected = model(*arguments).logits
        logits = model.fuse(module.encode(cached)).logits
    # Other batches and memory layouts sum in another order; float32 has 24 bits.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    return features


def test_half_precision_moves_features_by_a_thousandth_at_most(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    exact, _ = build(rows[:3], model, model_settings, tmp_path)
    half = EXACT.model_copy(update={"dtype": "float16"})
    rounded, computed = build(rows[:3], model, model_settings, tmp_path, how=half)
    assert computed == 3
    for a, b in zip(everything(exact), everything(rounded), strict=True):
        for m in MODALITIES:
            one, other = a[m], b[m]
            assert one is not None
            assert other is not None
            assert other.dtype == np.float16
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-6)


def test_a_changed_file_is_read_again_and_the_others_are_not(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("FINDINGS: Wheeze.")
    rows = (replace(rows[0], note=note), *rows[1:4])
    before, _ = build(rows, model, model_settings, tmp_path / "cache")
    note.write_text("FINDINGS: No wheeze.")
    after, computed = build(rows, model, model_settings, tmp_path / "cache")
    assert computed == 1
    assert before.digest != after.digest
    old, new = before.get(0, Modality.NOTE), after.get(0, Modality.NOTE)
    assert old is not None
    assert new is not None
    assert len(new) > len(old)


def test_a_file_that_was_only_touched_keeps_its_features(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("FINDINGS: Wheeze.")
    rows = (replace(rows[0], note=note),)
    before, _ = build(rows, model, model_settings, tmp_path / "cache")
    os.utime(note, ns=(1, 1))
    after, computed = build(rows, model, model_settings, tmp_path / "cache")
    assert computed == 1
    assert before.sources == after.sources


@pytest.mark.parametrize("what", ["settings", "weights", "frozen"])
def test_features_made_otherwise_are_not_taken(
    rows: tuple[CohortRow, ...],
    model: FusedModel,
    model_settings: ModelSettings,
    tmp_path: Path,
    what: str,
) -> None:
    rows = rows[:2]
    before, _ = build(rows, model, model_settings, tmp_path)
    settings, how = model_settings, PREPARE
    if what == "settings":
        how = PREPARE.model_copy(update={"note": NoteSettings(word_pieces=40)})
    if what == "frozen":
        settings = model_settings.model_copy(update={"freeze_note": False})
    other = build_model(settings, how, [TASK], pretrained=True).eval()
    if what == "weights":
        with torch.no_grad():
            next(other.note.backbone.parameters())[-1, 0] += 1.0
    after, computed = build(rows, other, settings, tmp_path, how)
    assert computed == 2
    for old, new in zip(before.sources, after.sources, strict=True):
        assert old.keys[Modality.NOTE] != new.keys[Modality.NOTE]
        assert old.keys[Modality.IMAGE] == new.keys[Modality.IMAGE]
    if what == "frozen":
        pieces = after.get(0, Modality.NOTE)
        assert pieces is not None
        assert pieces.dtype == np.int64


def test_a_study_that_cannot_be_read_is_refused_by_its_row_or_left_out(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    broken = tmp_path / "Doe^Jane.dcm"
    broken.write_bytes(b"not an image")
    rows = (rows[0], replace(rows[1], images=(broken,)), rows[2])
    with pytest.raises(TrainingError, match=r"^row 2: .*unreadable = 'leave_out'") as caught:
        build(rows, model, model_settings, tmp_path)
    assert "Doe" not in str(caught.value)
    lenient = EXACT.model_copy(update={"unreadable": "leave_out"})
    features, _ = build(rows, model, model_settings, tmp_path, how=lenient)
    assert [row.number for row in features.rows] == [1, 3]
    assert features.left_out == 1


def test_a_note_with_nothing_to_read_is_absent_and_need_not_be_read_again(
    rows: tuple[CohortRow, ...], model: FusedModel, model_settings: ModelSettings, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("IMPRESSION: Pneumonia.")
    rows = (replace(rows[0], voice=None), replace(rows[1], note=note))
    features, _ = build(rows, model, model_settings, tmp_path / "cache")
    present = [{m for m in MODALITIES if features.get(i, m) is not None} for i in range(2)]
    assert present == [{Modality.IMAGE, Modality.NOTE}, {Modality.IMAGE, Modality.VOICE}]
    _, again = build(rows, model, model_settings, tmp_path / "cache")
    assert again == 0


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.sampled_from(["<f2", "<f4", "<i8", "|u1"]).flatmap(
            lambda dtype: arrays(
                dtype, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
            )
        ),
        max_size=6,
    )
)
def test_what_is_put_into_a_store_comes_back_from_its_file(
    tmp_path_factory: pytest.TempPathFactory, values: list[np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    written = ArrayStore(folder)
    for i, array in enumerate(values):
        written.put({str(i): array})
    for store in (written, ArrayStore(folder)):
        assert len(store) == len(values)
        for i, array in enumerate(values):
            assert store.get(str(i)).dtype == array.dtype
            np.testing.assert_array_equal(store.get(str(i)), array)


def test_a_write_that_was_cut_short_loses_that_array_alone(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    store.put({"a": np.arange(100)})
    store.put({"b": np.arange(200)})
    index = tmp_path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-7])
    store = ArrayStore(tmp_path)
    assert "b" not in store
    np.testing.assert_array_equal(store.get("a"), np.arange(100))
    store.put({"b": np.arange(200) + 1, "c": np.arange(3)})
    for opened in (store, ArrayStore(tmp_path)):
        np.testing.assert_array_equal(opened.get("a"), np.arange(100))
        np.testing.assert_array_equal(opened.get("b"), np.arange(200) + 1)
        np.testing.assert_array_equal(opened.get("c"), np.arange(3))


def test_two_runs_share_a_store(tmp_path: Path) -> None:
    one, other = ArrayStore(tmp_path), ArrayStore(tmp_path)
    one.put({"a": np.ones(5)})
    other.put({"b": np.zeros(5), "a": np.full(5, 7.0)})
    one.refresh()
    for store in (one, other):
        np.testing.assert_array_equal(store.get("a"), np.ones(5))
        np.testing.assert_array_equal(store.get("b"), np.zeros(5))


def test_a_store_that_was_damaged_is_refused(tmp_path: Path) -> None:
    ArrayStore(tmp_path).put({"a": np.ones(5)})
    (tmp_path / "data.bin").write_bytes(b"")
    with pytest.raises(TrainingError, match="remove the folder"):
        ArrayStore(tmp_path)
