"""Lowering: a graph in terms of what a backend has, as another graph.

Composite ops are expanded until each op is pointwise, a view, a reduction or a kernel. Nodes keep the origins of what
they were expanded from: a batch norm stays one thing for reports, pictures and profiles, whatever it was lowered to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value, describe
from minigraph.core.op import Op

Claims = Callable[[Node], bool]


def runs(op: Op) -> bool:
    """Whether the op has a form that loops and kernels are printed from."""
    return any((op.expression, op.view, op.parts, op.in_order, op.reduction, op.kernel)) or op.tensors == 0


def lower(graph: Graph, claims: Claims = lambda node: False) -> Graph:
    """The graph without composite ops, but for nodes that a backend claims as they are.

    Raises GraphError for an op that has neither a kernel nor an expansion.
    """
    builder = Builder.extending(graph)
    builder.nodes = []
    now: dict[Value, Value] = {}
    waiting = list(reversed(graph.nodes))
    while waiting:
        node = waiting.pop()
        if runs(node.op) or claims(node):
            builder.append(_reading(node, now))
        else:
            waiting.extend(reversed(_expanded(node, builder, now)))
    ends = {name: _latest(value, now) for name, value in graph.outputs.items()}
    moved = {old: _latest(value, now) for old, value in graph.updates.items()}
    return replace(graph, nodes=tuple(builder.nodes), outputs=ends, updates=moved)


def _latest(value: Value, now: dict[Value, Value]) -> Value:
    """What the value has become, through one expansion inside another."""
    while value in now:
        value = now[value]
    return value


def _reading(node: Node, now: dict[Value, Value]) -> Node:
    """The node, reading what its inputs have become."""
    if not any(value in now for value in node.inputs):
        return node
    return node.reading(tuple([_latest(value, now) for value in node.inputs]))


def _expanded(node: Node, builder: Builder, now: dict[Value, Value]) -> list[Node]:
    """The nodes of its expansion, which may be composite themselves; `now` learns what its outputs have become."""
    why = "has neither a kernel nor an expansion, and so runs on the backend numpy only"
    expect(node.op.expand is not None, "{}", describe(node, why))
    assert node.op.expand is not None
    start = len(builder.nodes)
    tensors = [Tensor(builder, _latest(value, now)) for value in node.inputs]
    with builder.origin(node.origin):
        result = node.op.expand(*tensors, **node.attrs)
    made, builder.nodes[start:] = builder.nodes[start:], []
    for old, tensor in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True):
        now[old] = tensor.value
    return made
