"""A trained model in; one ONNX graph with free batch, frame, word-piece and mel axes out."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from onnx import GraphProto, ModelProto
from torch.export import Dim

from medfuse.bundle import ArraySpec
from medfuse.config import PrepareSettings, Task
from medfuse.errors import ExportError
from medfuse.models.fused import FusedModel, Outputs

OPSET = 20

# The note's longest is what its transformer has positions for. Eight mel frames become one token
# and the exporter wants an axis of at least two, but the graph itself holds for fewer.
_AXES = {
    "batch": Dim("batch"),
    "frames": Dim("frames"),
    "word_pieces": Dim("word_pieces", max=512),
    "mel_frames": Dim("mel_frames", min=9),
}
_PROTOBUF_BYTES = 2 * 2**30


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


def output_specs(tasks: Sequence[Task], width: int) -> tuple[ArraySpec, ...]:
    """Name the graph's outputs, in order: all tasks' logits concatenated, then the embeddings."""
    lengths = dict.fromkeys(Outputs._fields, width)
    lengths["logits"] = sum(task.logits for task in tasks)
    return tuple(
        ArraySpec(name=name, dtype="float32", axes=("batch", length))
        for name, length in lengths.items()
    )


def export_graph(
    model: FusedModel, inputs: Sequence[ArraySpec], outputs: Sequence[ArraySpec]
) -> bytes:
    """Write a model in evaluation mode as ONNX, weights inside, with nothing of this machine in it.

    Raises:
        ExportError: Torch cannot trace or translate the model, the graph isn't valid, or it is
            larger than the 2 GiB that one file holds.
    """
    example = tuple(_example(spec) for spec in inputs)
    shapes = tuple(
        {i: _AXES[axis] for i, axis in enumerate(spec.axes) if isinstance(axis, str)}
        for spec in inputs
    )
    with _quiet(), torch.no_grad():
        try:
            traced = torch.export.export(model, example, dynamic_shapes=shapes)
            program = torch.onnx.export(
                traced,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs],
                verbose=False,
            )
        # Both raise whatever they meet: UserError, RuntimeError, OnnxExporterError, TypeError.
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ExportError(f"torch cannot write this model as ONNX: {reason}") from error
        assert program is not None
        proto = program.model_proto
    if proto.ByteSize() >= _PROTOBUF_BYTES:
        raise ExportError("the model is larger than the 2 GiB that one ONNX file holds")
    _declare(proto.graph, inputs, outputs)
    _strip(proto)
    _rename(proto.graph)
    try:
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True), True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    return bytes(proto.SerializeToString(deterministic=True))


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
    for tensor in graph.initializer:
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
    lengths = {"batch": 2, "frames": 3, "word_pieces": 20, "mel_frames": 40}
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
            yield
    finally:
        logger.setLevel(level)
