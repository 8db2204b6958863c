"""Reductions, running sums, and the largest entries."""

from __future__ import annotations

from minigraph.core.dim import product
from minigraph.core.dtypes import NARROW
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, writes
from minigraph.onnx.expression import HELD
from minigraph.onnx.nodes import expanded
from minigraph.ops import reduce
from minigraph.ops.broadcast import sum as total
from minigraph.ops.index import topk
from minigraph.ops.scan import cumsum
from minigraph.ops.softmax import log_softmax, softmax

OPERATORS = {
    total: "ReduceSum",
    reduce.mean: "ReduceMean",
    reduce.max: "ReduceMax",
    reduce.min: "ReduceMin",
    reduce.prod: "ReduceProd",
    reduce.logsumexp: "ReduceLogSumExp",
}


def wide(dtype: str) -> str:
    """The dtype to compute in: narrow floats in float32, and integers that operators do not know in larger ones."""
    return "float32" if dtype in NARROW else HELD.get(dtype, dtype)


@writes(*OPERATORS)
def write_reduction(draft: Draft, node: Node, x: str) -> str:
    data, dtype = node.inputs[0].type, node.inputs[0].type.dtype
    if node.op is reduce.mean and product(data.shape[axis] for axis in node.attrs["axes"]) == 0:
        return expanded(draft, node, [x])[0]  # NaN; of no numbers ONNX says nothing, and ONNX Runtime says 0
    found = reduced(draft, OPERATORS[node.op], draft.cast(x, dtype, wide(dtype)), node)
    return draft.cast(found, wide(dtype), dtype)


def reduced(draft: Draft, operator: str, x: str, node: Node) -> str:
    axes = draft.array(node.attrs["axes"])
    return draft.add(operator, x, axes, keepdims=int(node.attrs["keepdims"]), noop_with_empty_axes=1)


@writes(reduce.all, reduce.any)
def write_truths(draft: Draft, node: Node, x: str) -> str:
    """Any is whether more than none are true; all, whether no more than none are false."""
    none = draft.array(0)
    if node.op is reduce.any:
        return draft.add("Less", none, reduced(draft, "ReduceSum", draft.cast(x, "bool", "int64"), node))
    false = draft.cast(draft.add("Not", x), "bool", "int64")
    return draft.add("Equal", none, reduced(draft, "ReduceSum", false, node))


@writes(reduce.argmax, reduce.argmin)
def write_position(draft: Draft, node: Node, x: str) -> str:
    operator = "ArgMax" if node.op is reduce.argmax else "ArgMin"
    dtype = node.inputs[0].type.dtype
    x = draft.cast(x, dtype, wide(dtype))
    return draft.add(operator, x, axis=node.attrs["axis"], keepdims=int(node.attrs["keepdims"]))


@writes(topk)
def write_topk(draft: Draft, node: Node, x: str) -> tuple[str, str]:
    dtype, axis = node.inputs[0].type.dtype, node.attrs["axis"]
    k, largest = draft.array([node.attrs["k"]]), int(node.attrs["largest"])
    values, indices = draft.add("TopK", draft.cast(x, dtype, wide(dtype)), k, outputs=2, axis=axis, largest=largest)
    return draft.cast(values, wide(dtype), dtype), indices


@writes(cumsum)
def write_cumsum(draft: Draft, node: Node, x: str) -> str:
    dtype, flags = node.inputs[0].type.dtype, {name: int(node.attrs[name]) for name in ("exclusive", "reverse")}
    found = draft.add("CumSum", draft.cast(x, dtype, wide(dtype)), draft.array(node.attrs["axis"]), **flags)
    return draft.cast(found, wide(dtype), dtype)


@writes(softmax, log_softmax)
def write_softmax(draft: Draft, node: Node, x: str) -> str:
    return draft.add("Softmax" if node.op is softmax else "LogSoftmax", x, axis=node.attrs["axis"])
