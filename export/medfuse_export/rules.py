"""How each ONNX operator is differentiated: the gradient of its output in, of its inputs out.

Conventions at corners are torch's: the gradient of ReLU at 0 and of a clip at its bounds is 0.
Masks are taken from an operator's output where they can be, not from its input, so that ONNX
Runtime may still fuse the operator with the one before it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import NodeProto

from medfuse.errors import ExportError
from medfuse_export.recurrent import lstm
from medfuse_export.tape import Dim, Tape, attributes_of

Rule = Callable[[Tape, NodeProto, Sequence[str | None], Sequence[bool]], Mapping[str, str]]
"""Takes the tape, the node, the gradient of each output (None where there is none) and for each
input whether its gradient is needed; gives the gradient of those inputs by their names."""


def _single(given: Sequence[str | None]) -> str:
    (gradient,) = [g for g in given if g is not None]
    return gradient


def _elementwise(derive: Callable[[Tape, NodeProto, str], str]) -> Rule:
    """Make the rule of an operator of one input whose gradient has the input's shape."""

    def rule(
        tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
    ) -> Mapping[str, str]:
        return {node.input[0]: derive(tape, node, _single(given))}

    return rule


def _gather_up(
    tape: Tape, node: NodeProto, needed: Sequence[bool], parts: Sequence[Callable[[], str]]
) -> dict[str, str]:
    """Collect the gradients of needed inputs, broadcasting undone; an input may stand twice."""
    found: dict[str, str] = {}
    for name, wanted, part in zip(node.input, needed, parts, strict=False):
        if wanted:
            gradient = tape.unbroadcast(part(), name)
            found[name] = gradient if name not in found else tape.add(found[name], gradient)
    return found


def _add(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g = _single(given)
    return _gather_up(tape, node, needed, [lambda: g] * len(node.input))


def _sub(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g = _single(given)
    return _gather_up(tape, node, needed, [lambda: g, lambda: tape.same("Neg", g)])


def _mul(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g, (a, b) = _single(given), node.input
    return _gather_up(tape, node, needed, [lambda: tape.mul(g, b), lambda: tape.mul(g, a)])


def _div(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g, b = _single(given), node.input[1]

    def to_divisor() -> str:
        return tape.same("Neg", tape.mul(g, tape.div(node.output[0], b)))

    return _gather_up(tape, node, needed, [lambda: tape.div(g, b), to_divisor])


def _where(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g, condition, zero = _single(given), node.input[0], tape.floats(0.0)
    shape = tape.shape(g)
    return _gather_up(
        tape,
        node,
        needed,
        [
            lambda: g,  # the condition, which is never needed
            lambda: tape.emit("Where", [condition, g, zero], shape),
            lambda: tape.emit("Where", [condition, zero, g], shape),
        ],
    )


def _extreme(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    """Max and Min of two: to the one that was taken, half to each where they are equal."""
    if len(node.input) != 2:
        raise ExportError(f"the gradient of {node.op_type} is known for two inputs alone")
    g, y = _single(given), node.output[0]
    shape = tape.shape(g)

    def share(name: str) -> str:
        equal = tape.emit("Equal", [name, y], shape)
        return tape.emit("Cast", [equal], shape, to=1)

    shares = [share(name) for name in node.input]
    total = tape.add(*shares)
    parts = [lambda s=s: tape.div(tape.mul(g, s), total) for s in shares]
    return _gather_up(tape, node, needed, parts)


# One input, each number alone. y is the node's output, x its input.


def _clip(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    bounds = [
        float(tape.fixed(node, i)) if len(node.input) > i and node.input[i] else None
        for i in (1, 2)
    ]
    return _between(tape, g, y, *bounds)


def _relu(tape: Tape, node: NodeProto, g: str) -> str:
    return _between(tape, g, node.output[0], 0.0, None)


def _between(tape: Tape, g: str, y: str, low: float | None, high: float | None) -> str:
    """Keep a gradient where a clipped value lies strictly between its bounds."""
    shape = tape.shape(y)
    if len(shape) == 4 and isinstance(shape[1], int):
        # By convolutions and products alone, so that a network's maps stay in the blocked layout
        # that ONNX Runtime convolves them in; comparing would bring them out of it and back.
        for bound, sign in ((low, 1.0), (high, -1.0)):
            if bound is not None:
                g = tape.mul(g, _above(tape, y, bound, sign))
        return g
    inside = []
    if low is not None:
        inside.append(tape.emit("Greater", [y, tape.floats(low)], shape))
    if high is not None:
        inside.append(tape.emit("Less", [y, tape.floats(high)], shape))
    if not inside:
        return g
    both = inside[0] if len(inside) == 1 else tape.emit("And", inside, shape)
    return tape.mul(g, tape.emit("Cast", [both], shape, to=1))


STEEP = 2.0**100
"""Turns any number of a network's maps but 0 into one beyond 1, and overflows for none."""


def _above(tape: Tape, y: str, bound: float, sign: float) -> str:
    """Give 1 where ``sign * (y - bound)`` is above 0, else 0, for a map that is never below.

    ``steep * y - steep * bound`` is exact where the two are equal, since steep is a power of 2; it
    is then clipped to [0, 1]. Both are one convolution by channel with a clip fused into it.
    """
    shape = tape.shape(y)
    channels = int(shape[1])
    # A number next to a bound other than 0 differs from it by at least 2**-24 of it.
    steep = sign * (STEEP if bound == 0 else 2.0**40 / abs(bound))
    steep = math.copysign(2.0 ** math.floor(math.log2(abs(steep))), steep)
    weight = tape.floats(*[steep] * channels, shape=(channels, 1, 1, 1))
    offset = tape.floats(*[-steep * bound] * channels, shape=(channels,))
    raised = tape.emit("Conv", [y, weight, offset], shape, group=channels, kernel_shape=[1, 1])
    return tape.emit("Clip", [raised, tape.floats(0.0), tape.floats(1.0)], shape)


def _leaky_relu(tape: Tape, node: NodeProto, g: str) -> str:
    alpha = float(attributes_of(node).get("alpha", 0.01))
    x = node.input[0]
    positive = tape.emit("Greater", [x, tape.floats(0.0)], tape.shape(x))
    return tape.emit("Where", [positive, g, tape.scale(g, alpha)], tape.shape(x))


def _tanh(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    return tape.mul(g, tape.sub(tape.floats(1.0), tape.mul(y, y)))


def _sigmoid(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    return tape.mul(g, tape.mul(y, tape.sub(tape.floats(1.0), y)))


def _gelu(tape: Tape, node: NodeProto, g: str) -> str:
    """The density and the distribution of the normal: d(x P(x)) = P(x) + x p(x)."""
    if attributes_of(node).get("approximate", "none") != "none":
        raise ExportError("the gradient of Gelu is known in its exact form alone, without tanh")
    x = node.input[0]
    root = tape.same("Erf", tape.scale(x, math.sqrt(0.5)))
    distribution = tape.emit("Add", [tape.scale(root, 0.5), tape.floats(0.5)], tape.shape(x))
    exponent = tape.scale(tape.mul(x, x), -0.5)
    density = tape.scale(tape.same("Exp", exponent), 1 / math.sqrt(2 * math.pi))
    return tape.mul(g, tape.add(distribution, tape.mul(x, density)))


def _erf(tape: Tape, node: NodeProto, g: str) -> str:
    x = node.input[0]
    bell = tape.same("Exp", tape.same("Neg", tape.mul(x, x)))
    return tape.mul(g, tape.scale(bell, 2 / math.sqrt(math.pi)))


def _reciprocal(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    return tape.same("Neg", tape.mul(g, tape.mul(y, y)))


def _sqrt(tape: Tape, node: NodeProto, g: str) -> str:
    return tape.div(tape.scale(g, 0.5), node.output[0])


def _pow(tape: Tape, node: NodeProto, g: str) -> str:
    x, exponent = node.input[0], tape.fixed(node, 1)
    if exponent.size != 1:
        raise ExportError("the gradient of Pow is known for one exponent alone")
    power = float(exponent.item())
    if power == 2:
        return tape.mul(g, tape.scale(x, 2.0))
    less = tape.emit("Pow", [x, tape.floats(power - 1)], tape.shape(x))
    return tape.mul(g, tape.scale(less, power))


def _abs(tape: Tape, node: NodeProto, g: str) -> str:
    return tape.mul(g, tape.same("Sign", node.input[0]))


def _softmax(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    axis = int(attributes_of(node).get("axis", -1)) % tape.rank(y)
    weighted = tape.mul(g, y)
    return tape.sub(weighted, tape.mul(y, tape.sum(weighted, [axis])))


def _log_softmax(tape: Tape, node: NodeProto, g: str) -> str:
    y = node.output[0]
    axis = int(attributes_of(node).get("axis", -1)) % tape.rank(y)
    return tape.sub(g, tape.mul(tape.same("Exp", y), tape.sum(g, [axis])))


def _layer_norm(tape: Tape, node: NodeProto, g: str) -> str:
    """Ba et al. 2016; the mean and the inverse deviation are outputs the operator offers."""
    attributes = attributes_of(node)
    x = node.input[0]
    axis = int(attributes.get("axis", -1)) % tape.rank(x)
    axes = list(range(axis, tape.rank(x)))
    shape = [1 if i in axes else dim for i, dim in enumerate(tape.shape(x))]
    mean, inverse = (f"{node.output[0]}_{what}" for what in ("mean", "inverse"))
    if len(node.output) == 1:
        node.output.extend([mean, inverse])
        tape.declare(mean, shape)
        tape.declare(inverse, shape)
    normed = tape.mul(tape.sub(x, mean), inverse)
    scaled = tape.mul(g, node.input[1])
    along = tape.mul(normed, tape.mean(tape.mul(scaled, normed), axes))
    return tape.mul(tape.sub(tape.sub(scaled, tape.mean(scaled, axes)), along), inverse)


def _batch_norm(tape: Tape, node: NodeProto, g: str) -> str:
    """In evaluation the statistics are fixed, so it only scales each channel."""
    scale, variance = tape.fixed(node, 1), tape.fixed(node, 4)
    factor = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    shape = (len(factor), *(1,) * (tape.rank(g) - 2))
    return tape.mul(g, tape.floats(*factor.tolist(), shape=shape))


# One input that changes its shape.


def _reshape(tape: Tape, node: NodeProto, g: str) -> str:
    return tape.reshape_like(g, node.input[0])


def _transpose(tape: Tape, node: NodeProto, g: str) -> str:
    n = tape.rank(g)
    perm = attributes_of(node).get("perm", list(range(n))[::-1])
    return tape.transpose(g, [list(perm).index(i) for i in range(n)])


def _expand(tape: Tape, node: NodeProto, g: str) -> str:
    return tape.unbroadcast(g, node.input[0])


def _reduced_axes(tape: Tape, node: NodeProto) -> list[int]:
    """Read the axes of a reduction: an input since opset 18, all of them when there is none."""
    n = tape.rank(node.input[0])
    if len(node.input) < 2 or not node.input[1]:
        if attributes_of(node).get("noop_with_empty_axes", 0):
            return []
        return list(range(n))
    return sorted(int(axis) % n for axis in tape.fixed(node, 1))


def _reduce_sum(tape: Tape, node: NodeProto, g: str) -> str:
    x = node.input[0]
    shape = list(tape.shape(x))
    axes = _reduced_axes(tape, node)
    kept = [1 if i in axes else dim for i, dim in enumerate(shape)]
    if not attributes_of(node).get("keepdims", 1):
        g = tape.emit("Unsqueeze", [g, tape.ints(*axes)], kept)
    return tape.emit("Expand", [g, tape.shape_of(x)], shape)


def _reduce_mean(tape: Tape, node: NodeProto, g: str) -> str:
    x = node.input[0]
    axes = _reduced_axes(tape, node)
    lengths = [tape.length_of(x, axis) for axis in axes]
    count = lengths[0]
    for length in lengths[1:]:
        count = tape.emit("Mul", [count, length], [1], of_ints=True)
    number = tape.emit("Cast", [count], [1], to=1)
    return tape.div(_reduce_sum(tape, node, g), number)


def _slice(tape: Tape, node: NodeProto, g: str) -> str:
    """Put zeros back where something was cut off or passed over."""
    x, n = node.input[0], tape.rank(node.input[0])
    starts = tape.fixed(node, 1).tolist()
    given = len(node.input) > 3 and node.input[3]
    axes = tape.fixed(node, 3).tolist() if given else list(range(len(starts)))
    steps = tape.fixed(node, 4).tolist() if len(node.input) > 4 else [1] * len(starts)
    if min(steps) < 1:
        raise ExportError("the gradient of Slice is known for steps forwards alone")
    before, after = [tape.ints(0)] * n, [tape.ints(0)] * n
    for start, axis, step in zip(starts, axes, steps, strict=True):
        g = _spread(tape, g, axis % n, step)
        whole, left = tape.length_of(x, axis), tape.length_of(g, axis)
        first = tape.ints(start)
        if start < 0:
            first = tape.emit("Add", [whole, first], [1], of_ints=True)
        before[axis] = first
        cut = tape.emit("Sub", [whole, left], [1], of_ints=True)
        # Below zero where the last step led past the end: its zeros are taken off again.
        after[axis] = tape.emit("Sub", [cut, first], [1], of_ints=True)
    pads = tape.emit("Concat", [*before, *after], [2 * n], of_ints=True, axis=0)
    return tape.emit("Pad", [g, pads, tape.floats(0.0)], tape.shape(x))


def _spread(tape: Tape, g: str, axis: int, step: int) -> str:
    """Put zeros after each entry along an axis, so that it takes as many places as a step."""
    if step == 1:
        return g
    n, shape = tape.rank(g), list(tape.shape(g))
    length = shape[axis]
    last = [i for i in range(n) if i != axis] + [axis]
    moved = tape.transpose(g, last)
    rows = [*(shape[i] for i in last), 1]
    parts = tape.emit("Unsqueeze", [moved, tape.ints(n)], rows)
    pads = tape.ints(*[0] * (2 * n + 1), step - 1)
    parts = tape.emit("Pad", [parts, pads, tape.floats(0.0)], [*rows[:-1], step])
    rows[-2:] = [length * step if isinstance(length, int) else f"({length}) * {step}"]
    joined = tape.emit("Reshape", [parts, tape.ints(*[0] * (n - 1), -1)], rows)
    return tape.transpose(joined, [last.index(i) for i in range(n)])


def _pad(tape: Tape, node: NodeProto, g: str) -> str:
    """Cut off what was put on; a pad below zero had cut off, and zeros come back."""
    if attributes_of(node).get("mode", "constant") != "constant":
        raise ExportError("the gradient of Pad is known for constant padding alone")
    pads = tape.fixed(node, 1)
    if len(node.input) > 3 and node.input[3]:
        raise ExportError("the gradient of Pad is known when it names all axes alone")
    back = tape.ints(*(-pads).tolist())
    return tape.emit("Pad", [g, back, tape.floats(0.0)], tape.shape(node.input[0]))


def _gather(tape: Tape, node: NodeProto, g: str) -> str:
    """Add each picked slice's gradient back to the place it came from."""
    x, picked = node.input[0], node.input[1]
    axis = int(attributes_of(node).get("axis", 0)) % tape.rank(x)
    shape = tape.shape(x)
    if tape.rank(picked) != 0 and tape.rank(picked) != 1:
        raise ExportError("the gradient of Gather is known for a row of indices alone")
    count = 1 if tape.rank(picked) == 0 else tape.shape(picked)[0]
    rows: list[Dim] = [count if i == axis else dim for i, dim in enumerate(shape)]
    if tape.rank(picked) == 0:
        g = tape.emit("Unsqueeze", [g, tape.ints(axis)], rows)
    ones = [-1 if i == axis else 1 for i in range(len(shape))]
    index = tape.emit("Reshape", [picked, tape.ints(*ones)], ones, of_ints=True)
    index = tape.emit("Expand", [index, tape.shape_of(g)], rows, of_ints=True)
    return tape.emit(
        "ScatterElements", [tape.zeros_like(x), index, g], shape, axis=axis, reduction="add"
    )


def _gather_elements(tape: Tape, node: NodeProto, g: str) -> str:
    """Add each picked number's gradient back to the place it came from."""
    x = node.input[0]
    axis = int(attributes_of(node).get("axis", 0))
    return tape.emit(
        "ScatterElements",
        [tape.zeros_like(x), node.input[1], g],
        tape.shape(x),
        axis=axis,
        reduction="add",
    )


def _cast(tape: Tape, node: NodeProto, g: str) -> str:
    return g  # between real numbers of the one precision there is


def _max_pool(tape: Tape, node: NodeProto, g: str) -> str:
    """Send each gradient to the pixel that was the largest, whose place the operator offers."""
    x = node.input[0]
    if len(node.output) == 1:
        node.output.append(f"{node.output[0]}_indices")
        tape.declare(node.output[1], tape.shape(node.output[0]), of_ints=True)
    flat = tape.ints(-1)
    zeros = tape.emit("Reshape", [tape.zeros_like(x), flat], [f"{x} flat"])
    size = f"{node.output[0]} flat"
    index = tape.emit("Reshape", [node.output[1], flat], [size], of_ints=True)
    values = tape.emit("Reshape", [g, flat], [size])
    scattered = tape.emit(
        "ScatterElements", [zeros, index, values], [f"{x} flat"], axis=0, reduction="add"
    )
    return tape.reshape_like(scattered, x)


def _average_pool(tape: Tape, node: NodeProto, g: str) -> str:
    """Share each gradient out over its window: a transposed convolution with equal weights."""
    attributes = attributes_of(node)
    x, kernel = node.input[0], attributes["kernel_shape"]
    pads = attributes.get("pads", [0] * (2 * len(kernel)))
    if attributes.get("ceil_mode", 0) or (any(pads) and not attributes.get("count_include_pad", 0)):
        raise ExportError(
            "the gradient of AveragePool is known when padding counts and no window is cut alone"
        )
    channels = tape.shape(x)[1]
    assert isinstance(channels, int)
    weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel))
    weights = tape.floats(*weight.ravel().tolist(), shape=weight.shape)
    strides = attributes.get("strides", [1] * len(kernel))
    return _transposed(tape, g, x, weights, kernel, strides, pads, [1] * len(kernel), channels)


def _global_average_pool(tape: Tape, node: NodeProto, g: str) -> str:
    x = node.input[0]
    area = [dim for dim in tape.shape(x)[2:] if isinstance(dim, int)]
    if len(area) != tape.rank(x) - 2:
        raise ExportError("the gradient of GlobalAveragePool is known for images of fixed size")
    even = tape.scale(g, 1 / math.prod(area))
    return tape.emit("Expand", [even, tape.shape_of(x)], tape.shape(x))


# Several inputs.


def _matmul(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g, (a, b) = _single(given), node.input
    if min(tape.rank(a), tape.rank(b)) < 2:
        raise ExportError("the gradient of MatMul is known for matrices alone, not for rows")

    def to_left() -> str:
        shape = (*tape.shape(g)[:-1], tape.shape(a)[-1])
        return tape.emit("MatMul", [g, tape.swap_last(b)], shape)

    def to_right() -> str:
        lead = tape.shape(g)[:-2]
        shape = (*lead, tape.shape(a)[-1], tape.shape(g)[-1])
        return tape.emit("MatMul", [tape.swap_last(a), g], shape)

    return _gather_up(tape, node, needed, [to_left, to_right])


def _einsum(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    """Put the output's gradient in the place of each of two factors."""
    g, equation = _single(given), str(attributes_of(node)["equation"]).replace(" ", "")
    terms, _, output = equation.partition("->")
    names = terms.split(",")
    plain = all(name.isalpha() and len(set(name)) == len(name) for name in (*names, output))
    if len(names) != 2 or not plain or not (set(names[0]) ^ set(names[1])) <= set(output):
        raise ExportError(
            f"the gradient of Einsum is known for two factors whose axes each stand in the other "
            f"or in the output, not for {equation!r}"
        )

    def to(own: int) -> Callable[[], str]:
        other = 1 - own
        turned = f"{output},{names[other]}->{names[own]}"
        shape = tape.shape(node.input[own])
        return lambda: tape.emit("Einsum", [g, node.input[other]], shape, equation=turned)

    return _gather_up(tape, node, needed, [to(0), to(1)])


def _gemm(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g, attributes = _single(given), attributes_of(node)
    a, b = node.input[:2]
    across, flipped = attributes.get("transA", 0), attributes.get("transB", 0)
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)

    def multiply(left: str, right: str, like: str, turn: tuple[int, int]) -> str:
        return tape.emit(
            "Gemm", [left, right], tape.shape(like), alpha=alpha, transA=turn[0], transB=turn[1]
        )

    def to_left() -> str:
        if across:
            return multiply(b, g, a, (int(flipped), 1))
        return multiply(g, b, a, (0, 1 - int(flipped)))

    def to_right() -> str:
        if flipped:
            return multiply(g, a, b, (1, int(across)))
        return multiply(a, g, b, (1 - int(across), 0))

    return _gather_up(tape, node, needed, [to_left, to_right, lambda: tape.scale(g, beta)])


def _concat(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    g = _single(given)
    axis = int(attributes_of(node)["axis"]) % tape.rank(g)
    found: dict[str, str] = {}
    start = tape.ints(0)
    for name, wanted in zip(node.input, needed, strict=True):
        end = tape.emit("Add", [start, tape.length_of(name, axis)], [1], of_ints=True)
        if wanted:
            part = tape.emit("Slice", [g, start, end, tape.ints(axis)], tape.shape(name))
            found[name] = part if name not in found else tape.add(found[name], part)
        start = end
    return found


def _split(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    axis = int(attributes_of(node).get("axis", 0))
    parts = [
        tape.zeros_like(name) if gradient is None else gradient
        for name, gradient in zip(node.output, given, strict=True)
    ]
    return {node.input[0]: tape.emit("Concat", parts, tape.shape(node.input[0]), axis=axis)}


def _conv(
    tape: Tape, node: NodeProto, given: Sequence[str | None], needed: Sequence[bool]
) -> Mapping[str, str]:
    """Convolve the gradient with the weights turned around; with strides, convolve backwards."""
    if any(needed[1:]):
        raise ExportError("the gradient of Conv is known for fixed weights alone")
    g, attributes = _single(given), attributes_of(node)
    x, weights = node.input[:2]
    n = tape.rank(x) - 2
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise ExportError("the gradient of Conv is known for explicit padding alone")
    kernel = [int(dim) for dim in tape.shape(weights)[2:]]
    strides = list(attributes.get("strides", [1] * n))
    dilations = list(attributes.get("dilations", [1] * n))
    pads = list(attributes.get("pads", [0] * (2 * n)))
    group = int(attributes.get("group", 1))
    depthwise = group > 1 and tape.shape(weights)[:2] == (group, 1)
    if max(strides) > 1 or (group > 1 and not depthwise):
        return {x: _transposed(tape, g, x, weights, kernel, strides, pads, dilations, group)}
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    ahead = [r - p for r, p in zip(reach, pads[:n], strict=True)]
    behind = [r - p for r, p in zip(reach, pads[n:], strict=True)]
    if min(*ahead, *behind) < 0:
        raise ExportError("the gradient of Conv is known for padding within its kernel alone")
    turned = weights if depthwise else tape.transpose(weights, (1, 0, *range(2, n + 2)))
    if kernel != [1] * n:
        turned = _turn_around(tape, turned)
    back = tape.emit(
        "Conv",
        [g, turned],
        tape.shape(x),
        kernel_shape=kernel,
        dilations=dilations,
        group=group,
        pads=[*ahead, *behind],
    )
    return {x: back}


def _turn_around(tape: Tape, weights: str) -> str:
    """Reverse a kernel along every axis of space."""
    n = tape.rank(weights) - 2
    ends = tape.ints(*[-(2**31)] * n)
    ones = tape.ints(*[-1] * n)
    axes = tape.ints(*range(2, n + 2))
    return tape.emit("Slice", [weights, ones, ends, axes, ones], tape.shape(weights))


def _crop(tape: Tape, whole: str, like: str) -> str:
    """Leave off what lies behind a value's own size in space."""
    n = tape.rank(like) - 2
    sizes = [tape.length_of(like, i) for i in range(2, n + 2)]
    ends = tape.emit("Concat", sizes, [n], of_ints=True, axis=0)
    axes = tape.ints(*range(2, n + 2))
    return tape.emit("Slice", [whole, tape.ints(*[0] * n), ends, axes], tape.shape(like))


def _transposed(
    tape: Tape,
    g: str,
    x: str,
    weights: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> str:
    """Convolve backwards as one operator, then cut to size.

    A forward convolution leaves off up to ``stride - 1`` pixels at the end, which get a gradient of
    zero: so much is added as output padding, and what is too much is cropped.
    """
    n = len(kernel)
    whole = tape.emit(
        "ConvTranspose",
        [g, weights],
        (*tape.shape(x)[:2], *(f"{x} {i}" for i in range(n))),
        kernel_shape=list(kernel),
        strides=list(strides),
        dilations=list(dilations),
        group=group,
        pads=list(pads),
        output_padding=[stride - 1 for stride in strides],
    )
    return whole if list(strides) == [1] * n else _crop(tape, whole, x)


RULES: Mapping[str, Rule] = {
    "Abs": _elementwise(_abs),
    "Add": _add,
    "AveragePool": _elementwise(_average_pool),
    "BatchNormalization": _elementwise(_batch_norm),
    "Cast": _elementwise(_cast),
    "Clip": _elementwise(_clip),
    "Concat": _concat,
    "Conv": _conv,
    "Div": _div,
    "Einsum": _einsum,
    "Erf": _elementwise(_erf),
    "Exp": _elementwise(lambda tape, node, g: tape.mul(g, node.output[0])),
    "Expand": _elementwise(_expand),
    "Flatten": _elementwise(_reshape),
    "Gather": _elementwise(_gather),
    "GatherElements": _elementwise(_gather_elements),
    "Gelu": _elementwise(_gelu),
    "Gemm": _gemm,
    "GlobalAveragePool": _elementwise(_global_average_pool),
    "Identity": _elementwise(lambda tape, node, g: g),
    "LSTM": lstm,
    "LayerNormalization": _elementwise(_layer_norm),
    "LeakyRelu": _elementwise(_leaky_relu),
    "Log": _elementwise(lambda tape, node, g: tape.div(g, node.input[0])),
    "LogSoftmax": _elementwise(_log_softmax),
    "MatMul": _matmul,
    "Max": _extreme,
    "MaxPool": _elementwise(_max_pool),
    "Min": _extreme,
    "Mul": _mul,
    "Neg": _elementwise(lambda tape, node, g: tape.same("Neg", g)),
    "Pad": _elementwise(_pad),
    "Pow": _elementwise(_pow),
    "Reciprocal": _elementwise(_reciprocal),
    "ReduceMean": _elementwise(_reduce_mean),
    "ReduceSum": _elementwise(_reduce_sum),
    "Relu": _elementwise(_relu),
    "Reshape": _elementwise(_reshape),
    "Sigmoid": _elementwise(_sigmoid),
    "Slice": _elementwise(_slice),
    "Softmax": _elementwise(_softmax),
    "Softplus": _elementwise(
        lambda tape, node, g: tape.mul(g, tape.same("Sigmoid", node.input[0]))
    ),
    "Split": _split,
    "Sqrt": _elementwise(_sqrt),
    "Squeeze": _elementwise(_reshape),
    "Sub": _sub,
    "Sum": _add,
    "Tanh": _elementwise(_tanh),
    "Transpose": _elementwise(_transpose),
    "Unsqueeze": _elementwise(_reshape),
    "Where": _where,
}
