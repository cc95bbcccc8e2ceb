"""The objectives: each loss by hand, what it may and may not teach, and what it must not touch."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Tokens
from medfuse.training.dataset import Collator, Example, FeatureBatch, Told
from medfuse.training.loop import TrainingModule
from medfuse.training.objectives import build_objectives
from medfuse.training.objectives.adversarial import attack
from medfuse.training.objectives.contrastive import contrast
from medfuse.training.objectives.generation import turn
from medfuse.training.objectives.masked import _aim, _cover
from medfuse.training.objectives.step import Step
from medfuse.training.objectives.supervised import SupervisedObjective, find_known
from medfuse.training.settings import (
    AdversarialSettings,
    ContrastiveSettings,
    FindingsTextSettings,
    FitSettings,
    GenerationSettings,
    MaskedSettings,
    ObjectiveSettings,
    SupervisedSettings,
)
from medfuse.types import MODALITIES, Modality
from tests.tiny import PREPARE, TASKS, write_bert

ALL = ObjectiveSettings(
    contrastive=ContrastiveSettings(),
    masked=MaskedSettings(),
    generation=GenerationSettings(),
    adversarial=AdversarialSettings(),
    findings_text=FindingsTextSettings(),
)
ABSENT = {1: (Modality.IMAGE,), 2: (Modality.NOTE, Modality.VOICE), 3: (Modality.VOICE,)}
"""What some of the studies lack."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FusedModel:
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    write_bert(folder)
    chosen = ModelSettings(
        note=folder, width=16, shared_space=8, generate_missing=True, findings_text=True
    )
    return build_model(chosen, PREPARE, TASKS, pretrained=False, words=9)


def make_batch(model: FusedModel, seed: int = 0, n: int = 8) -> FeatureBatch:
    rng = np.random.default_rng(seed)
    shapes = {m: p.shape[1:] for m, p in Collator(model, PREPARE).padding.items()}
    labels = np.array([[1, 0, 1, 0, 1, np.nan, 2, 1, 0.5]] * n)
    labels[::2, :5] = 1 - labels[::2, :5]
    examples = [
        Example(
            {
                m: None
                if m in ABSENT.get(i, ())
                else rng.normal(size=(2 + (16 + i) * (m is Modality.VOICE), *shapes[m]))
                for m in MODALITIES
            },
            labels[i],
            tuple(
                Told(i % 3, needs, np.array([1, 4 + i % 5, 5, 2]))
                for needs in (None, frozenset({Modality.NOTE}))
                if i % 2
            ),
        )
        for i in range(n)
    ]
    return Collator(model, PREPARE)(examples)


def make_step(model: FusedModel, batch: FeatureBatch) -> Step:
    module = TrainingModule(model, FitSettings(), 1)
    features, masks = module.extract(batch)
    return Step(model, batch, features, masks, model.encode(features, masks), (0, 0, 0))


@pytest.mark.parametrize("name", ["supervised", *sorted(ALL.model_fields_set)])
def test_every_objective_is_finite_repeatable_and_teaches(model: FusedModel, name: str) -> None:
    objective = build_objectives(model.train(), ALL, FitSettings())[name]
    batch = make_batch(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    losses, gradients = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model.load_state_dict(state)  # the running statistics move with every step
        model.zero_grad()
        loss = objective(make_step(model, batch))
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert math.isfinite(losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert any(gradient.any() for gradient in gradients[0])
    assert all(gradient.isfinite().all() for gradient in gradients[0])


@pytest.mark.parametrize("name", ["supervised", *sorted(ALL.model_fields_set)])
def test_what_stands_where_a_modality_is_absent_changes_no_objective(
    model: FusedModel, name: str
) -> None:
    objective = build_objectives(model.eval(), ALL, FitSettings())[name]
    batch = make_batch(model)
    changed = {
        m: torch.where(_widen(batch.masks[m], values), values, 7 if m is Modality.NOTE else 7.0)
        for m, values in batch.values.items()
    }
    one = objective(make_step(model, batch))
    other = objective(make_step(model, replace(batch, values=changed)))
    assert torch.equal(one, other)


def _widen(mask: Tensor, values: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (values.ndim - 2))


@pytest.mark.parametrize("name", sorted(ALL.model_fields_set))
def test_an_objective_leaves_the_running_statistics_as_they_are(
    model: FusedModel, name: str
) -> None:
    model.train()
    objective = build_objectives(model, ALL, FitSettings())[name]
    step = make_step(model, make_batch(model))
    before = {key: value.clone() for key, value in model.named_buffers()}
    objective(step)
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key]), key
    assert model.image.standardise.training


def test_contrast_is_the_cross_entropy_of_finding_ones_own_among_those_that_have_both() -> None:
    ones = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    both = torch.tensor([True, True, False])
    loss = contrast(ones, ones, both, torch.tensor(2.0))
    # Of two studies each finds itself with a score of 2 against 0; the third takes no part.
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2.0)), rel=1e-6)
    swapped = contrast(ones, ones[[1, 0, 2]], both, torch.tensor(2.0))
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(2.0)), rel=1e-6)


def test_a_turned_gradient_has_the_other_sign() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    (turn(x) * 3.0).sum().backward()  # type: ignore[no-untyped-call]
    assert turn(x).item() == 2.0
    assert x.grad is not None
    assert x.grad.item() == -3.0


def test_the_generator_learns_what_one_modality_says_of_another(model: FusedModel) -> None:
    torch.manual_seed(0)
    settings = ObjectiveSettings(generation=GenerationSettings(adversarial=0.0))
    objective = build_objectives(model.train(), settings, FitSettings())["generation"]
    assert model.generator is not None
    optimiser = torch.optim.Adam(model.generator.parameters(), lr=1e-2)
    link = torch.randn(16, 16) / 4

    def draw(n: int) -> dict[Modality, Tokens]:
        mask = torch.ones(n, 1, dtype=torch.bool)
        note = torch.randn(n, 16)
        said = {
            Modality.IMAGE: note @ link,
            Modality.NOTE: note,
            Modality.VOICE: torch.randn(n, 16),
        }
        return {m: Tokens(v[:, None], mask, v) for m, v in said.items()}

    for _ in range(200):
        encoded = draw(64)
        step = Step(model, make_batch(model), {}, {}, encoded, (0, 0, 0))
        loss = objective(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoded = draw(200)
    gone = dict(encoded)
    gone[Modality.IMAGE] = Tokens(
        torch.zeros(200, 1, 16), torch.zeros(200, 1, dtype=torch.bool), torch.zeros(200, 16)
    )
    guess = model.eval().generator(gone)[Modality.IMAGE].pooled  # type: ignore[misc]
    truth = encoded[Modality.IMAGE].pooled
    assert (guess - truth).square().mean() < 0.2 * truth.square().mean()


def test_the_generation_objective_teaches_the_encoders_nothing(model: FusedModel) -> None:
    objective = build_objectives(model.train(), ALL, FitSettings())["generation"]
    model.zero_grad()
    objective(make_step(model, make_batch(model))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) != name.startswith("generator.networks"), name


def test_a_generated_modality_stands_in_for_an_absent_one_alone(model: FusedModel) -> None:
    model.eval()
    assert model.generator is not None
    encoded = make_step(model, make_batch(model)).encoded
    filled = model.generator(encoded)
    for m in MODALITIES:
        had = encoded[m].mask.any(dim=1)
        assert torch.equal(filled[m].pooled[had], encoded[m].pooled[had])
        assert torch.equal(filled[m].mask[had], encoded[m].mask[had])
        assert filled[m].mask.any(dim=1).all()
        assert (filled[m].mask[~had].sum(dim=1) == 1).all()
    nothing = {m: Tokens(t.tokens * 0, t.mask & False, t.pooled * 0) for m, t in encoded.items()}
    assert not any(t.mask.any() for t in model.generator(nothing).values())


def weigh_tasks(model: FusedModel, monkeypatch: pytest.MonkeyPatch, *weights: float) -> None:
    tasks = zip(model.tasks, weights, strict=True)
    weighed = tuple(task.model_copy(update={"weight": weight}) for task, weight in tasks)
    monkeypatch.setattr(model, "tasks", weighed)


UNCERTAIN = SupervisedSettings(task_balance="uncertainty")


def balanced(model: FusedModel, *log_variances: float) -> tuple[SupervisedObjective, nn.Parameter]:
    """An objective that has learnt these of each task."""
    objective = build_objectives(model, ObjectiveSettings(supervised=UNCERTAIN), FitSettings())
    supervised = objective["supervised"]
    assert isinstance(supervised, SupervisedObjective)
    learnt = supervised.log_variances
    assert learnt is not None
    with torch.no_grad():
        learnt.copy_(torch.tensor(log_variances))
    return supervised, learnt


def losses_of(model: FusedModel, step: Step) -> Tensor:
    return torch.stack(model.losses(model.fuse(step.encoded).logits, step.batch.labels))


def test_tasks_are_summed_to_the_bit_where_nothing_is_said_of_their_balance(
    model: FusedModel,
) -> None:
    batch = make_batch(model.eval())
    supervised = SupervisedObjective(SupervisedSettings(), FitSettings())
    assert not list(supervised.parameters())
    gradients = []
    for through_objective in (True, False):
        step = make_step(model, batch)
        loss = (
            supervised.of_answers(model, step.encoded, batch.labels)
            if through_objective
            else losses_of(model, step).sum()
        )
        model.zero_grad()
        torch.autograd.backward(loss)
        own = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        gradients.append([loss.detach(), *own])
    assert len(gradients[0]) > 20
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("task", range(4))
@pytest.mark.parametrize("learns", [False, True])
def test_a_task_of_weight_two_counts_as_two_tasks(
    model: FusedModel, monkeypatch: pytest.MonkeyPatch, task: int, *, learns: bool
) -> None:
    step = make_step(model.eval(), make_batch(model))
    supervised = SupervisedObjective(SupervisedSettings(), FitSettings())
    terms = losses_of(model, step)
    if learns:
        noise = (0.5, -1.0, 2.0, -0.25)
        supervised, _ = balanced(model, *noise)
        terms = terms * torch.exp(-torch.tensor(noise)) + torch.tensor(noise) / 2
    once = supervised.of_answers(model, step.encoded, step.batch.labels)
    torch.testing.assert_close(once, terms.sum())
    weigh_tasks(model, monkeypatch, *(2.0 if k == task else 1.0 for k in range(4)))
    twice = supervised.of_answers(model, step.encoded, step.batch.labels)
    torch.testing.assert_close(twice, torch.stack([*terms, terms[task]]).sum())


@pytest.mark.parametrize("settings", [SupervisedSettings(), UNCERTAIN])
def test_the_weight_of_a_single_task_scales_the_loss_and_its_gradient_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: SupervisedSettings
) -> None:
    torch.manual_seed(0)
    write_bert(tmp_path / "bert")
    chosen = ModelSettings(note=tmp_path / "bert", width=16)
    model = build_model(chosen, PREPARE, TASKS[:1], pretrained=False).eval()
    whole = make_batch(model)
    batch = replace(whole, labels=whole.labels[:, : TASKS[0].label_columns])
    found = []
    for weight in (1.0, 4.0):  # a power of two, so that no bit is rounded
        weigh_tasks(model, monkeypatch, weight)
        objectives = ObjectiveSettings(supervised=settings)
        objective = build_objectives(model, objectives, FitSettings())["supervised"]
        model.zero_grad()
        loss = objective(make_step(model, batch))
        torch.autograd.backward(loss)
        parts = [*model.parameters(), *objective.parameters()]
        found.append([loss.detach(), *(p.grad for p in parts if p.grad is not None)])
    assert len(found[0]) > 20
    for once, four in zip(*found, strict=True):
        assert torch.equal(4 * once, four)


def slopes(model: FusedModel, batch: FeatureBatch, *log_variances: float) -> Tensor:
    """The gradients of variances that have been learnt so far."""
    supervised, learnt = balanced(model, *log_variances)
    loss = supervised.of_answers(model, make_step(model, batch).encoded, batch.labels)
    (gradient,) = torch.autograd.grad(loss, [learnt])
    return gradient


def test_a_learnt_variance_settles_where_it_is_twice_the_loss(model: FusedModel) -> None:
    batch = make_batch(model.eval())
    losses = losses_of(model, make_step(model, batch)).detach()
    noise = (0.3, -0.7, 0.0, 1.1)
    wanted = 0.5 - torch.exp(-torch.tensor(noise)) * losses
    torch.testing.assert_close(slopes(model, batch, *noise), wanted)
    settled = slopes(model, batch, *(2 * losses).log().tolist())
    torch.testing.assert_close(settled, torch.zeros(4), atol=1e-5, rtol=0)


def test_a_task_without_a_label_teaches_its_variance_nothing(model: FusedModel) -> None:
    batch = make_batch(model.eval())
    labels = batch.labels.clone()
    labels[:, 6] = -1  # an unknown class
    labels[:, 8] = torch.nan
    assert find_known(model.tasks, batch.labels).tolist() == [True] * 4
    assert find_known(model.tasks, labels).tolist() == [True, False, True, False]
    found = slopes(model, replace(batch, labels=labels), 0.0, 0.0, 0.0, 0.0)
    assert (found != 0).tolist() == [True, False, True, False]


def test_learnt_variances_are_kept_with_the_training_and_neither_judge_an_epoch_nor_are_exported(
    model: FusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ObjectiveSettings(supervised=UNCERTAIN)
    module = TrainingModule(model, FitSettings(), 1, objectives=settings).eval()
    name = "objectives.supervised.log_variances"
    state = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(state)
    assert name in state["state_dict"]
    assert not any("log_variances" in key for key in model.state_dict())
    learnt = module.get_parameter(name)
    (group,) = (
        own
        for own in module.configure_optimizers()["optimizer"].param_groups
        if any(p is learnt for p in own["params"])
    )
    assert group["weight_decay"] == 0  # a decayed logarithm would be drawn to a variance of one
    told: list[float] = []
    monkeypatch.setattr(module, "_note", lambda _, value, __: told.append(value.item()))
    batch = make_batch(model)
    for value in (0.0, 3.0):
        with torch.no_grad():
            learnt.fill_(value)
            module.validation_step(batch, 0)
    assert (
        told[0] == told[1] == pytest.approx(losses_of(model, make_step(model, batch)).sum().item())
    )


def test_an_attack_moves_each_channel_by_its_own_spread_and_never_helps(model: FusedModel) -> None:
    model.eval()
    batch = make_batch(model)
    step = make_step(model, batch)
    supervised = SupervisedObjective(SupervisedSettings(), FitSettings())
    before = supervised.of_answers(model, step.encoded, batch.labels)
    moved = attack(model, supervised, step.features, step.masks, batch.labels, 0.01)
    after = supervised.of_answers(model, model.encode(moved, step.masks), batch.labels)
    assert after > before
    real = batch.masks[Modality.VOICE]
    values = step.features[Modality.VOICE]
    shift = (moved[Modality.VOICE] - values)[real].abs()
    spread = values[real].std(dim=0, correction=0)
    moved_at_all = shift > 0
    expected = (0.01 * spread).expand_as(shift)
    torch.testing.assert_close(shift[moved_at_all], expected[moved_at_all], rtol=1e-3, atol=1e-6)
    assert moved_at_all.float().mean() > 0.9


def test_hidden_features_are_covered_by_their_mean_and_are_what_is_to_be_guessed() -> None:
    values = torch.tensor([[[1.0], [3.0], [5.0], [9.0]], [[7.0], [0.0], [0.0], [0.0]]])
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    chosen = torch.tensor([[False, True], [False, False]])
    covered = _cover(values, mask, chosen, 2)
    assert covered[0, :, 0].tolist() == [1.0, 3.0, 4.0, 4.0]  # the mean of 1, 3, 5 and 7
    assert torch.equal(covered[1], values[1])
    aim = _aim(values, mask, 2)
    root = math.sqrt(5.0)
    torch.testing.assert_close(aim[0], torch.tensor([[-3 / root, -1 / root], [1 / root, 0.0]]))


def test_masked_features_are_learnt_from_another_modality(model: FusedModel) -> None:
    """The note's states repeat the image's cells, so that half of either can be guessed."""
    torch.manual_seed(0)
    settings = ObjectiveSettings(
        supervised=SupervisedSettings(weight=0), masked=MaskedSettings(rate=0.5)
    )
    module = TrainingModule(model, FitSettings(), 200, objectives=settings).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)

    def draw(seed: int) -> FeatureBatch:
        rng = np.random.default_rng(seed)
        batch = make_batch(model, seed)
        values = {m: v.clone() for m, v in batch.values.items()}
        signs = rng.choice([-1.0, 1.0], size=(8, 1, 1))
        values[Modality.NOTE] = torch.from_numpy(
            signs * np.ones(values[Modality.NOTE].shape)
        ).float()
        values[Modality.IMAGE] = torch.from_numpy(
            signs[..., None] * np.ones(values[Modality.IMAGE].shape)
        ).float()
        return replace(batch, values=values)

    losses = []
    for i in range(60):
        loss = sum(module._losses(draw(i), (0, 0, i)).values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    # The voice is noise and stays at 1; of image and note nothing is left: a third of the loss.
    assert np.mean(losses[-5:]) < 0.55
    assert np.mean(losses[:3]) > 0.8


def test_training_without_labels_is_validated_by_what_it_strives_for(model: FusedModel) -> None:
    settings = ObjectiveSettings(supervised=SupervisedSettings(weight=0), masked=MaskedSettings())
    module = TrainingModule(model, FitSettings(), 1, objectives=settings).eval()
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value.item()})  # type: ignore[method-assign]
    batch = make_batch(model)
    module.validation_step(replace(batch, labels=torch.full_like(batch.labels, np.nan)), 0)
    assert logged["validation_loss"] > 0.3
