"""What is frozen: values that come out the same at every call, because their leaves are constants and fixed state.

A weight scaled by a batch norm's frozen statistics is written as nodes of the graph. `split` takes all such nodes out:
they are the *prologue*, computed once, in float64, and rounded last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.core import dim
from minigraph.core.dtypes import FLOATS, is_float
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Value, describe, needed

FIXED = ("parameter", "statistic", "slot")  # the kinds of state that stand still where nothing updates them


def leaves(graph: Graph) -> set[Value]:
    """The state that this graph does not update. Counters and random streams never stand still."""
    return {v.value for v in graph.state if v.kind in FIXED and v.value not in graph.updates}


def stands_still(node: Node, frozen: set[Value]) -> bool:
    """Whether what the node computes is frozen, when these values are.

    What is rounded to TF32 is not: in float64 it would be rounded to nothing, and kernels round where they read.
    """
    if node.op.name == "tf32":
        return False
    return frozen.issuperset(node.inputs) and not any(dim.symbolic(value.type.shape) for value in node.outputs)


def frozen(graph: Graph) -> set[Value]:
    """All frozen values, leaves included."""
    found = leaves(graph)
    for node in graph.nodes:
        if stands_still(node, found):
            found.update(node.outputs)
    return found


def compute(nodes: Iterable[Node], state: Mapping[str, np.ndarray], known: dict[Value, np.ndarray]) -> None:
    """Add to `known` the numbers of what these nodes define, in float64, from the state by name."""
    with np.errstate(all="ignore"):
        for node in nodes:
            if node.outputs[0] not in known:
                arrays = [known[v] if v in known else wide(state[v.name]) for v in node.inputs]
                try:
                    results = node.op.run(arrays, _attrs(node))
                except GraphError as error:
                    raise GraphError(describe(node, str(error))) from None
                known.update(zip(node.outputs, map(wide, results), strict=True))


def _attrs(node: Node) -> Mapping[str, Any]:
    """The node's attributes, with float64 for the dtype of its numbers; but a cast that the user wrote is to round."""
    asked_for = node.inputs and not node.origin.rule
    if asked_for or node.attrs.get("dtype") not in FLOATS:
        return node.attrs
    return {**node.attrs, "dtype": "float64"}


def wide(array: np.ndarray) -> np.ndarray:
    """The array, in float64 if it holds floats."""
    return array.astype(np.float64, copy=False) if is_float(array.dtype) else array


@dataclass(frozen=True)
class Fact:
    """What a rewrite took for true of the numbers of a frozen value. Where it is no longer, the rewrite is void."""

    value: Value
    nodes: tuple[Node, ...]  # that compute it from state
    asks: Callable[[np.ndarray], bool]
    answer: bool

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the state that it is about."""
        return leaves_of(self.nodes, [self.value])

    def holds(self, state: Mapping[str, np.ndarray]) -> bool:
        known: dict[Value, np.ndarray] = {}
        compute(self.nodes, state, known)
        array = known[self.value] if self.value in known else wide(state[self.value.name])
        return self.asks(array) == self.answer


@dataclass(frozen=True)
class Prologue:
    """The nodes that are computed once, and those of their values that the rest of a graph reads."""

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]

    def run(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The values by name. What no node needs any more is let go: float64 takes twice the memory of weights."""
        last = {value: number for number, node in enumerate(self.nodes) for value in node.inputs}
        known: dict[Value, np.ndarray] = {}
        found: dict[Value, np.ndarray] = {}
        wanted = set(self.values)
        for number, node in enumerate(self.nodes):
            compute([node], state, known)
            with np.errstate(all="ignore"):
                for value in wanted.intersection(node.outputs):
                    found[value] = np.array(known[value].astype(value.type.dtype, copy=False), order="C")
            for value in (*node.inputs, *node.outputs):
                if last.get(value, number) <= number:
                    known.pop(value, None)
        return {value.name: found[value] for value in self.values}

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the state that it is computed from."""
        return leaves_of(self.nodes, self.values)


def leaves_of(nodes: Sequence[Node], values: Sequence[Value]) -> tuple[str, ...]:
    """The names of the state that nodes compute these values from."""
    made = {value for node in nodes for value in node.outputs}
    read = [*(v for node in nodes for v in node.inputs), *values]
    return tuple(dict.fromkeys(v.name for v in read if v not in made))


def split(graph: Graph) -> tuple[Prologue, Graph]:
    """The frozen part of a graph, and the rest, which takes the prologue's values as inputs behind its own.

    Constants stay where they are read: they cost nothing, and whoever compiles the rest wants to see their numbers.
    """
    still = frozen(graph)
    early = {node for node in graph.nodes if node.inputs and node.outputs[0] in still}
    rest = [node for node in graph.nodes if node not in early]
    read = {v for node in rest for v in node.inputs} | {*graph.outputs.values(), *graph.updates.values()}
    values = [v for node in graph.nodes if node in early for v in node.outputs if v in read]
    nodes, _ = needed(graph.nodes, values)
    prologue = Prologue(nodes, tuple(values))
    late, live = needed(rest, (*graph.outputs.values(), *graph.updates, *graph.updates.values()))
    state = tuple(v for v in graph.state if v.value in live)
    return prologue, Graph(graph.name, (*graph.inputs, *values), state, late, graph.outputs, graph.updates)
