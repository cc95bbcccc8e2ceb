"""Graphs in; the same graphs with their weights in one file that they share."""

import hashlib
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from safetensors.numpy import save

from medfuse.bundle import WEIGHTS
from medfuse.runtime import find_tensors

SMALLEST = 1024
"""Bytes from which on a tensor is kept outside its graph."""


def share_weights(graphs: Sequence[ModelProto]) -> bytes:
    """Move the graphs' larger tensors of real numbers to one file, each kept once.

    The graphs name their place in it as ONNX's external data, so that any reader of ONNX finds
    them beside the graph.

    Args:
        graphs: Changed in place. Tensors with the same bytes become one, whatever their names.

    Returns:
        The file, in the format of the package safetensors.
    """
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}  # by what a tensor holds
    moved = []
    for graph in graphs:
        for tensor in graph.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT:
                continue
            array = numpy_helper.to_array(tensor)
            if array.nbytes < SMALLEST:
                continue
            content = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
            if content not in names:
                taken = tensor.name in arrays
                names[content] = f"{tensor.name}.{content[:8]}" if taken else tensor.name
            arrays[names[content]] = array
            moved.append((graph, tensor, names[content]))
    data: bytes = save(arrays)
    places = find_tensors(data)
    for graph, tensor, name in moved:
        start, end = places[name]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", start), ("length", end - start)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
        if tensor.name != name:
            _rename(graph, tensor.name, name)
    return data


def _rename(graph: ModelProto, old: str, new: str) -> None:
    """Give a tensor another's name; where the graph has that one already, they become one."""
    (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == old]
    if any(other.name == new for other in graph.graph.initializer):
        graph.graph.initializer.remove(tensor)
    else:
        tensor.name = new
    for node in graph.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
