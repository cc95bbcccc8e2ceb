"""The gradient of a graph: every operator against torch's autograd, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from medfuse.errors import ExportError
from medfuse_export.gradient import add_gradients
from medfuse_export.rules import RULES

Arrays = dict[str, Any]


def make_model(
    op: str, inputs: Arrays, fixed: Arrays, out: tuple[int, ...], **attributes: Any
) -> onnx.ModelProto:
    """Write a graph of one node; its float inputs are the graph's, what is fixed is in it."""
    node = helper.make_node(op, [*inputs, *fixed], ["y"], name="the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in inputs.items()]
        + [helper.make_tensor_value_info("weights", TensorProto.FLOAT, out)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(v, k) for k, v in fixed.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def differentiate(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """Give the gradient to each of the graph's inputs but the weights."""
    wanted = {v.name: f"{v.name}_gradient" for v in model.graph.input if v.name != "weights"}
    add_gradients(model, "y", "weights", wanted)
    known = {v.name: v for v in model.graph.value_info}
    model.graph.output.extend(known[name] for name in wanted.values())
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True), True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(list(wanted.values()), feed)
    return dict(zip(wanted, found, strict=True))


def draw(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


Case = tuple[str, Arrays, Arrays, Callable[..., Tensor], dict[str, Any]]
X = {"x": draw(2, 3, 4)}
POSITIVE = {"x": draw(2, 3, 4, low=0.3, high=3.0)}
MAPS = {"x": draw(2, 4, 6, 7)}
KERNEL = torch.from_numpy(draw(6, 4, 3, 3, seed=5))
DEPTHWISE = torch.from_numpy(draw(4, 1, 3, 3, seed=6))
GROUPED = torch.from_numpy(draw(6, 2, 3, 3, seed=7))
SCALE, SHIFT = draw(4, seed=8, low=0.5, high=2.0), draw(4, seed=9)
MEAN, VARIANCE = draw(4, seed=10), draw(4, seed=11, low=0.2, high=2.0)


def conv(name: str, weight: Tensor, **options: Any) -> Case:
    n = options.pop("name", name)
    stride, padding = options.get("stride", 1), options.get("padding", 0)
    dilation, groups = options.get("dilation", 1), options.get("groups", 1)
    attributes = {
        "strides": [stride] * 2,
        "pads": [padding] * 4,
        "dilations": [dilation] * 2,
        "group": groups,
        "kernel_shape": list(weight.shape[2:]),
    }
    return (
        n,
        MAPS,
        {"w": weight.numpy()},
        lambda x: functional.conv2d(x, weight, None, stride, padding, dilation, groups),
        attributes,
    )


def lstm(*, steps: int, studies: int) -> Case:
    torch.manual_seed(steps)
    network = torch.nn.LSTM(3, 5).requires_grad_(False)

    def reorder(gates: Tensor) -> Tensor:
        """From torch's input, forget, cell, output to ONNX's input, output, forget, cell."""
        i, f, c, o = gates.chunk(4)
        return torch.cat([i, o, f, c])

    parts = [
        reorder(2 * getattr(network, f"{name}_l0"))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    for name, value in network.named_parameters():
        getattr(network, name).copy_(2 * value)  # so that gates bend
    fixed = {"w": parts[0][None], "r": parts[1][None], "b": torch.cat(parts[2:])[None]}
    return (
        "LSTM",
        {"x": draw(steps, studies, 3)},
        {name: value.numpy() for name, value in fixed.items()},
        lambda x: network(x)[0][:, None],
        {"hidden_size": 5},
    )


CASES: list[Case] = [
    ("Abs", X, {}, torch.abs, {}),
    ("Add", X | {"b": draw(3, 1, seed=1)}, {}, torch.add, {}),
    ("Add", {"x": draw(1, 4)} | {"b": draw(2, 3, 4, seed=1)}, {}, torch.add, {}),
    (
        "AveragePool",
        MAPS,
        {},
        lambda x: functional.avg_pool2d(x, 2),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    (
        "AveragePool",
        MAPS,
        {},
        lambda x: functional.avg_pool2d(x, 3, 2),
        {"kernel_shape": [3, 3], "strides": [2, 2]},
    ),
    (
        "BatchNormalization",
        MAPS,
        {"s": SCALE, "b": SHIFT, "m": MEAN, "v": VARIANCE},
        lambda x: functional.batch_norm(
            x,
            torch.from_numpy(MEAN),
            torch.from_numpy(VARIANCE),
            torch.from_numpy(SCALE),
            torch.from_numpy(SHIFT),
            eps=1e-3,
        ),
        {"epsilon": 1e-3},
    ),
    (
        "Clip",
        X,
        {"low": np.float32(-0.5), "high": np.float32(1.0)},
        lambda x: x.clamp(-0.5, 1.0),
        {},
    ),
    (
        "Clip",
        {"x": 3 * draw(2, 4, 5, 5)},
        {"low": np.float32(0), "high": np.float32(6)},
        functional.relu6,
        {},
    ),
    (
        "Concat",
        X | {"b": draw(2, 5, 4, seed=1)},
        {},
        lambda x, b: torch.cat([x, b], 1),
        {"axis": 1},
    ),
    conv("Conv", KERNEL),
    conv("Conv", KERNEL, padding=1),
    conv("Conv", KERNEL, padding=1, stride=2),
    conv("Conv", KERNEL, padding=2, dilation=2),
    conv("Conv", DEPTHWISE, padding=1, groups=4),
    conv("Conv", DEPTHWISE, padding=1, groups=4, stride=2),
    conv("Conv", GROUPED, padding=1, groups=2),
    conv("Conv", KERNEL[:, :, :1, :1]),
    conv("Conv", KERNEL[:, :, :1, :1], stride=2),
    conv("Conv", KERNEL[:, :, :2, :2], stride=3),
    ("Div", X | {"b": draw(4, seed=1, low=0.5, high=2.0)}, {}, torch.div, {}),
    ("Erf", X, {}, torch.erf, {}),
    ("Exp", X, {}, torch.exp, {}),
    ("Expand", {"x": draw(2, 1, 4)}, {"to": ints(2, 3, 4)}, lambda x: x.expand(2, 3, 4), {}),
    ("Flatten", X, {}, lambda x: x.flatten(1), {}),
    ("Gather", X, {"at": ints(2, 0, 2)}, lambda x: x[:, [2, 0, 2]], {"axis": 1}),
    ("Gather", X, {"at": np.array(1)}, lambda x: x[:, 1], {"axis": 1}),
    (
        "GatherElements",
        X,
        {"at": np.array([[[2, 0, 2, 1]], [[0, 0, 1, 1]]])},
        lambda x: x.gather(1, torch.tensor([[[2, 0, 2, 1]], [[0, 0, 1, 1]]])),
        {"axis": 1},
    ),
    ("Gelu", X, {}, functional.gelu, {}),
    (
        "Gemm",
        {"x": draw(2, 3)},
        {"w": draw(3, 5, seed=1), "b": draw(5)},
        lambda x: 0.5 * x @ torch.from_numpy(draw(3, 5, seed=1)) + torch.from_numpy(draw(5)),
        {"alpha": 0.5},
    ),
    (
        "Gemm",
        {"x": draw(2, 3)},
        {"w": draw(5, 3, seed=1)},
        lambda x: x @ torch.from_numpy(draw(5, 3, seed=1)).T,
        {"transB": 1},
    ),
    ("Gemm", {"x": draw(3, 2), "b": draw(3, 5, seed=1)}, {}, lambda x, b: x.T @ b, {"transA": 1}),
    (
        "Gemm",
        {"x": draw(3, 2), "b": draw(5, 3, seed=1)},
        {},
        lambda x, b: x.T @ b.T,
        {"transA": 1, "transB": 1},
    ),
    ("GlobalAveragePool", MAPS, {}, lambda x: x.mean((2, 3), keepdim=True), {}),
    ("Identity", X, {}, lambda x: x * 1, {}),
    (
        "LayerNormalization",
        X,
        {"s": SCALE, "b": SHIFT},
        lambda x: functional.layer_norm(
            x, (4,), torch.from_numpy(SCALE), torch.from_numpy(SHIFT), eps=1e-3
        ),
        {"axis": -1, "epsilon": 1e-3},
    ),
    lstm(steps=1, studies=1),
    lstm(steps=7, studies=2),
    (
        "Einsum",
        {"a": draw(2, 3, 4), "b": draw(2, 5, 4, seed=1)},
        {},
        lambda a, b: torch.einsum("nxd,nyd->nxy", a, b),
        {"equation": "nxd,nyd->nxy"},
    ),
    (
        "Einsum",
        {"a": draw(2, 3, 4), "b": draw(4, 5, seed=1)},
        {},
        lambda a, b: torch.einsum("nxd,dy->ynx", a, b),
        {"equation": "nxd, dy -> ynx"},
    ),
    ("LeakyRelu", X, {}, lambda x: functional.leaky_relu(x, 0.2), {"alpha": 0.2}),
    ("Log", POSITIVE, {}, torch.log, {}),
    ("LogSoftmax", X, {}, lambda x: x.log_softmax(1), {"axis": 1}),
    ("MatMul", X | {"b": draw(2, 4, 5, seed=1)}, {}, torch.matmul, {}),
    ("MatMul", X | {"b": draw(4, 5, seed=1)}, {}, torch.matmul, {}),
    ("Max", X | {"b": draw(3, 1, seed=1)}, {}, torch.maximum, {}),
    (
        "MaxPool",
        MAPS,
        {},
        lambda x: functional.max_pool2d(x, 3, 2, 1),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    ("Min", X | {"b": draw(3, 1, seed=1)}, {}, torch.minimum, {}),
    ("Mul", X | {"b": draw(4, seed=1)}, {}, torch.mul, {}),
    ("Neg", X, {}, torch.neg, {}),
    ("Pad", X, {"pads": ints(0, 1, -1, 0, 2, 0)}, lambda x: functional.pad(x, (-1, 0, 1, 2)), {}),
    ("Pow", X, {"p": np.float32(2)}, lambda x: x**2, {}),
    ("Pow", POSITIVE, {"p": np.float32(1.5)}, lambda x: x**1.5, {}),
    ("Reciprocal", POSITIVE, {}, torch.reciprocal, {}),
    ("ReduceMean", X, {"axes": ints(0, 2)}, lambda x: x.mean((0, 2)), {"keepdims": 0}),
    ("ReduceSum", X, {"axes": ints(-2)}, lambda x: x.sum(1, keepdim=True), {}),
    ("Relu", X, {}, torch.relu, {}),
    ("Relu", MAPS, {}, torch.relu, {}),
    ("Reshape", X, {"to": ints(4, -1)}, lambda x: x.reshape(4, -1), {}),
    ("Sigmoid", X, {}, torch.sigmoid, {}),
    (
        "Slice",
        X,
        {"s": ints(1, -3), "e": ints(3, 3), "a": ints(1, 2)},
        lambda x: x[:, 1:3, -3:3],
        {},
    ),
    *[
        (
            "Slice",
            MAPS,
            {"s": ints(*starts), "e": ints(9, 9), "a": ints(2, -1), "t": ints(2, 3)},
            lambda x, starts=starts: x[:, :, starts[0] :: 2, starts[1] :: 3],
            {},
        )
        for starts in ((0, 1), (1, 0), (1, -2))  # the last step ends on the edge or past it
    ],
    ("Softmax", X, {}, lambda x: x.softmax(1), {"axis": 1}),
    ("Softplus", X, {}, functional.softplus, {}),
    ("Sqrt", POSITIVE, {}, torch.sqrt, {}),
    ("Squeeze", {"x": draw(2, 1, 3)}, {"a": ints(1)}, lambda x: x.squeeze(1), {}),
    ("Sub", {"x": draw(4)} | {"b": draw(2, 3, 4, seed=1)}, {}, torch.sub, {}),
    ("Sum", X | {"b": draw(3, 4, seed=1)}, {}, torch.add, {}),
    ("Tanh", X, {}, torch.tanh, {}),
    ("Transpose", X, {}, lambda x: x.permute(2, 0, 1), {"perm": [2, 0, 1]}),
    ("Unsqueeze", X, {"a": ints(1)}, lambda x: x[:, None], {}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "fixed", "torch_op", "attributes"),
    CASES,
    ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)],
)
def test_an_operator_is_differentiated_as_torch_does(
    op: str,
    inputs: Arrays,
    fixed: Arrays,
    torch_op: Callable[..., Tensor],
    attributes: dict[str, Any],
) -> None:
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in inputs.values()]
    y = torch_op(*leaves)
    weights = draw(*y.shape, seed=20)
    expected = torch.autograd.grad((y * torch.from_numpy(weights)).sum(), leaves)
    model = make_model(op, inputs, fixed, tuple(y.shape), **attributes)
    found = differentiate(model, inputs | {"weights": weights})
    for name, gradient in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(found[name], gradient, rtol=2e-5, atol=2e-6, err_msg=name)


def test_every_rule_is_tested() -> None:
    # Where, Split and Cast have tests of their own.
    assert {case[0] for case in CASES} | {"Where", "Split", "Cast"} == set(RULES)


@pytest.mark.parametrize("rank", [2, 4])
def test_the_gradient_at_the_corners_of_a_clip_is_nothing_as_in_torch(rank: int) -> None:
    beside = [
        np.nextafter(np.float32(6), np.float32(0)),
        np.nextafter(np.float32(0), np.float32(1)),
    ]
    x = floats(-1.0, 0.0, 1e-20, 3.0, *beside, 6.0, 7.0).reshape((1, 8, 1, 1)[:rank])
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    model = make_model("Clip", {"x": x}, bounds, x.shape)
    found = differentiate(model, {"x": x, "weights": np.full_like(x, 2.0)})
    expected = [0, 0, 2, 2, 2, 2 if rank == 2 else 0, 0, 0]  # the last is a denormal number
    assert found["x"].ravel().tolist()[:5] == expected[:5]
    assert found["x"].ravel().tolist()[6:] == [0, 0]


def two_parts(
    nodes: list[onnx.NodeProto], fixed: Arrays, *, steer: bool = False
) -> onnx.ModelProto:
    shape = (2, 4)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "weights")]
    if steer:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, (2, 1)))
    graph = helper.make_graph(
        nodes,
        "parts",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v, k) for k, v in fixed.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def test_a_gradient_goes_where_the_mask_lets_the_value_through() -> None:
    node = helper.make_node("Where", ["mask", "x", "zero"], ["y"])
    model = two_parts([node], {"zero": np.float32(0)}, steer=True)
    wanted = {"x": "x_gradient"}
    add_gradients(model, "y", "weights", wanted)
    model.graph.output.extend(v for v in model.graph.value_info if v.name == "x_gradient")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x, weights = draw(2, 4), draw(2, 4, seed=1)
    feed = {"x": x, "weights": weights, "mask": np.array([[True], [False]])}
    (found,) = session.run(["x_gradient"], feed)
    assert found.tolist() == [weights[0].tolist(), [0.0] * 4]


def test_parts_of_a_split_and_a_cast_come_together_again() -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Cast", ["a"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["b", "c"], ["y"], axis=1),
    ]
    weights = draw(2, 4)
    model = two_parts(nodes, {"sizes": ints(1, 3)})
    found = differentiate(model, {"x": draw(2, 4), "weights": weights})
    assert found["x"].tolist() == weights[:, [3, 0, 1, 2]].tolist()


def test_a_value_that_is_used_twice_gets_both_gradients() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Add", ["square", "x"], ["y"]),
    ]
    x = draw(2, 4)
    found = differentiate(two_parts(nodes, {}), {"x": x, "weights": np.ones_like(x)})
    np.testing.assert_allclose(found["x"], 2 * x + 1, rtol=1e-6)


def test_a_recurrence_of_another_kind_is_refused_by_what_is_known() -> None:
    _, inputs, fixed, torch_op, attributes = lstm(steps=2, studies=1)
    shape = tuple(torch_op(torch.from_numpy(inputs["x"])).shape)
    for more in ({"direction": "reverse"}, {"clip": 1.0}):
        model = make_model("LSTM", inputs, fixed, shape, **attributes, **more)
        with pytest.raises(ExportError, match="gradient of LSTM is known for its states in one"):
            add_gradients(model, "y", "weights", {"x": "g"})


def test_an_operator_without_a_rule_is_refused_by_its_name() -> None:
    model = make_model("Sin", X, {}, (2, 3, 4))
    with pytest.raises(ExportError, match=r"gradient of the operator Sin is not known .*the_node"):
        add_gradients(model, "y", "weights", {"x": "g"})


@pytest.mark.parametrize("equation", ["ij->i", "ij,jk->k", "ii,ij->j", "...i,ij->...j", "ij,jk"])
def test_a_sum_of_products_whose_gradient_is_no_such_sum_is_refused(equation: str) -> None:
    names = ["x", "b"] if "," in equation else ["x"]
    node = helper.make_node("Einsum", names, ["y"], "the_node", equation=equation)
    fixed = {"b": draw(4, 4)} if len(names) > 1 else {}
    with pytest.raises(ExportError, match="gradient of Einsum is known for two factors"):
        add_gradients(two_parts([node], fixed), "y", "weights", {"x": "g"})


def test_a_gated_recurrent_unit_is_refused_by_its_name() -> None:
    _, inputs, _, _, attributes = lstm(steps=2, studies=1)
    fixed = {"w": draw(1, 15, 3), "r": draw(1, 15, 5)}
    model = make_model("GRU", inputs, fixed, (2, 1, 1, 5), **attributes)
    with pytest.raises(ExportError, match="gradient of the operator GRU is not known"):
        add_gradients(model, "y", "weights", {"x": "g"})


def test_a_graph_that_does_not_read_the_wanted_value_is_refused() -> None:
    nodes = [helper.make_node("Mul", ["fixed", "fixed"], ["y"])]
    with pytest.raises(ExportError, match="depends on none"):
        add_gradients(two_parts(nodes, {"fixed": draw(2, 4)}), "y", "weights", {"x": "g"})


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.integers(5, 12)
)
@settings(max_examples=25, deadline=None)
def test_any_convolution_is_the_adjoint_of_its_gradient(
    kernel: int, stride: int, padding: int, groups: int, side: int
) -> None:
    """<conv(x), w> = <x, gradient(w)> for linear maps, whatever is cut off at the edges."""
    if padding >= kernel or side + 2 * padding < kernel:
        return
    x = draw(1, 2 * groups, side, side)
    weight = draw(3 * groups, 2, kernel, kernel, seed=1)
    y = functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(weight), None, stride, padding, 1, groups
    ).numpy()
    weights = draw(*y.shape, seed=2)
    model = make_model(
        "Conv",
        {"x": x},
        {"w": weight},
        y.shape,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
        group=groups,
    )
    found = differentiate(model, {"x": x, "weights": weights})
    left, right = float((y * weights).sum()), float((x * found["x"]).sum())
    assert math.isclose(left, right, rel_tol=1e-4, abs_tol=1e-3)


def test_a_slice_that_goes_backwards_is_refused() -> None:
    fixed = {"s": ints(3), "e": ints(0), "a": ints(2), "t": ints(-1)}
    model = make_model("Slice", X, fixed, (2, 3, 3))
    with pytest.raises(ExportError, match="gradient of Slice is known for steps forwards alone"):
        add_gradients(model, "y", "weights", {"x": "x_gradient"})
