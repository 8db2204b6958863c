"""The time of each node on the references."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minigraph.core.evaluate import Evaluation
from minigraph.core.ir import Graph


@dataclass(frozen=True)
class Times:
    """Seconds, each the least of all runs: of each node of `graph`, of a whole run with the clocks, of one without."""

    graph: Graph
    nodes: tuple[float, ...]
    clocked: float
    plain: float


def measure(graph: Graph, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray], repeats: int) -> Times:
    """Run a graph so many times with clocks, and as many without, in turns. arrays: all inputs and state by name."""
    bound = graph.bind(**symbols)
    evaluation = Evaluation(bound)
    given = {value: arrays[value.name] for value in (*bound.inputs, *(v.value for v in bound.state))}
    evaluation.run(given)
    nodes, clocked, plain = np.full(len(bound.nodes), np.inf), np.inf, np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        evaluation.run(given)
        noted = [time.perf_counter()]
        evaluation.run(given, lambda node, noted=noted: noted.append(time.perf_counter()))  # type: ignore[misc]
        end = time.perf_counter()
        plain, clocked = min(plain, noted[0] - start), min(clocked, end - noted[0])
        nodes = np.minimum(nodes, np.diff(noted))
    return Times(bound, tuple(nodes.tolist()), clocked, plain)
