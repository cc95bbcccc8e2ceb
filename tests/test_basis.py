"""Which studies a subset's answers are held to, and that promises hold where absence tells."""

from dataclasses import replace

import numpy as np
import pytest

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.basis import FEWEST_EXACT, choose_basis
from medfuse.trust.calibration import Calibration
from medfuse.trust.fitting import Promised, fit_promises
from medfuse.trust.promises import PromiseFigure, measure_promises
from medfuse.trust.record import TrustSettings

FINDING = Task(name="finding", kind=TaskKind.BINARY, classes=("nodule",))
STAGE = Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "severe"))
AGE = Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a")
ENOUGH = FEWEST_EXACT


@pytest.mark.parametrize(
    ("task", "zeros", "ones", "exact"),
    [
        (FINDING, ENOUGH, ENOUGH, True),
        (FINDING, 10 * ENOUGH, ENOUGH - 1, False),
        (FINDING, ENOUGH - 1, 10 * ENOUGH, False),
        (STAGE, ENOUGH, ENOUGH, True),
        (STAGE, ENOUGH, 0, False),
        (AGE, ENOUGH, 0, True),
        (AGE, ENOUGH - 1, 0, False),
    ],
)
def test_studies_that_lack_the_same_are_taken_where_each_class_has_enough(
    task: Task, zeros: int, ones: int, exact: bool
) -> None:
    alike = np.repeat([0.0, 1.0, np.nan], [zeros, ones, ENOUGH])
    labels = np.concatenate([alike, np.repeat([0.0, 1.0], 500)])
    has = np.ones(len(labels), bool)
    exactly = np.arange(len(labels)) < len(alike)
    basis = choose_basis(task, labels, has, exactly)
    assert basis.exact is exact
    assert (basis.rows == (exactly if exact else has)).all()


def test_where_no_study_has_more_all_are_exact() -> None:
    has = np.array([True, True, False])
    basis = choose_basis(FINDING, np.zeros(3), has, has)
    assert basis.exact
    assert (basis.rows == has).all()


def draw(
    n: int, rng: np.random.Generator, *, telling: bool, recorded_below: float = 0.8
) -> Answers:
    """Draw studies of which each has an image and some a recording as well.

    How ill a patient is moves what the image says, whatever the finding; where absence is telling
    the very ill are not recorded.
    """
    truth = (rng.random(n) < 0.4).astype(float)
    ill = rng.normal(size=n)
    voice = (ill if telling else rng.normal(size=n)) < recorded_below
    image = 2 * truth - 1 + ill + rng.normal(size=n)
    both = image + truth - 0.5
    rows = tuple(
        CohortRow(number=i, patient_id=str(i), study_id=str(i), labels=(own,))
        for i, own in enumerate(truth.tolist())
    )
    present = np.stack([np.ones(n, bool), np.zeros(n, bool), voice], axis=1)
    logits = {
        AS_GIVEN: np.where(voice, both, image)[:, None],
        "image": image[:, None],
        "image+voice": np.where(voice, both, np.nan)[:, None],
    }
    return Answers(rows, present, logits)


def only_exact(answers: Answers) -> Answers:
    """What comes to the bedside: an answer from the image alone is to a study with nothing else."""
    image = np.where(answers.present[:, [2]], np.nan, answers.logits["image"])
    return replace(answers, logits={**answers.logits, "image": image})


def fit(answers: Answers) -> Promised:
    return fit_promises((FINDING,), answers, TrustSettings(), Calibration())


def hold(promised: Promised, answers: Answers) -> list[PromiseFigure]:
    calibrated = answers.calibrated((FINDING,), promised.calibration)
    return [f for f in measure_promises((FINDING,), calibrated, promised.trust)[0] if f.studies]


@pytest.mark.parametrize("telling", [False, True])
def test_promises_hold_of_studies_that_lack_a_modality_for_a_reason(telling: bool) -> None:
    rng = np.random.default_rng(0)
    promised = fit(draw(4000, rng, telling=telling))
    assert promised.trust.subsets["image"]["finding.nodule"].exact is True
    figures = hold(promised, only_exact(draw(20_000, rng, telling=telling)))
    assert {f.subset for f in figures} == {"image", "image+voice"}
    assert all(f.exact and f.kept for f in figures)


def test_a_stand_in_for_the_very_ill_is_said_to_be_one_and_found_out_on_other_studies() -> None:
    rng = np.random.default_rng(0)
    promised = fit(draw(4000, rng, telling=True, recorded_below=2.2))  # 1 % are not recorded
    assert promised.trust.subsets["image"]["finding.nodule"].exact is False
    assert promised.trust.subsets["image+voice"]["finding.nodule"].exact is True
    figures = hold(promised, draw(20_000, rng, telling=True, recorded_below=2.2))
    image = {(f.exact, f.group): f for f in figures if f.subset == "image" and f.kind == "coverage"}
    # Of studies of the kind that it was chosen on it holds, and at the bedside it does not.
    assert image[False, "absent"].kept
    seen = image[True, "absent"]
    assert seen.hits < 0.5 * seen.studies
    assert not seen.kept


def test_a_promise_of_exact_studies_is_not_held_to_others() -> None:
    rng = np.random.default_rng(0)
    promised = fit(draw(4000, rng, telling=True))
    figures = hold(promised, draw(4000, rng, telling=True))
    assert all(f.exact for f in figures if f.subset == "image")
