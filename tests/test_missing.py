from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Bool

from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow, Split
from medfuse.data.missing import MissingSettings, Removal, keep_modalities, thin_row
from medfuse.errors import CohortError
from medfuse.presence import choose_subset, scale_odds, subset_chances
from medfuse.types import MODALITIES, SUBSETS, Modality

TASKS = (
    Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion")),
    Task(name="affect", kind=TaskKind.BINARY, classes=("low_mood",)),
)
RANDOM = MissingSettings(mechanism=Removal.RANDOM, rate=0.5)
FINDING = MissingSettings(mechanism=Removal.FINDING, rate=0.5, finding="findings.effusion")
SITE = MissingSettings(mechanism=Removal.SITE, rate=0.5)


def make_rows(n: int, effusion: Sequence[float] = (0.0, 1.0)) -> list[CohortRow]:
    return [
        CohortRow(
            number=i + 1,
            labels=(1.0, effusion[i % len(effusion)], 0.0),
            patient_id=f"p{i}",
            study_id=f"s{i}",
            site="abcdefgh"[i % 8],
            split=tuple(Split)[i % 3],
        )
        for i in range(n)
    ]


def keep(
    settings: MissingSettings, rows: Sequence[CohortRow], present: Bool[np.ndarray, "n 3"]
) -> Bool[np.ndarray, "n 3"]:
    return keep_modalities(settings, TASKS, rows, present)


def test_chances_of_what_is_left_are_those_counted_by_hand() -> None:
    # Missing with chances 1/2, 1/4 and 1: image alone 1/2 x 1/4, note alone 1/2 x 3/4, both 3/8,
    # none 1/8, which is drawn again.
    rates = dict(zip(MODALITIES, (0.5, 0.25, 1.0), strict=True))
    chances = dict(zip(SUBSETS, subset_chances(rates).tolist(), strict=True))
    image, note = frozenset({Modality.IMAGE}), frozenset({Modality.NOTE})
    assert chances[image] == pytest.approx(1 / 7)
    assert chances[note] == pytest.approx(3 / 7)
    assert chances[image | note] == pytest.approx(3 / 7)
    assert sum(chances.values()) == pytest.approx(1)
    halves = np.array([0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5])
    assert [choose_subset(halves, uniform) for uniform in (0.0, 0.49, 0.51)] == [1, 1, 6]


def test_odds_are_scaled_as_by_hand() -> None:
    assert scale_odds(0.5, 3.0) == pytest.approx(0.75)
    assert scale_odds(0.25, 3.0) == pytest.approx(0.5)
    assert scale_odds(0.0, 3.0) == 0
    assert scale_odds(1.0, 0.25) == 1


def test_without_a_mechanism_every_study_keeps_what_it_has() -> None:
    present = np.array([[True, False, True], [False, False, False]])
    assert (keep(MissingSettings(), make_rows(2), present) == present).all()


@given(
    settings=st.sampled_from([RANDOM, FINDING, SITE]),
    present=arrays(np.bool_, (24, 3)),
    seed=st.integers(0, 5),
)
def test_nothing_is_given_and_the_last_modality_is_never_taken(
    settings: MissingSettings, present: Bool[np.ndarray, "24 3"], seed: int
) -> None:
    kept = keep(settings.model_copy(update={"seed": seed}), make_rows(24), present)
    assert (kept <= present).all()
    assert (kept.any(axis=1) == present.any(axis=1)).all()


@pytest.mark.parametrize("settings", [RANDOM, FINDING, SITE])
def test_what_a_study_keeps_depends_on_no_other_study(settings: MissingSettings) -> None:
    rows, present = make_rows(60), np.ones((60, 3), bool)
    kept = keep(settings, rows, present)
    order = np.random.default_rng(0).permutation(60)[:20]
    assert (keep(settings, [rows[i] for i in order], present[:20]) == kept[order]).all()
    other = keep(settings.model_copy(update={"seed": 1}), rows, present)
    assert (other != kept).any()


def test_modalities_go_missing_at_random_as_often_as_the_rate_says() -> None:
    n = 2_400
    # (r - r^3) / (1 - r^3) with r = 1/2: three of seven; with 3/4, 21 of 37; with 1/4, 5 of 21.
    lost = ~keep(RANDOM, make_rows(n), np.ones((n, 3), bool))
    assert lost.mean(axis=0) == pytest.approx([3 / 7] * 3, abs=5 * 0.5 / np.sqrt(n))


def test_a_finding_multiplies_the_odds_by_three_and_its_absence_divides_them() -> None:
    n = 3_600
    rows = make_rows(n, effusion=(0.0, 1.0, np.nan))
    lost = ~keep(FINDING, rows, np.ones((n, 3), bool))
    for place, share in enumerate((5 / 21, 21 / 37, 3 / 7)):
        own = lost[place::3].mean(axis=0)
        assert own == pytest.approx([share] * 3, abs=5 * 0.5 / np.sqrt(n / 3))


def test_a_site_lacks_the_same_modalities_in_all_its_studies() -> None:
    rows = make_rows(160)
    kept = keep(SITE, rows, np.ones((160, 3), bool))
    by_site = {site: {tuple(k) for k, r in zip(kept.tolist(), rows, strict=True) if r.site == site}
               for site in "abcdefgh"}  # fmt: skip
    assert all(len(found) == 1 for found in by_site.values())
    assert len(set.union(*by_site.values())) > 2
    # A study that has nothing but what its site lacks keeps it.
    lacking = np.flatnonzero(~kept[:, 0])[0]
    alone = np.zeros((160, 3), bool)
    alone[lacking, 0] = True
    assert keep(SITE, rows, alone)[lacking, 0]


def test_studies_without_a_site_are_refused_where_sites_count() -> None:
    rows = [replace(row, site="") for row in make_rows(3)]
    with pytest.raises(CohortError, match="row 1: no site"):
        keep(SITE, rows, np.ones((3, 3), bool))


def test_only_the_splits_asked_for_lose_anything() -> None:
    settings = RANDOM.model_copy(update={"splits": (Split.TEST,), "rate": 0.9})
    rows = make_rows(60)
    kept = keep(settings, rows, np.ones((60, 3), bool))
    tested = np.array([row.split is Split.TEST for row in rows])
    assert kept[~tested].all()
    assert kept[tested].mean() < 0.6


def test_a_thinned_row_has_no_trace_of_what_was_taken() -> None:
    whole = replace(
        make_rows(1)[0], images=(Path("a"),), note=Path("b"), note_text="c", voice=Path("d")
    )
    bare = thin_row(whole, np.array([False, False, True]))
    assert (bare.images, bare.note, bare.note_text, bare.voice) == ((), None, None, Path("d"))
    assert thin_row(whole, np.ones(3, bool)) == whole
