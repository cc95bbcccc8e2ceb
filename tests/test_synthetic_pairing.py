"""What modalities have in common in the known-truth cohort, held to another way of counting it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medfuse.synthetic.cohort import write_cohort
from medfuse.synthetic.network import draw
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut
from medfuse.synthetic.pairing import Pairing, read_pairing
from medfuse.synthetic.world import SIGN_NAMES, SIGNS, build_variables, build_world
from medfuse.trust.retrieval import Embeddings, measure_recall
from medfuse.types import MODALITIES, Modality

OPTIONS = CohortOptions()


def draw_signs(studies: int, seed: int = 0) -> np.ndarray:
    """Draw each study's signs, and nothing else."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(studies):
        answers = {
            name: value
            for variables in build_variables(OPTIONS)
            for name, value in draw(variables, rng).items()
        }
        rows.append([answers[name] for name in SIGN_NAMES])
    return np.array(rows)


@pytest.fixture(scope="module")
def signs() -> np.ndarray:
    return draw_signs(600)


def test_the_score_is_how_often_signs_are_seen_together_more_than_by_chance() -> None:
    # Counted among studies that are drawn, for pairs of patterns that are common enough.
    drawn = draw_signs(20_000, seed=1)
    world = build_world(OPTIONS)
    for asked, found in ((Modality.IMAGE, Modality.VOICE), (Modality.VOICE, Modality.NOTE)):
        one, other = ([SIGN_NAMES.index(sign.name) for sign in SIGNS[m]] for m in (asked, found))
        some = drawn[:40]
        scores = Pairing(world, some, np.zeros(40, dtype=np.int64)).score(asked, found)
        for row, column in np.ndindex(40, 40):
            a = (drawn[:, one] == some[row, one]).all(axis=1)
            b = (drawn[:, other] == some[column, other]).all(axis=1)
            together, alone = (a & b).mean(), a.mean() * b.mean()
            if alone * len(drawn) > 80:
                error = 5 / np.sqrt(alone * len(drawn))
                assert np.exp(scores[row, column]) == pytest.approx(together / alone, abs=error)


def test_no_score_finds_more_studies_than_the_known_truth(signs: np.ndarray) -> None:
    person = np.random.default_rng(0).integers(0, 6, len(signs))
    truth = Pairing(build_world(OPTIONS), signs, person).score
    # Findings that the signs of each modality speak for, and the person, as an embedding.
    vectors = {}
    for m in MODALITIES:
        own = [SIGN_NAMES.index(sign.name) for sign in SIGNS[m]]
        told = np.zeros((len(signs), 20))
        told[np.arange(len(signs)), person] = 4.0
        for k in own:
            parent = build_parent(SIGN_NAMES[k])
            told[:, 6 + parent] += 2.0 * signs[:, k] - 1.0
        vectors[m] = told / np.linalg.norm(told, axis=1, keepdims=True)
    gallery = Embeddings(vectors, np.ones((len(signs), 3), dtype=bool))
    patients = [str(i) for i in range(len(signs))]
    for recall in measure_recall(gallery, patients, truth=truth, resamples=20):
        assert recall.best is not None
        assert recall.recall[10].value is not None
        assert recall.best[10] > 5 * recall.chance[10]
        assert recall.best[10] > recall.recall[10].value - 0.01
        assert recall.recall[10].value > 3 * recall.chance[10]


def build_parent(sign: str) -> int:
    """The place of a sign's first cause among all."""
    variables = [v for network in build_variables(OPTIONS) for v in network]
    causes = [v.name for v in variables if not v.parents]
    return causes.index(next(v for v in variables if v.name == sign).parents[0])


def test_studies_of_another_sex_or_site_are_no_match(signs: np.ndarray) -> None:
    person = np.arange(len(signs)) % 3
    scores = Pairing(build_world(OPTIONS), signs, person).score(Modality.NOTE, Modality.IMAGE)
    assert (np.isneginf(scores) == (person[:, None] != person[None])).all()


def test_a_cohort_s_truth_is_read_for_the_studies_that_are_asked_about(tmp_path: Path) -> None:
    write_cohort(tmp_path / "c", CohortOptions(studies=12, size=192))
    table = pd.read_csv(tmp_path / "c" / "cohort.csv", dtype=str)[::-2]
    studies = list(zip(table.study_id, table.sex, table.site, strict=True))
    pairing = read_pairing(tmp_path / "c", studies)
    assert pairing is not None
    truths = map(json.loads, (tmp_path / "c" / "truth.jsonl").read_text().splitlines())
    signs = {truth["study_id"]: truth["signs"] for truth in truths}
    for study, row in zip(studies, pairing.signs, strict=True):
        assert sorted(signs[study[0]]) == sorted(np.array(SIGN_NAMES)[row])
    same = pairing.person[:, None] == pairing.person[None]
    assert same.tolist() == [[a[1:] == b[1:] for b in studies] for a in studies]
    assert read_pairing(tmp_path / "c", [("another", "F", "north")]) is None
    assert read_pairing(tmp_path, studies) is None


@pytest.mark.parametrize(
    "options",
    [
        CohortOptions(studies=2, size=192, missing=Mechanism.FINDING),
        CohortOptions(
            studies=2, size=192, shortcuts=(Shortcut(modality=Modality.NOTE, finding="nodule"),)
        ),
    ],
)
def test_what_binds_modalities_beyond_findings_has_no_such_truth(
    options: CohortOptions, tmp_path: Path
) -> None:
    write_cohort(tmp_path / "c", options)
    table = pd.read_csv(tmp_path / "c" / "cohort.csv", dtype=str)
    studies = list(zip(table.study_id, table.sex, table.site, strict=True))
    assert read_pairing(tmp_path / "c", studies) is None
