"""Random graphs as programs in C, and their gradients, against the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from c_programs import Room, by_references, differences, outcome, typed
from test_random_graphs import with_gradients

from minigraph.backends import source
from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph
from minigraph.core.op import OPS
from minigraph.driver.program import optimize
from random_graphs import LAYOUTS, random_graph

Arrays = Mapping[str, np.ndarray]

CI, MANY, CHUNK = 16, 400, 20
ONCE_WRONG = (25, 128, 262)  # a value was written over another that was still to be read


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


def hold(graph: Graph, executable: Executable, arrays: Arrays, sizes: Mapping[str, int]) -> tuple[int, int, Arrays]:
    """How many results there are, how many could not be judged, and the arrays with which the next step begins."""
    bound = graph.bind(**sizes) if graph.symbols else graph
    found = outcome(*executable.run(sizes, arrays))
    wrong, loose = differences(by_references(bound, arrays), found, Room(bound, arrays))
    assert not wrong, f"{dict(sizes)}: {'; '.join(wrong)}"
    moved = {old.name: found[f"-> {old.name}"] for old in graph.updates}
    return len(found), loose, {**arrays, **moved}


def other_batches(graph: Graph, arrays: Arrays, sizes: Mapping[str, int]) -> Iterator[tuple[dict[str, int], Arrays]]:
    """The graph's sizes with other batches, smaller ones, as far as its nodes may have them; and inputs cut to them."""
    for n in (1, 0, sizes.get("N", 0) - 1):
        fewer = {**sizes, "N": n}
        if not 0 <= n < sizes.get("N", 0):
            continue
        try:
            graph.bind(**fewer)
        except GraphError:
            continue
        cut = {v.name: arrays[v.name][tuple(map(slice, v.type.bind(fewer).shape))] for v in graph.inputs}
        yield fewer, {**arrays, **cut}


def holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """A random graph as it is, or its gradients after the passes for training, in turn.

    Half are of float32, which tuned kernels compute. Each runs on one to three threads, which share everything; two
    steps, of which the second begins where the first ends; and every third one other batches as well.
    """
    monkeypatch.setattr(source, "SMALL", 2)
    monkeypatch.setenv("MINIGRAPH_THREADS", str(1 + seed % 3))
    given = random_graph(seed, "float32" if seed // 2 % 2 and seed not in ONCE_WRONG else "")
    try:
        graph = given.graph if seed % 2 else optimize(with_gradients(given.graph), given.state).graph
        executable, arrays = Executable(lower(graph)), typed(graph, given.arrays)
        tried = [hold(graph, executable, arrays, given.sizes)]
        tried.append(hold(graph, executable, tried[0][2], given.sizes))
        if seed % 3 == 0:
            tried += [hold(graph, executable, fewer, n) for n, fewer in other_batches(graph, arrays, given.sizes)]
    except Exception as error:
        raise AssertionError(f"random_graph({seed}): {error}") from error
    return sum(results for results, _, _ in tried), sum(loose for _, loose, _ in tried)


@pytest.mark.compiler
def test_random_graphs(monkeypatch):
    tried = np.array([holds(seed, monkeypatch) for seed in (*range(CI), *ONCE_WRONG)])
    results, loose = tried.sum(0)
    assert loose <= 0.1 * results


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize("start", range(CI, CI + MANY, CHUNK))
def test_many_random_graphs(start, monkeypatch):
    for seed in range(start, start + CHUNK):
        holds(seed, monkeypatch)


def test_every_op_is_drawn():
    """By the graphs that run nightly: each op several times, checked inputs, updates, and every kind of layout."""
    drawn, graphs = Counter[str](), [random_graph(seed).graph for seed in range(MANY)]
    for graph in graphs:
        drawn.update({node.op.name for node in graph.nodes} | {str(node.attrs.get("layout")) for node in graph.nodes})
    assert min(drawn[name] for name in OPS) >= 3
    assert min(drawn[layout] for layouts in LAYOUTS.values() for layout in layouts) >= 10
    assert sum(bool(graph.updates) for graph in graphs) > MANY / 4
