"""Equal nodes become one; what only looks equal stays apart, and so does what is random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph
from minigraph.core.op import OPS
from minigraph.core.rewrite import rewrite
from minigraph.passes.merge_equal import RULES


def merged(build: Callable[[Builder, Tensor], Mapping[str, Tensor]]) -> tuple[Graph, Graph]:
    net = Builder("net")
    graph = net.build(build(net, net.input("x", (4,))))
    return graph, rewrite(graph, RULES)


def stay_apart(build: Callable[[Builder, Tensor], Mapping[str, Tensor]]) -> bool:
    before, after = merged(build)
    return before is after


def filled(net: Builder, value: object, dtype: str, *shape: int) -> Tensor:
    return net.emit(OPS["fill"], (), {"value": value, "shape": shape, "dtype": dtype})[0]


def literal(net: Builder, *numbers: float) -> Tensor:
    return net.emit(OPS["constant"], (), {"value": np.array(numbers, np.float32)})[0]


@pytest.mark.parametrize(
    "build",
    [
        lambda net, x: {"a": filled(net, 0.0, "float32"), "b": filled(net, -0.0, "float32")},
        lambda net, x: {"a": filled(net, 1, "int32"), "b": filled(net, True, "bool")},
        lambda net, x: {"a": filled(net, 1, "int32"), "b": filled(net, 1.0, "float32")},
        lambda net, x: {"a": filled(net, 1, "int32"), "b": filled(net, 1, "int64")},
        lambda net, x: {"a": filled(net, 1.0, "float32"), "b": filled(net, 1.0, "float32", 1)},
        lambda net, x: {"a": literal(net, 0.0, 1.0), "b": literal(net, -0.0, 1.0)},
        lambda net, x: {"a": x - 1.0, "b": filled(net, 1.0, "float32", 4) - x},
        lambda net, x: {"a": OPS["power"](x, exponent=2), "b": OPS["power"](x, exponent=3)},
        lambda net, x: {"a": mg.pad(x, [(1, 0)], value=0.0), "b": mg.pad(x, [(1, 0)], value=-0.0)},
        lambda net, x: {"a": mg.exp(x), "b": mg.sin(x)},
        lambda net, x: {"a": mg.concat([x, mg.exp(x)]), "b": mg.concat([mg.exp(x), x, x])},
    ],
)
def test_what_only_looks_equal_stays_apart(build: Callable[[Builder, Tensor], Mapping[str, Tensor]]) -> None:
    before, after = merged(build)
    names = [graph.outputs[name] for graph in (after,) for name in ("a", "b")]
    assert names[0] is not names[1]
    assert Counter(n.op.name for n in after.nodes if n.inputs) <= Counter(n.op.name for n in before.nodes if n.inputs)


@pytest.mark.parametrize("op", ["add", "mul", "maximum", "minimum", "equal"])
def test_the_inputs_of_a_commutative_op_may_change_places(op: str) -> None:
    before, after = merged(lambda net, x: {"a": OPS[op](x, x2 := mg.exp(x)), "b": OPS[op](x2, x)})
    assert after.outputs["a"] is after.outputs["b"] is before.outputs["a"]
    assert stay_apart(lambda net, x: {"a": x - (x2 := mg.exp(x)), "b": x2 - x})


def test_nans_are_one_attribute() -> None:
    _, after = merged(
        lambda net, x: {"a": x * filled(net, float("nan"), "float32"), "b": x * filled(net, -float("nan"), "float32")}
    )
    assert after.outputs["a"] is after.outputs["b"]


def test_it_is_the_first_one_that_stays_with_its_name() -> None:
    before, after = merged(lambda net, x: {"a": mg.tanh(mg.exp(x)), "b": mg.relu(mg.tanh(mg.exp(x))), "c": mg.exp(x)})
    exp, tanh, relu = after.nodes
    assert (exp, tanh) == before.nodes[:2]
    assert relu.name == "relu"
    assert relu.inputs == tanh.outputs
    assert list(after.outputs.items()) == [("a", tanh.outputs[0]), ("b", relu.outputs[0]), ("c", exp.outputs[0])]


def test_nodes_of_several_results_become_one() -> None:
    _, after = merged(lambda net, x: {str(i): mg.topk(x, 2)[i % 2] for i in range(4)})
    assert [node.op.name for node in after.nodes] == ["topk"]
    assert after.outputs["0"] is after.outputs["2"] is after.nodes[0].outputs[0]
    assert after.outputs["1"] is after.outputs["3"] is after.nodes[0].outputs[1]


def test_random_numbers_are_drawn_as_often_as_before() -> None:
    def dropouts(net: Builder, x: Tensor) -> Mapping[str, Tensor]:
        return {"a": layers.dropout(x, 0.5), "b": layers.dropout(x, 0.5)}

    def one_stream(net: Builder, x: Tensor) -> Mapping[str, Tensor]:
        seed, step, stream = net.random_stream()
        return {name: mg.dropout(x, seed, step, 0.5, stream) for name in "ab"}

    def bits(net: Builder, x: Tensor) -> Mapping[str, Tensor]:
        seed, step, stream = net.random_stream()
        return {n: net.emit(OPS["random_bits"], (seed, step), {"shape": (2,), "stream": stream})[0] for n in "ab"}

    assert all(map(stay_apart, (dropouts, one_stream, bits)))


def test_updates_stay_also_where_they_are_equal() -> None:
    def build(net: Builder, x: Tensor) -> Mapping[str, Tensor]:
        a, b = (net.variable(name, (4,), mg.init.zeros) for name in "ab")
        net.update(a, a + x)
        net.update(b, a + x)
        return {"y": x}

    before, after = merged(build)
    assert list(after.updates) == list(before.updates)
    assert len(set(after.updates.values())) == 1
    assert after.state == before.state


def test_a_chain_that_is_computed_twice_is_computed_once() -> None:
    def build(net: Builder, x: Tensor) -> Mapping[str, Tensor]:
        a = b = x
        for _ in range(500):
            a, b = mg.sin(a) + x, x + mg.sin(b)
        return {"a": a, "b": b}

    before, after = merged(build)
    assert len(before.nodes) == 2 * len(after.nodes) == 2000
    assert after.outputs["a"] is after.outputs["b"]
