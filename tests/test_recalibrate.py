"""The command recalibrate, on a bundle of known logits and labels drawn from a known curve."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.special import expit, logit
from typer.testing import CliRunner

from medfuse.bundle import MODEL_CARD, NOVELTY, Bundle, Manifest, TextManifest, open_bundle
from medfuse.data.cohort import CohortRow
from medfuse.errors import BundleError, CohortError
from medfuse.golden import read_golden
from medfuse.text.record import TextRecord
from medfuse.text.thresholds import choose_threshold
from medfuse.text.vocabulary import SPECIALS
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.calibration import Calibration
from medfuse.trust.fitting import Promised
from medfuse.trust.novelty import NoveltyModel, Usual
from medfuse.trust.record import QuestionTrust, TrustRecord, TrustSettings
from medfuse.types import SUBSETS, Modality, Study, subset_name
from medfuse_serving.evaluate import measure_cohort
from medfuse_serving.predictor import Predictor
from medfuse_serving.recalibrate import (
    describe,
    recalibrate,
    recalibrate_bundle,
    rewrite_manifest,
)
from tests.hand_bundle import make_bundle, make_dicom

STUDIES = 440
OFFSET, SLOPE = 0.4, 12.0
"""The finding has the chance expit(SLOPE * (mean of the image - OFFSET)); the logit is the mean."""

USUAL = Usual(np.zeros(75, np.float32), np.eye(75, dtype=np.float32), np.ones(199, np.float32))
BEFORE = TrustRecord(
    settings=TrustSettings(coverage=0.85, false_alarms=0.02),
    subsets={"voice": {"loudness": QuestionTrust(studies={"loudness": 50}, within=2.0)}},
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "bundle"
    return make_bundle(folder, trust=BEFORE, novelty=NoveltyModel({Modality.VOICE: USUAL}))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the studies are for validation; a third has a note; none a recording."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(STUDIES):
        level = rng.uniform(0, 1)
        pixels = np.clip(rng.normal(4095 * level, 30, (40, 40)), 0, 4095).astype(np.uint16)
        (folder / f"{i}.dcm").write_bytes(make_dicom(pixels))
        words = rng.choice(["cough", "fever", "and"], rng.integers(3, 9))
        (folder / f"{i}.txt").write_text(" ".join(words))
        there = rng.random() < expit(SLOPE * (pixels.mean() / 4095 - OFFSET))
        lines.append(
            {
                "patient_id": f"P{i // 2}",
                "study_id": f"S{i:03d}",
                "images": f"{i}.dcm",
                "note": f"{i}.txt" if i % 3 == 0 else "",
                "brightness": int(there),
                "wordiness": int(i < 4),
                "loudness": 0.0,
                "split": "validation" if i < STUDIES // 2 else "test",
            }
        )
    pd.DataFrame(lines).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


@pytest.fixture(scope="module")
def unsplit(table: Path) -> Path:
    path = table.with_name("unsplit.csv")
    pd.read_csv(table).drop(columns="split").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def made(parent: Path, unsplit: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("made") / "bundle"
    return recalibrate_bundle(Predictor(parent), unsplit, out)


def change(path: Path, name: str, **columns: str | int) -> Path:
    out = path.with_name(f"{name}.csv")
    pd.read_csv(path).assign(**columns).to_csv(out, index=False)
    return out


def test_the_new_bundle_says_the_chances_that_the_labels_were_drawn_from(made: Bundle) -> None:
    own = made.manifest.calibration.of("findings.brightness", "image")
    assert own.temperature == pytest.approx(1 / SLOPE, rel=0.2)
    assert -own.bias == pytest.approx(SLOPE * OFFSET, rel=0.2)
    # So does what stands for a subset that has too few studies: never a temperature alone.
    overall = made.manifest.calibration.targets["findings.brightness"]
    assert -overall.bias == pytest.approx(SLOPE * OFFSET, rel=0.2)
    predictor = Predictor(made.path)
    for level in (0.2, 0.4, 0.6):
        pixels = np.full((40, 40), round(4095 * level), np.uint16)
        (prediction,) = predictor.predict([Study(images=(make_dicom(pixels),))])
        said = float(prediction.tasks[0].probabilities[0])
        assert said == pytest.approx(
            expit(SLOPE * (level - OFFSET)), abs=0.1
        )  # two standard errors


def test_the_network_is_the_parents_to_the_byte_and_verifies(parent: Path, made: Bundle) -> None:
    before = open_bundle(parent)
    changed = {"golden/answer.json", MODEL_CARD, NOVELTY}
    for name, record in before.manifest.files.items():
        assert (made.manifest.files[name] == record) == (name not in changed), name
    assert Predictor(made.path).check_golden() < 1e-4
    golden = read_golden(made).answer
    assert golden.logits == read_golden(before).answer.logits
    # What the golden study is expected to be told is what it is told.
    for name, one in zip(map(subset_name, SUBSETS), read_golden(made).studies, strict=True):
        (prediction,) = Predictor(made.path).predict([one])
        told = np.concatenate([task.probabilities for task in prediction.tasks])
        assert golden.probabilities[name] == pytest.approx(told, abs=1e-4)
    assert golden.probabilities != read_golden(before).answer.probabilities


def test_the_manifest_says_whose_studies_it_rests_on(
    parent: Path, made: Bundle, unsplit: Path
) -> None:
    record = made.manifest.recalibrated
    assert record is not None
    assert record.parent == open_bundle(parent).digest
    assert (record.studies, record.patients, record.split) == (STUDIES, STUDIES // 2, "all")
    assert record.novelty == (Modality.IMAGE, Modality.NOTE)
    report = measure_cohort(Predictor(made.path), unsplit, resamples=0)
    assert record.cohort == report.cohort
    card = made.read(MODEL_CARD).decode()
    assert card.count("## Recalibrated") == 1
    assert record.parent in card
    assert f"{STUDIES} studies of {STUDIES // 2} patients" in card
    assert "P1" not in card


def test_promises_are_of_these_studies_and_what_is_promised_stays(made: Bundle) -> None:
    trust = made.manifest.trust
    assert trust is not None
    assert trust.settings == BEFORE.settings
    # Nobody has a recording, so nothing is promised of what rests on one, as was before.
    assert set(trust.subsets) == {"image", "note", "image+note"}
    image = trust.of("image", "findings.brightness")
    assert image is not None
    # Those of the two thirds that have no note, as an answer from the image alone is to.
    assert image.exact is True
    assert sum(image.studies.values()) == STUDIES - len(range(0, STUDIES, 3))
    # The note alone is nobody's: studies with an image stand in, the image hidden.
    note = trust.of("note", "findings.brightness")
    assert note is not None
    assert note.exact is False
    assert sum(note.studies.values()) == len(range(0, STUDIES, 3))
    # Four studies have the other finding: too few to leave it out, and its calibration stays.
    rare = trust.of("image", "findings.wordiness")
    assert rare is not None
    assert rare.studies["present"] == 4
    assert rare.least["present"] == pytest.approx(0.0)
    assert "findings.wordiness" not in made.manifest.calibration.subsets["image"]


def test_what_too_few_patients_have_is_judged_as_before(made: Bundle) -> None:
    novelty = Predictor(made.path).novelty
    assert np.array_equal(novelty.usual[Modality.VOICE].distances, USUAL.distances)
    # One study of each of 220 patients, and the notes of as many as have one.
    assert len(novelty.usual[Modality.IMAGE].distances) == STUDIES // 2
    assert novelty.language is not None


def test_promises_hold_on_studies_of_other_patients(parent: Path, table: Path) -> None:
    out = parent.with_name("validated")
    made = recalibrate_bundle(Predictor(parent), table, out)
    assert made.manifest.recalibrated is not None
    assert made.manifest.recalibrated.split == "validation"
    assert made.manifest.recalibrated.studies == STUDIES // 2
    after = measure_cohort(Predictor(out), table, split="test", every_subset=True, resamples=200)
    assert sum(not p.kept for p in after.promises) <= 1
    before = measure_cohort(Predictor(parent), table, split="test", resamples=200)
    errors = [
        r.subsets["as given"].targets["findings.brightness"]["ece_debiased"]
        for r in (before, after)
    ]
    assert errors[0].value is not None
    assert errors[0].low is not None
    assert errors[1].value is not None
    assert errors[0].low > 0.03
    assert errors[1].value < errors[0].value / 2


def test_a_recalibrated_bundle_can_be_recalibrated(made: Bundle, unsplit: Path) -> None:
    again = recalibrate_bundle(Predictor(made.path), unsplit, made.path.with_name("again"))
    assert again.manifest.recalibrated is not None
    assert again.manifest.recalibrated.parent == made.digest
    assert again.read(MODEL_CARD).decode().count("## Recalibrated") == 1
    own, before = (b.manifest.calibration.of("findings.brightness", "note") for b in (again, made))
    assert own == before


def test_findings_are_stated_from_a_threshold_of_these_studies(made: Bundle) -> None:
    rng = np.random.default_rng(1)
    chances = rng.uniform(0.01, 0.99, (200, 2))
    labels = np.column_stack([rng.random((200, 2)) < chances, np.zeros(200)]).astype(float)
    rows = tuple(
        CohortRow(number=i, patient_id=str(i), study_id=str(i), labels=tuple(own))
        for i, own in enumerate(labels)
    )
    logits = np.column_stack([logit(chances), np.zeros(200)])
    answers = Answers(rows, np.ones((200, 3), bool), {AS_GIVEN: logits})
    record = TextRecord(
        words=(*SPECIALS, "bright"),
        findings=("findings.brightness",),
        thresholds={"findings.brightness": None},
        precision=0.8,
        cells=1,
        mel_step=1.0,
    )
    before = made.manifest.model_copy(update={"text": TextManifest.model_construct(record=record)})
    assert made.manifest.recalibrated is not None
    after = rewrite_manifest(
        before, Promised(Calibration(), answers, BEFORE), made.manifest.recalibrated
    )
    assert after.text is not None
    assert after.text.record.thresholds == {
        "findings.brightness": choose_threshold(chances[:, 0], labels[:, 0], 0.8)
    }
    assert f"- findings.brightness: {after.text.record.thresholds['findings.brightness']:.3f}" in (
        describe(after)
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patient_id": "P1"}, "1 patients can be used and at least 50"),
        ({"brightness": 1, "wordiness": 0}, "no finding has 10 studies with it"),
    ],
)
def test_too_few_are_refused(
    parent: Path, unsplit: Path, tmp_path: Path, columns: dict[str, str | int], message: str
) -> None:
    few = change(unsplit, f"few{len(columns)}", **columns)
    with pytest.raises(CohortError, match=message):
        recalibrate_bundle(Predictor(parent), few, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_studies_that_trained_the_model_are_refused_where_it_can_be_known(
    parent: Path, table: Path, unsplit: Path, tmp_path: Path
) -> None:
    trained = change(table, "trained", split="train")
    with pytest.raises(CohortError, match="for training or for testing"):
        recalibrate_bundle(Predictor(parent), trained, tmp_path / "out", "all")
    with pytest.raises(CohortError, match="no study of split 'validation'"):
        recalibrate_bundle(Predictor(parent), trained, tmp_path / "out")
    run = tmp_path / "run.toml"
    run.write_text(f'[cohort]\ntable = "{unsplit}"\n[fit]\nepochs = 3\n')
    with pytest.raises(CohortError, match="divided the patients by itself"):
        recalibrate_bundle(Predictor(parent), run, tmp_path / "out")


def test_labels_of_another_task_are_refused(parent: Path, unsplit: Path, tmp_path: Path) -> None:
    source = tmp_path / "other.toml"
    asked = '[[tasks]]\nname = "findings"\nkind = "multilabel"\nclasses = ["nodule", "wordiness"]\n'
    source.write_text(f'[cohort]\ntable = "{unsplit}"\n{asked}')
    with pytest.raises(CohortError, match=r"'findings'.*brightness, wordiness.*not among"):
        recalibrate_bundle(Predictor(parent), source, tmp_path / "out")
    without = unsplit.with_name("without.csv")
    pd.read_csv(unsplit).drop(columns="brightness").to_csv(without, index=False)
    with pytest.raises(CohortError, match="brightness"):
        recalibrate_bundle(Predictor(parent), without, tmp_path / "out")


def test_the_parent_is_never_replaced(parent: Path, unsplit: Path) -> None:
    before = open_bundle(parent).digest
    with pytest.raises(BundleError, match="is kept"):
        recalibrate_bundle(Predictor(parent), unsplit, parent)
    assert open_bundle(parent).digest == before


def test_the_command_says_what_the_new_bundle_rests_on(
    parent: Path, table: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(recalibrate)
    result = CliRunner().invoke(
        app, [str(parent), str(table), str(tmp_path / "out")], env={"COLUMNS": "160"}
    )
    assert result.exit_code == 0, result.output
    assert f"{STUDIES // 2} studies of {STUDIES // 4} patients (split: validation)" in result.output
    assert "novelty  image" in result.output
    assert "findings.wordiness present" in result.output
    assert open_bundle(tmp_path / "out").digest in result.output
    assert "P1" not in result.output


def test_an_older_bundle_is_read_as_one_that_was_not_recalibrated(parent: Path) -> None:
    content = json.loads((parent / "manifest.json").read_text())
    del content["recalibrated"]
    assert Manifest.model_validate(content | {"schema_version": 4}).recalibrated is None
