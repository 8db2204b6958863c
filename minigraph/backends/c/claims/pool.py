"""Pooling and its gradients."""

from __future__ import annotations

from typing import Any

from minigraph.backends.c.claims.shapes import HEADERS, fields, two
from minigraph.backends.calls import Call, Pointers, dense
from minigraph.core.ir import Graph, Node, Value
from minigraph.ops import pool as pooled
from minigraph.ops.window import extents_of


def _pooling(node: Node, small: Value, large: Value) -> dict[str, Any] | None:
    """The fields of pooling `large` to `small`; None where the kernels do not serve it."""
    attrs, layout = node.attrs, node.attrs["layout"]
    sizes = (*small.type.shape[1:], *large.type.shape[1:])
    if layout[-1] != "C" or len(layout) > 4 or not all(isinstance(n, int) for n in sizes):
        return None
    (H, W), (P, Q) = two(extents_of(large.type, layout), 1), two(extents_of(small.type, layout), 1)
    (R, S), (sh, sw), (dh, dw) = (two(attrs[name], 1) for name in ("window", "stride", "dilation"))
    (top, _), (left, _) = two(attrs["padding"], (0, 0))
    counting = attrs.get("count_include_pad", False)
    if not isinstance(counting, tuple):
        counting = attrs["padding"] if counting else ((0, 0),) * len(attrs["padding"])
    (counted_top, counted_bottom), (counted_left, counted_right) = two(counting, (0, 0))
    return {
        "batch": large.type.shape[0], "C": large.type.shape[-1], "H": H, "W": W, "P": P, "Q": Q, "R": R, "S": S,
        "stride_h": sh, "stride_w": sw, "dilation_h": dh, "dilation_w": dw, "top": top, "left": left,
        "counted_top": counted_top, "counted_left": counted_left,
        "counted_bottom": counted_bottom, "counted_right": counted_right,
    }  # fmt: skip


def pool(graph: Graph, node: Node) -> Call | None:
    (x,), largest = node.inputs, str(node.op is pooled.max_pool).lower()
    shape = _pooling(node, node.outputs[0], x)
    if shape is None:
        return None

    def phases(p: Pointers) -> list[str]:
        arguments = f"{largest}, thread, threads, {p.operands[0]}, {p.result}, {fields('pooling_shape', shape)}"
        return [f"pooling({arguments}{p.finish});"]

    return Call(node, (*HEADERS, "pooling.h"), (dense(graph, x),), phases, finishes=True)


def pool_gradient(graph: Graph, node: Node) -> Call | None:
    """Of max pooling, from g and x; of average pooling, from g."""
    shape = _pooling(node, node.inputs[0], node.outputs[0])
    if shape is None:
        return None

    def phases(p: Pointers) -> list[str]:
        x = p.operands[1] if len(p.operands) == 2 else "0"
        arguments = f"{x}, {p.operands[0]}, {p.result}, {fields('pooling_shape', shape)}"
        return [f"pooling_gradient(thread, threads, {arguments}{p.finish});"]

    operands = tuple(dense(graph, value) for value in node.inputs)
    return Call(node, (*HEADERS, "pooling.h"), operands, phases, finishes=True)
