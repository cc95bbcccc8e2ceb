"""The predictor, held to a graph whose answers are known and to one that export made."""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydicom.data import get_testdata_file
from scipy.special import expit

from medfuse.bundle import GOLDEN_ANSWER, GRAPH
from medfuse.data.prepare import collate, prepare
from medfuse.errors import BundleError, DicomError
from medfuse.golden import keep, read_golden
from medfuse.types import SUBSETS, Modality, Study, subset_name
from medfuse_serving import predictor as module
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import (
    SETTINGS,
    TEMPERATURE,
    compute_logits,
    make_bundle,
    make_dicom,
    make_graph,
    make_study,
    make_wav,
)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def logits(predictor: Predictor, *studies: Study) -> list[list[float]]:
    return [
        [float(x) for task in prediction.tasks for x in task.logits]
        for prediction in predictor.predict(studies)
    ]


def test_the_answer_is_the_one_worked_out_on_paper(predictor: Predictor) -> None:
    # A ramp from 0 to 4095 that fills 24 of 32 rows has the mean 0.375; seven word pieces are
    # [CLS], FINDINGS, :, cough, and, fever, [SEP].
    study = make_study()
    (prediction,) = predictor.predict([study])
    findings, loudness = prediction.tasks
    np.testing.assert_allclose(findings.logits, [0.375, 0.7], atol=1e-3)
    np.testing.assert_allclose(
        findings.probabilities, [expit(0.375 / TEMPERATURE), expit(0.7)], atol=1e-3
    )
    assert loudness.value == pytest.approx(float(loudness.logits[0]))
    assert prediction.used == frozenset(Modality)
    assert [remark.code for remark in prediction.remarks][:1] == ["sections-excluded"]
    assert prediction.model_digest == predictor.bundle.digest


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_each_subset_is_answered_as_numpy_answers_it(
    predictor: Predictor, subset: frozenset[Modality]
) -> None:
    study = keep(make_study(), subset)
    expected = compute_logits(collate([prepare(study, SETTINGS, predictor.tokenizer)], SETTINGS))
    np.testing.assert_allclose(logits(predictor, study), expected, rtol=1e-5, atol=1e-6)
    assert predictor.predict([study])[0].used == subset


def test_studies_of_one_call_do_not_touch_each_other(predictor: Predictor) -> None:
    bright = make_dicom(np.full((20, 40), 4095, dtype=np.uint16))
    studies = [keep(make_study(), subset) for subset in SUBSETS]
    studies += [Study(images=(bright,)), Study(voice=make_wav(2.5)), Study(note=b"cough " * 30)]
    assert len(studies) > module.BATCH_STUDIES
    together = logits(predictor, *studies)
    alone = [logits(predictor, study)[0] for study in studies]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_no_study_gives_no_answer(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_requests_at_once_are_answered_as_one_after_another(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    studies = list(read_golden(predictor.bundle).studies) * 3
    serial = [logits(predictor, study) for study in studies]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda study: logits(predictor, study), studies))
    assert parallel == serial


def test_bytes_of_an_absent_modality_change_no_bit_of_the_answer(tiny_bundle: Path) -> None:
    # A study without a voice, beside a study with one: its row of the voice array is padding,
    # which other neighbours fill to other lengths.
    predictor = Predictor(tiny_bundle)
    full = read_golden(predictor.bundle).studies[-1]
    for modality in Modality:
        others = keep(full, frozenset(Modality) - {modality})
        prepared = [
            prepare(s, predictor.bundle.manifest.prepare, predictor.tokenizer)
            for s in (others, full)
        ]
        batch = collate(prepared, predictor.bundle.manifest.prepare)
        changed = {m: values.copy() for m, values in batch.values.items()}
        changed[modality][0] = 1
        assert not batch.masks[modality][0].any()
        before = predictor.run(batch)
        after = predictor.run(replace(batch, values=changed))
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("pair", ["R", "I"])
def test_a_real_radiograph_is_answered_the_same_in_each_encoding(
    tiny_bundle: Path, pair: str
) -> None:
    # pydicom-data holds one film reversibly (J2KR) and irreversibly compressed (J2KI), and each
    # of the two again as its decoder left it (UNCR, UNCI). Reversible is exact by ISO/IEC 15444-1;
    # decoders of the other may differ by a rounding.
    paths = (get_testdata_file(f"RG1_{how}{pair}.dcm", download=False) for how in ("UNC", "J2K"))
    films = [Path(str(path)).read_bytes() for path in paths]
    predictor = Predictor(tiny_bundle)
    plain, packed = logits(predictor, *(Study((film,), b"HISTORY: cough.") for film in films))
    if pair == "R":
        assert plain == packed
    np.testing.assert_allclose(plain, packed, atol=1e-3)
    (prediction,) = predictor.predict([Study((films[0],), b"HISTORY: cough.")])
    assert prediction.used == {Modality.IMAGE, Modality.NOTE}


def test_the_golden_study_is_answered(predictor: Predictor, tiny_bundle: Path) -> None:
    assert predictor.check_golden() < 1e-6
    assert Predictor(tiny_bundle).check_golden() < 1e-5


def test_a_machine_that_answers_otherwise_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="golden study"):
        Predictor(make_bundle(tmp_path / "bundle", shift=0.01)).check_golden()


def test_a_bad_study_is_refused_and_no_other_is_answered(predictor: Predictor) -> None:
    with pytest.raises(DicomError):
        predictor.predict([make_study(), Study(images=(b"not a picture",))])


@pytest.mark.parametrize("name", [GRAPH, GOLDEN_ANSWER, "golden/note.txt"])
def test_an_altered_bundle_does_not_start(hand_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = shutil.copytree(hand_bundle, tmp_path / "bundle")
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="SHA-256"):
        Predictor(bundle)


def rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "note_mask":
                node.input[i] = "mask_of_note"
    model.graph.input[3].name = "mask_of_note"


def fix_frames(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("note_n", onnx.TensorProto.FLOAT, ["batch", 1])
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [(rename_input, "mask_of_note"), (fix_frames, "image"), (add_output, "note_n")],
)
def test_a_graph_that_is_not_the_manifests_does_not_start(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], name: str
) -> None:
    model = onnx.load_from_string(make_graph())
    change(model)
    bundle = make_bundle(tmp_path / "bundle", graph=model.SerializeToString())
    with pytest.raises(BundleError, match=f"put '{name}'"):
        Predictor(bundle)


def test_bytes_that_are_no_graph_are_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot load"):
        Predictor(make_bundle(tmp_path / "bundle", graph=b"not a graph"))


def test_an_answer_that_is_not_a_number_is_never_given(tmp_path: Path) -> None:
    model = onnx.load_from_string(make_graph())
    (ten,) = (t for t in model.graph.initializer if t.name == "ten")
    ten.CopyFrom(onnx.numpy_helper.from_array(np.array([0.0], dtype=np.float32), "ten"))
    predictor = Predictor(make_bundle(tmp_path / "bundle", graph=model.SerializeToString()))
    with pytest.raises(BundleError, match="finite"):
        predictor.predict([Study(note=b"cough")])


def test_strict_refuses_a_fallback_that_is_otherwise_only_logged(
    hand_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # onnxruntime without CUDA, or a machine without its driver, falls back to the CPU.
    with caplog.at_level(logging.WARNING):
        assert Predictor(hand_bundle, provider="cuda").provider == "cpu"
    assert "'cuda' was wanted" in caplog.text
    with pytest.raises(BundleError, match="'cuda' was wanted"):
        Predictor(hand_bundle, provider="cuda", strict=True)
    assert Predictor(hand_bundle, provider="cpu", strict=True).provider == "cpu"


def test_an_unknown_provider_is_refused(hand_bundle: Path) -> None:
    with pytest.raises(BundleError, match="known are cuda, cpu"):
        Predictor(hand_bundle, provider="abacus")
