"""Pipelines: passes one after the other, and what each of them did."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigraph.core.collector import paused
from minigraph.core.errors import expect
from minigraph.core.frozen import Fact
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.rewrite import Fired, Refused, Rule, Walk, refusals


@dataclass(frozen=True)
class Pass:
    """One transformation: rules that are applied in one walk, or a function from graph to graph.

    about: what it does, as a sentence.
    """

    name: str
    about: str
    rules: tuple[Rule, ...] = ()
    function: Callable[[Graph], Graph] | None = None


@dataclass(frozen=True)
class Step:
    """What one pass of a pipeline did.

    fired: the rules that did, in order. refused: why others did not, at nodes of the graph `after`.
    facts: what they took for true of the state's numbers.
    """

    name: str
    about: str
    before: Graph
    after: Graph
    fired: tuple[Fired, ...]
    refused: tuple[Refused, ...]
    seconds: float
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Optimized:
    """A graph after a pipeline, with the steps that led to it, and why rules do not fire any more."""

    source: Graph
    graph: Graph
    steps: tuple[Step, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for step in self.steps for fact in step.facts)


Pipeline = Sequence["Pass | Callable[[Graph], Graph]"]
Hook = Callable[[Step], None]


@paused()
def run(
    pipeline: Pipeline,
    graph: Graph,
    state: Mapping[str, np.ndarray] | None = None,
    without: Collection[str] = (),
    hooks: Sequence[Hook] = (),
    turns: int = 1,
) -> Optimized:
    """The graph after these passes. The graph given, and the state, stay as they are.

    A pass is a Pass, or a function from graph to graph, which goes by its name.
    state: the numbers that rules may ask for. without: names of passes and of single rules to leave out.
    hooks: each is called with each step when it is done.
    turns: what a pass leaves may be work for one before it. So often the passes with rules take turns, until none
        fires; of later turns the steps are told that change something. A function is called once.
    """
    now, steps = with_own_names(graph), list[Step]()
    reasons: dict[int, list[Refused]] = {}
    for turn, p, step in _steps(_chosen(pipeline, without), now, state, turns):
        if step.after is not step.before:
            step.after.check()
        step = replace(step, refused=refusals(step.after, p.rules, state))
        now = step.after
        reasons.setdefault(turn, []).extend(step.refused)
        if turn == 0 or step.after is not step.before:
            steps.append(step)
            for hook in hooks:
                hook(step)
    there = {node.name for node in now.nodes}
    last = reasons[max(reasons)] if reasons else []
    return Optimized(graph, now, tuple(steps), tuple(dict.fromkeys(reason for reason in last if reason.at in there)))


@paused()
def applied(
    pipeline: Pipeline, graph: Graph, without: Collection[str] = (), hooks: Sequence[Hook] = (), turns: int = 1
) -> Graph:
    """The graph after these passes, as `run` leaves it, but unchecked, for whoever does not ask why they did no more.

    hooks: each is called with each step that changes something; it has no reasons.
    """
    now = with_own_names(graph)
    for _, _, step in _steps(_chosen(pipeline, without), now, None, turns):
        now = step.after
        for hook in hooks if step.after is not step.before else ():
            hook(step)
    return now


def _chosen(pipeline: Pipeline, without: Collection[str]) -> list[Pass]:
    """The passes, those by these names and the rules by these names left out."""
    expect(not isinstance(without, str), "without is a list of names, not {!r}", without)
    passes = [p if isinstance(p, Pass) else Pass(p.__name__, (p.__doc__ or "").strip(), function=p) for p in pipeline]
    names = [p.name for p in passes]
    rules = {rule.name for p in passes for rule in p.rules}
    for name in without:
        expect(name in names or name in rules, "there is no pass or rule {!r}; there are {}", name, ", ".join(names))
    kept = [p for p in passes if p.name not in without]
    return [replace(p, rules=tuple(rule for rule in p.rules if rule.name not in without)) for p in kept]


def _steps(
    passes: Sequence[Pass], graph: Graph, state: Mapping[str, np.ndarray] | None, turns: int
) -> Iterator[tuple[int, Pass, Step]]:
    """What each pass does, in which turn, without reasons why not more."""
    now = graph
    for turn in range(turns):
        before = now
        for p in passes:
            if turn == 0 or p.rules:
                step = _step(p, now, state)
                now = step.after
                yield turn, p, step
        if now is before:
            return


def _step(p: Pass, before: Graph, state: Mapping[str, np.ndarray] | None) -> Step:
    start = time.perf_counter()
    if p.function is not None:
        after = p.function(before)
        expect(isinstance(after, Graph), "the pass {} gives a Graph, not a {}", p.name, type(after).__name__)
        walk: Walk = Walk(after)
    else:
        walk = Walk(before, p.rules, state)
        after = walk.run()
    if after is not before:
        after = with_own_names(after)
    seconds = time.perf_counter() - start
    return Step(p.name, p.about, before, after, tuple(walk.fired), (), seconds, tuple(walk.facts))


def with_own_names(graph: Graph) -> Graph:
    """The graph with a name of its own for each inner value: a second conv1 becomes conv1~2, which only people see."""
    taken = Counter([*(value.name for value in graph.inputs), *graph.variables])
    taken.update(value.name for node in graph.nodes for value in node.outputs)
    if all(count == 1 for count in taken.values()):
        return graph
    seen = {value.name for value in graph.inputs} | set(graph.variables)
    new: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        suffix, count = "", 1
        while any(value.name + suffix in seen for value in node.outputs):
            count += 1
            suffix = f"~{count}"
        seen.update(value.name + suffix for value in node.outputs)
        if suffix:
            new.update((value, Value(value.type, value.name + suffix)) for value in node.outputs)
        if suffix or any(value in new for value in node.inputs):
            copies = {v: new.setdefault(v, Value(v.type, v.name)) for v in node.outputs}
            inputs = tuple(new.get(value, value) for value in node.inputs)
            nodes.append(replace(node, name=node.name + suffix, inputs=inputs, outputs=tuple(copies.values())))
        else:
            nodes.append(node)
    moved = {old: new.get(value, value) for old, value in graph.updates.items()}
    outputs = {name: new.get(value, value) for name, value in graph.outputs.items()}
    return Graph(graph.name, graph.inputs, graph.state, tuple(nodes), outputs, moved)


# telling


def report(optimized: Optimized) -> list[str]:
    """What each pass did, a line each, and then the reasons why not more."""
    lines = []
    for step in optimized.steps:
        counts = Counter(fired.rule for fired in step.fired)
        did = ", ".join(f"{rule} {n} times" if n > 1 else f"{rule} once" for rule, n in counts.items())
        if step.after is not step.before:
            size = f"{len(step.before.nodes)} -> {len(step.after.nodes)} nodes"
            lines.append(f"{step.name}: {size}" + (f" ({did})" if did else ""))
    nodes = {node.name: node for node in optimized.graph.nodes}
    reasons: dict[str, str] = {}
    for refused in optimized.refused:  # a node's first reason is its main one
        reasons.setdefault(refused.at, refused.why)
    told = dict.fromkeys((", ".join(nodes[at].origin.sources) or at, why) for at, why in reasons.items())
    return lines + [f"{of}: {why}" for of, why in told]


def debugging(state: Mapping[str, np.ndarray] | None) -> list[Hook]:
    """Hooks that the environment asks for.

    MINIGRAPH_DEBUG=1 prints what each pass did, 2 also each rule that fired and each reason why not. MINIGRAPH_CHECK=1
    runs the graph before and after each pass on random numbers, and raises GraphError where they differ.
    """
    level = os.environ.get("MINIGRAPH_DEBUG", "0")
    expect(level in ("0", "1", "2"), "MINIGRAPH_DEBUG is 0, 1 or 2, not {!r}", level)
    check = os.environ.get("MINIGRAPH_CHECK") or "0"
    expect(check in ("0", "1"), "MINIGRAPH_CHECK is 0 or 1, not {!r}", check)
    hooks: list[Hook] = []
    if level != "0":
        hooks.append(lambda step: print("\n".join(_told(step, level == "2")), file=sys.stderr))
    if check == "1":
        hooks.append(lambda step: _checked(step, state))
    return hooks


def _told(step: Step, rules: bool) -> list[str]:
    lines = [f"{step.name}: {len(step.before.nodes)} -> {len(step.after.nodes)} nodes, {step.seconds * 1e3:.1f} ms"]
    if rules:
        lines += [f"  {fired.rule} at {fired.at}: {', '.join(fired.sources)}" for fired in step.fired]
        lines += [f"  not {refused.rule} at {refused.at}: {refused.why}" for refused in step.refused]
    return lines


def _checked(step: Step, state: Mapping[str, np.ndarray] | None) -> None:
    if step.after is not step.before:
        from minigraph.core.equivalence import verify  # here: few programs are compiled under its eyes

        found = verify(step.before, step.after, state)
        expect(found.same, "the pass {} changes what {!r} computes: {}", step.name, step.before.name, found)
