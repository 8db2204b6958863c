"""Masks: the gradient of relu asks where its input is above 0, and so is its result.

What is added up of two, as where a shortcut meets the block that it leads around, is not computed anew for that
question: it would be kept in memory for it, beside the result of relu, which the layers behind need anyway. So the
question is put to the result.
"""

from __future__ import annotations

from dataclasses import replace

from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.ops.pointwise import less_equal, relu


def with_masks_of_results(graph: Graph) -> Graph:
    """The graph with `relu(v) <= 0` in place of `v <= 0`, for each v that nothing else would be kept for."""
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    ends = {*graph.outputs.values(), *graph.updates.values()}
    results: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        kept = node.op is relu and _is_of_two(graph, node.inputs[0]) and node.inputs[0] not in ends
        if kept and all(reader.op is relu or _asks_for_sign(graph, reader) for reader in readers[node.inputs[0]]):
            results[node.inputs[0]] = node.outputs[0]
        asks = node.op is less_equal and node.inputs[0] in results
        nodes.append(node.reading((results[node.inputs[0]], node.inputs[1])) if asks else node)
    return replace(graph, nodes=tuple(nodes))


def _is_of_two(graph: Graph, value: Value) -> bool:
    """Whether it is computed, number by number, from more than one value of its size."""
    node = graph.producer.get(value)
    if node is None or node.op.expression is None:
        return False
    return len({v for v in node.inputs if v.type.size == value.type.size}) > 1


def _asks_for_sign(graph: Graph, node: Node) -> bool:
    """Whether it asks where its first input is not above 0."""
    zero = graph.producer.get(node.inputs[-1])
    return node.op is less_equal and zero is not None and zero.op is OPS["fill"] and zero.attrs["value"] == 0
