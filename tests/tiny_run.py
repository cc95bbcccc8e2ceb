"""The settings of a training run of seconds, on `small_cohort` with `tiny_bert`."""

import json
from pathlib import Path

from medfuse.synthetic.world import FINDINGS

CONFIG = """
[cohort]
table = {table}
check_identity = true

[[tasks]]
name = "findings"
kind = "multilabel"
classes = {findings}

[[tasks]]
name = "affect"
kind = "binary"
classes = ["low_mood"]

[prepare.image]
size = 64
[prepare.note]
word_pieces = 48
[prepare.voice]
mel_bands = 32
duration_s = 3.0

[model]
note = {note}
width = 16

[features]
dtype = "float32"
workers = 1
cache = {cache}

[fit]
epochs = {epochs}
batch_size = 8
device = "cpu"

[report]
resamples = 50
"""


def write_config(folder: Path, cohort: Path, bert: Path, epochs: int = 2, more: str = "") -> Path:
    """Write ``config.toml``; its feature cache lies beside ``bert``, so that tests share it."""
    config = folder / "config.toml"
    text = CONFIG.format(
        table=json.dumps(str(cohort / "cohort.csv")),
        findings=json.dumps(FINDINGS),
        note=json.dumps(str(bert)),
        cache=json.dumps(str(bert.parent / "features")),
        epochs=epochs,
    )
    config.write_text(text + more, encoding="utf-8")
    return config


def add_sentences(text: str, cohort: Path) -> str:
    """Let the settings in ``config.toml`` name the cohort's sentences."""
    sentences = f"[cohort]\nsentences = {json.dumps(str(cohort / 'sentences.csv'))}\n"
    return text.replace("[cohort]\n", sentences)
