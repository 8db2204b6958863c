"""Random nodes of ONNX, with attributes and in opsets as they come, compute what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest

import minigraph as mg
from minigraph.onnx.read import graph_of
from onnx_node_tests import NodeTest, Run, failed
from onnx_random import KINDS, Draw, Drawn

Kind = Callable[[Draw], Drawn]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def drawn(kind: Kind, seed: int) -> Run:
    """A node as a graph, with what ONNX Runtime says that its outputs are."""
    found = kind(Draw(np.random.default_rng(seed)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(found.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {**found.given, **found.known})
    graph, state = graph_of(found.model, None, found.known)
    # sums of at most 100 products of numbers of size 1, in float32, in two orders
    test = NodeTest(f"seed {seed}: {found}", "random", found.model, [], rtol=1e-4, atol=1e-5)
    return Run(test, graph, state, found.given, wanted)


def check(kind: Kind, first: int, last: int) -> None:
    for seed in range(first, last):
        run = drawn(kind, seed)
        results = list(mg.compile(run.graph, run.state)(**run.given).values())
        try:
            run.check(results)
        except AssertionError as error:
            raise AssertionError(f"{run.test.name}\n{error}") from None


@kinds
def test_random_nodes(kind):
    check(kind, 0, 100)


@pytest.mark.nightly
@kinds
def test_many_random_nodes(kind):
    check(kind, 100, 2000)


@pytest.mark.compiler
@pytest.mark.nightly
@kinds
def test_random_nodes_in_c(kind):
    assert failed([drawn(kind, seed) for seed in range(40)], "c") == {}
