"""Random graphs as programs in CUDA C++, run on a CPU, and their gradients, against the references.

A compiler takes a second for each program, and so several graphs stand side by side in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from c_programs import Room, by_references, differences, outcome, typed
from test_c_random import ONCE_WRONG, other_batches
from test_random_graphs import with_gradients

from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core.builder import Builder
from minigraph.core.ir import Graph
from minigraph.driver.program import optimize
from random_graphs import random_graph

pytestmark = pytest.mark.cxx

Arrays = Mapping[str, np.ndarray]

CI, MANY, CHUNK = 40, 2000, 20


def tried(seed: int) -> Iterator[tuple[str, Graph, Arrays]]:
    """A random graph as it is, or its gradients after the passes for training, in turn, with sizes that are numbers.

    Half are of float32. Every third one has other batches as well.
    """
    given = random_graph(seed, "float32" if seed // 2 % 2 and seed not in ONCE_WRONG else "")
    graph = given.graph if seed % 2 else optimize(with_gradients(given.graph), given.state).graph
    arrays = typed(graph, given.arrays)
    yield str(seed), graph.bind(**given.sizes) if graph.symbols else graph, arrays
    if seed % 3 == 0:
        for i, (sizes, fewer) in enumerate(other_batches(graph, arrays, given.sizes)):
            yield f"{seed}.other{i}", graph.bind(**sizes), fewer


def side_by_side(seeds: Sequence[int]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graphs of these seeds as one: their names begin with the seed."""
    net, outputs, arrays = Builder("graphs"), {}, {}
    for label, graph, given in (one for seed in seeds for one in tried(seed)):
        own = {v: net.input(f"{label}.{v.name}", v.type.shape, v.type.dtype) for v in graph.inputs}
        for v in graph.state:
            shape, dtype = v.value.type.shape, v.value.type.dtype
            own[v.value] = net.variable(f"{label}.{v.name}", shape, v.initializer, dtype, v.kind)
        arrays.update({own[v].name: given[v.name] for v in own})
        for node in graph.nodes:
            own.update(zip(node.outputs, net.emit(node.op, [own[v] for v in node.inputs], node.attrs)))
        for old, new in graph.updates.items():
            net.update(own[old], own[new])
        outputs.update({f"{label}.{name}": own[value] for name, value in graph.outputs.items()})
    return net.build(outputs), arrays


def hold(seeds: Sequence[int], device: Device) -> None:
    """Two steps, of which the second begins where the first ends. Every second program has its channels last."""
    graph, arrays = side_by_side(seeds)
    lowered = lower(graph)
    executable = Executable(laid_out(lowered) if seeds[0] // CHUNK % 2 else lowered, device)
    for _ in range(2):
        outputs, new = executable.run({}, arrays)
        found = outcome(outputs, new)
        wrong, loose = differences(by_references(graph, arrays), found, Room(graph, arrays))
        assert not wrong, "; ".join(f"random_graph({name})" for name in wrong)
        assert loose <= 0.1 * len(found)
        arrays = {**arrays, **new}


@pytest.mark.parametrize("start", range(0, CI, CHUNK))
def test_random_graphs(start: int, device: Device) -> None:
    hold([*range(start, start + CHUNK), *(ONCE_WRONG if start == 0 else ())], device)


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(CI, CI + MANY, CHUNK))
def test_many_random_graphs(start: int, device: Device) -> None:
    hold(range(start, start + CHUNK), device)
