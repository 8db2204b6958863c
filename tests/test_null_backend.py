"""Plans, held to their word without a compiler."""

from __future__ import annotations

from dataclasses import replace

import null_backend
import numpy as np
import pytest
from c_programs import Room, by_references, differences, outcome, typed
from test_random_graphs import with_gradients

import minigraph as mg
from minigraph.backends.c.tuned import claim
from minigraph.backends.lower import lower
from minigraph.backends.plan import plan
from minigraph.core.ir import Graph
from random_graphs import random_graph

SEEDS, CHUNK = 200, 25


def hold(graph: Graph, sizes, arrays) -> int:
    """The plan gives what the lowered graph gives. How many results there are, and how many cannot be judged.

    Not to the bit: in another memory NumPy adds up in another order.
    """
    lowered = lower(graph)
    arrays = typed(lowered, arrays)
    bound = lowered.bind(**sizes) if lowered.symbols else lowered
    found = outcome(*null_backend.Executable(lowered, claim).run(sizes, arrays))
    wrong, loose = differences(by_references(bound, arrays), found, Room(bound, arrays))
    assert not wrong, "; ".join(wrong)
    return loose


def holds(seed: int) -> None:
    given = random_graph(seed)
    try:
        hold(given.graph, given.sizes, given.arrays)
        hold(with_gradients(given.graph), given.sizes, given.arrays)
    except Exception as error:
        raise AssertionError(f"random_graph({seed}): {error}") from error


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_random_graphs(start):
    for seed in range(start, start + CHUNK):
        holds(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("start", range(SEEDS, SEEDS + 4000, 200))
def test_many_random_graphs(start):
    for seed in range(start, start + 200):
        holds(seed)


def test_what_a_kernel_reads_by_its_address_is_not_written_over():
    net = mg.Builder("net")
    x, w = net.input("x", ("N", 1, 5, 5), "float64"), net.input("w", (1, 1, 3, 3), "float64")
    y = mg.conv(mg.exp(x), w, padding=1)
    graph = net.build(z=mg.conv(y, w))
    rng = np.random.default_rng(0)
    hold(graph, {"N": 2}, {"x": rng.normal(size=(2, 1, 5, 5)), "w": rng.normal(size=(1, 1, 3, 3))})


def test_what_is_larger_for_a_smaller_batch():
    net = mg.Builder("net")
    h, p = net.input("h", ("N", 4), "float64"), net.input("p", ("M", 4), "float64")
    rest = mg.exp(p[h.shape[0] :])
    graph = net.build(rest=mg.exp(rest - mg.mean(rest, axes=0)), twice=h * 2.0)
    executable = null_backend.Executable(lower(graph), claim)
    for n in (39, 2, 20):
        arrays = {"h": np.ones((n, 4)), "p": np.ones((40, 4))}
        outputs, _ = executable.run({"N": n, "M": 40}, arrays)
        np.testing.assert_allclose(outputs["rest"], np.ones((40 - n, 4)))


class TestWords:
    """What the executor is for: a plan that is wrong is found out."""

    def net(self) -> tuple[Graph, dict[str, np.ndarray]]:
        net = mg.Builder("net")
        x = net.input("x", (3, 4), "float64")
        y = mg.softmax(mg.matmul(mg.exp(x), mg.transpose(x)), axis=0)
        z = mg.matmul(y, mg.tanh(x))
        return lower(net.build(z=mg.matmul(y, z))), {"x": np.random.default_rng(0).normal(size=(3, 4))}

    def test_memory_that_is_needed_longer(self):
        graph, arrays = self.net()
        planned = plan(graph, claim, {})
        assert planned.arena > 0
        for buffer in planned.buffers:
            buffer.offset = 0
        with pytest.raises(mg.GraphError, match="over"):
            null_backend.Run(planned, {}, arrays)

    def test_a_step_that_comes_too_early(self):
        graph, arrays = self.net()
        planned = plan(graph, claim, {})
        early = replace(planned, steps=(planned.steps[-1], *planned.steps[:-1]))
        found, _ = null_backend.Run(early, {}, arrays).outcome()
        assert np.isnan(found["z"]).any()

    def test_a_step_that_reads_more_than_it_says(self):
        graph, arrays = self.net()
        planned = plan(graph, claim, {})
        last = planned.steps[-1]
        silent = replace(planned, steps=(*planned.steps[:-1], replace(last, reads={})))
        with pytest.raises(mg.GraphError, match="does not say so"):
            null_backend.Run(silent, {}, arrays)
