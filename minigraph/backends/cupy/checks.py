"""Which inputs are indices, and of what: where their numbers are known to fit, nobody need wait for a kernel's verdict.

Kernels look at each index and note one that lies outside. That is known when they have run, and a call would have to
wait for it. But most indices are inputs, such as labels, whose least and largest number can be told beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from minigraph.core.dim import known
from minigraph.core.evaluate import apply
from minigraph.core.ir import Graph, Node, Value

Limits = tuple[int, int]  # the least and the largest number


def _gather(node: Node) -> tuple[Value, Limits]:
    size = known(node.inputs[0].type.shape[node.attrs["axis"]], node.name)
    return node.inputs[1], (-size, size - 1)


def _scatter_add(node: Node) -> tuple[Value, Limits]:
    size = known(node.outputs[0].type.shape[node.attrs["axis"]], node.name)
    return node.inputs[1], (-size, size - 1)


def _one_hot(node: Node) -> tuple[Value, Limits]:
    return node.inputs[0], (0, node.attrs["classes"] - 1)


CHECKED: Mapping[str, Callable[[Node], tuple[Value, Limits]]] = {
    "gather": _gather,
    "scatter_add": _scatter_add,
    "one_hot": _one_hot,
}


def indices(graph: Graph) -> dict[str, Limits] | None:
    """The inputs whose numbers must lie within limits, in a graph whose sizes are known.

    None where kernels check what is not an input, or what they alone know how to check.
    """
    found: dict[str, Limits] = {}
    for node in graph.nodes:
        if node.op.kernel is None or not node.op.kernel.checks:
            continue
        if node.op.name not in CHECKED:
            return None
        value, (low, high) = CHECKED[node.op.name](node)
        source = _source(graph, value)
        if source in graph.inputs:
            least, largest = found.get(source.name, (low, high))
            found[source.name] = max(least, low), min(largest, high)
        elif not _is_constant_within(graph, source, low, high):
            return None
    return found


def _source(graph: Graph, value: Value) -> Value:
    """The value that has the numbers of this one, in another order or shape, or some of them."""
    while value in graph.producer:
        node = graph.producer[value]
        if node.op.view is None and not node.op.in_order:
            break
        value = node.inputs[0]
    return value


def _is_constant_within(graph: Graph, value: Value, low: int, high: int) -> bool:
    node = graph.producer.get(value)
    if node is None or node.inputs:
        return False
    (array,) = apply(node, [])
    return not array.size or bool(np.min(array) >= low and np.max(array) <= high)
