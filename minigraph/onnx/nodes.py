"""One node at a time: by its writer, by its expansion, or by its expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Node, needed
from minigraph.onnx.draft import WRITERS, Draft, Unwritable
from minigraph.onnx.expression import by_expression


def node_written(draft: Draft, node: Node, inputs: Sequence[str]) -> Sequence[str]:
    """Write one node; the names of its outputs."""
    if node.op in WRITERS:
        found = WRITERS[node.op](draft, node, *inputs)
    elif node.op.expand is not None:
        return expanded(draft, node, inputs)
    elif node.op.expression is not None:
        found = by_expression(draft, node, *inputs)
    else:
        raise Unwritable("ONNX has nothing like it")
    return found if isinstance(found, tuple) else (found,)


def expanded(draft: Draft, node: Node, inputs: Sequence[str]) -> Any:
    """Write a node as the smaller ops that it expands to; the names of its outputs."""
    builder = Builder(node.name)
    tensors = [builder.input(f"x{i}", value.type.shape, value.type.dtype) for i, value in enumerate(node.inputs)]
    result = node.op.expand(*tensors, **node.attrs)  # type: ignore[misc]
    results = result if isinstance(result, tuple) else (result,)
    return inside(draft, builder, dict(zip(tensors, inputs)), results)


def inside(draft: Draft, builder: Builder, given: Mapping[Tensor, str], results: Sequence[Tensor]) -> tuple[str, ...]:
    """Write what was built of tensors that have these names; the names of the results."""
    names = {tensor.value: name for tensor, name in given.items()}
    for node in needed(builder.nodes, [tensor.value for tensor in results])[0]:
        names.update(zip(node.outputs, node_written(draft, node, [names[value] for value in node.inputs])))
    return tuple(names[tensor.value] for tensor in results)
