"""The command retrieve: a bundle's own embeddings, through the same files as every other answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from medfuse.data.cohort import CohortRow, CohortSettings, load_study, read_cohort
from medfuse.errors import BundleError
from medfuse.trust.retrieval import Embeddings
from medfuse.types import MODALITIES, Modality
from medfuse_serving.predictor import Predictor
from medfuse_serving.retrieve import embed_rows, retrieve

APP = typer.Typer()
APP.command()(retrieve)


@pytest.fixture(scope="module")
def rows(small_cohort: Path) -> tuple[CohortRow, ...]:
    return read_cohort(
        CohortSettings(table=small_cohort / "cohort.csv", unlabelled="train"), ()
    ).rows


@pytest.fixture(scope="module")
def embeddings(tiny_bundle: Path, rows: tuple[CohortRow, ...]) -> Embeddings:
    return embed_rows(Predictor(tiny_bundle), rows)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def test_embeddings_are_unit_vectors_and_the_same_in_any_company(
    tiny_bundle: Path, rows: tuple[CohortRow, ...], embeddings: Embeddings
) -> None:
    alone = Predictor(tiny_bundle).embed([load_study(rows[5])])
    for m in MODALITIES:
        there = embeddings.having(m)
        assert there.tolist() == [m in row.present for row in rows]
        lengths = np.linalg.norm(embeddings.vectors[m][there], axis=1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
        np.testing.assert_allclose(alone.vectors[m][0], embeddings.vectors[m][5], atol=2e-5)


def test_the_nearest_notes_of_an_image_are_those_of_the_largest_cosine(
    tiny_bundle: Path, small_cohort: Path, rows: tuple[CohortRow, ...], embeddings: Embeddings
) -> None:
    films = [part for path in rows[7].images for part in ("--dicom", path)]
    asked = ("--to", "note", "--top", 3, "--json")
    result = call(tiny_bundle, small_cohort / "cohort.csv", *films, *asked)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found) == ["note"]
    cosines = embeddings.vectors[Modality.NOTE] @ embeddings.vectors[Modality.IMAGE][7]
    cosines[~embeddings.having(Modality.NOTE)] = -2
    best = np.argsort(-cosines)[:3]
    assert [one["study_id"] for one in found["note"]] == [rows[i].study_id for i in best]
    np.testing.assert_allclose([one["cosine"] for one in found["note"]], cosines[best], atol=1e-4)


def test_recall_is_shown_in_six_directions_beside_chance(
    tiny_bundle: Path, small_cohort: Path
) -> None:
    result = call(tiny_bundle, small_cohort / "cohort.csv", "--evaluate", "--json")
    assert result.exit_code == 0, result.output
    lines = json.loads(result.stdout)
    assert {(line["asked"], line["found"]) for line in lines} == {
        (a.value, b.value) for a in MODALITIES for b in MODALITIES if a is not b
    }
    for line in lines:
        assert line["chance"]["10"] == pytest.approx(10 / line["studies"])
        assert line["best"]["10"] > line["chance"]["10"]  # the cohort's truth is known
    shown = call(tiny_bundle, small_cohort / "cohort.csv", "--evaluate")
    assert "at best: by every sign, sex and site" in " ".join(shown.output.split())
    assert "\u2026" not in shown.output  # nothing is cut off on a narrow terminal


def test_what_cannot_be_asked_is_refused(
    tiny_bundle: Path, hand_bundle: Path, small_cohort: Path, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("cough")
    table = small_cohort / "cohort.csv"
    assert "give one of" in call(tiny_bundle, table).output
    assert "give one of" in call(tiny_bundle, table, "--note", note, "--evaluate").output
    assert "look for another" in call(tiny_bundle, table, "--note", note, "--to", "note").output
    error = call(hand_bundle, table, "--note", note).exception
    assert isinstance(error, BundleError)
    assert "no space that its modalities share" in str(error)
