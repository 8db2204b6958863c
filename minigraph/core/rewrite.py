"""Graphs made from graphs: one walk that keeps what it does not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from minigraph.core.builder import Builder, Tensor
from minigraph.core.collector import paused
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value

Replacement = Callable[[Node, Sequence[Tensor]], Sequence[Tensor] | None]


@paused()
def rewrite(graph: Graph, name: str, replacement: Replacement) -> Graph:
    """The graph with some nodes replaced, in one walk from inputs to outputs.

    `replacement(node, inputs)` builds with the (already rewritten) inputs and returns a tensor for each output of the
    node, or None to keep it. Nodes upstream of every change stay the same objects, and a graph in which nothing is
    replaced is returned itself. `name` is noted as the rule in the origin of what is built.
    """
    builder = Builder.extending(replace(graph, nodes=(), outputs={}, updates={}))
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple([new.get(value, value) for value in node.inputs])
        origin = replace(node.origin, rule=name, sources=(node.name,))
        with builder.root(), builder.origin(origin), builder.scope(node.name):
            built = replacement(node, [Tensor(builder, value) for value in inputs])
        if built is not None:
            for old, tensor in zip(node.outputs, built, strict=True):
                expect(tensor.value.type == old.type, "{}: {} would become {}", name, old, tensor.value)
                new[old] = tensor.value
        elif inputs == node.inputs:
            builder.append(node)
        else:
            copies = tuple([Value(value.type, value.name) for value in node.outputs])
            new.update(zip(node.outputs, copies))
            builder.append(replace(node, inputs=inputs, outputs=copies))
    if not new:
        return graph
    moved = {old: new.get(value, value) for old, value in graph.updates.items()}
    outputs = {key: new.get(value, value) for key, value in graph.outputs.items()}
    return Graph(graph.name, graph.inputs, graph.state, tuple(builder.nodes), outputs, moved).prune()
