"""One-hot labels, and losses of labels. The other losses are written in smaller ops."""

from __future__ import annotations

from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, writes
from minigraph.onnx.nodes import expanded
from minigraph.ops.loss import cross_entropy, nll_loss, one_hot


@writes(one_hot)
def write_one_hot(draft: Draft, node: Node, labels: str) -> str:
    classes, axis, dtype = (node.attrs[name] for name in ("classes", "axis", "dtype"))
    inner = "float32" if dtype.startswith("float") else "int64"
    labels = draft.cast(labels, node.inputs[0].type.dtype, "int64")
    found = draft.add("OneHot", labels, draft.array(classes), draft.array([0, 1], inner), axis=axis)
    return draft.cast(found, inner, dtype)


@writes(cross_entropy, nll_loss)
def write_loss(draft: Draft, node: Node, x: str, labels: str, *class_weight: str) -> str:
    """ONNX smooths no labels, and has the classes along axis 1. Narrow floats would be added up as such; of no labels
    ONNX Runtime has no loss."""
    data, found = node.inputs[0].type, node.inputs[1].type
    if node.attrs.get("label_smoothing") or data.dtype not in ("float32", "float64") or 0 in data.shape:
        return expanded(draft, node, [x, labels, *class_weight])[0]
    operator = "SoftmaxCrossEntropyLoss" if node.op is cross_entropy else "NegativeLogLikelihoodLoss"
    first = draft.move(x, data.rank, node.attrs["axis"], 1)
    if found.dtype not in ("int32", "int64"):
        labels = draft.cast(labels, found.dtype, "int64")
    attrs = {name: node.attrs[name] for name in ("reduction", "ignore_index")}
    return draft.add(operator, first, labels, *class_weight, **attrs)
