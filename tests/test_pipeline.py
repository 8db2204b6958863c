"""Pipelines: their order, what they leave out, what they tell, and that they leave what they were given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass, Step, run
from minigraph.core.rewrite import Condition, Match, Refused, Rule
from minigraph.passes.pipelines import BEFORE_AUTODIFF, INFERENCE, TRAINING

(x,) = values("x")


def swap(name: str, old: mg.Op, new: mg.Op, *conditions: Condition) -> Rule:
    return Rule(name, "f(x) = g(x)", old(x), lambda match, x: new(x), sound=conditions)


TO_SIN = Pass("to-sin", "Tanh becomes sin.", (swap("tanh-to-sin", mg.tanh, mg.sin),))
TO_COS = Pass("to-cos", "Sin becomes cos.", (swap("sin-to-cos", mg.sin, mg.cos),))


def tanh() -> Graph:
    net = Builder("model")
    return net.build(y=mg.exp(mg.tanh(net.input("x", (2, 3)))))


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def test_passes_go_one_after_the_other() -> None:
    assert ops(run((TO_SIN, TO_COS), tanh()).graph) == ["cos", "exp"]
    assert ops(run((TO_COS, TO_SIN), tanh()).graph) == ["sin", "exp"]
    assert ops(run((TO_COS, TO_SIN, TO_COS), tanh()).graph) == ["cos", "exp"]


def test_each_step_says_what_it_did() -> None:
    graph = tanh()
    never = Condition("never", lambda match: f"{match.node.name} is not")
    stubborn = Pass("stubborn", "It never fires.", (swap("exp-to-tanh", mg.exp, mg.tanh, never),))
    found = run((TO_SIN, stubborn), graph)
    first, second = found.steps
    assert found.source is first.before is graph
    assert first.after is second.before is second.after is found.graph
    assert (first.name, first.about) == ("to-sin", "Tanh becomes sin.")
    ((fired,), refused) = first.fired, first.refused
    assert (fired.rule, fired.at, fired.sources, fired.made) == ("tanh-to-sin", "tanh", ("tanh",), ("tanh",))
    assert refused == ()
    assert second.fired == ()
    assert second.refused == found.refused == (Refused("exp-to-tanh", "exp", "exp is not"),)
    assert all(step.seconds > 0 for step in found.steps)


def test_reasons_at_nodes_that_are_gone_are_not_told_in_the_end() -> None:
    never = Condition("never", lambda match: f"{match.node.name} is not")
    first = Pass("first", "", (swap("relu-to-tanh", mg.relu, mg.tanh, never),))
    drop = Pass("second", "", (Rule("drop", "relu(x) = x", mg.exp(mg.relu(x)), lambda match, x: mg.exp(x)),))
    net = Builder()
    found = run((first, drop), net.build(y=mg.exp(mg.relu(net.input("x", (3,))))))
    assert [refused.at for refused in found.steps[0].refused] == ["relu"]
    assert found.refused == ()


def test_an_empty_pipeline_gives_the_graph_itself() -> None:
    graph = tanh()
    found = run((), graph)
    assert (found.graph, found.source, found.steps) == (graph, graph, ())
    assert (found.facts, found.refused) == ((), ())


def test_a_pass_in_which_nothing_fires_gives_the_graph_itself() -> None:
    graph = tanh()
    assert run((TO_COS,), graph).graph is graph


def test_passes_and_rules_are_left_out_by_name() -> None:
    assert ops(run((TO_SIN, TO_COS), tanh(), without=["to-cos"]).graph) == ["sin", "exp"]
    assert ops(run((TO_SIN, TO_COS), tanh(), without=["sin-to-cos"]).graph) == ["sin", "exp"]
    assert [step.name for step in run((TO_SIN, TO_COS), tanh(), without=["to-sin"]).steps] == ["to-cos"]
    assert run((TO_SIN, TO_COS), tanh(), without=["to-sin", "to-cos"]).steps == ()
    with pytest.raises(GraphError, match="there is no pass or rule 'to-tan'; there are to-sin, to-cos"):
        run((TO_SIN, TO_COS), tanh(), without=["to-tan"])
    with pytest.raises(GraphError, match="list of names, not 'to-sin'"):
        run((TO_SIN,), tanh(), without="to-sin")


def test_a_function_is_a_pass_under_its_name() -> None:
    def renamed(graph: Graph) -> Graph:
        """Gives the graph another name."""
        return dataclasses.replace(graph, name="other")

    found = run((TO_SIN, renamed, TO_COS), tanh())
    assert found.graph.name == "other"
    assert ops(found.graph) == ["cos", "exp"]
    assert [step.name for step in found.steps] == ["to-sin", "renamed", "to-cos"]
    assert found.steps[1].about == "Gives the graph another name."
    assert ops(run((TO_SIN, renamed), tanh(), without=["renamed"]).graph) == ["sin", "exp"]


def test_what_a_function_gives_is_checked() -> None:
    def nothing(graph: Graph) -> None:
        pass

    def backwards(graph: Graph) -> Graph:
        return dataclasses.replace(graph, nodes=tuple(reversed(graph.nodes)))

    with pytest.raises(GraphError, match="the pass nothing gives a Graph, not a NoneType"):
        run((nothing,), tanh())  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="before it is defined"):
        run((backwards,), tanh())


def test_hooks_see_each_step_when_it_is_done() -> None:
    seen: list[Step] = []
    names: list[str] = []
    found = run((TO_SIN, TO_COS), tanh(), hooks=[seen.append, lambda step: names.append(step.name)])
    assert tuple(seen) == found.steps
    assert names == ["to-sin", "to-cos"]

    def stop(step: Step) -> None:
        raise RuntimeError(f"stopped after {step.name}")

    with pytest.raises(RuntimeError, match="stopped after to-sin"):
        run((TO_SIN, TO_COS), tanh(), hooks=[stop])


def test_facts_are_those_of_all_steps() -> None:
    def positive(match: Match) -> str:
        return "" if match.walk.ask(match["x"], all_positive) else f"{match['x'].name} is not positive"

    is_positive = Condition("x is positive", positive)
    drop = Rule("drop", "relu(x) = x where x > 0", mg.relu(x), lambda match, x: x, sound=(is_positive,))
    net = Builder()
    a, b = (net.parameter(name, (3,), mg.init.ones) for name in "ab")
    graph = net.build(y=net.input("x", (3,)) * mg.relu(a) * mg.relu(b))
    state = {"a": np.ones(3, "f4"), "b": -np.ones(3, "f4")}
    found = run((Pass("drop", "", (drop,)), TO_SIN), graph, state)
    assert [(fact.reads, fact.answer) for fact in found.facts] == [(("a",), True), (("b",), False)]
    assert all(fact.holds(state) for fact in found.facts)
    assert run((Pass("drop", "", (drop,)),), graph).facts == ()


def all_positive(array: np.ndarray) -> bool:
    return bool((array > 0).all())


def network() -> Graph:
    """With all that the pipelines look at: biases before norms, dropout, pooling, a residual sum."""
    net = Builder("network")
    x = net.input("x", ("N", 3, 8, 8))
    h = mg.relu(layers.batch_norm(layers.conv2d(x, 4, 3, padding=1)))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, 4, 3, padding=1)) + h)
    h = layers.dropout(mg.mean(mg.max_pool(h, 2), (2, 3)), 0.5)
    y = layers.linear(h, 5) * 1.0 + 0.0
    return net.build(y=y, loss=mg.mean(y * y))


@pytest.mark.parametrize("pipeline", ["before autodiff", "training", "inference"])
def test_the_graph_and_the_state_stay_as_they_were(pipeline: str) -> None:
    graph = network()
    if pipeline == "training":
        graph = mg.training_step(graph, "loss", mg.optim.SGD(0.1))
    elif pipeline == "inference":
        graph = mg.inference(graph)
    passes = {"before autodiff": BEFORE_AUTODIFF, "training": TRAINING, "inference": INFERENCE}[pipeline]
    state = graph.init(0)
    text, parts = str(graph), (graph.nodes, graph.inputs, graph.state, dict(graph.outputs), dict(graph.updates))
    before = {name: array.tobytes() for name, array in state.items()}
    found = run(passes, graph, state)
    assert found.graph is not graph
    assert found.source is graph
    assert str(graph) == text
    assert (graph.nodes, graph.inputs, graph.state, dict(graph.outputs), dict(graph.updates)) == parts
    assert {name: array.tobytes() for name, array in state.items()} == before
    assert found.graph.inputs == graph.inputs
    assert list(found.graph.outputs) == list(graph.outputs)
    assert [old.name for old in found.graph.updates] == [old.name for old in graph.updates]
    assert run(passes, found.graph, state).graph is found.graph


def test_rules_and_passes_have_names_of_their_own_in_each_pipeline() -> None:
    for pipeline in (BEFORE_AUTODIFF, TRAINING, INFERENCE):
        names = [p.name for p in pipeline if isinstance(p, Pass)]
        assert len(set(names)) == len(names)
        for p in pipeline:
            assert isinstance(p, Pass)
            assert p.about.endswith(".")
            assert len({rule.name for rule in p.rules}) == len(p.rules)


def test_inner_values_have_names_of_their_own_after_each_pass() -> None:
    double = Rule("double", "relu(x) = tanh(x)", mg.relu(x), twin)
    net = Builder()
    graph = net.build(y=mg.relu(net.input("x", (3,))))
    found = run((Pass("double", "", (double,)),), graph).graph
    names = [value.name for node in found.nodes for value in node.outputs]
    assert len(set(names)) == len(names)


def twin(match: Match, x: Tensor) -> Tensor:
    return mg.tanh(x) + mg.tanh(x)
