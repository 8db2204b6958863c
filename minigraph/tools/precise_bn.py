"""One pass of the data for precise running statistics: see passes/precise_statistics.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigraph.core.errors import expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.driver.program import compile
from minigraph.passes.precise_statistics import precise_statistics


def precise_bn(model: Graph, state: State, batches: Iterable[Mapping[str, Any]]) -> None:
    """Make the running statistics in `state` those of all these batches together, under the weights as they are.

    model: the model or its training step. batches: dicts of its inputs by name, in batches as large as those of
        training; those that no batch norm depends on, such as labels, may be left out. Each call begins anew, and the
        state changes at the end, all at once: after an error it is as it was.
    """
    expect(isinstance(model, Graph), "precise_bn needs the model, a Graph, not a {}", type(model).__name__)
    expect(not isinstance(batches, Mapping), "batches are a list of dicts; one dict alone is written [batch]")
    graph = precise_statistics(model)
    statistics = [v.name for v in graph.state if v.value in graph.updates and v.name in model.variables]
    with state.lock:
        fresh = state.copy()
        for variable in graph.state:
            if variable.name not in model.variables:  # a counter, which somebody else's pass may have left behind
                fresh.pop(variable.name, None)
        program = compile(graph.prune(), fresh)
        unread = {value.name for value in graph.inputs} - {value.name for value in program.source.inputs}
        for batch in batches:
            expect(isinstance(batch, Mapping), "a batch is a dict of inputs by name, not a {}", type(batch).__name__)
            program(**{name: array for name, array in batch.items() if name not in unread})
        seen = [name for name in program.created if name.endswith(".count") and fresh[name] > 0]
        expect(seen, "there was no data: the batches were none or empty (a generator gives its batches only once)")
        state.replace({name: fresh[name] for name in statistics})
