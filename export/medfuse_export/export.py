"""A checkpoint in; a bundle out whose graph was shown to answer as the model does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from pydantic import JsonValue

from medfuse.attribution.background import to_bytes
from medfuse.bundle import (
    ANSWER_GRAPH,
    BACKGROUND,
    EXPLAIN_GRAPH,
    GOLDEN_ANSWER,
    GRAPH,
    MODEL_CARD,
    NOVELTY,
    TEXT_GRAPH,
    TOKENIZER,
    WEIGHTS,
    ExplainRecord,
    Manifest,
    TextManifest,
    check_place,
    write_bundle,
)
from medfuse.data.prepare import collate, prepare
from medfuse.golden import CLEAR, GoldenAnswer, keep
from medfuse.models.decoder import TorchWriter
from medfuse.models.fused import FusedModel
from medfuse.models.settings import ModelSettings
from medfuse.runtime import (
    OnnxNetwork,
    OnnxWriter,
    load_graph,
    open_network,
    open_writer,
    read_weights,
)
from medfuse.text.writing import write_drafts
from medfuse.training.checkpoint import Checkpoint, load_checkpoint
from medfuse.trust.calibration import answer
from medfuse.trust.novelty import to_bytes as novelty_to_bytes
from medfuse.types import SUBSETS, Batch, Study, subset_name
from medfuse_export.certify import STUDIES, certify, check_certificate, count_studies
from medfuse_export.graph import (
    OPSET,
    answer_specs,
    cells_of,
    explain_specs,
    export_graphs,
    input_specs,
    output_specs,
    text_specs,
)
from medfuse_export.model_card import write_model_card
from medfuse_export.parity import TOLERANCE, check_parity, measure_parity, run_torch
from medfuse_export.text_parity import check_text_parity, measure_text_parity, remember
from medfuse_export.unseen import make_unseen

Progress = Callable[[str, float], None]
"""Told a step's name and how much of it is done, from 0 to 1."""

POOL = 6
"""Unseen studies that parity is measured on, beside the golden one."""

GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is to be done about explanations.

    Attributes:
        explanations: Whether the bundle shall explain its answers.
        certify: Studies that the explanations are compared with Captum's on, at least.
        uncertified: Write the bundle even if they don't hold, and say so in the manifest.
    """

    explanations: bool = True
    certify: int = STUDIES
    uncertified: bool = False


def export_bundle(
    checkpoint: Path,
    bundle: Path,
    progress: Progress,
    *,
    tolerance: float = TOLERANCE,
    options: ExportOptions = ExportOptions(),
) -> Manifest:
    """Export a checkpoint, measure the graphs against the model, and write the bundle if they hold.

    Args:
        checkpoint: A folder that training wrote.
        bundle: The folder to make. A bundle that is there is replaced, but only by a good one.
        progress: Called at the start, during and at the end of each step.
        tolerance: Largest difference of any output relative to its scale.
        options: About the explanations.

    Raises:
        TrainingError: ``checkpoint`` is not one, or was altered.
        BundleError: ``bundle`` holds something that isn't a bundle.
        ExportError: The model can't be written as ONNX, or a graph doesn't agree with it.
    """
    check_place(bundle)
    progress("load", 0.0)
    loaded = load_checkpoint(checkpoint)
    model, settings = loaded.model.eval().requires_grad_(False), loaded.prepare
    targets = tuple(target for task in loaded.tasks for target in task.targets)
    wanted = count_studies(len(targets), options.certify) if options.explanations else 0
    studies, pool = make_unseen(
        1 + max(POOL, wanted),
        settings,
        loaded.tokenizer,
        lambda done: progress("load", done),
        keep=1,
    )
    progress("load", 1.0)

    progress("graph", 0.0)
    inputs = input_specs(settings)
    outputs = output_specs(model)
    graphs = export_graphs(model, inputs, outputs, explanations=options.explanations)
    weights = read_weights(graphs.weights)
    progress("graph", 1.0)

    progress("parity", 0.0)
    report = measure_parity(
        load_graph(GRAPH, graphs.predict, weights, "cpu"),
        model,
        settings,
        pool[1 : 1 + POOL],
        tolerance,
        lambda done: progress("parity", done),
    )
    check_parity(report)

    text = None
    if graphs.write is not None:
        assert loaded.record.text is not None
        given, made = text_specs(model)
        text = TextManifest(
            record=loaded.record.text,
            inputs=given,
            outputs=made,
            parity=measure_text_parity(
                load_graph(GRAPH, graphs.predict, weights, "cpu"),
                OnnxWriter(load_graph(TEXT_GRAPH, graphs.write, weights, "cpu")),
                model,
                settings,
                pool[1 : 1 + POOL],
                tolerance,
            ),
        )
        check_text_parity(text.parity)

    explain = None
    if graphs.explain is not None:
        progress("certify", 0.0)
        network = OnnxNetwork(graphs.answer, graphs.explain, weights, graphs.embedding, targets)
        certificate, scales = certify(
            network, loaded, pool[1 : 1 + wanted], lambda done: progress("certify", done)
        )
        if not certificate.holds and options.uncertified:
            certificate = certificate.model_copy(update={"overridden": True})
        else:
            check_certificate(certificate)
        cells = cells_of(network.explaining)
        given, made = explain_specs(
            inputs, weights.arrays[graphs.embedding].shape[1], cells, len(targets)
        )
        explain = ExplainRecord(
            inputs=given,
            outputs=made,
            answers=answer_specs(len(targets)),
            embedding=graphs.embedding,
            certificate=certificate,
            scales=scales,
        )

    progress("write", 0.0)
    manifest = Manifest(
        created=datetime.now(UTC).replace(microsecond=0),
        opset=OPSET,
        inputs=inputs,
        outputs=outputs,
        prepare=settings,
        tasks=loaded.tasks,
        calibration=loaded.calibration,
        trust=loaded.record.trust,
        parity=report,
        explain=explain,
        text=text,
        model=_portable(loaded.model_settings),
        checkpoint=loaded.digest,
        training_data=loaded.record.cohort_digest,
        leaks=loaded.record.leaks,
        metrics=loaded.metrics,
        trained_with=loaded.record.versions,
        exported_with=_versions(),
    )
    contents = {
        GRAPH: graphs.predict,
        WEIGHTS: graphs.weights,
        TOKENIZER: (loaded.folder / TOKENIZER).read_bytes(),
        NOVELTY: novelty_to_bytes(loaded.novelty),
        MODEL_CARD: write_model_card(manifest).encode(),
        **_make_golden(studies[0], loaded, report.scale["logits"]),
    }
    if graphs.write is not None:
        contents[TEXT_GRAPH] = graphs.write
    if graphs.explain is not None:
        contents[ANSWER_GRAPH], contents[EXPLAIN_GRAPH] = graphs.answer, graphs.explain
        contents[BACKGROUND] = to_bytes(loaded.background)
    written = write_bundle(bundle, contents, manifest)
    if explain is not None:
        open_network(written, "cpu")
    if text is not None:
        open_writer(written, "cpu", weights)
    progress("write", 1.0)
    return written.manifest


def _make_golden(study: Study, checkpoint: Checkpoint, scale: float) -> dict[str, bytes]:
    """Answer the golden study with the torch model, once per subset of its modalities."""
    assert study.note is not None
    assert study.voice is not None
    images = {f"golden/image_{i}.dcm": data for i, data in enumerate(study.images)}
    parts = {**images, "golden/note.txt": study.note, "golden/voice.wav": study.voice}
    logits: dict[str, tuple[float, ...]] = {}
    sentences: dict[str, dict[str, str]] = {}
    probabilities: dict[str, tuple[float, ...]] = {}
    for subset in SUBSETS:
        one = prepare(keep(study, subset), checkpoint.prepare, checkpoint.tokenizer)
        batch = collate([one], checkpoint.prepare)
        raw = run_torch(checkpoint.model, batch)[0][0]
        if checkpoint.record.text is not None:
            sentences[subset_name(subset)] = _write_clear(checkpoint.model, batch, checkpoint)
        answers = answer(checkpoint.tasks, raw, checkpoint.calibration, subset_name(subset))
        chances = np.concatenate([task.probabilities for task in answers])
        logits[subset_name(subset)] = tuple(map(float, raw))
        probabilities[subset_name(subset)] = tuple(map(float, chances))
    expected = GoldenAnswer(
        images=tuple(images),
        note="golden/note.txt",
        voice="golden/voice.wav",
        targets=tuple(target for task in checkpoint.tasks for target in task.targets),
        logits=logits,
        probabilities=probabilities,
        sentences=sentences,
        scale=scale,
        tolerance=GOLDEN_TOLERANCE,
    )
    return {**parts, GOLDEN_ANSWER: (expected.model_dump_json(indent=2) + "\n").encode()}


def _write_clear(model: FusedModel, batch: Batch, checkpoint: Checkpoint) -> dict[str, str]:
    """Write a sentence of each finding of one study by torch; keep those that are not close."""
    record = checkpoint.record.text
    assert record is not None
    assert model.decoder is not None
    tokens, mask = remember(model, batch)
    asked = range(len(record.findings))
    drafts = write_drafts(TorchWriter(model.decoder), tokens[0], mask[0], asked)
    return {
        target: record.vocabulary.decode(draft.words)
        for target, draft in zip(record.findings, drafts, strict=True)
        if draft is not None and draft.lead >= CLEAR
    }


def _portable(settings: ModelSettings) -> dict[str, JsonValue]:
    """Name files of this machine by their last part alone."""
    return {
        key: Path(value).name if key in ("image", "note", "image_weights") and value else value
        for key, value in settings.model_dump(mode="json").items()
    }


def _versions(names: Sequence[str] = ("medfuse", "torch", "onnx", "onnxscript")) -> dict[str, str]:
    # By module, since the package is onnxruntime or onnxruntime-gpu.
    return {name: version(name) for name in names} | {"onnxruntime": onnxruntime.__version__}
