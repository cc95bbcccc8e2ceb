"""A graph in; the same graph with the gradient of its weighted outputs to chosen values out.

Reverse accumulation (Griewank & Walther 2008, chapter 3) over the nodes of the deployed graph
itself, so what is explained is what answers. Only gradients to activations are made, none to
weights. `medfuse_export.rules` says how each operator is differentiated.
"""

from collections.abc import Mapping

from onnx import ModelProto

from medfuse.errors import ExportError
from medfuse_export.rules import RULES
from medfuse_export.tape import Tape


def add_gradients(model: ModelProto, output: str, weights: str, wanted: Mapping[str, str]) -> None:
    """Add nodes that compute d(sum of weights * output) / d(value) for every wanted value.

    Args:
        model: Changed in place; every value's shape must be in its `value_info`.
        output: The value that is differentiated, such as the logits (B, K).
        weights: A graph input of the output's shape.
        wanted: For each value that a gradient is taken to, the name its gradient gets.

    Raises:
        ExportError: The way from a wanted value to the output leads through an operator whose
            gradient is not known, which the message names; or it does not lead there at all.
    """
    tape = Tape(model)
    nodes = list(model.graph.node)
    reached = set(wanted)  # what depends on a wanted value
    for node in nodes:
        if not reached.isdisjoint(node.input):
            reached |= {name for name in node.output if name and tape.is_float(name)}
    if output not in reached:
        raise ExportError(f"{output!r} of the graph depends on none of what is to be explained")

    gradients = {output: weights}
    for node in reversed(nodes):
        given = [gradients.get(name) for name in node.output]
        needed = [name in reached and tape.is_float(name) for name in node.input]
        if not any(given) or not any(needed):
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            raise ExportError(
                f"the gradient of the operator {node.op_type} is not known (node {node.name!r}), "
                "so this model cannot be explained by its own graph; build it from other "
                "operators, or export it without explanations"
            )
        for name, gradient in rule(tape, node, given, needed).items():
            known = gradients.get(name)
            gradients[name] = gradient if known is None else tape.add(known, gradient)

    for value, name in wanted.items():
        if value not in gradients:
            raise ExportError(f"{output!r} of the graph does not depend on {value!r}")
        tape.name(gradients[value], name)
