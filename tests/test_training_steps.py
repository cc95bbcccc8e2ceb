from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medfuse.config import PrepareSettings, Task, TaskKind
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.training.dataset import (
    Collator,
    EpochSampler,
    Example,
    FeatureBatch,
    fit_scale,
    label_weights,
    sampling_chances,
)
from medfuse.training.dropout import drop_modalities, step_rng
from medfuse.training.loop import TrainingModule, parameter_groups
from medfuse.training.objectives.step import keep
from medfuse.training.settings import FitSettings
from medfuse.types import MODALITIES, SUBSETS, Modality
from tests.tiny import PREPARE, TASKS, write_bert

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
STAGE = Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "moderate", "severe"))
WEIGHT = Task(name="weight", kind=TaskKind.REGRESSION, classes=("weight_kg",), unit="kg")
NAN = np.nan


@pytest.fixture(scope="module", params=["gated", "cross_attention"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FusedModel:
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    write_bert(folder)
    chosen = ModelSettings.model_validate(
        {"note": str(folder), "width": 16, "fusion": request.param}
    )
    return build_model(chosen, PREPARE, TASKS, pretrained=False).eval()


def make_batch(model: FusedModel, n: int = 7, seed: int = 0) -> FeatureBatch:
    rng = np.random.default_rng(seed)
    shapes = {m: p.shape[1:] for m, p in Collator(model, PREPARE).padding.items()}
    labels = np.array([[1, 0, 1, 0, 1, NAN, 2, 1, 0.5]] * n)
    examples = [
        Example(
            {m: rng.normal(size=(3 + i, *shapes[m])).astype(np.float16) for m in MODALITIES},
            labels[i],
        )
        for i in range(n)
    ]
    return Collator(model, PREPARE)(examples)


present_and_rate = st.tuples(
    arrays(np.bool_, (40, 3)), st.floats(0, 0.99), st.integers(0, 2**31), st.integers(0, 99)
)


@settings(deadline=None)
@given(present_and_rate)
def test_dropout_adds_no_modality_and_never_takes_the_last(
    case: tuple[np.ndarray, float, int, int],
) -> None:
    present, rate, seed, step = case
    kept = drop_modalities(present, rate, step_rng(seed, 3, step))
    assert not (kept & ~present).any()
    np.testing.assert_array_equal(kept.any(axis=1), present.any(axis=1))
    np.testing.assert_array_equal(kept, drop_modalities(present, rate, step_rng(seed, 3, step)))


def test_dropout_takes_each_modality_as_often_as_it_says() -> None:
    kept = drop_modalities(np.ones((60_000, 3), bool), 0.3, step_rng(0, 0, 0))
    # A third of the 0.027 that would lose all is spared for each modality.
    np.testing.assert_allclose(kept.mean(axis=0), 0.7 + 0.027 / 3, atol=0.01)
    nearly_all = drop_modalities(np.ones((60_000, 3), bool), 0.99, step_rng(0, 0, 1))
    np.testing.assert_allclose(nearly_all.mean(axis=0), 1 / 3, atol=0.02)


def test_each_step_has_its_own_draws() -> None:
    draws = {step_rng(s, e, i).random() for s in range(3) for e in range(3) for i in range(3)}
    assert len(draws) == 27


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            sampler = EpochSampler(50, seed, None)
            for earlier in range(epoch):
                sampler.set_epoch(earlier)
                list(sampler)
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(sampler)
            assert sorted(sampler) == list(range(50))
            assert tuple(sampler) == orders[seed, epoch]
    assert len(set(orders.values())) == 4


def test_balanced_weights_make_every_value_count_alike() -> None:
    labels = np.array([[1, 0, 2.0, 60], [0, 0, 0, 70], [0, NAN, 0, 80], [0, 1, 0, NAN]])
    nodule, effusion, stage, weight = label_weights([FINDINGS, STAGE, WEIGHT], labels)
    assert nodule == {0.0: 4 / 6, 1.0: 4 / 2}
    assert effusion == {0.0: 3 / 4, 1.0: 3 / 2}
    assert stage == {0.0: 4 / 6, 2.0: 4 / 2}
    assert weight == {}


def test_sampling_draws_rare_labels_as_often_as_common_ones() -> None:
    labels = np.zeros((1_000, 1))
    labels[:50] = 1
    task = Task(name="covid", kind=TaskKind.BINARY, classes=("covid19",))
    chances = sampling_chances("sample", [task], labels)
    assert chances is not None
    drawn = list(EpochSampler(1_000, 0, chances))
    assert labels[drawn].mean() == pytest.approx(0.5, abs=0.04)
    assert sampling_chances("none", [task], labels) is None


def test_quantities_are_standardised_on_known_training_labels() -> None:
    labels = np.array([[1, 0, 50.0], [0, 1, 70.0], [0, 0, NAN]])
    scale = fit_scale([FINDINGS, WEIGHT], labels)
    np.testing.assert_allclose(scale.standardise(labels)[:, 2], [-1, 1, NAN])
    np.testing.assert_array_equal(scale.standardise(labels)[:, :2], labels[:, :2])


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda s: "+".join(sorted(s)))
def test_a_modality_taken_away_after_encoding_is_as_one_never_there(
    model: FusedModel, subset: frozenset[Modality]
) -> None:
    batch = make_batch(model)
    module = TrainingModule(model, FitSettings(), steps=1).eval()
    only = np.tile([m in subset for m in MODALITIES], (7, 1))
    without = FeatureBatch(
        batch.values,
        {m: mask & bool(m in subset) for m, mask in batch.masks.items()},
        batch.labels,
    )
    with torch.inference_mode():
        taken = model.fuse(keep(module.encode(batch), only)).logits
        never = model.fuse(module.encode(without)).logits
    assert torch.equal(taken, never)


def test_the_balanced_loss_is_that_of_a_balanced_batch(model: FusedModel) -> None:
    rare = make_batch(model, 4)
    labels = torch.full_like(rare.labels, torch.nan)
    labels[:, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    weights = label_weights(model.tasks, labels.double().numpy())
    module = TrainingModule(model, FitSettings(), 1, weights).eval()
    encoded = module.encode(rare)
    with torch.inference_mode():
        logits = model.fuse(encoded).logits[:, 0]
        losses = torch.nn.functional.softplus(torch.where(labels[:, 0] == 1, -logits, logits))
        assert module.supervised is not None
        loss = module.supervised.of_answers(model, encoded, labels)
    expected = (losses[0] + losses[1:].mean()) / 2
    torch.testing.assert_close(loss, expected)


def test_frozen_encoders_are_not_trained_and_norms_do_not_decay(model: FusedModel) -> None:
    chosen = FitSettings(weight_decay=0.1, learning_rate=1e-3, backbone_learning_rate=1e-5)
    groups = parameter_groups(TrainingModule(model, chosen, 1), chosen)
    trained = {id(p) for group in groups for p in group["params"]}
    frozen = {id(p) for p in model.image.backbone.parameters()}
    assert not trained & frozen
    for group in groups:
        assert group["lr"] == 1e-3
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0.0)


def test_a_pretrained_encoder_that_is_trained_learns_slower(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    chosen = ModelSettings(note=tmp_path / "bert", width=16, freeze_note=False)
    model = build_model(chosen, PrepareSettings(), [FINDINGS], pretrained=False)
    rates = FitSettings(learning_rate=1e-3, backbone_learning_rate=1e-5)
    groups = parameter_groups(TrainingModule(model, rates, 1), rates)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rate[id(p)] for p in model.note.backbone.parameters()} == {1e-5}
    assert {rate[id(p)] for p in model.note.adapter.parameters()} == {1e-3}


def test_a_step_gives_the_same_gradients_whatever_was_drawn_before(model: FusedModel) -> None:
    gradients = []
    for before in range(2):
        torch.manual_seed(before)
        module = TrainingModule(model, FitSettings(), steps=10).train()
        module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        module.zero_grad()
        module.training_step(make_batch(model), 4).backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    assert gradients[0]
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)
    model.eval()
