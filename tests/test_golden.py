import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medfuse.bundle import GOLDEN_ANSWER, MANIFEST, Bundle, open_bundle, write_bundle
from medfuse.errors import BundleError
from medfuse.golden import Golden, check_golden, keep, read_golden
from medfuse.trust.calibration import answer
from medfuse.types import SUBSETS, Modality, Prediction, Study, subset_name


@pytest.fixture
def bundle(hand_bundle: Path) -> Bundle:
    return open_bundle(hand_bundle)


def predictions(bundle: Bundle, golden: Golden, shift: float = 0.0) -> list[Prediction]:
    """Answers that differ from the expected by ``shift`` in the last logit of the last subset."""
    rows = [np.array(golden.answer.logits[subset_name(subset)]) for subset in SUBSETS]
    rows[-1][-1] += shift
    manifest = bundle.manifest
    return [
        Prediction(answer(manifest.tasks, row, manifest.calibration), subset, (), bundle.digest)
        for subset, row in zip(SUBSETS, rows, strict=True)
    ]


def test_keep_leaves_out_every_other_modality() -> None:
    study = Study(images=(b"i", b"j"), note=b"n", voice=b"v", patient_id="p", study_uid="s")
    assert keep(study, frozenset({Modality.IMAGE})) == replace(study, note=None, voice=None)
    assert keep(study, frozenset({Modality.NOTE})) == replace(study, images=(), voice=None)
    assert keep(study, frozenset({Modality.VOICE})) == replace(study, images=(), note=None)
    assert keep(study, frozenset(Modality)) == study


def test_the_golden_study_comes_once_per_subset(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    assert len(golden.studies) == len(SUBSETS)
    for study, subset in zip(golden.studies, SUBSETS, strict=True):
        assert bool(study.images) == (Modality.IMAGE in subset)
        assert (study.note is not None) == (Modality.NOTE in subset)
        assert (study.voice is not None) == (Modality.VOICE in subset)
    assert golden.studies[-1].images == (bundle.read("golden/image_0.dcm"),)


def test_the_expected_answers_differ_by_nothing(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    assert check_golden(golden, predictions(bundle, golden)) == 0.0


def test_a_difference_is_given_relative_to_the_scale(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    golden = replace(golden, answer=golden.answer.model_copy(update={"scale": 8.0}))
    assert check_golden(golden, predictions(bundle, golden, 4e-4)) == pytest.approx(5e-5)


@pytest.mark.parametrize("shift", [2e-4, -2e-4, np.nan, np.inf])
def test_one_logit_outside_the_tolerance_is_refused(bundle: Bundle, shift: float) -> None:
    golden = read_golden(bundle)
    with pytest.raises(BundleError, match=r"image\+note\+voice"):
        check_golden(golden, predictions(bundle, golden, shift))


def test_an_answer_from_other_evidence_is_refused(bundle: Bundle) -> None:
    golden = read_golden(bundle)
    given = predictions(bundle, golden)
    given[0] = replace(given[0], used=frozenset(Modality))
    with pytest.raises(BundleError, match="other evidence"):
        check_golden(golden, given)


def test_an_answer_that_leaves_out_a_subset_is_refused(hand_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hand_bundle, tmp_path / "bundle"))
    manifest = open_bundle(folder).manifest
    expected = json.loads((folder / GOLDEN_ANSWER).read_text())
    del expected["logits"]["note"]
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    files[GOLDEN_ANSWER] = json.dumps(expected).encode()
    bundle = write_bundle(folder, files, manifest)
    with pytest.raises(BundleError, match="every subset"):
        read_golden(bundle)
