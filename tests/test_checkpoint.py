import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medfuse.attribution.background import Background, to_bytes
from medfuse.config import ImageSettings, NoteSettings, PrepareSettings, Task, TaskKind
from medfuse.errors import TrainingError
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.training.checkpoint import (
    CheckpointRecord,
    library_versions,
    load_checkpoint,
    save_checkpoint,
)
from medfuse.trust.calibration import Calibration, TargetCalibration
from medfuse.trust.novelty import NoveltyModel, Usual
from medfuse.trust.novelty import to_bytes as novelty_to_bytes
from medfuse.types import Modality

TASKS = (Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion")),)
MODEL = ModelSettings(width=16)
PREPARE = PrepareSettings(image=ImageSettings(size=64), note=NoteSettings(word_pieces=16))
BACKGROUND = Background(
    image=np.full((64, 64), 0.5, np.float32),
    note=np.arange(384, dtype=np.float32),
    voice=np.full(PREPARE.voice.mel_bands, -0.5, np.float32),
    studies=9,
)
NOVELTY = NoveltyModel(
    {
        Modality.VOICE: Usual(
            np.zeros(2, np.float32), np.eye(2, dtype=np.float32), np.arange(3, dtype=np.float32)
        )
    }
)


def make_record() -> CheckpointRecord:
    return CheckpointRecord(
        model=MODEL,
        prepare=PREPARE,
        tasks=TASKS,
        calibration=Calibration(targets={"findings.nodule": TargetCalibration(temperature=2.0)}),
        metrics={"macro": {"auroc": 0.8}},
        cohort_digest="0" * 64,
        versions=library_versions(),
    )


@pytest.fixture(scope="module")
def trained() -> FusedModel:
    torch.manual_seed(0)
    return build_model(MODEL, PREPARE, TASKS, pretrained=True).eval()


@pytest.fixture
def folder(tmp_path: Path, trained: FusedModel) -> Path:
    save_checkpoint(tmp_path / "checkpoint", trained, BACKGROUND, NOVELTY, make_record())
    return tmp_path / "checkpoint"


def ask(model: FusedModel) -> torch.Tensor:
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        answer = model(
            torch.tensor(rng.random((2, 1, 64, 64)), dtype=torch.float32),
            torch.tensor([[True], [False]]),
            torch.tensor(rng.integers(1000, 2000, (2, 5))),
            torch.ones(2, 5, dtype=torch.bool),
            torch.tensor(rng.normal(size=(2, 40, PREPARE.voice.mel_bands)), dtype=torch.float32),
            torch.ones(2, 40, dtype=torch.bool),
        )
    logits: torch.Tensor = answer.logits
    return logits


def test_a_loaded_model_answers_bit_for_bit_as_the_saved_one(
    folder: Path, trained: FusedModel
) -> None:
    loaded = load_checkpoint(folder)
    assert torch.equal(ask(loaded.model), ask(trained))
    assert not loaded.model.training
    assert loaded.model_settings == MODEL
    assert loaded.prepare == PREPARE
    assert loaded.tasks == TASKS
    assert loaded.calibration.of("findings.nodule").temperature == 2.0
    assert loaded.metrics == {"macro": {"auroc": 0.8}}
    assert to_bytes(loaded.background) == to_bytes(BACKGROUND)
    assert novelty_to_bytes(loaded.novelty) == novelty_to_bytes(NOVELTY)
    assert loaded.tokenizer.encode("No effusion.").tokens[:2] == ["[CLS]", "no"]


def test_a_checkpoint_is_replaced_and_other_folders_are_left_alone(
    folder: Path, trained: FusedModel
) -> None:
    before = load_checkpoint(folder).digest
    save_checkpoint(folder, trained, BACKGROUND, NOVELTY, make_record())
    assert load_checkpoint(folder).digest == before
    other = folder.parent / "thesis"
    other.mkdir()
    (other / "chapter.tex").touch()
    with pytest.raises(TrainingError, match="left alone"):
        save_checkpoint(other, trained, BACKGROUND, NOVELTY, make_record())
    assert (other / "chapter.tex").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["checkpoint", "thesis"]


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "model.safetensors is not the file that training wrote"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is not the file"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: (f / "checkpoint.json").unlink(), "no checkpoint here"),
        (lambda f: (f / "checkpoint.json").write_text("{"), "not valid or is of another version"),
        (lambda f: (f / "background.safetensors").unlink(), "background.safetensors is missing"),
        (
            lambda f: (f / "background.safetensors").write_bytes(b""),
            "background.safetensors is not the file",
        ),
        (lambda f: (f / "novelty.safetensors").unlink(), "novelty.safetensors is missing"),
        (
            lambda f: (f / "novelty.safetensors").write_bytes(b""),
            "novelty.safetensors is not the file",
        ),
        (lambda f: edit(f, schema_version=4), "schema_version"),
        (lambda f: edit(f, surprise=1), "surprise"),
        (lambda f: edit(f, files={}), "is not the file that training wrote"),
        (lambda f: edit(f, model=MODEL.model_dump() | {"width": 24}), "does not fit the network"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(TrainingError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)


def test_a_checkpoint_from_before_backgrounds_has_a_blank_one(folder: Path) -> None:
    (folder / "background.safetensors").unlink()
    files = json.loads((folder / "checkpoint.json").read_text())["files"]
    del files["background.safetensors"]
    edit(folder, schema_version=1, files=files)
    background = load_checkpoint(folder).background
    assert background.studies == 0
    assert background.note.shape == (384,)
    assert not background.image.any()
    assert not background.note.any()
    assert (background.voice == -1).all()


def test_a_checkpoint_whose_note_network_was_called_bert_answers_as_before(
    folder: Path, trained: FusedModel
) -> None:
    file = folder / "model.safetensors"
    new, old = "note.backbone.network.", "note.bert."
    save_file({k.replace(new, old): v for k, v in load_file(file).items()}, file)
    files = json.loads((folder / "checkpoint.json").read_text())["files"]
    files["model.safetensors"] = hashlib.sha256(file.read_bytes()).hexdigest()
    edit(folder, files=files)
    assert torch.equal(ask(load_checkpoint(folder).model), ask(trained))


def test_a_checkpoint_from_before_novelty_judges_none_and_promises_nothing(folder: Path) -> None:
    (folder / "novelty.safetensors").unlink()
    record = json.loads((folder / "checkpoint.json").read_text())
    del record["files"]["novelty.safetensors"]
    del record["trust"]
    (folder / "checkpoint.json").write_text(json.dumps(record | {"schema_version": 2}))
    loaded = load_checkpoint(folder)
    assert not loaded.novelty.usual
    assert not loaded.record.trust.subsets
