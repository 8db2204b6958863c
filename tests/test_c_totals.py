"""Totals in C: over every kind of axes, few and many, on one thread and on several, and what is written beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigraph as mg
from minigraph.backends.c.executable import Executable
from minigraph.backends.lower import lower
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph

pytestmark = pytest.mark.compiler

THREADS = ["1", "2", "3"]

# shape, axes: rows and columns, one loop and several, split and in chunks
CASES = [
    ((4, 8, 8, 64), (1, 2)),
    ((2, 8, 8, 40), (1, 2)),
    ((6, 30, 33, 16), (0, 1, 2)),
    ((3, 70, 5), (1,)),
    ((5, 3, 40, 40), (0, 2, 3)),
    ((5, 3, 7, 7), (2, 3)),
    ((70000,), (0,)),
    ((300, 301), (0,)),
    ((300, 301), (1,)),
    ((2, 3, 5, 7), (0, 2)),
    ((130, 2), (0, 1)),
]


def graph_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> Graph:
    """Totals of what is computed and stored in place of what it is computed from, and more that is read later."""
    net = mg.Builder("totals")
    h = mg.exp(net.input("x", ("N", *shape[1:])))
    turned = mg.sin(h)
    totals = mg.sum(turned, axes=axes, keepdims=True)
    terms = math.prod(shape[axis] for axis in axes)
    return net.build(
        product=mg.prod(1.0 + turned / float(terms), axes=axes),
        y=turned / (totals * totals + 1.0),
        total=totals * 0.5,
        largest=mg.max(turned, axes=axes),
        least=mg.min(turned, axes=axes),
        variance=mg.var(h, axes=axes),
        whole=mg.sum(mg.cast(turned * 9, "int32"), axes=axes),
    )


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_totals_agree_and_repeat(monkeypatch, threads, shape, axes):
    monkeypatch.setenv("MINIGRAPH_THREADS", threads)
    graph = graph_of(shape, axes)
    program = Executable(lower(graph))
    for n in (shape[0], 1, max(2, shape[0] - 1)):
        x = np.random.default_rng(n).normal(size=(n, *shape[1:])).astype("float32")
        right = evaluate(graph.bind(N=n), {"x": x.astype("float32")})
        runs = [program.run({"N": n}, {"x": x})[0] for _ in range(3)]
        many = np.prod([x.shape[axis] for axis in axes])
        for name, array in right.items():
            found = runs[0][name]
            assert all(np.array_equal(found, run[name], equal_nan=True) for run in runs[1:])
            # a sum of n numbers of about 1 is off by a few roundings of the parts that it is made of, NumPy's by more
            np.testing.assert_allclose(found, array, rtol=1e-5, atol=2e-7 * many + 1e-6, err_msg=name)


@pytest.mark.parametrize("shape_axes", CASES)
def test_totals_do_not_depend_on_the_number_of_threads(monkeypatch, shape_axes):
    shape, axes = shape_axes
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    found = []
    for threads in THREADS:
        monkeypatch.setenv("MINIGRAPH_THREADS", threads)
        found.append(Executable(lower(graph_of(shape, axes))).run({"N": shape[0]}, {"x": x})[0])
    for name, array in found[0].items():
        assert all(np.array_equal(array, other[name]) for other in found[1:])
