"""The training set's mean study: by hand, never one patient's own, and kept without loss."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medfuse.attribution.background import Background, blank_background, from_bytes, to_bytes
from medfuse.config import Task, TaskKind
from medfuse.data.cohort import CohortRow, CohortSettings, load_study
from medfuse.data.note import load_tokenizer
from medfuse.data.prepare import prepare
from medfuse.data.voice import SILENCE
from medfuse.errors import BundleError
from medfuse.models.fused import FusedModel
from medfuse.models.settings import ModelSettings
from medfuse.training.background import LEAST, measure_background
from medfuse.training.checkpoint import load_checkpoint
from medfuse.training.features import Progress
from medfuse.training.settings import FeatureSettings, TrainSettings
from tests.hand_bundle import make_dicom, make_wav
from tests.tiny import BACKGROUND, PREPARE

WORDS = ("fever", "cough", "nodule", "rash", "pain", "chill", "wheeze", "ache", "sneeze")


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> FusedModel:
    return load_checkpoint(tiny_checkpoint).model


@pytest.fixture(scope="module")
def settings(tiny_checkpoint: Path) -> TrainSettings:
    return TrainSettings(
        cohort=CohortSettings(table=Path("cohort.csv")),
        tasks=(Task(name="findings", kind=TaskKind.MULTILABEL, classes=("a",)),),
        prepare=PREPARE,
        model=ModelSettings(note=tiny_checkpoint.with_name("checkpoint-note")),
        features=FeatureSettings(workers=1),
    )


@pytest.fixture
def rows(tmp_path: Path) -> list[CohortRow]:
    """Nine patients: even grey that grows by patient, one word said over and over, a tone."""
    rows = []
    for i, word in enumerate(WORDS):
        pixels = np.full((8, 8), 400 * i, np.uint16)
        image, voice = tmp_path / f"{i}.dcm", tmp_path / f"{i}.wav"
        image.write_bytes(make_dicom(pixels))
        voice.write_bytes(make_wav(seconds=0.3, hz=300 + 300 * i))
        rows.append(
            CohortRow(
                number=i + 1,
                labels=(0.0,),
                patient_id=f"P{i}",
                study_id=f"S{i}",
                images=(image,),
                note_text=f"{word} " * (i + 1),
                voice=voice,
            )
        )
    return rows


def embed(model: FusedModel, word: str, tokenizer: Path) -> np.ndarray:
    pieces = load_tokenizer(tokenizer).encode(word, add_special_tokens=False).ids
    with torch.no_grad():
        return np.asarray(model.embed_note(torch.tensor([pieces]))[0].mean(dim=0))


def test_every_patient_counts_the_same_however_much_the_study_holds(
    rows: list[CohortRow], settings: TrainSettings, model: FusedModel, tiny_checkpoint: Path
) -> None:
    rows[0] = replace(rows[0], images=rows[0].images * 3)  # three frames
    background = measure_background(rows, settings, model, Progress())
    assert background.studies == 9
    # Stored values 0, 400, ... 3200 of a window from 0 to 4095.
    np.testing.assert_allclose(background.image, 1600 / 4095, rtol=1e-5)
    tokenizer = tiny_checkpoint / "tokenizer.json"
    words = np.mean([embed(model, word, tokenizer) for word in WORDS], axis=0)
    np.testing.assert_allclose(background.note, words, atol=1e-6)
    bands = []
    for row in rows:
        voice = prepare(load_study(row), PREPARE, load_tokenizer(tokenizer)).voice
        assert voice is not None
        bands.append(voice.values.mean(axis=0))
    np.testing.assert_allclose(background.voice, np.mean(bands, axis=0), atol=1e-6)


def test_what_too_few_patients_have_is_left_blank_and_said(
    rows: list[CohortRow],
    settings: TrainSettings,
    model: FusedModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [replace(row, images=()) if i < 2 else row for i, row in enumerate(rows)]
    with caplog.at_level(logging.WARNING):
        background = measure_background(rows, settings, model, Progress())
    assert LEAST == 8
    assert not background.image.any()
    assert background.note.any()
    assert (background.voice != SILENCE).any()
    assert "the mean image is left blank: 7 of the patients drawn have one" in caplog.text


def test_many_studies_of_one_patient_are_not_a_mean(
    rows: list[CohortRow], settings: TrainSettings, model: FusedModel
) -> None:
    same = [replace(row, patient_id="P") for row in rows]
    background = measure_background(same, settings, model, Progress())
    assert to_bytes(background) == to_bytes(blank_background(64, 32, 32))


def test_at_most_so_many_are_drawn_and_always_the_same(
    rows: list[CohortRow], settings: TrainSettings, model: FusedModel
) -> None:
    first, again = (measure_background(rows, settings, model, Progress(), most=8) for _ in range(2))
    assert first.studies == 8
    assert to_bytes(first) == to_bytes(again)
    other = settings.model_copy(update={"fit": settings.fit.model_copy(update={"seed": 3})})
    assert to_bytes(measure_background(rows, other, model, Progress(), most=8)) != to_bytes(first)


def test_a_study_whose_files_are_damaged_is_passed_over(
    rows: list[CohortRow], settings: TrainSettings, model: FusedModel
) -> None:
    rows[0].images[0].write_bytes(b"no image")
    background = measure_background(rows, settings, model, Progress())
    assert background.studies == 8
    np.testing.assert_allclose(background.image, 1800 / 4095, rtol=1e-5)


def test_a_background_is_read_as_it_was_written() -> None:
    data = to_bytes(BACKGROUND)
    read = from_bytes(data)
    assert to_bytes(read) == data
    assert np.array_equal(read.image, BACKGROUND.image)
    assert np.array_equal(read.note, BACKGROUND.note)
    assert np.array_equal(read.voice, BACKGROUND.voice)
    assert read.studies == 40


def rename(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "not a safetensors file"),
        (to_bytes(BACKGROUND)[:-4], "not a safetensors file"),
        (rename(to_bytes(BACKGROUND), b"studies", b"patient"), "not a safetensors file"),
        (rename(to_bytes(BACKGROUND), b'"40"', b'"4x"'), "not a safetensors file"),
        (rename(to_bytes(BACKGROUND), b'"40"', b'"-4"'), "of -4 studies"),
        (rename(to_bytes(BACKGROUND), b'"image"', b'"imago"'), "image is missing"),
        (rename(to_bytes(BACKGROUND), b'"note"', b'"mote"'), "note is missing"),
        (to_bytes(replace(BACKGROUND, voice=np.full(3, np.nan, np.float32))), "voice is empty or"),
    ],
)
def test_a_damaged_background_is_refused(damaged: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        from_bytes(damaged)


def test_a_background_of_other_numbers_is_refused() -> None:
    from safetensors.numpy import save

    flat = {"image": np.zeros(4, np.float32), "note": BACKGROUND.note, "voice": BACKGROUND.voice}
    with pytest.raises(BundleError, match="image is missing or is not float32 with 2 axes"):
        from_bytes(save(flat, {"studies": "1"}))
    double = flat | {"image": np.zeros((2, 2))}
    with pytest.raises(BundleError, match="image is missing or is not float32 with 2 axes"):
        from_bytes(save(double, {"studies": "1"}))


def test_the_file_holds_means_and_a_count_alone() -> None:
    data = to_bytes(BACKGROUND)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header) == {"image", "note", "voice", "__metadata__"}
    assert header["__metadata__"] == {"studies": "40"}


def test_blank_is_black_nothing_and_silent() -> None:
    blank = blank_background(2, 3, 4)
    assert blank.image.tolist() == [[0, 0], [0, 0]]
    assert blank.note.tolist() == [0, 0, 0]
    assert blank.voice.tolist() == [SILENCE] * 4
    assert blank.studies == 0
    assert isinstance(from_bytes(to_bytes(blank)), Background)
