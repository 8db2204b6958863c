"""The references, one node after the other. Always there, and the answer that other backends are held to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np

from minigraph.core.evaluate import Evaluation
from minigraph.core.ir import Graph

BINDINGS = 8  # how many sets of sizes (batch sizes, mostly) are kept ready


class Executable:
    """One graph, ready to run at any sizes of its symbols."""

    def __init__(self, graph: Graph, keep: Iterable[str] = ()):
        self.graph = graph
        self.keep = tuple(keep)
        self.peak_bytes = 0
        self._bound: OrderedDict[tuple[tuple[str, int], ...], Evaluation] = OrderedDict()

    def _prepare(self, symbols: Mapping[str, int]) -> Evaluation:
        """The graph at these sizes, with every node checked anew; kept for the next time."""
        key = tuple(sorted(symbols.items()))
        if key not in self._bound:
            graph = self.graph.bind(**symbols)
            self._bound[key] = Evaluation(graph, [graph.value(name) for name in self.keep])
            while len(self._bound) > BINDINGS:
                self._bound.popitem(last=False)
        self._bound.move_to_end(key)
        return self._bound[key]

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, new state, and kept values by name. All are new arrays."""
        evaluation = self._prepare(symbols)
        graph = evaluation.graph
        given = {value: arrays[value.name] for value in (*graph.inputs, *(v.value for v in graph.state))}
        found = evaluation.run(given)
        self.peak_bytes = evaluation.peak_bytes
        return (
            {name: np.array(found[value]) for name, value in graph.outputs.items()},
            {old.name: np.array(found[new], order="C") for old, new in graph.updates.items()},
            {name: np.array(found[graph.value(name)]) for name in self.keep},
        )
