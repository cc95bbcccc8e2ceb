"""Training studies and the model they trained in; their mean study out, a baseline for explaining.

The mean travels with the checkpoint and its bundles, so it is made such that no patient can be
seen in it: see `measure_background`.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64

from medfuse.attribution.background import Background, blank_background
from medfuse.data.cohort import CohortRow
from medfuse.data.note import load_tokenizer
from medfuse.models.fused import FusedModel
from medfuse.models.weights import tokenizer_path
from medfuse.training.features import Progress
from medfuse.training.settings import TrainSettings
from medfuse.training.workers import prepare_rows
from medfuse.types import MODALITIES, Modality

LEAST = 8
"""Patients whose mean may be kept; the mean of fewer could show one of them."""

MOST = 256

logger = logging.getLogger(__name__)


def measure_background(
    rows: Sequence[CohortRow],
    settings: TrainSettings,
    model: FusedModel,
    progress: Progress,
    most: int = MOST,
) -> Background:
    """Average each modality over one study each of at most ``most`` patients, drawn by the seed.

    Every patient counts the same, however many frames, words or seconds the study has: an image is
    the mean over its frames, a note the mean embedding of its word pieces by the trained model
    (special pieces left out), a recording the mean of each band over time.

    A modality that fewer than `LEAST` of the patients drawn have gets its blank value instead
    (black, a zero embedding, silence), and a warning says so: a checkpoint leaves the house, and
    nobody's picture may go with it. Studies whose files cannot be used are passed over.

    Args:
        rows: The training studies.
        settings: The run's: how files become arrays, the seed, the processes that prepare.
        model: The trained model, on any device.
        progress: Told of the studies.
        most: Patients drawn for each modality.
    """
    wanted = _draw(rows, most, settings.fit.seed)
    prepare, tokenizer = settings.prepare, tokenizer_path(settings.model)
    side, bands = prepare.image.size, prepare.voice.mel_bands
    image, voice = np.zeros((side, side)), np.zeros(bands)
    special = load_tokenizer(tokenizer).encode("").ids
    pieces: dict[int, float] = {}
    counts = dict.fromkeys(MODALITIES, 0)
    measured = 0
    progress.begin(len(wanted))
    prepared = prepare_rows(
        [rows[i] for i in wanted], prepare, tokenizer, settings.features.workers
    )
    for modalities, study in zip(wanted.values(), prepared, strict=True):
        values = {m: v for m, v in study.values.items() if m in modalities and len(v)}
        if Modality.IMAGE in values:
            image += values[Modality.IMAGE].mean(axis=0, dtype=np.float64)
        if Modality.NOTE in values:
            own = values[Modality.NOTE]
            own = own[~np.isin(own, special)]
            for piece in own.tolist():
                pieces[piece] = pieces.get(piece, 0.0) + 1 / len(own)
            if not len(own):
                del values[Modality.NOTE]
        if Modality.VOICE in values:
            voice += values[Modality.VOICE].mean(axis=0, dtype=np.float64)
        for modality in values:
            counts[modality] += 1
        measured += bool(values)
        progress.advance()
    note = _average_embeddings(model, pieces)
    sums = {Modality.IMAGE: image, Modality.NOTE: note, Modality.VOICE: voice}
    blank = blank_background(side, len(note), bands)
    means = {m: _divide(sums[m], counts[m], m, getattr(blank, m.value)) for m in MODALITIES}
    return Background(
        image=means[Modality.IMAGE],
        note=means[Modality.NOTE],
        voice=means[Modality.VOICE],
        studies=measured if max(counts.values()) >= LEAST else 0,
    )


def _draw(rows: Sequence[CohortRow], most: int, seed: int) -> dict[int, set[Modality]]:
    """Draw one study of each patient for each modality; give the rows with what they are for."""
    order = np.random.default_rng(seed).permutation(len(rows))
    drawn: dict[int, set[Modality]] = {}
    for modality in MODALITIES:
        patients: set[str] = set()
        for i in map(int, order):
            row = rows[i]
            if len(patients) < most and modality in row.present and row.patient_id not in patients:
                patients.add(row.patient_id)
                drawn.setdefault(i, set()).add(modality)
    return dict(sorted(drawn.items()))


def _average_embeddings(model: FusedModel, weights: dict[int, float]) -> Float64[np.ndarray, " e"]:
    """Add up word pieces' embeddings by weight."""
    numbers = sorted(weights) or [0]
    device = next(model.parameters()).device
    with torch.no_grad():
        embedded = model.embed_note(torch.tensor([numbers], device=device))[0]
    each = np.array([weights.get(number, 0.0) for number in numbers])
    return np.asarray(each @ embedded.double().cpu().numpy())


def _divide(
    total: Float64[np.ndarray, "..."],
    count: int,
    modality: Modality,
    blank: Float32[np.ndarray, "..."],
) -> Float32[np.ndarray, "..."]:
    if count < LEAST:
        logger.warning(
            "the mean %s is left blank: %d of the patients drawn have one, fewer than %d",
            modality.value,
            count,
            LEAST,
        )
        return blank
    return (total / count).astype(np.float32)
