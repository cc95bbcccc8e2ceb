import csv
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import typer
from typer.testing import CliRunner

from medfuse.data.cohort import CohortSettings, Split, load_study, read_cohort
from medfuse.errors import CohortError, SettingsError
from medfuse.synthetic import cohort as module
from medfuse.synthetic.cohort import COLUMNS, CohortSummary, write_cohort
from medfuse.synthetic.command import cohort as command
from medfuse.synthetic.command import parse_shortcut
from medfuse.synthetic.network import cohort_auc
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut
from medfuse.synthetic.study import make_study
from medfuse.synthetic.world import FINDINGS, TARGETS, TASKS
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

OPTIONS = CohortOptions(
    studies=40,
    seed=1,
    size=192,
    missing=Mechanism.FINDING,
    missing_rate=0.4,
    shortcuts=(Shortcut(modality=Modality.IMAGE, finding="nodule", strength=0.9),),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CohortSummary, list[int]]:
    folder = tmp_path_factory.mktemp("cohort") / "cohort"
    steps: list[int] = []
    return folder, write_cohort(folder, OPTIONS, steps.append, workers=1), steps


def hash_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_truth(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]


def test_every_byte_is_the_same_with_one_worker_and_with_two(
    written: tuple[Path, CohortSummary, list[int]], tmp_path: Path
) -> None:
    write_cohort(tmp_path / "again", OPTIONS, workers=2)
    assert hash_files(tmp_path / "again") == hash_files(written[0])


def test_a_shorter_cohort_is_the_start_of_a_longer_one(
    written: tuple[Path, CohortSummary, list[int]], tmp_path: Path
) -> None:
    write_cohort(tmp_path / "short", OPTIONS.model_copy(update={"studies": 5}))
    short, whole = hash_files(tmp_path / "short"), hash_files(written[0])
    studies = {name for name in short if name.startswith(("studies", "truth/"))}
    assert len(studies) > 10
    assert {name: whole[name] for name in studies} == {name: short[name] for name in studies}


def test_progress_counts_the_studies(written: tuple[Path, CohortSummary, list[int]]) -> None:
    assert written[2] == list(range(1, 41))


def test_the_table_is_read_as_any_cohort_and_gives_the_studies_back(
    written: tuple[Path, CohortSummary, list[int]],
) -> None:
    settings = CohortSettings(table=written[0] / "cohort.csv", check_identity=True)
    read = read_cohort(settings, TASKS)
    assert len(read.rows) == 40
    for number, row in enumerate(read.rows):
        made = make_study(OPTIONS, number)
        study = load_study(row)
        assert (study.images, study.note, study.voice) == (
            made.study.images,
            made.study.note,
            made.study.voice,
        )
        assert row.present == made.truth.present
        assert row.labels == tuple(made.truth.labels.astype(float))
        assert row.patient_id == made.patient.patient_id
        assert row.split == Split(made.patient.split)


def test_no_patient_is_in_two_splits(written: tuple[Path, CohortSummary, list[int]]) -> None:
    table = pd.read_csv(written[0] / "cohort.csv")
    assert tuple(table.columns) == COLUMNS
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "validation", "test"}
    assert table["patient_id"].duplicated().any()


def test_masks_have_the_shape_of_their_instances(
    written: tuple[Path, CohortSummary, list[int]],
) -> None:
    folder = written[0]
    found = 0
    for truth in read_truth(folder):
        with np.load(folder / "truth" / f"{truth['study_id']}.npz") as masks:
            wanted = {f"{e['sign']}/{e['instance']}": e["pixels"] for e in truth["image"]}
            assert {name: int(masks[name].sum()) for name in masks.files} == wanted
            for evidence in truth["image"]:
                path = folder / "studies" / truth["study_id"] / f"image_{evidence['instance']}.dcm"
                ds = pydicom.dcmread(path, stop_before_pixels=True)
                mask = masks[f"{evidence['sign']}/{evidence['instance']}"]
                assert mask.shape == (ds.Rows, ds.Columns)
                found += 1
    assert found > 20


def test_the_summary_measures_the_posteriors_in_the_truth(
    written: tuple[Path, CohortSummary, list[int]],
) -> None:
    folder, summary, _ = written
    truths = read_truth(folder)
    labels = np.array([[t["labels"][f] for f in TARGETS] for t in truths], dtype=bool)
    described = json.loads((folder / "cohort.json").read_text())
    assert described["complete"] is True
    assert CohortOptions.model_validate(described["options"]) == OPTIONS
    for subset, row in zip(SUBSETS, summary.drawn.subsets, strict=True):
        scores = np.array(
            [[t["posterior"][subset_name(subset)][f] for f in TARGETS] for t in truths]
        )
        assert row == pytest.approx(cohort_auc(scores, labels))
        named = described["bayes_auc"]["drawn"]["subsets"][subset_name(subset)]
        assert [named[f] for f in TARGETS] == row.tolist()
        assert named["macro"] == pytest.approx(row[: len(FINDINGS)].mean())
    delivered = np.array([[t["delivered"][f] for f in TARGETS] for t in truths])
    assert summary.drawn.delivered == pytest.approx(cohort_auc(delivered, labels))
    assert summary.prevalence == pytest.approx(labels.mean(axis=0))
    lacking = np.array([[m.value not in t["present"] for m in MODALITIES] for t in truths])
    shares = [*lacking.mean(axis=0), lacking.mean()]
    assert list(described["missing"]["drawn"].values()) == pytest.approx(shares)
    assert 0.2 < described["missing"]["population"]["all"] < 0.4
    with (folder / "cohort.csv").open() as table:
        test = [row["split"] == "test" for row in csv.DictReader(table)]
    assert summary.test.studies == sum(test)


def test_a_tiny_cohort_without_a_test_split_has_no_area_there(tmp_path: Path) -> None:
    seed = next(
        s for s in range(50) if make_study(CohortOptions(seed=s), 0).patient.split != "test"
    )
    options = CohortOptions(studies=1, size=192, seed=seed)
    summary = write_cohort(tmp_path, options)
    assert np.isnan(summary.test.subsets).all()
    described = json.loads((tmp_path / "cohort.json").read_text())
    assert described["bayes_auc"]["test"]["subsets"]["image"]["macro"] is None


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CohortError, match="not a cohort"):
        write_cohort(tmp_path, CohortOptions(studies=1))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_cohort_with_something_added_is_left_alone(tmp_path: Path) -> None:
    write_cohort(tmp_path, CohortOptions(studies=1, size=192))
    (tmp_path / "results.csv").write_text("1")
    with pytest.raises(CohortError, match="not a cohort"):
        write_cohort(tmp_path, CohortOptions(studies=1, size=192))
    assert (tmp_path / "studies" / "S000000").is_dir()


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(CohortError, match="is a file"):
        write_cohort(tmp_path / "out", CohortOptions(studies=1))


def test_an_interrupted_cohort_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = CohortOptions(studies=3, size=192)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path, options, stop, workers=1)
    assert json.loads((tmp_path / "cohort.json").read_text())["complete"] is False
    write_cohort(tmp_path, options)
    assert len(list((tmp_path / "studies").iterdir())) == 3


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert module._count_cores() >= 1


def run(*arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output, result.exception


def test_the_command_writes_a_cohort_and_prints_its_table(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    code, output, _ = run(
        *(str(out), "--studies", "3", "--seed", "4", "--missing", "random"),
        *("--shortcut", "voice:pneumonia:0.5", "--size", "192"),
    )
    assert code == 0
    # Exactly known, whatever is drawn: see test_synthetic_world.
    lines = {
        line.split()[0]: line.split()[1:] for line in reversed(output.splitlines()) if line.split()
    }
    assert lines["image+voice"][0] == "0.860"
    assert lines["image+voice"][5] == "0.940"
    assert lines["note+voice"][7] == "0.940"
    assert "as delivered" in output
    assert "of all modalities" in output
    described = json.loads((out / "cohort.json").read_text())
    assert described["options"]["shortcuts"] == [
        {"modality": "voice", "finding": "pneumonia", "strength": 0.5}
    ]


def test_the_command_names_the_option_that_is_wrong(tmp_path: Path) -> None:
    _, _, error = run(str(tmp_path / "out"), "--missing-rate", "0.95")
    assert isinstance(error, SettingsError)
    assert "--missing-rate" in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["pneumonia", "image:pneumonia:2", "smell:pneumonia:0.5", "a:b:c:d"]
)
def test_a_malformed_shortcut_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="MODALITY:FINDING:STRENGTH"):
        parse_shortcut(text)


def test_an_unknown_finding_leaves_no_folder(tmp_path: Path) -> None:
    _, _, error = run(str(tmp_path / "out"), "--shortcut", "image:gout:0.5")
    assert isinstance(error, CohortError)
    assert not (tmp_path / "out").exists()
