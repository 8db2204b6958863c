"""Constants are computed as the references compute them, and only where that is worth its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import is_float
from minigraph.core.evaluate import evaluate
from minigraph.core.ir import Graph, Node
from minigraph.core.op import OPS
from minigraph.core.rewrite import rewrite
from minigraph.passes.fold_constants import LARGEST, RULES


def folded(build: Callable[[Builder], Tensor]) -> tuple[Graph, Graph]:
    net = Builder("net")
    graph = net.build(y=build(net))
    return graph, rewrite(graph, RULES)


def maker(graph: Graph) -> Node:
    return graph.producer[graph.outputs["y"]]


def filled(net: Builder, value: Any, *shape: Any, dtype: str = "float32") -> Tensor:
    return net.emit(OPS["fill"], (), {"value": value, "shape": shape, "dtype": dtype})[0]


@pytest.mark.parametrize(
    "build",
    [
        lambda net: net.constant(0.1, "float16") + net.constant(0.2, "float16"),
        lambda net: net.constant(0.1, "bfloat16") + net.constant(0.2, "bfloat16"),
        lambda net: net.constant(0.1) * net.constant(0.3),
        lambda net: mg.exp(net.constant(np.linspace(-3, 3, 7, dtype=np.float32))),
        lambda net: net.constant(100, "int8") + net.constant(100, "int8"),
        lambda net: net.constant(1.0) / net.constant(0.0),
        lambda net: net.constant(0.0, "float64") / net.constant(0.0, "float64"),
        lambda net: mg.sum(net.constant(np.full((3, 5), 0.1, np.float16)), 0),
        lambda net: net.constant(np.array([0.0, -0.0], np.float32)) * net.constant(2.0),
        lambda net: mg.cast(net.constant(np.array([1.7, -1.7])), "int32"),
        lambda net: mg.max_pool(net.constant(np.arange(8.0).reshape(1, 1, 8)), 2),
        lambda net: net.emit(OPS["iota"], (), {"size": 5})[0],
        lambda net: mg.reshape(net.constant(np.zeros((0, 3))), (3, 0)),
        lambda net: mg.pad(filled(net, 2.0, 3), [(1, 1)], value=2.0),
    ],
)
def test_the_numbers_are_those_of_the_references(build: Callable[[Builder], Tensor]) -> None:
    before, after = folded(build)
    assert [node.op.name for node in after.nodes] in (["fill"], ["constant"])
    with np.errstate(all="ignore"):
        a, b = evaluate(before, {})["y"], evaluate(after, {})["y"]
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if is_float(a.dtype) and np.isnan(a).any():  # to a graph there is one NaN
        assert np.isnan(a).all() == np.isnan(b).all()
    else:
        assert a.tobytes() == b.tobytes()


def test_only_what_is_the_same_to_the_last_bit_is_a_fill() -> None:
    for array, op in (
        ([0.0, -0.0], "constant"),
        ([-0.0, -0.0], "fill"),
        ([np.nan, np.nan], "fill"),
        ([1.0, 1.0 + 2**-23], "constant"),
        ([], "constant"),
        ([[2.0]], "fill"),
    ):
        _, after = folded(lambda net, array=array: net.constant(np.array(array, np.float32)))  # type: ignore[misc]
        assert maker(after).op.name == op, array
    assert np.signbit(evaluate(folded(lambda net: net.constant(np.full(2, -0.0)))[1], {})["y"]).all()


def test_a_large_result_is_computed_if_it_is_one_number_everywhere() -> None:
    _, after = folded(lambda net: mg.exp(filled(net, 1.0, 10**5, 10**5)) + 1.0)
    assert maker(after).attrs["shape"] == (10**5, 10**5)
    assert maker(after).attrs["value"] == np.exp(np.float32(1)) + np.float32(1)
    for build in (
        lambda net: filled(net, 1.0, LARGEST + 1) + net.constant(np.arange(LARGEST + 1, dtype=np.float32)),
        lambda net: mg.pad(filled(net, 1.0, LARGEST), [(1, 0)]),
        lambda net: mg.sum(filled(net, 0.1, LARGEST + 1)),
        lambda net: mg.concat([filled(net, 1.0, LARGEST), filled(net, 2.0, LARGEST)]),
        lambda net: net.emit(OPS["iota"], (), {"size": LARGEST + 1})[0],
    ):
        before, after = folded(build)
        assert after is before


def test_what_waits_for_a_size_is_computed_if_it_is_one_number_everywhere() -> None:
    def shape_matters(net: Builder) -> Tensor:
        return mg.sum(filled(net, 2.0, net.input("x", ("N",)).shape[0]))

    net = Builder("net")
    x = net.input("x", ("N", 2))
    graph = net.build(y=mg.reshape(-mg.broadcast_to(net.constant(3.0), x.shape), (-1,)) * 0.5)
    after = rewrite(graph, RULES)
    assert str(maker(after).attrs["shape"]) == "(2*N,)"
    assert evaluate(after.bind(N=2), {"x": np.zeros((2, 2), np.float32)})["y"].tolist() == [-1.5] * 4
    before, after = folded(shape_matters)
    assert after is before


def test_state_inputs_and_random_numbers_are_no_constants() -> None:
    def dropped(net: Builder) -> Tensor:
        return mg.dropout(filled(net, 1.0, 4), filled(net, 1, dtype="int64"), filled(net, 2, dtype="int64"), 0.5, 0)

    def bits(net: Builder) -> Tensor:
        seed, step = filled(net, 1, dtype="int64"), filled(net, 2, dtype="int64")
        return net.emit(OPS["random_bits"], (seed, step), {"shape": (3,), "stream": 0})[0]

    for build in (
        lambda net: net.parameter("w", (2,), mg.init.zeros) * 2.0,
        lambda net: net.input("x", (2,)) * 2.0,
        dropped,
        bits,
    ):
        before, after = folded(build)
        assert after is before


def test_an_error_of_the_run_stays_one() -> None:
    def outside(net: Builder) -> Tensor:
        return mg.gather(net.constant(np.arange(3.0)), net.constant(np.array([5, 1])))

    before, after = folded(outside)
    assert after is before
    with pytest.raises(mg.GraphError, match="index 5"):
        evaluate(after, {})


def test_a_count_is_known_as_soon_as_its_sizes_are() -> None:
    net = Builder("net")
    x = net.input("x", ("N", 3, 4))
    graph = net.build(y=OPS["count"](x, axes=(0, 1)))
    assert rewrite(graph, RULES) is graph
    assert maker(rewrite(graph.bind(N=5), RULES)).attrs["value"] == 15
    large = Builder("large")
    many = large.build(y=OPS["count"](large.input("x", (4097, 4097)), axes=(0, 1)))
    assert maker(rewrite(many, RULES)).attrs["value"] == float(np.float32(4097**2))
