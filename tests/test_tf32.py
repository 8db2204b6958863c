"""precision="tf32": which factors are rounded, how far that may be off, and what a GPU stores of it.

How far a network may be off is measured as in test_precision.py: it runs in float64, and each factor that is rounded is
wrong by up to 2^-11 of itself, at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from c_programs import Room, by_references, differences, distance, in_c, largest, outcome, typed
from test_example_networks import BATCH, batch, tiny
from test_precision import NETWORKS, OPTIMIZERS, Rounded, by_name, curve, given, state_of

import minigraph as mg
from minigraph import GraphError
from minigraph.backends.cupy.device import Device
from minigraph.backends.cupy.executable import Executable
from minigraph.backends.cupy.tuned import laid_out
from minigraph.backends.lower import lower
from minigraph.core import scalar
from minigraph.core.ir import Graph, Node, Value
from minigraph.driver.given import complete
from minigraph.driver.program import optimize

PRODUCTS = ("conv", "conv_transpose", "conv_input_gradient", "conv_weight_gradient", "matmul")


def stepping(model: Graph, optimizer: mg.optim.Optimizer | None = None, **options: Any) -> Graph:
    return mg.training_step(model, "loss", optimizer or mg.optim.SGD(0.1), precision="tf32", **options)


def products(graph: Graph) -> Iterator[Node]:
    return (node for node in graph.nodes if node.op.name in PRODUCTS)


def is_rounded(graph: Graph, value: Value) -> bool:
    """Behind views, whose numbers are those of what they see."""
    node = graph.producer.get(value)
    while node is not None and (node.op.view is not None or node.op.in_order):
        node = graph.producer.get(node.inputs[0])
    return node is not None and node.op is mg.tf32


# which are rounded


@pytest.mark.parametrize("name", NETWORKS)
def test_both_factors_of_every_product_are_rounded(name: str) -> None:
    """Forward and backward, also in the graph that is computed in the end."""
    step = stepping(tiny(name), mg.optim.Adam(0.1), clip_norm=1.0)
    for graph in (step, optimize(step).graph):
        assert len(list(products(graph))) > 5
        assert all(is_rounded(graph, value) for node in products(graph) for value in node.inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_else_changes(name: str) -> None:
    """No loss scale, and no other dtype."""
    plain, rounded = mg.training_step(tiny(name), "loss", mg.optim.SGD(0.1)), stepping(tiny(name))
    ops = lambda graph: Counter(node.op.name for node in graph.nodes if node.op is not mg.tf32)
    types = lambda graph: {v.name: str(v.value.type) for v in graph.state}
    assert ops(rounded) == ops(plain)
    assert types(rounded) == types(plain)
    assert {old.name for old in rounded.updates} == {old.name for old in plain.updates}


def test_a_value_is_rounded_once_for_all_products_that_read_it() -> None:
    """In the graph that is computed: an activation goes into the next layer, and into its weight's gradient."""
    graph = optimize(stepping(tiny("lenet with batch norm"))).graph
    rounded = [node.inputs[0] for node in graph.nodes if node.op is mg.tf32]
    assert len(rounded) == len(set(rounded))


def test_what_is_float64_or_float16_by_its_author_stays() -> None:
    net = mg.Builder("net")
    x, y, z = (net.input(f"x{i}", (3, 3), dtype) for i, dtype in enumerate(("float32", "float16", "float64")))
    graph = mg.inference(net.build(a=x @ x, b=y @ y, c=z @ z), precision="tf32")
    found = {name: is_rounded(graph, graph.producer[value].inputs[0]) for name, value in graph.outputs.items()}
    assert found == {"a": True, "b": False, "c": False}


def test_other_floats_are_not_rounded() -> None:
    for dtype in ("float16", "float64"):
        x = np.array([1 + 2.0**-10, 1 + 2.0**-30, np.nan], dtype)
        assert scalar.tf32(x).tobytes() == x.tobytes()


def test_a_network_without_products_is_refused() -> None:
    net = mg.Builder("thin")
    x = net.input("x", ("N", 3))
    model = net.build(loss=mg.mean(x * net.parameter("w", (3,), mg.init.ones)))
    for make in (stepping, lambda model: mg.inference(model, precision="tf32")):
        with pytest.raises(GraphError, match="'thin' has no convolution and no matrix product of float32"):
            make(model)


# how far off


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_agree_with_those_of_float32(name: str) -> None:
    """As roundings do: the difference is no larger than the largest of 16 draws."""
    single, rounded = (mg.inference(tiny(name), ["logits"], precision=p).bind(N=BATCH) for p in (None, "tf32"))
    right = by_references(single, given(name, single))["logits"]
    off = distance(right, by_references(rounded, given(name, rounded))["logits"])
    draws = [distance(right, Rounded(rounded, seed).run(given(name, rounded))["logits"]) for seed in range(16)]
    assert 0 < off <= max(draws)
    assert max(draws) < 0.05 * largest(right)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp", "lenet with batch norm"])
def test_twenty_steps_follow_those_in_float32(name: str, optimizer: str) -> None:
    """The losses are off by no more than those of the worst of 4 draws, each where it is farthest off."""
    single = mg.training_step(tiny(name), "loss", OPTIMIZERS[optimizer]).bind(N=BATCH)
    rounded = stepping(tiny(name), OPTIMIZERS[optimizer]).bind(N=BATCH)
    right = np.array(curve(single, name, by_name(single)))
    found = np.array(curve(rounded, name, by_name(rounded)))
    draws = [np.abs(np.array(curve(rounded, name, Rounded(rounded, seed).run)) - right).max() for seed in range(4)]
    assert 0 < np.abs(found - right).max() <= max(draws)
    assert right[-1] < 0.5 * right[0]


@pytest.mark.compiler
@pytest.mark.cxx
@pytest.mark.parametrize("name", ["lenet with batch norm", pytest.param("mlp", marks=pytest.mark.nightly)])
def test_it_runs_the_same_in_c_and_in_cuda(name: str, device: Device) -> None:
    """A step, which moves parameters by their gradients, and answers. On a GPU no rounded factor is stored."""
    model, state = tiny(name), state_of(name).copy()
    step = stepping(model, mg.optim.SGD(1.0))
    complete(step, state)
    for graph in (step, mg.inference(model, ["logits"], precision="tf32")):
        ready = optimize(graph, state).graph
        arrays, bound = typed(ready, {**batch(model), **state}), ready.bind(N=BATCH)
        right, room = by_references(bound, arrays), Room(bound, arrays)
        executable = Executable(laid_out(lower(bound)), device)
        for found in (in_c(ready, arrays, {"N": BATCH}), outcome(*executable.run({}, arrays))):
            wrong, loose = differences(right, found, room)
            assert not wrong, "; ".join(wrong)
            assert loose <= 0.01 * len(found)
        plan = executable.program({}).plan
        stored = [value for step in plan.steps for value in step.writes if value in plan.graph.producer]
        assert [value.name for value in stored if plan.graph.producer[value].op is mg.tf32] == []


@pytest.mark.parametrize("name", ["lenet with batch norm", "resnet20"])
def test_batch_norms_fold_and_weights_are_rounded_once(name: str) -> None:
    """What is folded into a weight is computed in float64, becomes float32, and is rounded where it is read."""
    state = state_of(name)
    program = mg.compile(mg.inference(tiny(name), ["logits"], precision="tf32"), state)
    assert "batch_norm_inference" not in [node.op.name for node in program.graph.nodes]
    conv = next(node for node in program.graph.nodes if node.op.name == "conv")
    factor = mg.compile(replace(program.graph, inputs=(), outputs={"w": conv.inputs[1]}).prune(), state)
    numbers = {key: state[key].astype(np.float64) for key in state}
    scale = numbers["bn1.gamma"] / np.sqrt(numbers["bn1.running_var"] + 1e-5)
    folded = numbers["conv1.weight"] * scale[:, None, None, None]
    np.testing.assert_array_equal(factor()["w"], scalar.tf32(folded.astype(np.float32)))
    state["conv1.weight"] = np.ones_like(state["conv1.weight"])  # it is folded again, and rounded again
    np.testing.assert_array_equal(factor()["w"][:, 0, 0, 0], scalar.tf32(scale.astype(np.float32)))


def test_a_gradient_passes_as_if_nothing_was_rounded() -> None:
    net = mg.Builder("net")
    x = net.input("x", (4,))
    (g,) = mg.gradient(mg.sum(mg.tf32(x) * mg.tf32(x)), [x])
    numbers = np.array([1.0001, -0.3, 1e-40, 7.0], np.float32)
    found = mg.compile(net.build(g=g), mg.State())(x=numbers)["g"]
    np.testing.assert_array_equal(found, 2 * scalar.tf32(numbers))
