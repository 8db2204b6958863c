"""Random graphs as programs in C, and their gradients, against the references."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from c_programs import Room, by_references, differences, outcome, typed
from test_random_graphs import with_gradients

from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core.ir import Graph
from minigraph.driver.program import optimize
from random_graphs import RandomGraph, random_graph

CI, MANY, CHUNK = 16, 400, 20
ONCE_WRONG = (25, 128, 262)  # a value was written over another that was still to be read


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


def hold(graph: Graph, given: RandomGraph, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many results there are, and how many of them noise moves over a jump."""
    arrays = typed(graph, given.arrays)
    bound = graph.bind(**sizes) if graph.symbols else graph
    found = outcome(*Executable(lower(graph)).run(sizes, arrays))
    wrong, loose = differences(by_references(bound, arrays), found, Room(bound, arrays))
    assert not wrong, "; ".join(wrong)
    return len(found), loose


def holds(seed: int) -> tuple[int, int]:
    """The graph as it is, or its gradients after the passes for training, in turn."""
    given = random_graph(seed)
    try:
        graph = given.graph if seed % 2 else optimize(with_gradients(given.graph), given.state).graph
        return hold(graph, given, given.sizes)
    except Exception as error:
        raise AssertionError(f"random_graph({seed}): {error}") from error


@pytest.mark.compiler
def test_random_graphs():
    tried = np.array([holds(seed) for seed in (*range(CI), *ONCE_WRONG)])
    results, loose = tried.sum(0)
    assert loose <= 0.1 * results


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize("start", range(CI, CI + MANY, CHUNK))
def test_many_random_graphs(start):
    for seed in range(start, start + CHUNK):
        holds(seed)
