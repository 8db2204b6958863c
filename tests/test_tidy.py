"""The general passes on whole networks: the same bits, the same state, nothing to do the second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_example_networks import BATCH, OPTIMIZERS, TINY, batch, tiny
from test_networks import Draft
from test_networks import batch as batch_of_draft

import minigraph as mg
from minigraph import layers
from minigraph.core.evaluate import Evaluation
from minigraph.core.frozen import split
from minigraph.core.ir import Graph
from minigraph.core.pipeline import run
from minigraph.passes.pipelines import CLEAR, INFERENCE, TIDY, TRAINING

Arrays = Mapping[str, np.ndarray]
RANDOM = ("dropout", "random_bits")


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


def steps(graph: Graph, inputs: Arrays, state: Arrays, count: int = 3) -> list[dict[str, np.ndarray]]:
    """Outputs and state of each step, by the references alone."""
    now, found = dict(state), []
    evaluation = Evaluation(graph)
    for _ in range(count):
        given = {v: np.asarray(inputs[v.name]).astype(v.type.dtype) for v in graph.inputs}
        arrays = evaluation.run({**given, **{v.value: now[v.name] for v in graph.state}})
        now.update({old.name: arrays[new] for old, new in graph.updates.items()})
        found.append({**{name: arrays[value] for name, value in graph.outputs.items()}, **now})
    return found


def same_bits(before: Graph, after: Graph, inputs: Arrays, state: Arrays) -> bool:
    return all(
        a[name].tobytes() == b[name].tobytes()
        for a, b in zip(steps(before, inputs, state), steps(after, inputs, state))
        for name in a
    )


@pytest.mark.parametrize("optimizer", ["Nesterov", "AdamW"])
@pytest.mark.parametrize("name", TINY)
def test_three_steps_of_training_are_the_same_to_the_last_bit(name: str, optimizer: str) -> None:
    step = mg.training_step(tiny(name), "loss", OPTIMIZERS[optimizer], clip_norm=1.0)
    after = run(TRAINING, step).graph
    assert len(after.nodes) < 0.9 * len(step.nodes)
    assert list(after.updates) == list(step.updates)
    assert [ops(after)[op] for op in RANDOM] == [ops(step)[op] for op in RANDOM]
    if name.startswith("resnet") and name != "resnet20":
        return  # deep ones of the same layers: their steps are as those of the others
    state = dict(step.init(seed=1).items())
    assert same_bits(step.bind(N=BATCH), after.bind(N=BATCH), batch(tiny(name)), state)


@pytest.mark.parametrize("name", TINY)
def test_the_second_time_it_changes_nothing(name: str) -> None:
    model = tiny(name)
    state = model.init(seed=1)
    step = mg.training_step(model, "loss", OPTIMIZERS["AdamW"])
    for graph, pipeline in (
        (step, TRAINING),
        (step.bind(N=BATCH), TRAINING),
        (mg.inference(model, ["logits"]), INFERENCE),
        (mg.inference(model, ["loss"]), INFERENCE),
    ):
        once = run(pipeline, graph, state).graph
        again = run(pipeline, once, state)
        assert again.graph is once, [fired for s in again.steps for fired in s.fired]


def test_a_linear_layer_reads_its_weight_the_right_way_around() -> None:
    """The gradient for its input transposes the transposed weight."""
    step = mg.training_step(tiny("mlp"), "loss", OPTIMIZERS["SGD"])
    after = run(TRAINING, step).graph
    assert ops(step)["transpose"] - ops(after)["transpose"] == 2
    for node in after.nodes:
        if node.op.name == "transpose":
            maker = after.producer.get(node.inputs[0])
            assert maker is None or maker.op.name != "transpose"


def test_of_the_constants_one_of_each_is_left() -> None:
    after = run(TRAINING, mg.training_step(tiny("resnet20"), "loss", OPTIMIZERS["AdamW"])).graph
    fills = [tuple(node.attrs.items()) for node in after.nodes if node.op.name == "fill"]
    assert len(set(fills)) == len(fills)


@given(st.data())
def test_random_networks_train_the_same_to_the_last_bit(data: st.DataObject) -> None:
    model = Draft(data, smooth=False, depth=6).build()
    step = mg.training_step(model, "loss", mg.optim.AdamW(0.01), clip_norm=1.0).bind(N=2)
    once = run(TRAINING, step)
    assert run(TRAINING, once.graph).graph is once.graph
    assert list(once.graph.updates) == list(step.updates)
    state = dict(step.init(seed=1).items())
    assert same_bits(step, once.graph, batch_of_draft(model, 2, 0), state)


def test_what_makes_work_for_other_rules_is_done_in_one_walk() -> None:
    """Equal branches, of which the larger one is asked for; behind it a product that then is one of constants."""
    net = mg.Builder("net")
    x = net.input("x", ("N", 4))
    larger = mg.maximum(mg.relu(x + 0.0), mg.relu(x * 1.0))
    chosen = mg.where(net.constant(1.0) < 2.0, net.constant(3.0), mg.sum(x)) * 2.0
    graph = net.build(y=mg.relu(larger) * chosen, z=chosen)
    after = run((TIDY,), graph).graph
    assert [node.op.name for node in after.nodes] == ["relu", "fill", "mul"]
    assert after.nodes[1].attrs["value"] == 6.0
    assert run((TIDY,), after).graph is after


def test_clearing_leaves_equal_nodes_for_folding() -> None:
    net = mg.Builder("net")
    x = net.input("x", ("N", 4))
    graph = net.build(y=mg.tanh(x) + mg.tanh(x) * 1.0)
    assert ops(run((CLEAR,), graph).graph)["tanh"] == 2
    assert ops(run((TIDY,), graph).graph)["tanh"] == 1


def test_a_factor_of_minus_one_goes_into_the_weight() -> None:
    net = mg.Builder("net")
    h = layers.linear(net.input("x", ("N", 4)), 3, bias=False)
    model = net.build(y=layers.batch_norm(h * -1.0), z=net.tensor("x") * -1.0)
    graph = run(INFERENCE, mg.inference(model), model.init()).graph
    moving = [node.op.name for node in split(graph)[1].nodes]
    assert sorted(moving) == ["add", "matmul", "neg"]


def test_dead_nodes_and_state_go_and_updates_stay() -> None:
    net = mg.Builder("net")
    x = net.input("x", (2,))
    count = net.variable("count", (2,), mg.init.zeros)
    idle = net.variable("idle", (2,), mg.init.zeros)
    net.update(count, count + x)
    graph = net.build(y=mg.where(net.constant(True), x, idle * 2.0))
    after = run(TRAINING, graph).graph
    assert ops(after) == {"add": 1}
    assert [variable.name for variable in after.state] == ["count"]
    assert [old.name for old in after.updates] == ["count"]
    assert after.inputs == graph.inputs
    loose = Graph(graph.name, graph.inputs, graph.state, graph.nodes, {}, {})
    emptied = run(TRAINING, loose).graph
    assert (emptied.nodes, emptied.state, emptied.inputs) == ((), (), graph.inputs)
