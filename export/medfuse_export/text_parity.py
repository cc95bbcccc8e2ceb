"""Findings text by graph and by torch, of the same unseen studies, in; how far apart, out."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch

from medfuse.bundle import TextParity, TextSubsetParity
from medfuse.config import PrepareSettings
from medfuse.errors import ExportError
from medfuse.models.decoder import TorchWriter
from medfuse.models.fused import FusedModel
from medfuse.text.vocabulary import PADDING, START
from medfuse.text.writing import Draft, Writer, write_drafts
from medfuse.types import MODALITIES, SUBSETS, Batch, Modality, Prepared, subset_name
from medfuse_export.parity import make_batch, sweep_sizes

Memory = tuple[np.ndarray, np.ndarray]
"""The tokens of several studies, (B, N, D), and their mask."""


def measure_text_parity(
    predict: onnxruntime.InferenceSession,
    writer: Writer,
    model: FusedModel,
    prepare: PrepareSettings,
    pool: Sequence[Prepared],
    tolerance: float,
) -> TextParity:
    """Write a sentence of every finding by graph and by torch, for every subset of modalities.

    Args:
        predict: Over the graph that answers.
        writer: Over the graph that writes.
        model: What both were exported from, in evaluation mode.
        prepare: How studies are prepared.
        pool: Full studies that no training has seen.
        tolerance: What the report is to be held to by `check_text_parity`.
    """
    size = sweep_sizes(prepare)[2]
    subsets = {}
    for subset in SUBSETS:
        batch = make_batch(pool, size, (subset,) * size.batch, prepare)
        subsets[subset_name(subset)] = _compare(predict, writer, model, batch)
    return TextParity(tolerance=tolerance, subsets=subsets)


def check_text_parity(report: TextParity) -> None:
    """Refuse a graph that doesn't write as its model does.

    Raises:
        ExportError: Some output, with some subset of modalities, differs by more than the
            tolerance.
    """
    for name, subset in report.subsets.items():
        worst = max(subset.memory, subset.logits, subset.energy)
        if worst > report.tolerance:
            raise ExportError(
                f"the graph that writes differs from the model by {worst:.1e} on studies with "
                f"{name}, and {report.tolerance:.0e} is allowed; no bundle was written"
            )


def remember(model: FusedModel, batch: Batch) -> Memory:
    """Give the tokens that torch writes from."""
    assert model.decoder is not None
    values = {m: torch.from_numpy(batch.values[m]) for m in MODALITIES}
    masks = {m: torch.from_numpy(batch.masks[m]) for m in MODALITIES}
    with torch.inference_mode():
        values[Modality.NOTE] = model.note.embed(values[Modality.NOTE], masks[Modality.NOTE])
        features = model.extract_embedded(values, masks)
        tokens, mask = model.decoder.remember(model.encode(features, model.cover(masks)))
    return tokens.numpy(), mask.numpy()


def _compare(
    predict: onnxruntime.InferenceSession, writer: Writer, model: FusedModel, batch: Batch
) -> TextSubsetParity:
    assert model.decoder is not None
    feed = {m.value: batch.values[m] for m in MODALITIES}
    feed |= {f"{m}_mask": batch.masks[m] for m in MODALITIES}
    tokens, mask = predict.run(["memory", "memory_mask"], feed)
    by_torch = remember(model, batch)
    reference = TorchWriter(model.decoder)
    drafts = [
        (ours, theirs)
        for i in range(len(tokens))
        for ours, theirs in zip(
            _draft(writer, model, (tokens, mask), i),
            _draft(reference, model, by_torch, i),
            strict=True,
        )
    ]
    findings = model.decoder.finding.num_embeddings
    words = _pad([theirs for _, theirs in drafts])
    rows = np.arange(len(drafts))
    asked = (rows // findings, rows % findings, words)
    said, known = writer(tokens, mask, *asked), reference(*by_torch, *asked)
    alike = [
        (ours is None) == (theirs is None)
        and (ours is None or theirs is None or ours.words.tolist() == theirs.words.tolist())
        for ours, theirs in drafts
    ]
    if not np.array_equal(mask, by_torch[1]):
        raise ExportError("the graph and the model write from different tokens")
    return TextSubsetParity(
        studies=len(tokens),
        memory=_relative(tokens, by_torch[0]),
        logits=_relative(said.logits, known.logits),
        energy=_relative(said.energy, known.energy),
        sentences=len(drafts),
        alike=sum(alike),
    )


def _draft(writer: Writer, model: FusedModel, memory: Memory, study: int) -> list[Draft | None]:
    assert model.decoder is not None
    tokens, mask = memory
    findings = range(model.decoder.finding.num_embeddings)
    return write_drafts(writer, tokens[study], mask[study], findings)


def _pad(drafts: Sequence[Draft | None]) -> np.ndarray:
    longest = max((len(draft.words) for draft in drafts if draft is not None), default=0)
    words = np.full((len(drafts), 1 + longest), PADDING, np.int64)
    words[:, 0] = START
    for row, draft in zip(words, drafts, strict=True):
        if draft is not None:
            row[1 : 1 + len(draft.words)] = draft.words
    return words


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
