"""What holds for every rule of every pass, on the case that comes with it in tests/rules.

A rule fires on its example and the result prints as written down; outputs, updates, and the gradients of both, are the
same in exact numbers; each condition refuses its near miss, with a sentence, and the rule robbed of a sound condition
is refuted there; on what it made the rule is at rest.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

import minigraph as mg
import minigraph.passes
import rules
from minigraph.core.builder import Builder, Tensor
from minigraph.core.ir import Graph
from minigraph.core.pipeline import Pass
from minigraph.core.proof import Refuted
from minigraph.core.rewrite import Condition, Match, Rule, Walk, refusals, rewrite
from minigraph.passes import freeze, pipelines
from rules import Case, graph_of, number, numbers, prove, text


def found_rules() -> Iterator[Rule]:
    """Those of the pipelines, of passes that stand in no pipeline, and of freeze."""
    passes = [*pipelines.BEFORE_AUTODIFF, *pipelines.TRAINING, *pipelines.INFERENCE]
    for module in pkgutil.iter_modules(minigraph.passes.__path__, "minigraph.passes."):
        passes += [p for p in vars(importlib.import_module(module.name)).values() if isinstance(p, Pass)]
    for p in passes:
        if isinstance(p, Pass):
            yield from p.rules
    yield from freeze.RULES


ALL = tuple(dict.fromkeys(found_rules()))
RULES = {rule.name: rule for rule in ALL}
MODULES = [importlib.import_module(f"rules.{m.name}") for m in pkgutil.iter_modules(rules.__path__) if m.name[0] != "_"]
CASES: dict[str, Case] = {name: case for module in MODULES for name, case in module.CASES.items()}

KNOWN = [name for name in RULES if name in CASES]
SOUND = [(name, c) for name in KNOWN for c in RULES[name].sound]
PAYS = [(name, c) for name in KNOWN for c in RULES[name].pays]


def label(given: object) -> str:
    return given.says if isinstance(given, Condition) else str(given)


def fired(case: Case, rule: Rule) -> tuple[Graph, Graph, Walk]:
    """The example, what the rule makes of it, and the walk."""
    before = graph_of(case.build)
    walk = Walk(before, (rule,), numbers(before, case.ranges))
    return before, walk.run(), walk


def test_every_rule_has_a_case_and_every_case_a_rule() -> None:
    assert len(RULES) == len(ALL), "two rules have one name"
    assert sum(len(module.CASES) for module in MODULES) == len(CASES), "two cases have one name"
    assert not [name for name in RULES if name not in CASES], "rules without a case in tests/rules"
    assert not [name for name in CASES if name not in RULES], "cases in tests/rules without a rule"


@pytest.mark.parametrize("name", KNOWN)
def test_every_condition_has_a_near_miss(name: str) -> None:
    said = [condition.says for condition in (*RULES[name].sound, *RULES[name].pays)]
    assert len(set(said)) == len(said), "two conditions say the same"
    assert set(CASES[name].near) == set(said)


@pytest.mark.parametrize("name", RULES)
def test_it_says_what_it_does(name: str) -> None:
    rule = RULES[name]
    assert rule.law.strip() == rule.law != ""
    for condition in (*rule.sound, *rule.pays):
        assert condition.says.strip() == condition.says != ""


@pytest.mark.parametrize("name", KNOWN)
def test_it_fires_on_its_example(name: str) -> None:
    rule, case = RULES[name], CASES[name]
    before, after, walk = fired(case, rule)
    assert {fired.rule for fired in walk.fired} == {name}
    after.check()
    assert text(after) == textwrap.dedent(case.golden).strip()
    assert after.inputs == before.inputs
    assert list(after.outputs) == list(before.outputs)
    assert set(after.state) <= set(before.state)
    assert list(after.updates) == list(before.updates)
    given = {node.name for node in before.nodes}
    for node in after.nodes:
        assert node in before.nodes or node.origin.rule in ("", name)
        assert set(node.origin.sources) <= given


@pytest.mark.parametrize("name", KNOWN)
def test_it_is_exact(name: str) -> None:
    """On outputs, updates and gradients; or it is what it is meant to be, where it changes the meaning."""
    case = CASES[name]
    before, after, walk = fired(case, RULES[name])
    if case.meant is not None:
        before, after = graph_of(case.meant), after.prune(updates=False)
    prove(before, after, case.ranges, ordered=bool(walk.facts))


@pytest.mark.parametrize("name", KNOWN)
def test_it_is_at_rest_on_what_it_made(name: str) -> None:
    before, after, _ = fired(CASES[name], RULES[name])
    assert after is not before
    assert rewrite(after, (RULES[name],), numbers(after, CASES[name].ranges)) is after


@pytest.mark.parametrize(("name", "condition"), SOUND, ids=label)
def test_without_a_sound_condition_it_is_wrong(name: str, condition: Condition) -> None:
    """Sound conditions keep the answer right by themselves: those that make it pay are all taken away."""
    near, rule = CASES[name].near[condition.says], replace(RULES[name], pays=())
    graph = graph_of(near.build)
    state = numbers(graph, near.ranges) if near.known else None
    refuses(rule, condition, graph, state)
    robbed = replace(rule, sound=tuple(c for c in rule.sound if c is not condition))
    if near.fails is not None:
        with pytest.raises(near.fails):
            rewrite(graph, (robbed,), state)
        return
    wrong = rewrite(graph, (robbed,), state).check()
    assert wrong is not graph, "another condition refuses it as well"
    with pytest.raises(
        mg.GraphError if near.undefined else Refuted, match="quotients exist" if near.undefined else None
    ):
        prove(graph, wrong, near.ranges, ordered=bool(near.ranges), gradients=False)


@pytest.mark.parametrize(("name", "condition"), PAYS, ids=label)
def test_without_a_condition_that_makes_it_pay_it_is_still_right(name: str, condition: Condition) -> None:
    near, rule = CASES[name].near[condition.says], RULES[name]
    graph = graph_of(near.build)
    state = numbers(graph, near.ranges) if near.known else None
    refuses(rule, condition, graph, state)
    walk = Walk(graph, (replace(rule, pays=tuple(c for c in rule.pays if c is not condition)),), state)
    after = walk.run().check()
    assert after is not graph, "another condition refuses it as well"
    prove(graph, after, near.ranges, ordered=bool(walk.facts))


def refuses(rule: Rule, condition: Condition, graph: Graph, state: dict[str, np.ndarray] | None) -> None:
    """The rule does not fire in the graph, and this condition is the first that fails at a place where it might."""
    assert rewrite(graph, (rule,), state) is graph
    walk, sentences = Walk(graph, (rule,), state), []
    for node in graph.nodes:
        found = rule.matches(walk, node) if rule.looks_at(node.op) else ()
        sentences += [m.refusal() for m in found if first_that_fails(m) is condition]
        walk.keep(node)
    assert sentences, f"it is not this condition that refuses: {refusals(graph, (rule,), state)}"
    names = {node.name for node in graph.nodes} | graph.values.keys()
    for why in sentences:
        assert why.strip() == why
        assert "\n" not in why
        assert any(name in why for name in names), f"it names nothing in the graph: {why}"


def first_that_fails(match: Match) -> Condition | None:
    return next((c for c in (*match.rule.sound, *match.rule.pays) if c.fails(match)), None)


# the proof itself


def moved_mean(net: Builder) -> Mapping[str, Tensor]:
    """A weight, and an average of what it makes."""
    y = net.input("x", ("N", 3)) * number(net, "w", 3)
    mean = number(net, "mean", 3)
    net.update(mean, mg.mean(y, 0) + mean)
    return {"y": y}


def test_the_proof_sees_outputs_updates_and_gradients() -> None:
    before = graph_of(moved_mean)
    prove(before, graph_of(moved_mean), {})
    (mean, new), (w,) = next(iter(before.updates.items())), [v.value for v in before.state if v.name == "w"]
    for other in (
        replace(before, outputs={"y": before.inputs[0]}),
        replace(before, updates={mean: mean}),
        replace(before, updates={mean: new}, outputs={"y": before.inputs[0], "z": w}),
    ):
        with pytest.raises(Refuted):
            prove(before, other, {}, gradients=False)

    def without_slope(net: Builder) -> Mapping[str, Tensor]:
        return {"y": net.input("x", ("N", 3)) * mg.stop_gradient(number(net, "w", 3))}

    def with_slope(net: Builder) -> Mapping[str, Tensor]:
        return {"y": net.input("x", ("N", 3)) * number(net, "w", 3)}

    one, other = graph_of(with_slope), graph_of(without_slope)
    prove(one, other, {}, gradients=False)
    for pair in ((one, other), (other, one)):
        with pytest.raises(Refuted, match=r"gradient\.w"):
            prove(*pair, {})


def test_what_rests_on_facts_is_proved_where_they_hold() -> None:
    def built(op: Callable[[Tensor], Tensor]) -> Graph:
        return graph_of(lambda net: {"y": op(number(net, "w", 3))})

    relu, same = built(mg.relu), built(lambda w: w * 1.0)
    prove(relu, same, {"w": (0.5, 2.0)}, ordered=True)
    with pytest.raises(Refuted):
        prove(relu, same, {})
