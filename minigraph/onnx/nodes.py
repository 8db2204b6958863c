"""One node at a time: by its writer, by its expansion, or by its expression."""

from __future__ import annotations

from collections.abc import Sequence

from minigraph.core.builder import Builder
from minigraph.core.dtypes import wide_dtype
from minigraph.core.ir import Node, Type, Value, needed
from minigraph.core.op import OPS, no_flops
from minigraph.onnx.draft import WRITERS, Draft, Unwritable
from minigraph.onnx.expression import by_expression

NARROW = "bfloat16"  # of which many operators know nothing; those that move it do


def node_written(draft: Draft, node: Node, inputs: Sequence[str]) -> Sequence[str]:
    """Write one node; the names of its outputs. What computes with bfloat16 does so in float32, and rounds once."""
    computes = node.op.flops is not no_flops and node.op is not OPS["cast"]
    if computes and any(value.type.dtype == NARROW for value in node.inputs):
        wide = _wide(node)
        given = [draft.cast(x, *(v.type.dtype for v in pair)) for x, *pair in zip(inputs, node.inputs, wide.inputs)]
        results = zip(node_written(draft, wide, given), wide.outputs, node.outputs)
        return [draft.cast(found, *(v.type.dtype for v in pair)) for found, *pair in results]
    if node.op in WRITERS:
        found = WRITERS[node.op](draft, node, *inputs)
    elif node.op.expand is not None:
        return expanded(draft, node, inputs)
    elif node.op.expression is not None:
        found = by_expression(draft, node, *inputs)
    else:
        raise Unwritable("ONNX has nothing like it")
    return found if isinstance(found, tuple) else (found,)


def _wide(node: Node) -> Node:
    """The node on float32 in place of bfloat16."""
    inputs = tuple(Value(Type(v.type.shape, wide_dtype(v.type.dtype)), v.name) for v in node.inputs)
    attrs, types = node.op.infer(tuple(v.type for v in inputs), node.attrs)
    return Node(node.op, inputs, tuple(Value(t, v.name) for t, v in zip(types, node.outputs)), attrs, node.name)


def expanded(draft: Draft, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """Write a node as the smaller ops that it expands to; the names of its outputs."""
    builder = Builder(node.name)
    tensors = [builder.input(f"x{i}", value.type.shape, value.type.dtype) for i, value in enumerate(node.inputs)]
    result = node.op.expand(*tensors, **node.attrs)  # type: ignore[misc]
    ends = [tensor.value for tensor in (result if isinstance(result, tuple) else (result,))]
    names = {tensor.value: name for tensor, name in zip(tensors, inputs)}
    for part in needed(builder.nodes, ends)[0]:
        names.update(zip(part.outputs, node_written(draft, part, [names[value] for value in part.inputs])))
    return tuple(names[value] for value in ends)
