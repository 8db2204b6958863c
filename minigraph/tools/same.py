"""Are two graphs, each with a state of its own, the same function?

State that both have with the same numbers stays state, about which `verify` asks; other state becomes constants of its
graph. So a network and what the passes made of it are compared, also where weights were folded and have new numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from minigraph.core.equivalence import Verification, verify
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Variable
from minigraph.core.op import OPS
from minigraph.core.state import State


def same(before: Graph, one: State, after: Graph, other: State) -> Verification:
    """Whether the graph `after` with the state `other` computes what `before` with `one` does; see verify.

    Raises GraphError where state that moves has other numbers: then the graphs may be the same, and their runs are not.
    """
    shared = {
        name
        for name, variable in before.variables.items()
        if name in after.variables and name in one and name in other and _equal(one[name], other[name])
    }
    for graph, state in ((before, one), (after, other)):
        moved = [v.name for v in graph.updates if v.name in state and v.name not in shared]
        expect(not moved, "{} is state that moves, and has other numbers in the two files", ", ".join(moved))
    return verify(_closed(before, one, shared), _closed(after, other, shared), {name: one[name] for name in shared})


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _closed(graph: Graph, state: State, shared: Collection[str]) -> Graph:
    """The graph with the numbers of its other state as constants."""
    known = [v for v in graph.state if v.name not in shared and v.name in state]
    nodes = [_constant(variable, state[variable.name]) for variable in known]
    kept = tuple(v for v in graph.state if v not in known)
    return replace(graph, nodes=(*nodes, *graph.nodes), state=kept)


def _constant(variable: Variable, array: np.ndarray) -> Node:
    attrs, _ = OPS["constant"].infer((), {"value": array})
    return Node(OPS["constant"], (), (variable.value,), attrs, variable.name)
