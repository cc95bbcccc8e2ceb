"""How ONNX's LSTM is differentiated: back-propagation through time, as a Scan that runs backwards.

Gates are computed again from the states that the operator gave, all steps at once, so that only
what truly depends on the step before is done step by step: the cell's state, forwards, and the
gradient, backwards.
"""

from collections.abc import Mapping, Sequence

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from medfuse.errors import ExportError
from medfuse_export.tape import Dim, Tape, attributes_of

USUAL = {"hidden_size", "direction"}
INPUTS = 4
"""The sequence, the weights, those of the recurrence, and the biases; lengths, first states and
peepholes would come after them."""


def lstm(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    """Give the gradient to the sequence (Hochreiter & Schmidhuber 1997; Graves 2013, chapter 3).

    With gates i, o, f and candidate g, cell ``c' = f c + i g`` and state ``h' = o tanh(c')``.
    """
    attributes = attributes_of(node)
    if (
        set(attributes) - USUAL
        or attributes.get("direction", "forward") != "forward"
        or len([name for name in node.input if name]) != INPUTS
        or any(needed[1:])
        or any(given[1:])
    ):
        raise ExportError(
            "the gradient of LSTM is known for its states in one direction, from a start of zeros, "
            "with fixed weights and the usual activations alone"
        )
    g = given[0]
    assert g is not None
    x, weights, recurrence, biases = node.input
    steps, studies, _ = tape.shape(x)
    hidden = int(attributes["hidden_size"])
    shape: tuple[Dim, ...] = (steps, studies, hidden)
    weights, recurrence = (
        tape.emit("Squeeze", [w, tape.ints(0)], tape.shape(w)[1:]) for w in (weights, recurrence)
    )
    states, g = (tape.emit("Squeeze", [v, tape.ints(1)], shape) for v in (node.output[0], g))

    # Gates, each from its step and the state before it.
    before = tape.emit("Pad", [states, tape.ints(1, 0, 0, -1, 0, 0), tape.floats(0.0)], shape)
    wide = (steps, studies, 4 * hidden)
    both = tape.sum(tape.emit("Reshape", [biases, tape.ints(2, 4 * hidden)], (2, 4 * hidden)), [0])
    gates = tape.add(
        tape.emit("MatMul", [x, tape.swap_last(weights)], wide),
        tape.emit("MatMul", [before, tape.swap_last(recurrence)], wide),
    )
    gates = tape.emit("Add", [gates, both], wide)
    i, o, f, c = (
        tape.same(
            op,
            tape.emit(
                "Slice",
                [gates, tape.ints(k * hidden), tape.ints((k + 1) * hidden), tape.ints(2)],
                shape,
            ),
        )
        for k, op in enumerate(("Sigmoid", "Sigmoid", "Sigmoid", "Tanh"))
    )
    start = tape.emit("Slice", [before, tape.ints(0), tape.ints(1), tape.ints(0)], (1, *shape[1:]))
    start = tape.emit("Squeeze", [start, tape.ints(0)], shape[1:])  # zeros
    _, cell, cell_before = tape.scan(
        _cell_body(studies, hidden), [start], [f, tape.mul(i, c)], [shape[1:], shape, shape]
    )

    # What each gradient is multiplied with, all steps at once.
    bent = tape.same("Tanh", cell)
    to_gates = tape.emit(
        "Concat",
        [
            tape.mul(c, _slope(tape, i)),
            tape.mul(cell_before, _slope(tape, f)),
            tape.mul(i, _flat(tape, c)),
        ],
        (steps, studies, 3 * hidden),
        axis=2,
    )
    _, _, found = tape.scan(
        _gradient_body(studies, hidden, recurrence),
        [start, start],
        [g, tape.mul(o, _flat(tape, bent)), tape.mul(bent, _slope(tape, o)), to_gates, f],
        [shape[1:], shape[1:], wide],
        backwards=True,
    )
    return {x: tape.emit("MatMul", [found, weights], tape.shape(x))}


def _slope(tape: Tape, sigmoid: str) -> str:
    return tape.mul(sigmoid, tape.sub(tape.floats(1.0), sigmoid))


def _flat(tape: Tape, tanh: str) -> str:
    return tape.sub(tape.floats(1.0), tape.mul(tanh, tanh))


def _cell_body(studies: Dim, hidden: int) -> GraphProto:
    """One step of the cell; it gives its state, the same to be kept, and the one before."""
    row = (studies, hidden)
    return helper.make_graph(
        [
            helper.make_node("Mul", ["f", "c"], ["kept"]),
            helper.make_node("Add", ["kept", "new"], ["next"]),
            helper.make_node("Identity", ["next"], ["cell"]),
            helper.make_node("Identity", ["c"], ["cell_before"]),
        ],
        "cell",
        _values(["c", "f", "new"], row),
        _values(["next", "cell", "cell_before"], row),
    )


def _gradient_body(studies: Dim, hidden: int, recurrence: str) -> GraphProto:
    """One step back: from the state's gradient to the four gates', and to what came before."""
    row, three, four = ((studies, k * hidden) for k in (1, 3, 4))
    sizes = helper.make_node("Constant", [], ["sizes"], value_ints=[hidden, 2 * hidden])
    return helper.make_graph(
        [
            helper.make_node("Add", ["g", "from_state"], ["state"]),
            helper.make_node("Mul", ["state", "to_cell"], ["through"]),
            helper.make_node("Add", ["from_cell", "through"], ["cell"]),
            helper.make_node("Mul", ["state", "to_output"], ["output"]),
            helper.make_node("Concat", ["cell", "cell", "cell"], ["cells"], axis=1),
            helper.make_node("Mul", ["cells", "to_gates"], ["others"]),
            sizes,
            helper.make_node("Split", ["others", "sizes"], ["input", "rest"], axis=1),
            helper.make_node("Concat", ["input", "output", "rest"], ["gates"], axis=1),
            helper.make_node("MatMul", ["gates", recurrence], ["next_state"]),
            helper.make_node("Mul", ["cell", "f"], ["next_cell"]),
        ],
        "step_back",
        [
            *_values(["from_state", "from_cell", "g", "to_cell", "to_output"], row),
            *_values(["to_gates"], three),
            *_values(["f"], row),
        ],
        [*_values(["next_state", "next_cell"], row), *_values(["gates"], four)],
    )


def _values(names: Sequence[str], shape: Sequence[Dim]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
