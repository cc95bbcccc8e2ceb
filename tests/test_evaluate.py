"""The commands evaluate and predict-cohort, on a bundle whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medfuse.bundle import NOTICE
from medfuse.cli import build_app
from medfuse.errors import CohortError, SettingsError
from medfuse.trust.descriptors import describe
from medfuse.trust.evaluation import Evaluation
from medfuse.trust.novelty_fitting import Described, fit_novelty
from medfuse.trust.record import QuestionTrust, TrustRecord
from medfuse.types import Modality, Study
from medfuse_serving.evaluate import measure_cohort
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import make_bundle, make_dicom, make_wav

STUDIES = 60


def make_files(i: int) -> tuple[np.ndarray, str, bytes]:
    """Brightness tells the finding of odd studies; a few lack a modality."""
    rng = np.random.default_rng(i)
    level = 3000 if i % 2 else 900
    pixels = np.clip(rng.normal(level, 200, (40, 40)), 0, 4095).astype(np.uint16)
    words = " ".join(rng.choice(["cough", "fever", "and"], rng.integers(3, 9)))
    return pixels, words, make_wav(hz=float(rng.uniform(200, 400)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    lines = []
    for i in range(STUDIES):
        pixels, words, wav = make_files(i)
        for name, data in (
            (f"{i}.dcm", make_dicom(pixels, patient_id=f"P{i // 2}")),
            (f"{i}.txt", words.encode()),
            (f"{i}.wav", wav),
        ):
            (folder / name).write_bytes(data)
        lines.append(
            {
                "patient_id": f"P{i // 2}",
                "study_id": f"S{i:03d}",
                "images": f"{i}.dcm",
                "note": "" if i % 5 == 0 else f"{i}.txt",
                "voice": f"{i}.wav",
                "brightness": i % 2,
                "wordiness": "" if i == 7 else int(i % 3 == 0),
                "loudness": -0.5,
                "sex": "F" if i % 2 else "M",
                "age": 20 + i,
                "ward": "east" if i < 30 else "west",
            }
        )
    (folder / "broken.dcm").write_bytes(b"not an image")
    lines.append(lines[1] | {"study_id": "S999", "images": "broken.dcm", "patient_id": "P999"})
    pd.DataFrame(lines).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    plain = Predictor(make_bundle(folder / "plain"))
    described = []
    for i in range(100, 220):
        pixels, words, wav = make_files(i)
        (one,) = plain.prepare(
            [Study(images=(make_dicom(pixels),), note=words.encode(), voice=wav)]
        )
        described.append(Described(str(i), describe(one)))
    own = QuestionTrust(
        studies={"absent": 80, "present": 80},
        least={"absent": 0.5, "present": 0.5},
        sure=0.55,
        positive=0.5,
    )
    trust = TrustRecord(subsets={"image+note+voice": {"findings.brightness": own}})
    novelty = fit_novelty(described, 0.01, 0)
    return make_bundle(folder / "bundle", trust=trust, novelty=novelty)


@pytest.fixture(scope="module")
def report(bundle: Path, cohort: Path) -> Evaluation:
    return measure_cohort(
        Predictor(bundle),
        cohort,
        every_subset=True,
        wrong_inputs=True,
        group_by=("ward",),
        resamples=50,
    )


def run(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_study_is_measured_from_every_subset_it_has(report: Evaluation) -> None:
    assert (report.studies, report.patients) == (STUDIES, STUDIES // 2)
    assert report.left_out == {"files cannot be used (DicomError)": 1}
    counts = {name: own.studies for name, own in report.subsets.items()}
    assert counts["as given"] == counts["image"] == counts["image+voice"] == STUDIES
    assert counts["image+note+voice"] == counts["note"] == STUDIES * 4 // 5
    # The image's mean is the logit, so brightness is told without an error; the voice says 0.
    assert report.subsets["image"].targets["findings.brightness"]["auroc"].value == 1.0
    assert report.subsets["voice"].targets["findings.brightness"]["auroc"].value == 0.5
    assert report.subsets["voice"].targets["loudness"]["mae"].value is not None


def test_promises_are_held_to_the_studies_with_exactly_those_modalities_or_more(
    report: Evaluation,
) -> None:
    own = [p for p in report.promises if p.subset == "image+note+voice"]
    present = next(p for p in own if (p.question, p.kind, p.group) == (
        "findings.brightness", "coverage", "present",
    ))  # fmt: skip
    # All logits are above zero, so present is in each set.
    assert present.hits == present.studies == sum(i % 5 != 0 and i % 2 for i in range(STUDIES))
    absent = next(p for p in own if (p.question, p.group) == ("findings.brightness", "absent"))
    assert (absent.hits, absent.kept) == (0, False)


def test_groups_are_those_of_the_table_and_of_the_files(report: Evaluation) -> None:
    assert {"sex", "ward", "age", "modalities"} >= {s.field for s in report.subgroups}
    assert {s.group for s in report.subgroups if s.field == "ward"} == {"east", "west"}


def test_wrong_inputs_are_told_from_right_ones(report: Evaluation) -> None:
    assert {w.modality for w in report.wrong} == set(Modality)
    kinds = {(w.modality, w.kind): w for w in report.wrong}
    assert kinds[Modality.IMAGE, "photograph"].auroc > 0.99
    assert kinds[Modality.VOICE, "noise"].auroc > 0.99
    assert kinds[Modality.NOTE, "program code"].auroc > 0.99
    for kind in ((Modality.IMAGE, "photograph"), (Modality.VOICE, "noise")):
        assert kinds[kind].novel == 1.0
    for own in report.novelty:
        assert own.low <= 0.05


def test_the_page_holds_every_part_and_asks_no_other_machine(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    said = run("evaluate", bundle, cohort, "--out", tmp_path / "out", "--resamples", 20)
    assert "promises kept" in said
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("Calibration", "Promises", "Novelty", "Groups", "Decisions", NOTICE.split(":")[0]):
        assert part in page
    assert page.count("<svg") == 3
    for word in ("http://", "https://", "<script", "src="):
        assert word not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")
    written = Evaluation.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert written.studies == STUDIES
    assert written.resamples == 20
    assert "P0" not in page


def test_a_cohort_can_be_named_by_the_settings_of_a_run(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text(
        f'[cohort]\ntable = "{cohort}"\n[cohort.keep]\nward = ["east"]\n[fit]\nepochs = 3\n'
    )
    report = measure_cohort(Predictor(bundle), settings, resamples=0)
    assert report.studies == 30
    # As an import writes it, beside its table.
    beside = cohort.with_name("cohort.toml")
    beside.write_text('[cohort]\ntable = "cohort.csv"\nrelative_to = "settings_file"\n')
    assert measure_cohort(Predictor(bundle), beside, resamples=0).studies == STUDIES
    settings.write_text("[fit]\n")
    with pytest.raises(SettingsError, match="cohort"):
        measure_cohort(Predictor(bundle), settings, resamples=0)


def test_what_is_not_in_the_table_is_refused(bundle: Path, cohort: Path) -> None:
    with pytest.raises(CohortError, match="no column 'doctor'"):
        measure_cohort(Predictor(bundle), cohort, group_by=("doctor",))
    with pytest.raises(CohortError, match="no study of split 'test'"):
        measure_cohort(Predictor(bundle), cohort, split="test")


def test_a_table_is_answered_as_parquet_row_by_row(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.parquet"
    run("predict-cohort", bundle, cohort, out)
    table = pd.read_parquet(out)
    given = pd.read_csv(cohort)
    assert table["study_id"].tolist() == given["study_id"].tolist()
    assert table["used"].iloc[5] == "image+voice"
    assert table["failure"].iloc[-1].startswith("DicomError")
    assert np.isnan(table["findings.brightness.logit"].iloc[-1])
    fine = table.iloc[:-1]
    assert (fine["failure"] == "").all()
    odd = np.arange(STUDIES) % 2 == 1
    chances = fine["findings.brightness.probability"]
    assert chances[odd].min() > chances[~odd].max()
    assert fine["findings.brightness.possible"].iloc[1] == "present"
    metadata = {k.decode(): v.decode() for k, v in pq.read_schema(out).metadata.items()}
    assert metadata["medfuse.notice"] == NOTICE
    assert metadata["medfuse.model"] == Predictor(bundle).bundle.digest


def test_labels_are_not_needed_to_answer_a_table(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    table = cohort.with_name("unlabelled.csv")
    pd.read_csv(cohort).drop(columns=["brightness", "wordiness", "loudness"]).head(3).to_csv(
        table, index=False
    )
    run("predict-cohort", bundle, table, tmp_path / "a.parquet")
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 3


def test_a_study_whose_file_is_gone_is_a_row_and_the_others_are_answered(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    table = cohort.with_name("gone.csv")
    given = pd.read_csv(cohort).head(3)
    given.loc[1, "images"] = "gone.dcm"
    given.to_csv(table, index=False)
    run("predict-cohort", bundle, table, tmp_path / "a.parquet")
    failure = pd.read_parquet(tmp_path / "a.parquet")["failure"].tolist()
    assert failure[0] == failure[2] == ""
    assert failure[1] == "CohortError: row 2: a file cannot be read (No such file or directory)"


def test_the_same_study_is_answered_alike_by_both_commands(
    bundle: Path, cohort: Path, tmp_path: Path, report: Evaluation
) -> None:
    run("predict-cohort", bundle, cohort, tmp_path / "a.parquet")
    table = pd.read_parquet(tmp_path / "a.parquet").iloc[:-1]
    truth = np.arange(STUDIES) % 2
    brier = float(np.mean((table["findings.brightness.probability"] - truth) ** 2))
    shown = report.subsets["as given"].targets["findings.brightness"]["brier"].value
    assert shown == pytest.approx(brier, abs=1e-6)
    again = json.loads(report.model_dump_json())
    assert again["notice"] == NOTICE
