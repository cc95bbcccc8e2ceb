"""Parity: a graph, its model and unseen studies in; how far apart their answers are out."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float

from medfuse.bundle import ParityReport, SizeParity, SubsetParity
from medfuse.config import PrepareSettings
from medfuse.data.prepare import collate
from medfuse.errors import ExportError
from medfuse.models.fused import FusedModel, Outputs
from medfuse.types import (
    MODALITIES,
    SUBSETS,
    Batch,
    Modality,
    Prepared,
    PreparedImage,
    subset_name,
)

TOLERANCE = 1e-5
"""The largest difference of an output, relative to its scale, that a graph may show."""

PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Size:
    """The axes of one batch: its studies, and the most any of them has of each token."""

    batch: int
    frames: int
    word_pieces: int
    mel_frames: int


def sweep_sizes(prepare: PrepareSettings) -> tuple[Size, ...]:
    """Choose sizes from the least a study may have to the most that preparation lets through."""
    pieces = prepare.note.word_pieces
    mel = int(prepare.voice.duration_s / prepare.voice.step_s)
    shortest = int(prepare.voice.shortest_s / prepare.voice.step_s)
    return (
        Size(batch=1, frames=1, word_pieces=3, mel_frames=shortest),
        Size(batch=1, frames=4, word_pieces=pieces, mel_frames=mel),
        Size(batch=3, frames=2, word_pieces=min(37, pieces), mel_frames=min(333, mel)),
        Size(batch=8, frames=2, word_pieces=min(64, pieces), mel_frames=min(501, mel)),
    )


def measure_parity(
    session: onnxruntime.InferenceSession,
    model: FusedModel,
    prepare: PrepareSettings,
    pool: Sequence[Prepared],
    tolerance: float,
    progress: Callable[[float], None],
) -> ParityReport:
    """Run every size with every subset of modalities, and with all subsets in one batch.

    Args:
        session: Over the exported graph.
        model: What it was exported from, in evaluation mode.
        prepare: How studies are prepared.
        pool: Full studies that no training has seen; the sweep's batches are cut and joined from
            their frames, word pieces and mel frames.
        tolerance: What the report is to be held to by `check_parity`.
        progress: Told how much is done, from 0 to 1.

    Raises:
        ExportError: The model or the graph gives something that is not a finite number.
    """
    sizes = sweep_sizes(prepare)
    planned = list(_plan(sizes))
    size_of: list[Size] = []
    subset_of: list[frozenset[Modality]] = []
    largest, difference = [], []  # a row per study of the sweep, a column per output
    for done, (size, present) in enumerate(planned, start=1):
        batch = make_batch(pool, size, present, prepare)
        by_torch, by_onnx = run_torch(model, batch), _run_onnx(session, batch)
        _check_finite(by_torch, by_onnx)
        size_of += [size] * size.batch
        subset_of += present
        largest.append(_worst(by_torch, [np.zeros(1)] * len(by_torch)))
        difference.append(_worst(by_onnx, by_torch))
        progress(done / (len(planned) + 1))

    scale = np.concatenate(largest).max(axis=0)
    if not scale.all():
        raise ExportError("an output of the model is zero for every study; train it first")
    relative = np.concatenate(difference) / scale
    judged = _judge(session, model, prepare, pool) / scale[0]
    progress(1.0)
    return ParityReport(
        tolerance=tolerance,
        provider=PROVIDER,
        scale=dict(zip(Outputs._fields, map(float, scale), strict=True)),
        subsets={
            subset_name(subset): _summarise_subset(
                relative[[present == subset for present in subset_of]], judged[i]
            )
            for i, subset in enumerate(SUBSETS)
        },
        sizes=tuple(
            SizeParity(
                **asdict(size), logits=float(relative[[s == size for s in size_of], 0].max())
            )
            for size in sizes
        ),
    )


def check_parity(report: ParityReport) -> None:
    """Refuse a graph that doesn't answer as its model does.

    Raises:
        ExportError: Some output, with some subset of modalities, differs by more than the
            tolerance.
    """
    for name, subset in report.subsets.items():
        worst = max(subset.logits, subset.embeddings)
        if worst > report.tolerance:
            raise ExportError(
                f"the graph differs from the model by {worst:.1e} of the outputs' scale on studies "
                f"with {name}, and {report.tolerance:.0e} is allowed; no bundle was written"
            )


def run_torch(model: FusedModel, batch: Batch) -> list[np.ndarray]:
    """Answer a batch with the torch model, in its own precision; outputs in their order."""
    dtype = next(model.parameters()).dtype
    arguments = []
    for modality in MODALITIES:
        values = torch.from_numpy(batch.values[modality])
        arguments.append(values.to(dtype) if values.is_floating_point() else values)
        arguments.append(torch.from_numpy(batch.masks[modality]))
    with torch.inference_mode():
        return [output.numpy() for output in model(*arguments)]


def _summarise_subset(
    relative: Float[np.ndarray, "n outputs"], judged: Float[np.ndarray, "2"]
) -> SubsetParity:
    return SubsetParity(
        studies=len(relative),
        logits=float(relative[:, 0].max()),
        embeddings=float(relative[:, 1:].max()),
        onnx_to_float64=float(judged[0]),
        torch_to_float64=float(judged[1]),
    )


def _judge(
    session: onnxruntime.InferenceSession,
    model: FusedModel,
    prepare: PrepareSettings,
    pool: Sequence[Prepared],
) -> Float[np.ndarray, "7 2"]:
    """Measure how far graph and model are from the model in float64, on a study of each subset.

    One batch alone: torch has no fast convolution by channel in float64.
    """
    longest = sweep_sizes(prepare)[1]
    size = Size(len(SUBSETS), 1, longest.word_pieces, longest.mel_frames)
    batch = make_batch(pool, size, SUBSETS, prepare)
    exact = run_torch(deepcopy(model).double(), batch)[:1]
    by_onnx, by_torch = _run_onnx(session, batch)[:1], run_torch(model, batch)[:1]
    _check_finite(exact, by_onnx, by_torch)
    return np.concatenate([_worst(by_onnx, exact), _worst(by_torch, exact)], axis=1)


def _run_onnx(session: onnxruntime.InferenceSession, batch: Batch) -> list[np.ndarray]:
    feed = {m.value: batch.values[m] for m in MODALITIES}
    feed |= {f"{m}_mask": batch.masks[m] for m in MODALITIES}
    return list(session.run(list(Outputs._fields), feed))


def _plan(sizes: Sequence[Size]) -> Iterator[tuple[Size, tuple[frozenset[Modality], ...]]]:
    """Yield each batch: every size with one subset throughout, then with all of them mixed."""
    for size in sizes:
        for subset in SUBSETS:
            yield size, (subset,) * size.batch
        if size.batch > 1:
            yield size, tuple(SUBSETS[-1 - row % len(SUBSETS)] for row in range(size.batch))


def make_batch(
    pool: Sequence[Prepared],
    size: Size,
    present: Sequence[frozenset[Modality]],
    prepare: PrepareSettings,
) -> Batch:
    """Cut and join a batch of a size from the pool, a subset of modalities for each study."""
    cut = [_cut(pool, row, size, subset) for row, subset in enumerate(present)]
    return collate(cut, prepare)


def _cut(pool: Sequence[Prepared], row: int, size: Size, subset: frozenset[Modality]) -> Prepared:
    """Make one study of a batch: the first has the batch's lengths, each next one is shorter."""
    part = pool[row % len(pool)]
    assert part.note is not None
    assert part.voice is not None
    frames = size.frames - row % size.frames
    pieces = max(size.word_pieces * (size.batch - row) // size.batch, 3)
    mel = max(size.mel_frames * (size.batch - row) // size.batch, 1)
    views = [pool[(row + i) % len(pool)].image for i in range(frames)]
    image = PreparedImage(
        values=np.stack([view.values[0] for view in views if view is not None]),
        geometry=tuple(view.geometry[0] for view in views if view is not None),
    )
    bands = part.voice.values.shape[1]
    spans = np.resize(part.note.spans, (pieces, 2))
    note = replace(part.note, values=np.resize(part.note.values, pieces), spans=spans)
    voice = replace(part.voice, values=np.resize(part.voice.values, (mel, bands)))
    return Prepared(
        image=image if Modality.IMAGE in subset else None,
        note=note if Modality.NOTE in subset else None,
        voice=voice if Modality.VOICE in subset else None,
    )


def _check_finite(*answers: Sequence[np.ndarray]) -> None:
    if not all(np.isfinite(output).all() for outputs in answers for output in outputs):
        raise ExportError("the model answers a study with something that is not a number")


def _worst(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Return the largest difference in each study's row of each output, (B, outputs)."""
    return np.stack([np.abs(x - y).max(axis=1) for x, y in zip(a, b, strict=True)], axis=1)
