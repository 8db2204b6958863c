"""What is frozen, and what is computed from it once: in float64, and rounded last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.evaluate import evaluate
from minigraph.core.frozen import Fact, frozen, leaves, split
from minigraph.core.ir import Graph


def names(values: set[mg.Value]) -> set[str]:
    return {value.name for value in values}


def of_state(build: Callable[[Tensor], Tensor], kind: str = "parameter", dtype: str = "float32") -> Graph:
    """y = x + f(s) with state s."""
    net = Builder()
    s = net.variable("s", (3,), mg.init.zeros, dtype, kind)
    return net.build(y=net.input("x", (2, 3), "float32") + mg.cast(build(s), "float32"))


# which values


@pytest.mark.parametrize("kind", ["parameter", "statistic", "slot"])
def test_state_that_nothing_updates_is_frozen_and_what_is_computed_of_it(kind: str) -> None:
    graph = of_state(lambda s: mg.exp(s) * 2.0, kind)
    assert names(frozen(graph)) == {"s", "exp", "fill", "mul"}
    assert names(leaves(graph)) == {"s"}


@pytest.mark.parametrize("kind", ["counter", "stream"])
def test_counters_and_random_streams_are_not_though_nothing_updates_them(kind: str) -> None:
    graph = of_state(lambda s: mg.cast(s, "float32") * 2.0, kind, "int64")
    assert names(frozen(graph)) == {"fill"}


def test_state_that_is_updated_is_not_and_neither_is_what_reads_it() -> None:
    net = Builder()
    moved, still = (net.parameter(name, (3,), mg.init.zeros) for name in ("moved", "still"))
    net.update(moved, moved + mg.exp(still))
    graph = net.build(y=mg.tanh(moved), z=mg.tanh(still))
    assert names(frozen(graph)) == {"still", "exp", "tanh2"}


def test_inputs_are_not_and_constants_are() -> None:
    net = Builder()
    x = net.input("x", (3,))
    graph = net.build(y=mg.tanh(x) + mg.exp(net.constant(np.ones(3, "f4"))))
    assert names(frozen(graph)) == {"constant", "exp"}


def test_what_is_as_large_as_an_input_that_is_not_known_is_not() -> None:
    net = Builder()
    x, s = net.input("x", ("N", 3)), net.parameter("s", (3,), mg.init.zeros)
    rows = mg.broadcast_to(mg.exp(s), x.shape)
    graph = net.build(y=x * rows)
    assert names(frozen(graph)) == {"s", "exp"}


def test_dropout_and_running_averages_are_not() -> None:
    net = Builder()
    y = layers.batch_norm(layers.dropout(net.input("x", (4, 3)), 0.5), name="bn")
    graph = net.build(y=y, mask=layers.dropout(net.parameter("p", (4, 3), mg.init.ones), 0.5))
    assert names(leaves(graph)) == {"bn.gamma", "bn.beta", "p"}
    assert not any("dropout" in name for name in names(frozen(graph)))


# the prologue


def model() -> Graph:
    """Two frozen values that the rest reads, one output that is frozen, a parameter that is read by both parts."""
    net = Builder()
    x, w, b = (
        net.input("x", ("N", 3)),
        net.parameter("w", (4, 3), mg.init.zeros),
        net.parameter("b", (4,), mg.init.ones),
    )
    y = mg.matmul(x, mg.transpose(w)) * mg.exp(b) + b
    return net.build(y=y, norm=mg.sum(w * w), doubled=b * 2.0, b=b)


def test_both_parts_together_are_the_graph() -> None:
    graph = model()
    prologue, rest = split(graph)
    rest.check()
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(5, 3)).astype("f4"), "w": rng.normal(size=(4, 3)).astype("f4")}
    arrays["b"] = rng.normal(size=4).astype("f4")
    early = prologue.run(arrays)
    assert {value.name for value in prologue.values} == set(early) == {"transpose", "exp", "sum", "mul3"}
    assert set(prologue.reads) == {"w", "b"}
    assert [value.name for value in rest.inputs] == ["x", *early]
    assert [variable.name for variable in rest.state] == ["b"]
    found, wanted = evaluate(rest.bind(N=5), {**arrays, **early}), evaluate(graph.bind(N=5), arrays)
    assert list(found) == list(wanted) == ["y", "norm", "doubled", "b"]
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype
        # sums of at most 12 numbers of order 1, each rounded to 6e-8
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-6)


def test_constants_stay_with_what_reads_them() -> None:
    net = Builder()
    x = net.input("x", (3,))
    graph = net.build(y=x * 2.0 + mg.exp(net.constant(3.0)))
    prologue, rest = split(graph)
    assert [node.op.name for node in rest.nodes] == ["fill", "mul", "add"]
    assert [node.op.name for node in prologue.nodes] == ["fill", "exp"]
    assert prologue.reads == ()


def test_a_graph_without_anything_frozen_has_an_empty_prologue() -> None:
    net = Builder()
    graph = net.build(y=mg.tanh(net.input("x", (3,))))
    prologue, rest = split(graph)
    assert (prologue.nodes, prologue.values) == ((), ())
    assert (rest.nodes, rest.inputs, rest.outputs) == (graph.nodes, graph.inputs, graph.outputs)
    assert prologue.run({}) == {}


def test_updates_of_a_training_graph_stay_in_the_rest() -> None:
    net = Builder()
    w = net.parameter("w", (3,), mg.init.zeros)
    scale = mg.exp(net.parameter("s", (3,), mg.init.zeros))
    net.update(w, w * scale)
    prologue, rest = split(net.build(y=net.input("x", (3,)) * w))
    assert [value.name for value in prologue.values] == ["exp"]
    assert {old.name: new.name for old, new in rest.updates.items()} == {"w": "mul"}
    assert [variable.name for variable in rest.state] == ["w"]


# its arithmetic


def alone(build: Callable[[Tensor], Tensor], given: list[float], dtype: str = "float32") -> tuple[float, float]:
    """What the prologue makes of state, and what the references make of it in its own dtype."""
    net = Builder()
    s = net.parameter("s", (len(given),), mg.init.zeros, dtype)
    graph = net.build(y=net.input("x", (), dtype) + build(s))
    prologue, _ = split(graph)
    state = {"s": np.array(given, dtype)}
    (early,) = prologue.run(state).values()
    assert early.dtype == dtype
    return float(early), float(evaluate(graph, {"x": np.zeros((), dtype), **state})["y"])


def test_it_is_done_in_float64_and_rounded_last() -> None:
    """1 + 2^-30 - 1, which is 0 in float32."""
    early, late = alone(lambda s: mg.reshape((s + 1.0) - 1.0, ()), [2.0**-30])
    assert (early, late) == (2.0**-30, 0.0)


def test_what_overflows_on_the_way_does_not() -> None:
    early, late = alone(lambda s: mg.reshape(mg.log(mg.exp(s)), ()), [100.0])
    assert early == 100.0
    assert late == np.inf
    early, late = alone(lambda s: mg.sqrt(mg.sum(s * s)), [300.0, 400.0], "float16")
    assert (early, late) == (500.0, np.inf)


def test_state_of_float64_is_not_rounded_and_integers_stay() -> None:
    net = Builder()
    p = net.parameter("p", (2,), mg.init.zeros, "float64")
    i = net.variable("i", (2,), mg.init.zeros, "int64")
    graph = net.build(y=net.input("x", (2,), "float64") + mg.exp(p), z=net.input("j", (2,), "int64") * (i * 3))
    prologue, _ = split(graph)
    found = prologue.run({"p": np.array([0.1, 0.2]), "i": np.array([2**60, 5])})
    assert [(a.dtype.name, a.tolist()) for a in found.values()] == [
        ("float64", np.exp([0.1, 0.2]).tolist()),
        ("int64", [3 * 2**60, 15]),
    ]


def test_arrays_are_its_own_and_contiguous() -> None:
    net = Builder()
    w = net.parameter("w", (2, 3), mg.init.zeros)
    graph = net.build(y=mg.matmul(net.input("x", (1, 3)), mg.transpose(w)))
    prologue, _ = split(graph)
    state = {"w": np.arange(6, dtype="f4").reshape(2, 3)}
    (early,) = prologue.run(state).values()
    assert early.flags.c_contiguous
    early[:] = -1
    assert state["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_cannot_be_computed_is_told_with_its_line() -> None:
    net = Builder()
    rows = mg.gather(net.parameter("table", (3, 2), mg.init.zeros), net.constant(np.array([0, 7])), axis=0)
    prologue, _ = split(net.build(y=net.input("x", (2, 2)) + rows))
    with pytest.raises(mg.GraphError, match=r"(?s)gather 'gather': index 7 .*test_frozen\.py"):
        prologue.run({"table": np.zeros((3, 2), "f4")})


# facts


def positive(array: np.ndarray) -> bool:
    return bool((array > 0).all())


def test_a_fact_holds_until_the_numbers_answer_otherwise() -> None:
    graph = of_state(lambda s: s * 2.0)
    nodes = tuple(node for node in graph.nodes if node.outputs[0] in frozen(graph))
    value = nodes[-1].outputs[0]
    ones, mixed = np.ones(3, "f4"), np.array([1, -1, 1], "f4")
    yes, no = Fact(value, nodes, positive, True), Fact(value, nodes, positive, False)
    assert yes.holds({"s": ones})
    assert not yes.holds({"s": mixed})
    assert no.holds({"s": mixed})
    assert not no.holds({"s": ones})
    assert yes.reads == ("s",)


def test_a_fact_about_state_itself_and_about_a_constant() -> None:
    graph = of_state(lambda s: s * 2.0)
    (s,) = leaves(graph)
    fact = Fact(s, (), positive, True)
    assert fact.holds({"s": np.ones(3, "f4")})
    assert not fact.holds({"s": -np.ones(3, "f4")})
    assert fact.reads == ("s",)
    fill = next(node for node in graph.nodes if node.op.name == "fill")
    assert Fact(fill.outputs[0], (fill,), positive, True).holds({})


def test_a_fact_is_asked_in_float64() -> None:
    """1e-30 squared is 0 in float32, and is not above it."""
    graph = of_state(lambda s: s * s)
    nodes = tuple(node for node in graph.nodes if node.op.name == "mul")
    assert Fact(nodes[0].outputs[0], nodes, positive, True).holds({"s": np.full(3, 1e-30, "f4")})
