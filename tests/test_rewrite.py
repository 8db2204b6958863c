"""Patterns, rules, and the walk that applies them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph
from minigraph.core.pattern import Pattern, values
from minigraph.core.pipeline import with_own_names
from minigraph.core.rewrite import Condition, Fired, Match, Refused, Rule, Walk, refusals, rewrite
from minigraph.passes import fold_before, scale_and_shift
from minigraph.passes.per_channel import frozen, moving

x, y, z = values("x y z")

FOLDING = (*scale_and_shift.RULES, *fold_before.PASS.rules)


def rule(name: str, pattern: Any, becomes: Callable[..., Any], *conditions: Condition) -> Rule:
    return Rule(name, "a = b", pattern, becomes, sound=conditions)


TANH_TO_SIN = rule("tanh-to-sin", mg.tanh(x), lambda match, x: mg.sin(x))
SIN_TO_COS = rule("sin-to-cos", mg.sin(x), lambda match, x: mg.cos(x))
RELU_ONCE = rule("relu-once", mg.relu(mg.relu(x)), lambda match, x: mg.relu(x))


def graph_of(build: Callable[[Tensor], Any], shape: Any = (2, 3)) -> Graph:
    """A graph with the input x; what is built is y, or a dict of outputs."""
    net = Builder("g")
    built = build(net.input("x", shape))
    return net.build(built if isinstance(built, dict) else {"y": built})


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def small() -> Graph:
    """An input, parameters, statistics with updates, and two outputs."""
    net = mg.Builder("small")
    y = layers.batch_norm(layers.linear(net.input("x", ("N", 3)), 4))
    return net.build(y=mg.relu(y), mean=mg.mean(y))


def by_name(graph: Graph) -> dict[str, Any]:
    return {node.name: node for node in graph.nodes}


# what stays


def test_a_walk_in_which_nothing_fires_gives_the_graph_itself() -> None:
    graph = small()
    assert rewrite(graph, ()) is graph
    assert rewrite(graph, (TANH_TO_SIN, RELU_ONCE)) is graph
    never = Condition("it is never so", lambda match: f"{match.node.name} is not")
    assert rewrite(graph, (rule("never", mg.relu(x), lambda match, x: mg.tanh(x), never),)) is graph


def test_what_is_upstream_stays_and_so_does_the_graph_that_was_given() -> None:
    graph = small()
    text = str(graph)
    after = rewrite(graph, (rule("bend", mg.relu(x), lambda match, x: mg.tanh(x)),)).check()
    assert str(graph) == text
    kept = [node for node in graph.nodes if node.op.name != "relu"]
    assert [node for node in after.nodes if node.op.name != "tanh"] == kept  # the same objects
    assert after.inputs == graph.inputs
    assert after.state == graph.state
    assert after.updates == graph.updates
    (new,) = (node for node in after.nodes if node.op.name == "tanh")
    assert (new.origin.rule, new.origin.sources) == ("bend", ("relu",))
    assert (new.origin.file, new.origin.role) == (__file__, "forward")
    assert list(after.outputs) == ["y", "mean"]


def test_what_only_reads_something_else_keeps_its_name_and_origin() -> None:
    graph = graph_of(lambda x: mg.exp(mg.relu(mg.tanh(x)) + mg.sigmoid(x)))
    after = rewrite(graph, (TANH_TO_SIN,))
    old, new = by_name(graph), by_name(after)
    assert new["sigmoid"] is old["sigmoid"]
    for name in ("relu", "add", "exp"):
        assert new[name] is not old[name]
        assert new[name].op is old[name].op
        assert new[name].origin == old[name].origin
        assert new[name].outputs[0].name == name


def test_the_root_keeps_its_name_and_says_where_it_comes_from() -> None:
    graph = graph_of(lambda x: {"y": mg.relu(mg.relu(x)), "z": mg.sin(x)})
    walk = Walk(graph, (RELU_ONCE,))
    after = walk.run()
    node = after.producer[after.outputs["y"]]
    assert node.name == node.outputs[0].name == "relu2"
    assert node.origin.rule == "relu-once"
    assert node.origin.sources == ("relu2", "relu")
    (fired,) = walk.fired
    assert (fired.rule, fired.at, fired.made) == ("relu-once", "relu2", ("relu2",))
    assert fired.sources == ("relu2", "relu")


def test_named_patterns_of_ops_are_replaced_too_and_are_sources() -> None:
    pattern = mg.relu(mg.tanh(x).named("inner"))
    seen: list[Any] = []

    def becomes(match: Match, x: Tensor) -> Tensor:
        seen.append(match["inner"].name)
        return mg.sin(mg.cos(x))

    graph = graph_of(lambda x: mg.relu(mg.tanh(x)))
    walk = Walk(graph, (rule("both", pattern, becomes),))
    after = walk.run()
    assert seen == ["tanh"]
    assert ops(after) == ["cos", "sin"]
    assert walk.fired == [Fired("both", "relu", ("relu", "tanh"), tuple(node.name for node in after.nodes))]
    assert {node.origin.sources for node in after.nodes} == {("relu", "tanh")}


def test_sources_are_names_of_the_graph_that_was_given_however_often_it_was_rewritten() -> None:
    graph = graph_of(lambda x: mg.exp(mg.tanh(x)))
    walk = Walk(graph, (TANH_TO_SIN, SIN_TO_COS))
    after = walk.run()
    assert [fired.rule for fired in walk.fired] == ["tanh-to-sin", "sin-to-cos"]
    (cos,) = (node for node in after.nodes if node.op.name == "cos")
    assert (cos.name, cos.origin.rule, cos.origin.sources) == ("tanh", "sin-to-cos", ("tanh",))


def test_a_second_walk_still_knows_the_first_graph() -> None:
    graph = graph_of(lambda x: mg.exp(mg.tanh(x)))
    second = rewrite(rewrite(graph, (TANH_TO_SIN,)), (SIN_TO_COS,))
    (cos,) = (node for node in second.nodes if node.op.name == "cos")
    assert cos.origin.sources == ("tanh",)


def test_the_role_of_what_is_made_is_that_of_what_was_there() -> None:
    net = Builder()
    x = net.input("x", (3,))
    with net.origin(role="statistic"):
        y = mg.tanh(x)
    after = rewrite(net.build(y=y), (TANH_TO_SIN,))
    assert after.nodes[0].origin.role == "statistic"


# the walk


@pytest.mark.parametrize("count", [2, 3, 7])
def test_what_a_rule_makes_comes_next_in_the_walk(count: int) -> None:
    def many(x: Tensor) -> Tensor:
        for _ in range(count):
            x = mg.relu(x)
        return x

    walk = Walk(graph_of(many), (RELU_ONCE,))
    after = walk.run()
    assert ops(after) == ["relu"]
    assert len(walk.fired) == count - 1
    assert after.outputs["y"].name == f"relu{count}"


def test_three_batch_norms_go_into_a_convolution_in_one_walk() -> None:
    net = Builder()
    y = layers.conv1d(net.input("x", ("N", 2, 6)), 3, 2, bias=False, name="conv")
    for i in range(3):
        y = layers.batch_norm(y, frozen=True, name=f"bn{i}")
    graph = net.build(y=y)
    after = rewrite(graph, FOLDING).check()
    moving = [node for node in after.nodes if node.name in ("bn2.batch_norm_inference", "conv.conv")]
    assert sorted(node.op.name for node in moving) == ["add", "conv"]
    assert after.producer[after.outputs["y"]].name == "bn2.batch_norm_inference"
    assert len([node for node in after.nodes if "N" in map(str, node.outputs[0].type.shape)]) == 2
    assert rewrite(after, FOLDING) is after


def test_rules_meet_each_others_work_in_any_order() -> None:
    graph = graph_of(lambda x: mg.tanh(x))
    for rules in ((TANH_TO_SIN, SIN_TO_COS), (SIN_TO_COS, TANH_TO_SIN)):
        assert ops(rewrite(graph, rules)) == ["cos"]


def test_of_two_rules_that_fit_the_first_one_fires() -> None:
    graph = graph_of(lambda x: mg.tanh(x))
    to_cos = rule("tanh-to-cos", mg.tanh(x), lambda match, x: mg.cos(x))
    assert ops(rewrite(graph, (TANH_TO_SIN, to_cos))) == ["sin"]
    assert ops(rewrite(graph, (to_cos, TANH_TO_SIN))) == ["cos"]


def test_rules_that_undo_each_other_are_named() -> None:
    back = rule("sin-to-tanh", mg.sin(x), lambda match, x: mg.tanh(x))
    with pytest.raises(GraphError, match="sin-to-tanh and tanh-to-sin go on for ever at tanh"):
        rewrite(graph_of(lambda x: mg.relu(mg.tanh(x))), (TANH_TO_SIN, back))


def test_a_rule_that_makes_ever_more_of_itself_is_named() -> None:
    more = rule("more", mg.tanh(x), lambda match, x: mg.tanh(mg.tanh(x)))
    with pytest.raises(GraphError, match="more go on for ever"):
        rewrite(graph_of(lambda x: mg.tanh(x)), (more,))


def test_dead_nodes_and_state_go_and_inputs_stay() -> None:
    net = Builder()
    x, unread = net.input("x", (2, 3)), net.input("unread", (4,))
    y = mg.tanh(x) * mg.exp(net.parameter("scale", (3,), mg.init.zeros))
    graph = net.build(y=y)
    first = rule("first", mg.tanh(Pattern("x")) * Pattern("z"), lambda match, x, z: mg.sin(x))
    after = rewrite(graph, (first,)).check()
    assert ops(after) == ["sin"]
    assert after.state == ()
    assert after.inputs == (x.value, unread.value)


def test_updates_follow_what_is_replaced() -> None:
    net = Builder()
    x, mean = net.input("x", (3,)), net.variable("mean", (3,), mg.init.zeros)
    net.update(mean, mg.tanh(x))
    graph = net.build(y=mg.exp(x))
    after = rewrite(graph, (TANH_TO_SIN,)).check()
    (old,) = after.updates
    assert old is mean.value
    assert after.producer[after.updates[old]].op is mg.sin


def test_a_result_that_is_there_already() -> None:
    """An input, or what another output is: nothing is made, and every output keeps its name."""
    drop = rule("drop", mg.relu(x), lambda match, x: x)
    graph = graph_of(lambda x: {"y": mg.relu(x), "z": mg.relu(mg.tanh(x)), "t": mg.tanh(x)})
    walk = Walk(graph, (drop,))
    after = walk.run().check()
    assert list(after.outputs) == ["y", "z", "t"]
    assert after.outputs["y"] is graph.inputs[0]
    assert after.producer[after.outputs["z"]].op is mg.tanh
    assert [fired.made for fired in walk.fired] == [(), ()]


def test_outputs_that_are_inputs_or_state_stay_what_they_are() -> None:
    net = Builder()
    x, w = net.input("x", (3,)), net.parameter("w", (3,), mg.init.zeros)
    graph = net.build({"x": x, "w": w, "again": x, "y": mg.tanh(x), "same": mg.tanh(w)})
    after = rewrite(graph, (TANH_TO_SIN,)).check()
    assert [after.outputs[name] for name in ("x", "w", "again")] == [x.value, w.value, x.value]
    assert ops(after) == ["sin", "sin"]


def test_one_value_under_two_names_stays_one_value() -> None:
    def twice(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": y, "b": y}

    after = rewrite(graph_of(twice), (TANH_TO_SIN,))
    assert after.outputs["a"] is after.outputs["b"]
    assert ops(after) == ["sin"]


# nodes with several outputs


def with_statistics(net: Builder) -> tuple[Tensor, Tensor, Tensor]:
    x = net.input("x", (4, 3))
    gamma, beta = (net.parameter(name, (3,), mg.init.zeros) for name in ("gamma", "beta"))
    return mg.batch_norm(x, gamma, beta)


def test_a_replacement_gives_a_tensor_for_each_output_of_the_root() -> None:
    net = Builder()
    normal, mean, var = with_statistics(net)
    graph = net.build(y=mg.relu(normal), mean=mean, var=var)

    def becomes(match: Match, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return mg.batch_norm(mg.tanh(x), y, z, **match.node.attrs)

    again = rule("again", mg.batch_norm(x, y, z), becomes, Condition("x is an input", is_input))
    after = rewrite(graph, (again,)).check()
    assert ops(after) == ["tanh", "batch_norm", "relu"]
    norm = after.nodes[1]
    assert norm.name == "batch_norm"
    assert [value.name for value in norm.outputs] == ["batch_norm.y", "batch_norm.mean", "batch_norm.var"]
    assert (after.outputs["mean"], after.outputs["var"]) == norm.outputs[1:]


def is_input(match: Match) -> str:
    made = match["x"] in match.walk.producer
    return f"{match['x'].name} is not an input" if made else ""


def test_too_few_results_are_refused() -> None:
    net = Builder()
    graph = net.build(y=with_statistics(net)[0])
    one = rule("one", mg.batch_norm(x, y, z), lambda match, x, y, z: x)
    with pytest.raises(GraphError, match="one: batch_norm needs a tensor for each output, 3 in all, not 1"):
        rewrite(graph, (one,))


def test_what_a_rule_cannot_build_is_told_with_the_rule() -> None:
    net = Builder()
    graph = net.build(y=mg.tanh(net.input("x", (3,))))
    square = rule("square", mg.tanh(x), lambda match, x: x @ x)
    with pytest.raises(GraphError, match=r"the rule square cannot be applied at tanh: matmul .*needs matrices"):
        rewrite(graph, (square,))


@pytest.mark.parametrize("pattern", [x, "tanh", None, (mg.tanh, x)])
def test_a_rule_that_could_never_fire_is_refused(pattern: Any) -> None:
    with pytest.raises(GraphError, match="the rule never looks for an op called on patterns, or is a function"):
        rule("never", pattern, lambda match, x: x)


def test_a_pattern_of_one_of_the_outputs() -> None:
    net = Builder()
    normal, mean, var = with_statistics(net)
    graph = net.build(y=mg.tanh(normal), mean=mg.tanh(mean), var=mg.tanh(var))
    pattern = mg.tanh(mg.batch_norm(*values("a b c"))[1].named("norm"))

    def becomes(match: Match, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return mg.sin(match.tensor(match["norm"].outputs[1]))

    after = rewrite(graph, (rule("of-the-mean", pattern, becomes),))
    assert {name: after.producer[value].op.name for name, value in after.outputs.items()} == {
        "y": "tanh",
        "mean": "sin",
        "var": "tanh",
    }


# patterns


def fires(pattern: Any, build: Callable[[Tensor], Any]) -> bool:
    """Whether a rule with this pattern would fire in a graph of x."""
    graph, any_ = graph_of(build), rule("any", pattern, lambda match, **bound: None)
    walk, found = Walk(graph, (any_,)), []
    for node in graph.nodes:
        found += [match for match in any_.matches(walk, node) if not match.refusal()]
        walk.keep(node)
    return bool(found)


def test_inputs_that_may_change_places_are_tried_both_ways() -> None:
    for op, both in ((mg.add, True), (mg.mul, True), (mg.maximum, True), (mg.sub, False), (mg.div, False)):
        ahead: Callable[[Tensor], Tensor] = lambda x, op=op: op(x, mg.tanh(x))  # type: ignore[misc]
        behind: Callable[[Tensor], Tensor] = lambda x, op=op: op(mg.tanh(x), x)  # type: ignore[misc]
        assert fires(op(x, mg.tanh(y)), ahead)
        assert fires(op(x, mg.tanh(y)), behind) is both


def test_changed_places_are_tried_at_each_depth() -> None:
    pattern = (mg.tanh(x) * y) + mg.sin(z)
    for build in (
        lambda x: (mg.tanh(x) * x) + mg.sin(x),
        lambda x: (x * mg.tanh(x)) + mg.sin(x),
        lambda x: mg.sin(x) + (mg.tanh(x) * x),
        lambda x: mg.sin(x) + (x * mg.tanh(x)),
    ):
        assert fires(pattern, build)
    assert not fires(pattern, lambda x: (x * mg.cos(x)) + mg.sin(x))


def test_another_order_is_tried_where_a_condition_refuses_the_first() -> None:
    made_by_tanh = Condition(
        "y is a tanh", lambda m: "" if m["y"].name.startswith("tanh") else f"{m['y'].name} is no tanh"
    )
    keep = rule("keep", x + y, lambda match, x, y: y, made_by_tanh)
    for build in (lambda x: mg.sin(x) + mg.tanh(x), lambda x: mg.tanh(x) + mg.sin(x)):
        after = rewrite(graph_of(build), (keep,))
        assert ops(after) == ["tanh"]


def test_one_name_is_one_value() -> None:
    assert fires(x + x, lambda x: x + x)
    assert not fires(x + x, lambda x: x + mg.tanh(x))
    assert fires(mg.tanh(x) * x, lambda x: x * mg.tanh(x))
    assert not fires(mg.tanh(x) * x, lambda x: mg.sin(x) * mg.tanh(x))
    assert fires(x + y, lambda x: x + x)  # two names may be one value


def test_one_name_of_an_op_is_one_node() -> None:
    tanh = mg.tanh(x).named("t")

    def shared(x: Tensor) -> Tensor:
        t = mg.tanh(x)
        return mg.sin(t) * mg.cos(t)

    pattern = mg.sin(tanh) * mg.cos(tanh)
    assert fires(pattern, shared)
    assert not fires(pattern, lambda x: mg.sin(mg.tanh(x)) * mg.cos(mg.tanh(x)))


def test_numbers_in_patterns_are_constants_that_hold_them() -> None:
    for build in (lambda x: x * 1.0, lambda x: 1.0 * x, lambda x: x * 1):
        assert fires(x * 1.0, build)
    assert not fires(x * 1.0, lambda x: x * 2.0)
    assert not fires(x * 1.0, lambda x: x * x)
    assert not fires(x * 1.0, lambda x: x * x.builder.input("one", ()))
    assert fires(x + 0.0, lambda x: x + -0.0)
    assert not fires(x - 0.0, lambda x: 0.0 - x)


def test_attributes_that_are_named_must_agree_and_others_are_free() -> None:
    plain, kept = mg.sum(x, axes=(1,)), mg.sum(x, axes=(1,), keepdims=True)
    assert fires(plain, lambda x: mg.sum(x, 1, keepdims=True) + x)
    assert not fires(kept, lambda x: mg.sum(x, 1) + mg.sum(x))
    assert not fires(plain, lambda x: mg.sum(x, 0) + x)
    assert fires(mg.sum(x), lambda x: mg.sum(x, 0) + x)
    with pytest.raises(GraphError, match="sum has no attribute colour"):
        mg.sum(x, colour=1)


def test_a_value_is_narrowed_down_by_where() -> None:
    (w,), (data,) = values("w", frozen), values("data", moving)

    def scaled(x: Tensor) -> Tensor:
        return x * x.builder.parameter("s", (3,), mg.init.zeros)

    assert fires(data * w, scaled)
    assert not fires(data * w, lambda x: x * mg.tanh(x))
    assert not fires(mg.tanh(w), lambda x: mg.tanh(x))


def test_a_pattern_takes_as_many_inputs_as_it_names() -> None:
    joined = mg.concat(x, y, axis=1)
    assert fires(joined, lambda x: mg.concat([x, x], axis=1)[:, :3])
    assert not fires(joined, lambda x: mg.concat([x, x, x], axis=1)[:, :3])


def test_a_function_looks_at_every_node() -> None:
    seen: list[str] = []

    def look(walk: Walk, node: Any) -> dict[str, Any] | None:
        seen.append(node.name)
        return {"x": node.inputs[0]} if node.op is mg.tanh else None

    after = rewrite(graph_of(lambda x: mg.exp(mg.tanh(mg.relu(x)))), (rule("looking", look, lambda m, x: mg.sin(x)),))
    assert ops(after) == ["relu", "sin", "exp"]
    assert {"relu", "tanh", "exp"} <= set(seen)


# what conditions ask


def read_alone(match: Match) -> str:
    return match.walk.also_read(match["x"])


READ_ALONE = Condition("nothing else reads x", read_alone)


def refused(build: Callable[[Tensor], Any], *more: Rule) -> str:
    """Why exp(x) -> cos(x) is refused, which wants x to itself; "" where it fires."""
    want = rule("want", mg.exp(x), lambda match, x: mg.cos(x), READ_ALONE)
    graph = graph_of(build)
    walk = Walk(graph, (*more, want))
    after = walk.run()
    if any(fired.rule == "want" for fired in walk.fired):
        return ""
    (found,) = (r for r in refusals(after, (want,)))
    return found.why


def test_readers_are_nodes_outputs_and_updates_of_the_graph_that_was_given() -> None:
    def shared(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": mg.exp(y), "b": mg.relu(y)}

    def given_out(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": mg.exp(y), "y": y}

    def averaged(x: Tensor) -> Tensor:
        y = mg.tanh(x)
        x.builder.update(x.builder.variable("mean", (2, 3), mg.init.zeros), y)
        return mg.exp(y)

    def itself(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": mg.exp(y), "b": y * y}

    assert refused(lambda x: mg.exp(mg.tanh(x))) == ""
    assert refused(shared) == "tanh is read by exp and relu"
    assert refused(given_out) == "tanh is read by exp and output 'y'"
    assert refused(averaged) == "tanh is read by exp and the update of mean"
    assert refused(itself) == "tanh is read by exp and mul"


def test_a_value_that_is_read_twice_by_one_node_is_read_twice() -> None:
    double = rule("double", x * x, lambda match, x: mg.exp(x), READ_ALONE)
    (found,) = refusals(graph_of(lambda x: (lambda t: t * t)(mg.tanh(x))), (double,))
    assert found == Refused("double", "mul", "tanh is read by mul 2 times")


def test_what_stands_for_a_shared_value_is_shared() -> None:
    def shared(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": mg.exp(y), "b": mg.relu(y)}

    assert refused(shared, TANH_TO_SIN) == "tanh is read by exp and relu"
    assert refused(shared, TANH_TO_SIN, SIN_TO_COS) == "tanh is read by exp and relu"


def test_a_value_that_stands_for_another_is_read_by_the_readers_of_both() -> None:
    """relu goes: tanh is then read by what read relu, and by what read tanh besides."""
    drop = rule("drop", mg.relu(x), lambda match, x: x)

    def both(x: Tensor) -> dict[str, Tensor]:
        y = mg.tanh(x)
        return {"a": mg.exp(mg.relu(y)), "b": mg.sin(y)}

    assert refused(both, drop) == "tanh is read by exp and sin"


def test_inside_of_a_replacement_its_own_nodes_are_counted() -> None:
    """What a rule makes is read by what it makes, not by the readers of what it replaced."""
    split = rule("split", mg.relu(x), lambda match, x: mg.exp(mg.tanh(x)))
    assert refused(lambda x: mg.sin(mg.relu(x)), split) == ""
    both = rule("both", mg.relu(x), lambda match, x: (lambda t: mg.exp(t) + mg.sin(t))(mg.tanh(x)))
    assert "is read by" in refused(lambda x: mg.sin(mg.relu(x)), both)


def test_numbers_are_asked_of_the_state_and_the_answer_is_a_fact() -> None:
    def positive(match: Match) -> str:
        return "" if match.walk.ask(match["z"], all_positive) else f"{match['z'].name} is not positive"

    (w,) = values("z", frozen)
    law = rule("positive", x * w, lambda match, x, z: x, Condition("z is positive", positive))
    net = Builder()
    s = net.parameter("s", (3,), mg.init.zeros, "float32")
    graph = net.build(y=net.input("x", (2, 3)) * mg.exp(s))
    for state, wanted in (({"s": np.zeros(3)}, True), (None, False)):
        walk = Walk(graph, (law,), state)
        walk.run()
        assert bool(walk.fired) is wanted
        assert len(walk.facts) == (state is not None)
    net = Builder()
    graph = net.build(y=net.input("x", (2, 3)) * net.parameter("s", (3,), mg.init.zeros))
    state = {"s": np.array([1, -1, 1], "f4")}
    walk = Walk(graph, (law,), state)
    assert walk.run() is graph
    (fact,) = walk.facts  # a no is one as well: with other numbers the rule would fire
    assert not fact.answer
    assert fact.holds(state)
    assert not fact.holds({"s": np.ones(3, "f4")})
    (found,) = refusals(graph, (law,), state)
    assert found == Refused("positive", "mul", "s is not positive")


def all_positive(array: np.ndarray) -> bool:
    return bool((array > 0).all())


def test_a_reason_is_that_of_the_first_condition_that_fails_and_only_where_no_way_fits() -> None:
    no = Condition("never", lambda match: f"{match.node.name} no")
    later = Condition("never either", lambda match: f"{match.node.name} later")
    graph = graph_of(lambda x: mg.tanh(mg.tanh(x)) + mg.sin(x))
    both = Rule("both", "a = b", mg.tanh(x), lambda match, x: x, sound=(no,), pays=(later,))
    assert refusals(graph, (both,)) == (Refused("both", "tanh", "tanh no"), Refused("both", "tanh2", "tanh2 no"))
    pays = dataclasses.replace(both, sound=())
    assert [r.why for r in refusals(graph, (pays,))] == ["tanh later", "tanh2 later"]
    one_way = Condition("y is the sine", lambda m: "" if m["y"].name == "sin" else f"{m['y'].name} is not")
    assert refusals(graph, (rule("one way", x + y, lambda match, x, y: x, one_way),)) == ()


# what is refused


def test_a_replacement_of_another_type_is_refused_by_name() -> None:
    shrink = rule("shrink", mg.relu(x), lambda match, x: mg.sum(x))
    with pytest.raises(GraphError, match=r"shrink: relu: .* would become"):
        rewrite(graph_of(lambda x: mg.relu(x)), (shrink,))
    other = rule("half", mg.relu(x), lambda match, x: mg.cast(x, "float16"))
    with pytest.raises(GraphError, match=r"half: relu: .* would become"):
        rewrite(graph_of(lambda x: mg.relu(x)), (other,))


def test_a_replacement_that_is_no_tensor_is_refused_by_name() -> None:
    with pytest.raises(GraphError, match=r"forgets: relu: .* would become None"):
        rewrite(graph_of(lambda x: mg.relu(x)), (rule("forgets", mg.relu(x), lambda match, x: None),))


# names


def test_inner_values_get_names_of_their_own_and_the_interface_keeps_its() -> None:
    net = Builder()
    s = net.parameter("tanh", (3,), mg.init.zeros)
    y = mg.sin(net.input("x", (2, 3)) * s)
    graph = net.build(y=y)
    assert with_own_names(graph) is graph
    second = dataclasses.replace(graph.nodes[1], outputs=(mg.Value(graph.nodes[1].outputs[0].type, "sin"),))
    doubled = dataclasses.replace(
        graph, nodes=(*graph.nodes, second), outputs={**graph.outputs, "z": second.outputs[0]}
    )
    named = with_own_names(doubled).check()
    assert [node.name for node in named.nodes] == ["mul", "sin", "sin~2"]
    assert [value.name for value in named.outputs.values()] == ["sin", "sin~2"]
    assert named.nodes[:2] == graph.nodes
    assert with_own_names(named) is named


# long chains


def chain(kind: str, length: int) -> Graph:
    net = Builder()
    x = net.input("x", ("N", 2, 4))
    for i in range(length):
        if kind in ("conv-bn-relu", "conv-bn"):
            x = layers.conv1d(x, 2, 1, bias=False, name=f"conv{i}")
        if kind != "relu":
            x = layers.batch_norm(x, frozen=True, name=f"bn{i}")
        if kind in ("relu", "conv-bn-relu"):
            x = mg.relu(x)
    return net.build(y=x)


CHAINS = {"relu": (RELU_ONCE,), "bn": FOLDING, "conv-bn": FOLDING, "conv-bn-relu": FOLDING}


def calls(work: Callable[[], Any]) -> int:
    """How many functions a piece of work calls: the same on every machine."""
    count = 0

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("kind", CHAINS)
def test_long_chains_take_work_in_proportion(kind: str) -> None:
    """Sixteen hundred nodes: four times the length takes four times the calls."""
    nodes = {"conv-bn-relu": 3, "conv-bn": 2}.get(kind, 1)
    long, short = (chain(kind, n // nodes) for n in (1600, 400))
    after = rewrite(long, CHAINS[kind])
    left = [node for node in after.nodes if node.outputs[0].type.shape[:1] == long.inputs[0].type.shape[:1]]
    convs = len([node for node in long.nodes if node.op is mg.conv])
    assert len(left) == {"relu": 1, "bn": 2, "conv-bn": 2 * convs, "conv-bn-relu": 3 * convs}[kind]
    assert calls(lambda: rewrite(long, CHAINS[kind])) < 4.2 * calls(lambda: rewrite(short, CHAINS[kind]))


def test_a_long_chain_in_which_nothing_fires_gives_itself() -> None:
    graph = chain("relu", 3000)
    assert rewrite(graph, (TANH_TO_SIN,)) is graph
    assert refusals(graph, FOLDING) == ()


def test_a_function_sees_the_nodes_of_its_ops_alone():
    seen = []

    def look(walk, node):
        seen.append(node.op)

    graph = graph_of(lambda x: mg.relu(mg.exp(mg.tanh(x))))
    law = Rule("look", "a = a", look, lambda match: None, ops=(mg.exp, mg.relu))
    assert rewrite(graph, (law,)) is graph
    assert seen == [mg.exp, mg.relu]
