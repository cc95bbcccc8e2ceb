"""A graph that is being added to: its constants and shapes read, its new nodes emitted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from medfuse.errors import ExportError

Dim = int | str
"""An axis: its length, or the expression that stands for it."""


class Tape:
    """Adds nodes to the end of a graph whose every value has a known rank.

    Attributes:
        model: Changed in place.
        shapes: Of every value of the graph; axes of unknown length are named alike where they are
            known to be alike.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.shapes: dict[str, tuple[Dim, ...]] = {
            tensor.name: tuple(tensor.dims) for tensor in graph.initializer
        }
        self._types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            kind = value.type.tensor_type
            self.shapes[value.name] = tuple(
                dim.dim_param or dim.dim_value for dim in kind.shape.dim
            )
            self._types[value.name] = kind.elem_type
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._made: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Give a value's shape.

        Raises:
            ExportError: It isn't known.
        """
        if name not in self.shapes:
            raise ExportError(f"the shape of {name!r} in the graph is not known")
        return self.shapes[name]

    def rank(self, name: str) -> int:
        """Give a value's number of axes."""
        return len(self.shape(name))

    def is_float(self, name: str) -> bool:
        """Whether a value is of real numbers, to which a gradient can be taken."""
        return self._types.get(name) == 1  # TensorProto.FLOAT

    def constant(self, name: str) -> np.ndarray | None:
        """Give a value that the graph fixes, or None."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def fixed(self, node: NodeProto, index: int) -> np.ndarray:
        """Give a node's input that must be fixed.

        Raises:
            ExportError: It depends on the graph's inputs.
        """
        found = self.constant(node.input[index])
        if found is None:
            raise ExportError(
                f"the gradient of {node.op_type} needs its input {index} to be fixed, and here it "
                f"depends on the study (node {node.name!r})"
            )
        return found

    def floats(self, *values: float, shape: Sequence[int] = ()) -> str:
        """Make a constant of real numbers; equal ones are made once."""
        return self._keep(np.array(values, np.float32).reshape(shape))

    def ints(self, *values: int) -> str:
        """Make a constant row of whole numbers."""
        return self._keep(np.array(values, np.int64))

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        shape: Sequence[Dim],
        *,
        of_ints: bool = False,
        **attributes: Any,  # noqa: ANN401 - whatever the operator takes
    ) -> str:
        """Add a node with one output and give the output's name.

        Args:
            op: The operator.
            inputs: Names of its inputs.
            shape: Of its output.
            of_ints: Whether the output is int64; it is float32 otherwise.
            attributes: Of the operator.
        """
        key = (op, tuple(inputs), repr(sorted(attributes.items())))
        if key not in self._made:
            self._count += 1
            name = f"gradient_{self._count}"
            self.model.graph.node.append(helper.make_node(op, inputs, [name], **attributes))
            self.shapes[name] = tuple(shape)
            self._types[name] = 7 if of_ints else 1
            self._made[key] = name
        return self._made[key]

    def scan(
        self,
        body: GraphProto,
        states: Sequence[str],
        rows: Sequence[str],
        shapes: Sequence[Sequence[Dim]],
        *,
        backwards: bool = False,
    ) -> list[str]:
        """Add a loop over the first axis of some values, which hands states on from step to step.

        Args:
            body: One step: takes the states and a row of each value; gives the next states and
                rows, which are stacked. It may read values of this graph.
            states: Where it starts from.
            rows: What it goes over.
            shapes: Of the last states, and of the stacked rows.
            backwards: Whether it goes from the last row to the first.

        Returns:
            The last states and the stacked rows.
        """
        self._count += 1
        names = [f"gradient_{self._count}_{i}" for i in range(len(shapes))]
        stacked = len(shapes) - len(states)
        self.model.graph.node.append(
            helper.make_node(
                "Scan",
                [*states, *rows],
                names,
                body=body,
                num_scan_inputs=len(rows),
                scan_input_directions=[int(backwards)] * len(rows),
                scan_output_directions=[int(backwards)] * stacked,
            )
        )
        for name, shape in zip(names, shapes, strict=True):
            self.declare(name, shape)
        return names

    def declare(self, name: str, shape: Sequence[Dim], *, of_ints: bool = False) -> None:
        """Tell of an output that was added to an existing node."""
        self.shapes[name] = tuple(shape)
        self._types[name] = 7 if of_ints else 1

    def name(self, value: str, name: str) -> None:
        """Give a value a second name, which the graph can have as an output."""
        graph = self.model.graph
        graph.node.append(helper.make_node("Identity", [value], [name]))
        graph.value_info.append(helper.make_tensor_value_info(name, 1, self.shape(value)))
        self.declare(name, self.shape(value))

    # What the rules are written in.

    def add(self, a: str, b: str) -> str:
        """Add values of the same shape."""
        return self.emit("Add", [a, b], self.shape(a))

    def mul(self, a: str, b: str) -> str:
        """Multiply; one of them may be broadcast to the other."""
        return self.emit("Mul", [a, b], self._wider(a, b))

    def sub(self, a: str, b: str) -> str:
        """Subtract, with broadcasting."""
        return self.emit("Sub", [a, b], self._wider(a, b))

    def div(self, a: str, b: str) -> str:
        """Divide, with broadcasting."""
        return self.emit("Div", [a, b], self._wider(a, b))

    def same(self, op: str, a: str) -> str:
        """Apply an operator that works on each number alone."""
        return self.emit(op, [a], self.shape(a))

    def scale(self, a: str, factor: float) -> str:
        """Multiply by a number."""
        return a if factor == 1 else self.mul(a, self.floats(factor))

    def transpose(self, a: str, perm: Sequence[int]) -> str:
        """Reorder axes."""
        shape = self.shape(a)
        return self.emit("Transpose", [a], [shape[i] for i in perm], perm=list(perm))

    def swap_last(self, a: str) -> str:
        """Swap the last two axes."""
        n = self.rank(a)
        return self.transpose(a, (*range(n - 2), n - 1, n - 2))

    def sum(self, a: str, axes: Sequence[int]) -> str:
        """Add up over axes, which stay with length 1."""
        shape = [1 if i in axes else dim for i, dim in enumerate(self.shape(a))]
        return self.emit("ReduceSum", [a, self.ints(*axes)], shape, keepdims=1)

    def mean(self, a: str, axes: Sequence[int]) -> str:
        """Average over axes, which stay with length 1."""
        shape = [1 if i in axes else dim for i, dim in enumerate(self.shape(a))]
        return self.emit("ReduceMean", [a, self.ints(*axes)], shape, keepdims=1)

    def shape_of(self, a: str) -> str:
        """Give a value's shape as a value of the graph: a constant where it is known."""
        shape = self.shape(a)
        known = [dim for dim in shape if isinstance(dim, int)]
        if len(known) == len(shape):
            return self.ints(*known)
        return self.emit("Shape", [a], [len(shape)], of_ints=True)

    def length_of(self, a: str, axis: int) -> str:
        """Give the length of one axis as a row of one number."""
        dim = self.shape(a)[axis]
        if isinstance(dim, int):
            return self.ints(dim)
        axis %= self.rank(a)
        return self.emit("Shape", [a], [1], of_ints=True, start=axis, end=axis + 1)

    def reshape_like(self, a: str, like: str) -> str:
        """Give a value the shape of another with as many numbers."""
        if self.shape(a) == self.shape(like):
            return a
        return self.emit("Reshape", [a, self.shape_of(like)], self.shape(like), allowzero=1)

    def zeros_like(self, a: str) -> str:
        """Make zeros of a value's shape."""
        return self.emit("Expand", [self.floats(0.0), self.shape_of(a)], self.shape(a))

    def unbroadcast(self, gradient: str, like: str) -> str:
        """Add up a gradient over the axes along which a value was repeated."""
        target, given = self.shape(like), self.shape(gradient)
        lead = len(given) - len(target)
        axes = [
            i for i, dim in enumerate(given) if i < lead or (target[i - lead] == 1 and dim != 1)
        ]
        for i, dim in enumerate(given[lead:]):
            if target[i] not in (1, dim):
                raise ExportError(f"cannot tell if {like!r} is repeated along its axis {i}")
        return self.reshape_like(self.sum(gradient, axes) if axes else gradient, like)

    def _wider(self, a: str, b: str) -> tuple[Dim, ...]:
        left, right = self.shape(a), self.shape(b)
        n = max(len(left), len(right))
        left, right = (1,) * (n - len(left)) + left, (1,) * (n - len(right)) + right
        return tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))

    def _keep(self, value: np.ndarray) -> str:
        key = ("constant", value.dtype.str, value.shape, value.tobytes())
        if key not in self._made:
            self._count += 1
            name = f"gradient_{self._count}"
            tensor = numpy_helper.from_array(value, name)
            self.model.graph.initializer.append(tensor)
            self._constants[name] = tensor
            self.shapes[name] = value.shape
            self._types[name] = tensor.data_type
            self._made[key] = name
        return self._made[key]


def names_read(node: NodeProto) -> set[str]:
    """Name what a node reads of its graph, in the bodies of its loops too."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            body = attribute.g
            own = {value.name for value in (*body.input, *body.initializer)}
            own |= {name for inner in body.node for name in inner.output}
            found |= {name for inner in body.node for name in names_read(inner)} - own
    return found


def attributes_of(node: NodeProto) -> Mapping[str, Any]:
    """Read a node's attributes, text as ``str``."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}
