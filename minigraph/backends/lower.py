"""Lowering: a graph in terms of what a backend has, as another graph.

Composite ops are expanded until each op is pointwise, a view, a reduction or a kernel. Nodes keep the origins of what
they were expanded from: a batch norm stays one thing for reports, pictures and profiles, whatever it was lowered to.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value, describe
from minigraph.core.numbering import exactly
from minigraph.core.op import Op

Claims = Callable[[Node], bool]


def runs(op: Op) -> bool:
    """Whether the op has a form that loops and kernels are printed from."""
    return any((op.expression, op.view, op.parts, op.in_order, op.reduction, op.kernel)) or op.tensors == 0


def lower(graph: Graph, claims: Claims = lambda node: False) -> Graph:
    """The graph without composite ops, but for nodes that a backend claims as they are.

    Raises GraphError for an op that has neither a kernel nor an expansion.
    """
    lowering = _Lowering(graph)
    waiting = list(reversed(graph.nodes))
    while waiting:
        node = waiting.pop()
        if runs(node.op) or claims(node):
            lowering.keep(node)
        else:
            waiting.extend(reversed(lowering.expanded(node)))
    latest = lowering.latest
    ends = {name: latest(value) for name, value in graph.outputs.items()}
    moved = {old: latest(value) for old, value in graph.updates.items()}
    return replace(graph, nodes=tuple(lowering.builder.nodes), outputs=ends, updates=moved)


@dataclass(frozen=True)
class Expansion:
    """What a node was expanded to: the nodes, of these inputs, and the values that stand for its outputs."""

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[Value, ...]


class _Lowering:
    def __init__(self, graph: Graph):
        self.builder = Builder.extending(graph)
        self.builder.nodes = []
        self.now: dict[Value, Value] = {}  # what the outputs of expanded nodes have become
        self.known: dict[Hashable, Expansion] = {}  # layers repeat

    def latest(self, value: Value) -> Value:
        """What the value has become, through one expansion inside another."""
        while value in self.now:
            value = self.now[value]
        return value

    def keep(self, node: Node) -> None:
        """The node, reading what its inputs have become."""
        moved = any(value in self.now for value in node.inputs)
        self.builder.append(node.reading(tuple(map(self.latest, node.inputs))) if moved else node)

    def expanded(self, node: Node) -> list[Node]:
        """The nodes of its expansion, which may be composite themselves; `now` learns what its outputs have become."""
        inputs, start = tuple(map(self.latest, node.inputs)), len(self.builder.nodes)
        same = tuple(map(inputs.index, inputs))  # x·x is not expanded as x·y
        key = node.op, exactly(tuple(node.attrs.items())), same, tuple(value.type for value in inputs)
        with self.builder.origin(node.origin):
            if key in self.known:
                results = self._repeated(self.known[key], inputs)
            else:
                results = self._first(node, inputs)
                self.known[key] = Expansion(inputs, tuple(self.builder.nodes[start:]), results)
        made, self.builder.nodes[start:] = self.builder.nodes[start:], []
        self.now.update(zip(node.outputs, results, strict=True))
        return made

    def _first(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        why = "has neither a kernel nor an expansion, and so runs on the backend numpy only"
        expect(node.op.expand is not None, "{}", describe(node, why))
        assert node.op.expand is not None
        result = node.op.expand(*(Tensor(self.builder, value) for value in inputs), **node.attrs)
        return tuple(tensor.value for tensor in (result if isinstance(result, tuple) else (result,)))

    def _repeated(self, before: Expansion, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """The same expansion of other inputs."""
        here = dict(zip(before.inputs, inputs))
        for node in before.nodes:
            outputs = self.builder.again(node, tuple([here.get(value, value) for value in node.inputs]))
            here.update(zip(node.outputs, outputs))
        return tuple([here.get(value, value) for value in before.results])
