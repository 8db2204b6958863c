"""Constants that follow one another become one where no bit changes; all others only for who asks for it by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import is_float
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Pass, run
from minigraph.passes import pipelines, reassociate


def joined(op: Callable[[Tensor], Tensor], dtype: str, by: Pass = reassociate.PASS) -> tuple[Graph, Graph]:
    net = Builder("net")
    graph = net.build(y=op(net.input("x", (256,), dtype)))
    return graph, run((by,), graph).graph


def operations(graph: Graph) -> int:
    return sum(bool(node.inputs) for node in graph.nodes)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        (lambda x: x * 2.0 * 4.0, "float32"),
        (lambda x: -8.0 * (4.0 * x) * 1.0, "float16"),
        (lambda x: x * 2.0**100 * 2.0**27, "float32"),
        (lambda x: x * np.array([2.0, -4.0] * 128) * 8.0, "float64"),
        (lambda x: x * 100 * 7, "int8"),
        (lambda x: 200 + (x + 100), "uint8"),
        (lambda x: x * 3 * np.arange(256), "int64"),
        (lambda x: x + 2**62 + 2**62, "int64"),
    ],
)
def test_it_is_exact(op: Callable[[Tensor], Tensor], dtype: str) -> None:
    before, after = joined(op, dtype)
    assert operations(after) == 1
    bits = np.random.default_rng(0).integers(0, 256, 256 * np.dtype(dtype).itemsize).astype(np.uint8)
    with np.errstate(all="ignore"):
        a, b = (evaluate(graph, {"x": bits.view(dtype)})["y"] for graph in (before, after))
    assert np.array_equal(a, b, equal_nan=is_float(a.dtype))


@pytest.mark.parametrize(
    "op",
    [
        lambda x: x * 3.0 * 5.0,
        lambda x: x * 2.0 * 3.0,
        lambda x: x * 0.5 * 4.0,  # 4 · 0.5 would keep a digit that x · 0.5 drops where x is subnormal
        lambda x: x * 0.5 * 0.5,  # rounds twice there
        lambda x: x * 2.0**100 * 2.0**100,  # the product is no float32
        lambda x: x * float("inf") * 2.0,
        lambda x: x * 0.0 * 2.0,
        lambda x: x + 1.0 + 2.0,
        lambda x: x * np.array([2.0, 3.0] * 128) * 2.0,
    ],
)
def test_what_would_round_otherwise_stays(op: Callable[[Tensor], Tensor]) -> None:
    before, after = joined(op, "float32")
    assert after is before


def test_all_constants_are_joined_by_name() -> None:
    op: Any = lambda x: x * 3.0 * 5.0 + 1.0 + 2.0
    before, after = joined(op, "float32", reassociate.LOOSE)
    assert (operations(before), operations(after)) == (4, 2)
    x = np.linspace(-3, 3, 256, dtype=np.float32)
    # three roundings of half a unit, of numbers up to 48
    np.testing.assert_allclose(evaluate(after, {"x": x})["y"], evaluate(before, {"x": x})["y"], atol=1e-5)


def test_no_pipeline_rounds_otherwise() -> None:
    rules = {r for p in (*pipelines.TRAINING, *pipelines.INFERENCE, *pipelines.BEFORE_AUTODIFF) for r in p.rules}
    assert rules.isdisjoint(reassociate.ROUNDING)
    assert rules.issuperset(reassociate.RULES)


def test_factors_that_are_no_constants_stay() -> None:
    net = Builder("net")
    x, w = net.input("x", (4,)), net.parameter("w", (4,), mg.init.zeros)
    graph = net.build(y=x * w * 2.0, z=x * 2.0 * w)
    assert run((reassociate.PASS,), graph).graph is graph
