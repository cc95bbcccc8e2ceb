"""A trained model in; ONNX graphs with free batch, frame, word-piece and mel axes out."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import onnx
import onnxruntime
import torch
from onnx import GraphProto, ModelProto
from torch import Tensor, nn
from torch.export import Dim

from medfuse.bundle import TIE, ArraySpec, tie_digest
from medfuse.config import PrepareSettings
from medfuse.errors import ExportError
from medfuse.models.fused import FusedModel, Outputs
from medfuse.models.image.repvgg import fold_branches
from medfuse.text.vocabulary import MOST_WORDS
from medfuse.types import Modality
from medfuse_export.gradient import add_gradients
from medfuse_export.sharing import share_weights
from medfuse_export.tape import names_read

OPSET = 20

EMBEDDED = "note_embeddings"
CELLS = "image_cells"
FRAMES = "frame_attention"
WEIGHTS_INPUT = "weights"
MEMORY = ("memory", "memory_mask")
WANTED = {
    "image": "image_gradient",
    EMBEDDED: "note_gradient",
    "voice": "voice_gradient",
    CELLS: "image_cells_gradient",
}
"""What gradients are taken to, and their names among the graph's outputs."""

# The note's longest is what its transformer has positions for. Up to 80 mel frames become one token
# and the exporter wants an axis of at least two, but the graph itself holds for fewer.
_AXES = {
    "batch": Dim("batch"),
    "frames": Dim("frames"),
    "word_pieces": Dim("word_pieces", max=512),
    "mel_frames": Dim("mel_frames", min=81),
    "tokens": Dim("tokens"),
    "rows": Dim("rows"),
    "words": Dim("words", max=MOST_WORDS + 1),
}
PROTOBUF_BYTES = 2 * 2**30


def input_specs(prepare: PrepareSettings) -> tuple[ArraySpec, ...]:
    """Name the graph's inputs, in order: each modality's values and mask."""
    side, bands = prepare.image.size, prepare.voice.mel_bands
    return (
        ArraySpec(name="image", dtype="float32", axes=("batch", "frames", side, side)),
        ArraySpec(name="image_mask", dtype="bool", axes=("batch", "frames")),
        ArraySpec(name="note", dtype="int64", axes=("batch", "word_pieces")),
        ArraySpec(name="note_mask", dtype="bool", axes=("batch", "word_pieces")),
        ArraySpec(name="voice", dtype="float32", axes=("batch", "mel_frames", bands)),
        ArraySpec(name="voice_mask", dtype="bool", axes=("batch", "mel_frames")),
    )


def output_specs(model: FusedModel) -> tuple[ArraySpec, ...]:
    """Name the graph's outputs, in order: all tasks' logits concatenated, then the embeddings."""
    lengths = dict.fromkeys(Outputs._fields, model.embedding_length)
    lengths["logits"] = sum(task.logits for task in model.tasks)
    lengths["fused"] = model.width
    specs = tuple(
        ArraySpec(name=name, dtype="float32", axes=("batch", length))
        for name, length in lengths.items()
    )
    return specs if model.decoder is None else (*specs, *_memory_specs(model.width))


def text_specs(
    model: FusedModel,
) -> tuple[tuple[ArraySpec, ...], tuple[ArraySpec, ...]]:
    """Name the inputs and the outputs of the graph that writes findings text."""
    assert model.decoder is not None
    words = model.decoder.words
    return (
        *_memory_specs(model.width),
        ArraySpec(name="study", dtype="int64", axes=("rows",)),
        ArraySpec(name="finding", dtype="int64", axes=("rows",)),
        ArraySpec(name="words", dtype="int64", axes=("rows", "words")),
    ), (
        ArraySpec(name="word_logits", dtype="float32", axes=("rows", "words", words)),
        ArraySpec(name="energy", dtype="float32", axes=("rows", "words", "tokens")),
    )


def _memory_specs(width: int) -> tuple[ArraySpec, ArraySpec]:
    return (
        ArraySpec(name=MEMORY[0], dtype="float32", axes=("batch", "tokens", width)),
        ArraySpec(name=MEMORY[1], dtype="bool", axes=("batch", "tokens")),
    )


@dataclass(frozen=True, slots=True)
class Graphs:
    """What a model becomes: graphs whose weights lie in one file that they share.

    Attributes:
        predict: Answers studies.
        answer: Answers from word-piece embeddings, so that any part of a study can be replaced.
        explain: The same with gradients; None where it was not asked for.
        embedding: The name of the word pieces' table among the weights.
        weights: The file, in the format of the package safetensors.
        write: Writes findings text; None of a model that has no decoder.
    """

    predict: bytes
    answer: bytes
    explain: bytes | None
    embedding: str
    weights: bytes
    write: bytes | None = None


def export_graphs(
    model: FusedModel,
    inputs: Sequence[ArraySpec],
    outputs: Sequence[ArraySpec],
    *,
    explanations: bool = True,
) -> Graphs:
    """Write a model in evaluation mode as ONNX, with nothing of this machine in it.

    The model is traced once; the graph that explains is the graph that answers, differentiated.
    Layers that learn as several branches are traced as the one that they fold to.

    Raises:
        ExportError: Torch cannot trace or translate the model, an operator's gradient is not known,
            a graph isn't valid, or it is larger than the 2 GiB that one file holds.
    """
    folded = fold_branches(model)
    names = [*(spec.name for spec in outputs), EMBEDDED, CELLS, FRAMES]
    traced = _trace(_Opened(folded), inputs, names)
    _rename(traced.graph)
    predict = _select(traced, [spec.name for spec in outputs])
    _declare(predict.graph, inputs, outputs)
    embedding = _find_table(traced.graph)
    opened = _open_embeddings(traced)
    answer = _select(opened, ["logits", FRAMES])
    explain = None
    if explanations:
        explain = deepcopy(opened)
        _add_weights_input(explain)
        add_gradients(explain, "logits", WEIGHTS_INPUT, WANTED)
        explain = _select(explain, ["logits", CELLS, *WANTED.values()])
    write = None
    if model.decoder is not None:
        asked, said = text_specs(model)
        write = _trace(_Writing(folded), asked, [spec.name for spec in said])
        _rename(write.graph)
        _declare(write.graph, asked, said)
    graphs = [graph for graph in (predict, answer, explain, write) if graph is not None]
    for graph in graphs:
        _strip(graph)
        _check(graph)
    weights = share_weights(graphs)
    predict_bytes = _serialise(predict)
    tie = tie_digest(predict_bytes, weights)
    for graph in graphs[1:]:
        onnx.helper.set_model_props(graph, {TIE: tie})
    return Graphs(
        predict=predict_bytes,
        answer=_serialise(answer),
        explain=None if explain is None else _serialise(explain),
        embedding=embedding,
        weights=weights,
        write=None if write is None else _serialise(write),
    )


def answer_specs(logits: int) -> tuple[ArraySpec, ...]:
    """Name the outputs of the graph that answers from word-piece embeddings."""
    return (
        ArraySpec(name="logits", dtype="float32", axes=("batch", logits)),
        ArraySpec(name=FRAMES, dtype="float32", axes=("batch", "frames")),
    )


def explain_specs(
    inputs: Sequence[ArraySpec], embedded: int, cells: tuple[int, int], logits: int
) -> tuple[tuple[ArraySpec, ...], tuple[ArraySpec, ...]]:
    """Name the inputs and the outputs of the graph that explains.

    Args:
        inputs: Of the graph that predicts.
        embedded: Numbers of a word piece's embedding, E.
        cells: Cells of a frame and channels of the image encoder's last map, P and C.
        logits: How many there are, K.
    """
    note = ArraySpec(name=EMBEDDED, dtype="float32", axes=("batch", "word_pieces", embedded))
    weights = ArraySpec(name=WEIGHTS_INPUT, dtype="float32", axes=("batch", logits))
    real = {spec.name: note if spec.name == "note" else spec for spec in inputs}
    last = ("batch", "frames", *cells)
    named = {EMBEDDED: note.axes, "image": real["image"].axes, "voice": real["voice"].axes}
    gradients = [
        ArraySpec(name=name, dtype="float32", axes=last if value == CELLS else named[value])
        for value, name in WANTED.items()
    ]
    return (*real.values(), weights), (
        ArraySpec(name="logits", dtype="float32", axes=("batch", logits)),
        ArraySpec(name=CELLS, dtype="float32", axes=last),
        *gradients,
    )


def cells_of(session: onnxruntime.InferenceSession) -> tuple[int, int]:
    """Read from a graph how many cells a frame has in the last map, and how many channels."""
    (node,) = [node for node in session.get_outputs() if node.name == CELLS]
    return int(node.shape[2]), int(node.shape[3])


class _Opened(nn.Module):
    """The model with what explanations need from inside it among its outputs."""

    def __init__(self, model: FusedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        image: Tensor,
        image_mask: Tensor,
        note: Tensor,
        note_mask: Tensor,
        voice: Tensor,
        voice_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """Answer, and give the word-piece embeddings, the image's last map, the frames' weights."""
        embedded = self.model.note.embed(note, note_mask)
        values = {Modality.IMAGE: image, Modality.NOTE: embedded, Modality.VOICE: voice}
        masks = {Modality.IMAGE: image_mask, Modality.NOTE: note_mask, Modality.VOICE: voice_mask}
        features = self.model.extract_embedded(values, masks)
        encoded = self.model.encode(features, self.model.cover(masks))
        frames = self.model.image.attend_frames(encoded[Modality.IMAGE])
        memory = () if self.model.decoder is None else self.model.decoder.remember(encoded)
        return (*self.model.fuse(encoded), *memory, embedded, features[Modality.IMAGE], frames)


class _Writing(nn.Module):
    """The decoder alone, its weights named as in the model."""

    def __init__(self, model: FusedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, memory: Tensor, memory_mask: Tensor, study: Tensor, finding: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Say what comes next after every word, and what each token added."""
        assert self.model.decoder is not None
        logits, energy = self.model.decoder(memory, memory_mask, study, finding, words)
        return logits, energy


def _trace(module: nn.Module, inputs: Sequence[ArraySpec], outputs: Sequence[str]) -> ModelProto:
    example = tuple(_example(spec) for spec in inputs)
    shapes = tuple(
        {i: _AXES[axis] for i, axis in enumerate(spec.axes) if isinstance(axis, str)}
        for spec in inputs
    )
    with _quiet(), torch.no_grad():
        try:
            traced = torch.export.export(module.eval(), example, dynamic_shapes=shapes)
            program = torch.onnx.export(
                traced,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                verbose=False,
            )
        # Both raise whatever they meet: UserError, RuntimeError, OnnxExporterError, TypeError.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ExportError(f"torch cannot write this model as ONNX: {reason}") from error
        assert program is not None
        proto: ModelProto = program.model_proto
    if proto.ByteSize() >= PROTOBUF_BYTES:
        raise ExportError("the model is larger than the 2 GiB that one ONNX file holds")
    for tensor in proto.graph.initializer:  # without the wrapper's own name
        tensor.name = tensor.name.removeprefix("model.")
    for node in proto.graph.node:
        node.input[:] = [name.removeprefix("model.") for name in node.input]
    return proto


def _select(proto: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """Copy what some outputs need of a graph, and nothing else."""
    known = {v.name: v for v in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    selected = ModelProto()
    selected.CopyFrom(proto)
    graph = selected.graph
    del graph.output[:]
    graph.output.extend(known[name] for name in outputs)
    needed = set(outputs)
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed |= names_read(node)
    nodes = kept[::-1]
    for field, values in (
        ("node", nodes),
        ("input", [v for v in graph.input if v.name in needed]),
        ("initializer", [t for t in graph.initializer if t.name in needed]),
        ("value_info", [v for v in graph.value_info if v.name in needed]),
    ):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(copies)
    return selected


def _find_table(graph: GraphProto) -> str:
    """Find the table that word pieces are looked up in.

    Raises:
        ExportError: The embeddings are not rows of a table.
    """
    (node,) = [node for node in graph.node if EMBEDDED in node.output]
    names = {tensor.name for tensor in graph.initializer}
    if node.op_type != "Gather" or node.input[0] not in names:
        raise ExportError(
            "the note encoder's embeddings are not looked up in one table, so that a note's words "
            "can't be replaced where gradients reach them"
        )
    return str(node.input[0])


def _open_embeddings(proto: ModelProto) -> ModelProto:
    """Copy a graph so that it takes word-piece embeddings in the place of word pieces."""
    opened = ModelProto()
    opened.CopyFrom(proto)
    graph = opened.graph
    (made,) = [node for node in graph.node if EMBEDDED in node.output]
    graph.node.remove(made)
    (value,) = [value for value in graph.output if value.name == EMBEDDED]
    place = [v.name for v in graph.input].index("note")
    inputs = [*graph.input[:place], value, *graph.input[place + 1 :]]
    copies = [type(v).FromString(v.SerializeToString()) for v in inputs]
    graph.output.remove(value)
    del graph.input[:]
    graph.input.extend(copies)
    return opened


def _add_weights_input(proto: ModelProto) -> None:
    """Let a graph take a weight per study and logit."""
    (logits,) = [value for value in proto.graph.output if value.name == "logits"]
    weights = proto.graph.input.add()
    weights.CopyFrom(logits)
    weights.name = WEIGHTS_INPUT


def _serialise(proto: ModelProto) -> bytes:
    return bytes(proto.SerializeToString(deterministic=True))


def _check(proto: ModelProto) -> None:
    try:
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True), True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error


def _strip(proto: ModelProto) -> None:
    """Remove what a graph says of where it was made: source paths, stack traces, module names."""
    assert not proto.functions
    graph = proto.graph
    for thing in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    # Shapes of intermediate values: whoever loads the graph infers them again.
    graph.ClearField("value_info")


def _rename(graph: GraphProto) -> None:
    """Number what torch counted up over the whole process, so that the same model gives one file.

    Weights keep the names of their parameters, which all have a dot.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    constants = [tensor.name for tensor in graph.initializer if "." not in tensor.name]
    values = [name for node in graph.node for name in node.output if name and name not in fixed]
    names = {name: f"constant_{i}" for i, name in enumerate(constants)}
    names |= {name: f"value_{i}" for i, name in enumerate(values)}
    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)
    for i, node in enumerate(graph.node):
        assert not any(attribute.HasField("g") for attribute in node.attribute)
        node.name = f"{node.op_type}_{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _declare(graph: GraphProto, inputs: Sequence[ArraySpec], outputs: Sequence[ArraySpec]) -> None:
    """Give every free axis our name for it, where torch wrote ``s40``."""
    for values, specs in ((graph.input, inputs), (graph.output, outputs)):
        for value, spec in zip(values, specs, strict=True):
            assert value.name == spec.name
            for dim, axis in zip(value.type.tensor_type.shape.dim, spec.axes, strict=True):
                if isinstance(axis, str):
                    dim.dim_param = axis
                elif dim.dim_value != axis:
                    raise ExportError(
                        f"{spec.name} of the graph has an axis of {dim.dim_value or dim.dim_param}"
                        f" where {axis} was expected"
                    )


def _example(spec: ArraySpec) -> torch.Tensor:
    """Make an input that torch traces with; every free axis has a length of its own."""
    lengths = {"batch": 2, "frames": 3, "word_pieces": 20, "mel_frames": 200}
    lengths |= {"tokens": 30, "rows": 4, "words": 6}
    shape = [lengths[axis] if isinstance(axis, str) else axis for axis in spec.axes]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of operators we don't have and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # A recurrent layer's list of its own weights, which tracing replaces for a while.
            warnings.filterwarnings("ignore", "The tensor attributes .*flat_weights", UserWarning)
            yield
    finally:
        logger.setLevel(level)
