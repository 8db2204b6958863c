"""Activations and other pointwise functions that ONNX has an operator for. The others go by their expressions."""

from __future__ import annotations

from minigraph.core import dim
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, holds, writes
from minigraph.onnx.expression import HELD, by_expression
from minigraph.ops import activation, pointwise

OPERATORS = {  # those whose attributes, if there are any, are called as those of the op
    pointwise.relu: "Relu",
    pointwise.reciprocal: "Reciprocal",
    activation.softsign: "Softsign",
    activation.mish: "Mish",
    activation.leaky_relu: "LeakyRelu",
    activation.thresholded_relu: "ThresholdedRelu",
    activation.hard_sigmoid: "HardSigmoid",
    activation.elu: "Elu",
    activation.celu: "Celu",
}


@writes(*OPERATORS)
def write_operator(draft: Draft, node: Node, x: str) -> str:
    of_float32_alone = node.op is activation.celu and node.inputs[0].type.dtype != "float32"
    if of_float32_alone or not holds(node.inputs[0].type.dtype, *node.attrs.values()):
        return by_expression(draft, node, x)
    return draft.add(OPERATORS[node.op], x, **node.attrs)


@writes(pointwise.stop_gradient)
def write_stop_gradient(draft: Draft, node: Node, x: str) -> str:
    return x


@writes(pointwise._cast)
def write_cast(draft: Draft, node: Node, x: str) -> str:
    return draft.cast(x, node.inputs[0].type.dtype, node.attrs["dtype"])


@writes(pointwise.isinf)
def write_isinf(draft: Draft, node: Node, x: str) -> str:
    attrs = {name: int(found) for name, found in node.attrs.items() if not found}
    return draft.add("IsInf", x, **attrs)


@writes(pointwise.clip)
def write_clip(draft: Draft, node: Node, x: str) -> str:
    dtype = node.inputs[0].type.dtype
    inner = HELD.get(dtype, dtype)
    low, high = ("" if bound is None else draft.array(bound, inner) for bound in node.attrs.values())
    found = draft.add("Clip", draft.cast(x, dtype, inner), low, *([high] if high else []))
    return draft.cast(found, inner, dtype)


@writes(activation.relu6)
def write_relu6(draft: Draft, node: Node, x: str) -> str:
    dtype = node.inputs[0].type.dtype
    return draft.add("Clip", x, draft.array(0, dtype), draft.array(6, dtype))


@writes(activation.selu)
def write_selu(draft: Draft, node: Node, x: str) -> str:
    if not holds(node.inputs[0].type.dtype, activation.SELU_ALPHA, activation.SELU_SCALE):
        return by_expression(draft, node, x)
    return draft.add("Selu", x, alpha=activation.SELU_ALPHA, gamma=activation.SELU_SCALE)


@writes(activation.hard_swish)
def write_hard_swish(draft: Draft, node: Node, x: str) -> str:
    return draft.add("HardSwish", x) if holds(node.inputs[0].type.dtype, 1 / 6) else by_expression(draft, node, x)


@writes(activation.gelu)
def write_gelu(draft: Draft, node: Node, x: str) -> str:
    if node.attrs["approximate"] == "tanh" and not holds(node.inputs[0].type.dtype, activation.CUBIC):
        return by_expression(draft, node, x)
    return draft.add("Gelu", x, approximate=node.attrs["approximate"])


@writes(activation._prelu)
def write_prelu(draft: Draft, node: Node, x: str, slope: str) -> str:
    """ONNX repeats the slopes to the shape of x, and not x to that of the slopes."""
    shape, slopes = (value.type.shape for value in node.inputs)
    if dim.broadcast(shape, slopes) != shape:
        return by_expression(draft, node, x, slope)
    return draft.add("PRelu", x, slope)
