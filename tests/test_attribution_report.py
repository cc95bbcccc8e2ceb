"""An explanation's files: a folder for people and an archive for programs, with one content."""

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from medfuse.attribution.record import ExplanationRecord
from medfuse.attribution.report import describe, write_archive, write_report
from medfuse.attribution.scale import Scales
from medfuse.data.image import to_native
from medfuse.data.note import read_tokenizer
from medfuse.data.prepare import prepare
from medfuse.golden import keep
from medfuse.types import (
    Attribution,
    Badge,
    Check,
    Explanation,
    Modality,
    ModalityShares,
    Prepared,
)
from tests.hand_bundle import NOTE, SETTINGS, make_dicom, make_study, make_tokenizer

IMAGE, VOICE, WORDS = Modality.IMAGE, Modality.VOICE, Modality.NOTE
TARGET = "findings.brightness"
SCALES = Scales(full={"integrated_gradients": {TARGET: {IMAGE: 0.5, WORDS: 2.0, VOICE: 0.25}}})

SECOND = make_dicom(np.full((20, 10), 100, dtype=np.uint16))
STUDY = replace(make_study(), images=(make_study().images[0], SECOND))
PASSED = Check("completeness", 0.001, 0.005, True, "The map accounts for all but 0.10 %.")
FAILED = Check("agreement", 0.1, 0.3, False, "The families agree by 0.10 alone.")


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(STUDY, SETTINGS, read_tokenizer(make_tokenizer().to_str().encode()))


def make_shares(image: float, baseline: str = "absent") -> ModalityShares:
    none, both = frozenset[Modality](), frozenset({IMAGE, VOICE})
    return ModalityShares(
        target=TARGET,
        baseline=baseline,
        outputs={none: 0.0, frozenset({IMAGE}): image, frozenset({VOICE}): 0.0, both: 1.5},
        shares={IMAGE: image, VOICE: 1.5 - image},
        interactions={both: -0.5},
    )


def explain(prepared: Prepared, check: Check = PASSED) -> Explanation:
    """Number every element of every map, so that each can be told from the others."""
    assert prepared.image is not None
    assert prepared.note is not None
    assert prepared.voice is not None
    shapes = {
        IMAGE: prepared.image.values.shape,
        WORDS: prepared.note.values.shape,
        VOICE: prepared.voice.values.shape,
    }
    values = {
        m: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 100 - 1
        for m, shape in shapes.items()
    }
    attribution = Attribution(
        target=TARGET,
        values=values,
        method="integrated_gradients",
        baseline="blank",
        completeness_gap=0.001,
        details={"output": 1.5, "baseline_output": -0.25, "steps": 64.0, "forwards": 3.0},
    )
    return Explanation(
        attribution=attribution,
        shares=make_shares(1.0),
        badge=Badge((PASSED, check)),
        model_digest="d" * 64,
        shares_by_baseline=(make_shares(0.5, "blank"), make_shares(1.25, "mean")),
    )


def archive_of(prepared: Prepared, explanation: Explanation) -> tuple[ExplanationRecord, bytes]:
    with tempfile.SpooledTemporaryFile() as file:
        record = write_archive(file, prepared, explanation, SETTINGS, SCALES)
        file.seek(0)
        return record, file.read()


def test_the_record_says_what_the_explanation_says(prepared: Prepared) -> None:
    explanation = explain(prepared)
    record = describe(prepared, explanation, SETTINGS, SCALES)
    assert (record.output, record.baseline_output, record.steps) == (1.5, -0.25, 64)
    assert record.details == {"forwards": 3.0}
    assert record.shares.outputs == {"none": 0.0, "image": 1.0, "voice": 0.0, "image+voice": 1.5}
    assert record.shares.interactions == {"image+voice": -0.5}
    assert record.band[IMAGE].model_dump() == {"lowest": 0.5, "highest": 1.25}
    assert record.band[VOICE].model_dump() == {"lowest": 0.25, "highest": 1.0}
    assert record.badge.checks[0].message == PASSED.message
    assert (record.withheld, record.reasons) == (False, ())
    assert record.scale[IMAGE].model_dump() == {
        "full": 0.5,
        "unit": "logits per pixel",
        "measured": True,
    }
    sums = {m: v.sum(dtype=np.float64) for m, v in explanation.attribution.values.items()}
    assert record.sums == pytest.approx(sums)
    assert ExplanationRecord.model_validate_json(record.model_dump_json(by_alias=True)) == record


def test_without_another_baseline_there_is_no_band(prepared: Prepared) -> None:
    alone = replace(explain(prepared), shares_by_baseline=())
    assert describe(prepared, alone, SETTINGS, SCALES).band == {}


def test_words_have_their_characters_and_the_sum_of_their_pieces(prepared: Prepared) -> None:
    record = describe(prepared, explain(prepared), SETTINGS, SCALES)
    assert record.words is not None
    text = NOTE.decode()
    assert [word.text for word in record.words] == ["FINDINGS", ":", "cough", "and", "fever"]
    assert all(text[word.start : word.end] == word.text for word in record.words)
    # [CLS] comes first and has the map's first number.
    assert [w.value for w in record.words] == pytest.approx([-0.99, -0.98, -0.97, -0.96, -0.95])


def test_the_archive_is_an_npz_with_pictures_and_the_record(prepared: Prepared) -> None:
    explanation = explain(prepared)
    record, data = archive_of(prepared, explanation)
    assert record == describe(prepared, explanation, SETTINGS, SCALES)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for name, told in record.arrays.items():
            array = archive[name]
            assert told.shape == array.shape
            assert told.dtype == str(array.dtype)
            assert len(told.axes) == array.ndim
        for modality, values in explanation.attribution.values.items():
            np.testing.assert_array_equal(archive[modality.value], values)
        assert prepared.image is not None
        for i, geometry in enumerate(prepared.image.geometry):
            native = to_native(explanation.attribution.values[IMAGE][i], geometry)
            np.testing.assert_array_equal(archive[f"image_native_{i}"], native)
        assert archive["image_native_0"].shape == (48, 64)
        assert archive["image_native_1"].shape == (20, 10)
        assert len(archive["voice_times_s"]) == len(archive["voice"])
        assert archive["voice_hz"].tolist() == list(record.voice.hz)  # type: ignore[union-attr]
        spans = archive["note_spans"]
        assert NOTE[spans[3, 0] : spans[3, 1]] == b"cough"
    with ZipFile(io.BytesIO(data)) as archive:
        names = {a.file for a in record.arrays.values()} | {*record.files, "explanation.json"}
        assert set(archive.namelist()) == names
        assert json.loads(archive.read("explanation.json")) == record.model_dump(
            mode="json", by_alias=True
        )
        sizes = {"image_0_overlay.png": (64, 48), "image_1_overlay.png": (10, 20)}
        assert record.frames is not None
        assert [frame.overlay for frame in record.frames] == list(sizes)
        for name, size in sizes.items():
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                assert (picture.mode, picture.size) == ("RGBA", size)


def test_a_failed_badge_withholds_every_number_of_a_map(prepared: Prepared) -> None:
    explanation = explain(prepared, FAILED)
    record, data = archive_of(prepared, explanation)
    assert record == describe(prepared, explanation, SETTINGS, SCALES)
    assert (record.withheld, record.reasons) == (True, (FAILED.message,))
    assert not any((record.arrays, record.sums, record.scale))
    assert (record.words, record.frames, record.voice) == (None, None, None)
    assert record.files == ()
    assert record.shares.shares[IMAGE] == 1.0  # answers, not a map
    with ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["explanation.json"]


def test_the_folder_has_the_same_arrays_and_pictures_to_look_at(
    prepared: Prepared, tmp_path: Path
) -> None:
    explanation = explain(prepared)
    record = write_report(tmp_path / "a" / "b", STUDY, prepared, explanation, SETTINGS, SCALES)
    folder = tmp_path / "a" / "b"
    assert {p.name for p in folder.iterdir()} == {*record.files, "attribution.json"}
    assert {"image_0.png", "image_1.png", "note.html", "voice.png"} <= set(record.files)
    _, data = archive_of(prepared, explanation)
    with np.load(folder / "attribution.npz") as own, ZipFile(io.BytesIO(data)) as archive:
        assert set(own.files) == set(record.arrays)
        for name, array in own.items():
            other = np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")))
            np.testing.assert_array_equal(array, other)
        for name in ("image_1_overlay.png", "voice_overlay.png"):
            assert (folder / name).read_bytes() == archive.read(name)
    assert "cough" in (folder / "note.html").read_text(encoding="utf-8")
    written = json.loads((folder / "attribution.json").read_text(encoding="utf-8"))
    assert written == record.model_dump(mode="json", by_alias=True)


def test_the_folder_withholds_unless_it_is_told_not_to(prepared: Prepared, tmp_path: Path) -> None:
    explanation = explain(prepared, FAILED)
    write_report(tmp_path / "withheld", STUDY, prepared, explanation, SETTINGS, SCALES)
    assert [p.name for p in (tmp_path / "withheld").iterdir()] == ["attribution.json"]
    told = write_report(
        tmp_path / "told", STUDY, prepared, explanation, SETTINGS, SCALES, withhold=False
    )
    assert not told.withheld
    assert told.reasons == (FAILED.message,)
    assert (tmp_path / "told" / "image_0.png").is_file()


def test_a_method_that_reaches_the_image_alone_says_nothing_of_the_rest(
    prepared: Prepared, tmp_path: Path
) -> None:
    whole = explain(prepared)
    attribution = Attribution(
        target=TARGET,
        values={IMAGE: whole.attribution.values[IMAGE]},
        method="grad_cam",
        baseline="none",
        completeness_gap=None,
        details={"output": 1.5},
    )
    explanation = replace(whole, attribution=attribution)
    record = write_report(tmp_path, STUDY, prepared, explanation, SETTINGS, SCALES)
    assert (record.words, record.voice) == (None, None)
    assert (record.steps, record.baseline_output) == (None, None)
    assert set(record.sums) == set(record.scale) == {IMAGE}
    assert set(record.arrays) == {"image", "image_native_0", "image_native_1"}
    assert not (tmp_path / "note.html").exists()


def test_a_note_alone_is_explained_without_the_files_of_the_rest(tmp_path: Path) -> None:
    study = keep(STUDY, frozenset({WORDS}))
    alone = prepare(study, SETTINGS, read_tokenizer(make_tokenizer().to_str().encode()))
    assert alone.note is not None
    whole = explain(prepare(STUDY, SETTINGS, read_tokenizer(make_tokenizer().to_str().encode())))
    values = {WORDS: whole.attribution.values[WORDS]}
    explanation = replace(whole, attribution=replace(whole.attribution, values=values))
    record = write_report(tmp_path, study, alone, explanation, SETTINGS, SCALES)
    assert set(record.arrays) == {"note", "note_spans"}
    assert set(record.files) == {"attribution.npz", "note.html"}


def test_an_explanation_says_what_the_reader_must_know_of_the_input(prepared: Prepared) -> None:
    record = describe(prepared, explain(prepared), SETTINGS, SCALES)
    assert [remark.code for remark in record.remarks] == [r.code for r in prepared.remarks]
    assert "Not a medical device" in record.notice
