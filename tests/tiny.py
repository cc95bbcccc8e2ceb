"""A small network of the full design, untrained but always the same, for tests and tools."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from medfuse.attribution.background import Background
from medfuse.config import (
    ImageSettings,
    NoteSettings,
    PrepareSettings,
    Task,
    TaskKind,
    VoiceSettings,
)
from medfuse.models.decoder import FindingsDecoder
from medfuse.models.fused import build_model
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.synthetic.world import FINDINGS
from medfuse.text.record import TextRecord
from medfuse.text.vocabulary import PADDING, build_vocabulary
from medfuse.training.checkpoint import CheckpointRecord, library_versions, save_checkpoint
from medfuse.trust.calibration import Calibration, TargetCalibration
from medfuse.trust.novelty import NoveltyModel

PREPARE = PrepareSettings(
    image=ImageSettings(size=64),
    note=NoteSettings(word_pieces=48),
    voice=VoiceSettings(mel_bands=32, duration_s=4.0),
)
TASKS = (
    Task(name="findings", kind=TaskKind.MULTILABEL, classes=FINDINGS),
    Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "bacterial", "other")),
    Task(
        name="stage",
        kind=TaskKind.ORDINAL,
        classes=("mild", "moderate", "severe"),
        modalities=("note", "voice"),
    ),
    Task(name="age", kind=TaskKind.REGRESSION, classes=("age",), unit="a"),
)
CALIBRATION = Calibration(
    targets={
        f"findings.{FINDINGS[0]}": TargetCalibration(temperature=1.5),
        "age.age": TargetCalibration(offset=50.0, scale=15.0),
    },
    subsets={"note": {f"findings.{FINDINGS[1]}": TargetCalibration(temperature=3.0, bias=0.5)}},
)
SENTENCES = tuple(f"A {name.replace('_', ' ')} is seen." for name in FINDINGS)
VOCABULARY = build_vocabulary(SENTENCES)
TEXT = TextRecord(
    words=VOCABULARY.words,
    findings=TASKS[0].targets,
    # The first and the third are always said, the second is never precise enough.
    thresholds=dict(zip(TASKS[0].targets, (0.0, None, 0.0, 1.0, 1.0, 1.0), strict=True)),
    precision=0.75,
    cells=4,
    mel_step=8.0,
)
BACKGROUND = Background(
    image=np.linspace(0.2, 0.6, 64 * 64, dtype=np.float32).reshape(64, 64),
    note=np.linspace(-0.1, 0.1, 32, dtype=np.float32),
    voice=np.linspace(-0.5, 0.0, 32, dtype=np.float32),
    studies=40,
)
NOVELTY = NoveltyModel({})


def make_checkpoint(folder: Path, prepare: PrepareSettings = PREPARE, **parts: object) -> Path:
    """Write a checkpoint whose network has every part: pretrained image network, a small BERT.

    The transformer is written to ``<folder>-note``, which loading the checkpoint needs.

    Args:
        folder: Where to.
        prepare: How its studies are prepared.
        parts: Settings of `ModelSettings` that differ from the usual.
    """
    notes = folder.with_name(f"{folder.name}-note")
    settings = ModelSettings.model_validate(
        {"note": str(notes), "width": 32, "shared_space": 12} | parts
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_bert(notes)
        words = len(VOCABULARY) if settings.findings_text else 0
        model = build_model(settings, prepare, TASKS, pretrained=True, words=words)
        if model.decoder is not None:
            teach(model.decoder)
        model.eval()
    record = CheckpointRecord(
        model=settings,
        prepare=prepare,
        tasks=TASKS,
        calibration=CALIBRATION,
        metrics={},
        cohort_digest="0" * 64,
        text=TEXT if settings.findings_text else None,
        versions=library_versions(),
    )
    save_checkpoint(folder, model, BACKGROUND, NOVELTY, record)
    return folder


def make_least_checkpoint(folder: Path) -> Path:
    """Write a checkpoint with every part of the design and as few operators as can be.

    Its image network is written to ``<folder>-image``, its note network to ``<folder>-note``.
    """
    images = folder.with_name(f"{folder.name}-image")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_vit(images)
    return make_checkpoint(folder, image=str(images), findings_text=True)


def teach(decoder: FindingsDecoder) -> None:
    """Let a decoder say each finding's sentence, whatever the study."""
    encoded = [VOCABULARY.encode(text) for text in SENTENCES]
    words = np.full((len(encoded), max(map(len, encoded))), PADDING)
    for row, own in zip(words, encoded, strict=True):
        row[: len(own)] = own
    given, aim = torch.from_numpy(words[:, :-1]), torch.from_numpy(words[:, 1:])
    each = torch.arange(len(words))
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(80):
        memory = torch.randn(1, 12, decoder.kind.shape[1])
        mask = torch.rand(1, 12) < 0.7
        written = decoder(memory, mask, torch.zeros_like(each), each, given)
        loss = functional.cross_entropy(
            written.logits.flatten(0, 1), aim.flatten(), ignore_index=PADDING
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def write_bert(folder: Path) -> None:
    """Write a BERT of two narrow layers in a Hugging Face folder, with MiniLM's word pieces."""
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.2,
    )
    bert = BertModel(config, add_pooling_layer=False)
    save_file(bert.state_dict(), folder / "model.safetensors")
    text = json.dumps(config.to_dict(), indent=2)
    (folder / "config.json").write_text(text, encoding="utf-8")
    shutil.copyfile(tokenizer_path(ModelSettings()), folder / "tokenizer.json")


def write_vit(folder: Path) -> None:
    """Write a ViT of one narrow layer in a Hugging Face folder."""
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=PREPARE.image.size,
        patch_size=16,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
