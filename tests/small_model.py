"""A model whose encoders are as small as they can be, for what tests do to every fusion."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import BertConfig, BertModel

from medfuse.config import (
    ImageSettings,
    NoteSettings,
    PrepareSettings,
    Task,
    TaskKind,
    VoiceSettings,
)
from medfuse.models.fused import FusedModel
from medfuse.models.heads import YesNoHead
from medfuse.models.image.backbone import Backbone
from medfuse.models.image.encoder import ImageEncoder
from medfuse.models.note.encoder import NoteEncoder
from medfuse.models.note.transformer import Transformer
from medfuse.models.voice.cnn import CnnVoiceEncoder
from tests.fusion_laws import WIDTH, Build, SideBySide

SIDE, BANDS, PIECES = 32, 16, 40
PREPARE = PrepareSettings(
    image=ImageSettings(size=SIDE),
    note=NoteSettings(word_pieces=16),
    voice=VoiceSettings(mel_bands=BANDS),
)


def build_small_model(builds: Mapping[str, Build]) -> FusedModel:
    """Build a model with a yes-or-no task per fusion, named by it, that reads that fusion alone."""
    torch.manual_seed(0)
    tasks = [Task(name=name, kind=TaskKind.BINARY, classes=("yes",)) for name in builds]
    config = BertConfig(
        vocab_size=PIECES,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.2,
    )
    config._attn_implementation = "eager"
    bert = BertModel(config, add_pooling_layer=False)
    backbone = Backbone(nn.Conv2d(3, 8, 16, 16), 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    width = WIDTH * len(builds)
    heads = [YesNoHead(task, width) for task in tasks]
    for i, head in enumerate(heads):
        own = torch.arange(width) // WIDTH == i
        with torch.no_grad():
            head.out.weight.copy_(torch.where(own, torch.randn(width), 0.0))
    return FusedModel(
        tasks,
        WIDTH,
        image=ImageEncoder(backbone, 4, WIDTH, 0.0, frozen=True),
        note=NoteEncoder(Transformer(bert, 0, 512), WIDTH, 0.0, frozen=True, pretrained=False),
        voice=CnnVoiceEncoder(BANDS, WIDTH, 0.0, channels=(4, 4)),
        fusion=SideBySide(builds, WIDTH),
        heads=heads,
    ).eval()
