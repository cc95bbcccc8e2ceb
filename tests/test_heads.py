"""The task heads: their losses by hand, and what unknown labels cost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medfuse.config import Task, TaskKind
from medfuse.models.focus import FOCI
from medfuse.models.heads import HEADS, ClassHead, OrdinalHead, RegressionHead, YesNoHead

NAN = math.nan
TASKS = {
    TaskKind.BINARY: Task(name="ill", kind=TaskKind.BINARY, classes=("ill",)),
    TaskKind.MULTILABEL: Task(name="findings", kind=TaskKind.MULTILABEL, classes=("a", "b")),
    TaskKind.MULTICLASS: Task(name="cause", kind=TaskKind.MULTICLASS, classes=("a", "b", "c")),
    TaskKind.ORDINAL: Task(name="grade", kind=TaskKind.ORDINAL, classes=("0", "1", "2")),
    TaskKind.REGRESSION: Task(name="age", kind=TaskKind.REGRESSION, classes=("age",)),
}


def test_every_kind_of_task_has_a_head_with_as_many_outputs_as_the_task_has_logits() -> None:
    assert set(HEADS) == set(TaskKind)
    for kind, task in TASKS.items():
        logits = HEADS[kind](task, 4)(torch.ones(3, 4))
        assert logits.shape == (3, task.logits)


def test_yes_no_loss_is_the_mean_surprise_over_known_findings() -> None:
    head = YesNoHead(TASKS[TaskKind.MULTILABEL], 4)
    # Odds of 3:1 for, then 3:1 against; the third and fourth labels are unknown.
    logits = torch.tensor([[math.log(3), -math.log(3)], [9.0, 9.0]])
    labels = torch.tensor([[1.0, 1.0], [NAN, -1.0]])
    assert head.loss(logits, labels).item() == pytest.approx(
        (-math.log(3 / 4) - math.log(1 / 4)) / 2
    )


def test_weights_count_a_label_more_than_once() -> None:
    head = YesNoHead(TASKS[TaskKind.MULTILABEL], 4)
    logits = torch.tensor([[math.log(3), -math.log(3)]])
    loss = head.loss(logits, torch.ones(1, 2), torch.tensor([[1.0, 3.0]]))
    assert loss.item() == pytest.approx((-math.log(3 / 4) - 3 * math.log(1 / 4)) / 4)


def test_class_loss_is_the_surprise_at_the_true_class() -> None:
    head = ClassHead(TASKS[TaskKind.MULTICLASS], 4)
    logits = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 9.0]]).log()  # odds of 1 : 2 : 5
    labels = torch.tensor([[1.0], [-1.0]])
    assert head.loss(logits, labels).item() == pytest.approx(-math.log(2 / 8))


def test_ordinal_thresholds_begin_one_apart_and_always_rise() -> None:
    head = OrdinalHead(TASKS[TaskKind.ORDINAL], 4)
    assert head.thresholds().tolist() == pytest.approx([0.0, 1.0], abs=1e-4)
    with torch.no_grad():
        head.steps.fill_(-20.0)
    low, high = head.thresholds().tolist()
    assert low < high


def test_ordinal_loss_is_the_mean_surprise_over_thresholds() -> None:
    head = OrdinalHead(TASKS[TaskKind.ORDINAL], 4)
    # At least 1 with odds 3:1, at least 2 with odds 1:3, and the level is 1: both are likely.
    logits = torch.tensor([[math.log(3), -math.log(3)], [0.0, 0.0]])
    labels = torch.tensor([[1.0], [NAN]])
    assert head.loss(logits, labels).item() == pytest.approx(-math.log(3 / 4))
    assert head.loss(logits, torch.tensor([[0.0], [NAN]])).item() == pytest.approx(
        (-math.log(1 / 4) - math.log(3 / 4)) / 2
    )


def test_regression_loss_is_square_near_and_straight_far_and_knows_negative_numbers() -> None:
    head = RegressionHead(TASKS[TaskKind.REGRESSION], 4)
    logits = torch.tensor([[-1.0], [3.0], [7.0]])
    labels = torch.tensor([[-1.5], [0.0], [NAN]])
    # Half of 0.5 squared, and 3 less half.
    assert head.loss(logits, labels).item() == pytest.approx((0.125 + 2.5) / 2)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_batch_without_any_known_label_costs_nothing_and_moves_nothing(kind: TaskKind) -> None:
    task = TASKS[kind]
    logits = torch.randn(2, task.logits, requires_grad=True)
    loss = HEADS[kind](task, 4).loss(logits, torch.full((2, task.label_columns), NAN))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert isinstance(logits.grad, Tensor)
    assert not logits.grad.any()


@given(score=st.floats(-20, 20), first=st.floats(-5, 5), step=st.floats(-5, 5))
def test_a_higher_level_is_never_more_likely_than_a_lower_one(
    score: float, first: float, step: float
) -> None:
    head = OrdinalHead(TASKS[TaskKind.ORDINAL], 1)
    with torch.no_grad():
        head.score.weight.fill_(1.0)
        head.first.fill_(first)
        head.steps.fill_(step)
        at_least_1, at_least_2 = head(torch.tensor([[score]]))[0].tolist()
    assert at_least_2 <= at_least_1


def _log_odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def test_the_focal_loss_is_cross_entropy_times_the_squared_doubt() -> None:
    focal = FOCI["focal"]
    yes_no = YesNoHead(Task(name="f", kind=TaskKind.MULTILABEL, classes=("a", "b")), 4)
    logits = torch.tensor([[_log_odds(0.8), _log_odds(0.3)]])
    expected = (0.2**2 * -math.log(0.8) + 0.3**2 * -math.log(0.7)) / 2
    loss = yes_no.loss(logits, torch.tensor([[1.0, 0.0]]), focus=focal)
    assert loss.item() == pytest.approx(expected, rel=1e-5)

    classes = ClassHead(Task(name="c", kind=TaskKind.MULTICLASS, classes=("a", "b", "c")), 4)
    chances = torch.tensor([[0.7, 0.2, 0.1]])
    loss = classes.loss(chances.log(), torch.tensor([[1.0]]), focus=focal)
    assert loss.item() == pytest.approx(0.8**2 * -math.log(0.2), rel=1e-5)

    stages = OrdinalHead(Task(name="s", kind=TaskKind.ORDINAL, classes=("a", "b", "c")), 4)
    logits = torch.tensor([[_log_odds(0.8), _log_odds(0.3)]])
    loss = stages.loss(logits, torch.tensor([[1.0]]), focus=focal)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_asymmetric_loss_forgets_absences_that_are_nearly_sure() -> None:
    head = YesNoHead(Task(name="f", kind=TaskKind.MULTILABEL, classes=("a", "b", "c")), 4)
    logits = torch.tensor([[_log_odds(0.8), _log_odds(0.3), _log_odds(0.04)]], requires_grad=True)
    loss = head.loss(logits, torch.tensor([[1.0, 0.0, 0.0]]), focus=FOCI["asymmetric"])
    # Ridnik et al. 2021, eq. 7, with exponents 0 and 4 and a margin of 0.05.
    expected = (-math.log(0.8) + 0.25**4 * -math.log(0.75)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 2] == 0.0
    extreme = torch.tensor([[-80.0, 80.0, 80.0]], requires_grad=True)
    head.loss(extreme, torch.tensor([[1.0, 0.0, 0.0]]), focus=FOCI["asymmetric"]).backward()  # type: ignore[no-untyped-call]
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()
