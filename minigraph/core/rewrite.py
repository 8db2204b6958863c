"""Rewriting: rules that say what may stand for what, and the walk that applies them.

A rule looks for its pattern at a node, its anchor. Where all its conditions hold, it builds what stands there instead,
out of graph nodes. The walk goes through the nodes once, from inputs to outputs, and what a rule builds comes next in
the walk: so rules meet each other's work. Nodes upstream of every change stay the same objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigraph.core.builder import Builder, Tensor
from minigraph.core.collector import paused
from minigraph.core.errors import GraphError, expect
from minigraph.core.frozen import Fact, compute, frozen, leaves_of, stands_still, wide
from minigraph.core.ir import Graph, Node, Value, needed
from minigraph.core.op import Op
from minigraph.core.pattern import Bound, Pattern, matches

LIMIT = 100  # so often rules may fire for each node of a graph: those that undo each other would go on for ever
MOST_SOURCES = 16  # are noted; in long chains, all that a node has come from would be as long as the chain


@dataclass(frozen=True)
class Condition:
    """says: what has to hold, as a sentence. fails: match -> "" where it holds, else a sentence on what is instead."""

    says: str
    fails: Callable[[Match], str]


@dataclass(frozen=True)
class Rule:
    """What stands for what.

    law: the identity behind it, as a formula.
    pattern: what it looks for; the anchor is the node of its outermost op. A function (walk, node) -> what is found, by
        name, or None, looks at the nodes of `ops`, or at every node if it names none.
    becomes: (match, **tensors) -> a tensor for each output of the anchor (one alone needs no tuple), built from the
        values that the pattern names.
    sound: without these conditions the answer would be wrong. pays: without them it would be slower.
    """

    name: str
    law: str
    pattern: Pattern | tuple[Pattern, ...] | Callable[[Walk, Node], Bound | None]
    becomes: Callable[..., Any]
    sound: tuple[Condition, ...] = ()
    pays: tuple[Condition, ...] = ()
    ops: Collection[Op] = ()

    def __post_init__(self) -> None:
        looks = self.anchor is not None or (callable(self.pattern) and not isinstance(self.pattern, Pattern))
        expect(
            looks, "the rule {} looks for an op called on patterns, or is a function, not {!r}", self.name, self.pattern
        )

    @property
    def anchor(self) -> Op | None:
        """The op that its pattern, if it is no function, looks for."""
        pattern = self.pattern[0] if isinstance(self.pattern, tuple) else self.pattern
        return pattern.op if isinstance(pattern, Pattern) else None

    def looks_at(self, op: Op) -> bool:
        return op is self.anchor if self.anchor is not None else not self.ops or op in self.ops

    def matches(self, walk: Walk, node: Node) -> Iterator[Match]:
        """The ways in which it could be applied at a node that it looks at, conditions aside."""
        pattern = self.pattern[0] if isinstance(self.pattern, tuple) else self.pattern
        if isinstance(pattern, Pattern):
            for bound in matches(pattern, node, walk.producer.get, walk):
                yield Match(walk, self, node, bound)
        elif (found := pattern(walk, node)) is not None:
            yield Match(walk, self, node, found)


@dataclass(frozen=True)
class Match:
    """A place where a rule's pattern fits. match["x"] is the value that the pattern calls x, or the node."""

    walk: Walk
    rule: Rule
    node: Node
    bound: Bound
    used: list[Node] = field(default_factory=list)  # nodes built again, besides those that the pattern names

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    def tensor(self, value: Value) -> Tensor:
        """A value of the graph, to build with."""
        return Tensor(self.walk.builder, value)

    def again(self, node: Node, *inputs: Tensor) -> Any:
        """The node's op on other inputs, under its name and the user's line."""
        self.used.append(node)
        walk, first = self.walk, len(self.walk.builder.nodes)
        with walk.builder.origin(node.origin, rule=self.rule.name, sources=sources([node, self.node])):
            outputs = walk.builder.emit(node.op, inputs, node.attrs)
        walk.names[walk.builder.nodes[first]] = node.name
        return outputs[0] if len(outputs) == 1 else outputs

    def refusal(self) -> str:
        """Why the rule does not fire here: the first condition that fails, or "" where it does."""
        for condition in (*self.rule.sound, *self.rule.pays):
            if reason := condition.fails(self):
                return reason
        return ""


def known_as(node: Node) -> str:
    """A name for reports: that of a node of the user's graph."""
    names = node.origin.sources
    return node.name if not names or node.name in names else names[0]


def called(node: Node) -> str:
    """Its name for reports, and its op where the name does not say it."""
    name = known_as(node)
    return name if name.rpartition(".")[2].startswith(node.op.name) else f"{name} ({node.op.name})"


def sources(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The names of the nodes of the user's graph that these come from: the first of them, where there are many."""
    names = dict.fromkeys(name for node in nodes for name in (node.origin.sources or (node.name,)))
    return tuple(names)[:MOST_SOURCES]


@dataclass(frozen=True)
class Fired:
    """A rule that fired: at which node, which nodes it replaced (`at` among them), which it made. All by name."""

    rule: str
    at: str
    sources: tuple[str, ...]
    made: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """Why a rule does not fire at a node of the final graph, as a sentence."""

    rule: str
    at: str
    why: str


class Walk:
    """A graph under construction from another one, and what is known of its values.

    state: the numbers that conditions may ask for; without it the answer to every question is no.
    """

    def __init__(self, graph: Graph, rules: Sequence[Rule] = (), state: Mapping[str, np.ndarray] | None = None):
        self.source, self.state = graph, state
        self.builder = Builder.extending(graph)  # so that its names are taken
        self.builder.nodes = []
        self.producer: dict[Value, Node] = {}
        self.fired: list[Fired] = []
        self.facts: list[Fact] = []
        self.names: dict[Node, str] = {}  # of built nodes that go on under the name of another
        self.memo: dict[Any, Any] = {}  # for conditions that look far
        self._frozen = frozen(graph)
        self._new: dict[Value, Value] = {}  # what stands for a value that was replaced
        self._readers: dict[Value, list[Node | str]] = {}
        self._originals: dict[Value, list[Value]] = {}
        self._numbers: dict[Value, np.ndarray] = {}
        self._rules = sorted(rules, key=lambda rule: rule.anchor is None)
        self._looking: dict[Op, list[Rule]] = {}  # rules by op, as far as asked
        for node in graph.nodes:
            for value in node.inputs:
                self._readers.setdefault(value, []).append(node)
        for name, value in graph.outputs.items():
            self._readers.setdefault(value, []).append(f"output {name!r}")
        for old, value in graph.updates.items():
            self._readers.setdefault(value, []).append(f"the update of {old.name}")

    # what conditions ask

    def is_frozen(self, value: Value) -> bool:
        """Whether the value is the same at every call, and can be computed before the first."""
        return value in self._frozen

    def readers(self, value: Value) -> Sequence[Node | str]:
        """Who reads the value: nodes, once for each time, and outputs and updates in words.

        They are those of the source graph, of all values that this one stands for; and of a value inside of a
        replacement those in there.
        """
        return self._readers.get(value, ())

    def originals(self, value: Value) -> Sequence[Value]:
        """The values of the source graph that this one stands for, itself included; none inside of a replacement."""
        return self._originals.get(value, (value,))

    def also_read(self, value: Value) -> str:
        """A sentence on who reads the value, if it is more than one; else ""."""
        readers = self.readers(value)
        if len(readers) <= 1:
            return ""
        names = list(dict.fromkeys(reader if isinstance(reader, str) else known_as(reader) for reader in readers))
        times = f" {len(readers)} times" if len(names) == 1 else ""
        return f"{value.name} is read by {' and '.join(names)}{times}"

    def ask(self, value: Value, question: Callable[[np.ndarray], bool]) -> bool:
        """What the numbers of a frozen value answer; it is noted as a fact on which the rewrite rests."""
        if self.state is None:
            return False
        key = value, question
        if key not in self.memo:
            array = self._array(value)
            self.memo[key] = bool(question(array))
            self.facts.append(Fact(value, self._cone(value), question, self.memo[key]))
        return self.memo[key]

    def _array(self, value: Value) -> np.ndarray:
        assert self.state is not None
        nodes = self._cone(value)
        missing = [name for name in leaves_of(nodes, [value]) if name not in self.state]
        expect(not missing, "rules ask for the numbers of {}, and the state lacks {}", value.name, ", ".join(missing))
        if value not in self.producer:
            return wide(self.state[value.name])
        compute(nodes, self.state, self._numbers)
        return self._numbers[value]

    def _cone(self, value: Value) -> tuple[Node, ...]:
        """The nodes that compute a frozen value from state, in order."""
        found: dict[Node, None] = {}
        stack = [self.producer[value]] if value in self.producer else []
        while stack:
            node = stack[-1]
            waiting = [self.producer[v] for v in node.inputs if v in self.producer and self.producer[v] not in found]
            if waiting:
                stack.extend(waiting)
            else:
                found[stack.pop()] = None
        return tuple(found)

    # the walk

    @paused()
    def run(self) -> Graph:
        """The rewritten graph; the source graph itself if no rule fired."""
        queue, most = deque(self.source.nodes), LIMIT * (len(self.source.nodes) + 10)
        while queue:
            node = self._current(queue.popleft())
            match = self._fires(node)
            if match is None:
                self.keep(node)
                continue
            queue.extendleft(reversed(self._replace(match)))
            if len(self.fired) > most:
                names = " and ".join(sorted({fired.rule for fired in self.fired[-LIMIT:]}))
                raise GraphError(f"{names} go on for ever at {node.name}: what one makes, another takes back")
        if not self.fired:
            return self.source
        now = self.now
        graph = Graph(
            self.source.name,
            self.source.inputs,
            self.source.state,
            tuple(self.builder.nodes),
            {name: now(value) for name, value in self.source.outputs.items()},
            {old: now(value) for old, value in self.source.updates.items()},
        )
        return without_dead(graph)

    def now(self, value: Value) -> Value:
        """What stands for a value of the source graph by now."""
        while value in self._new:
            value = self._new[value]
        return value

    def _current(self, node: Node) -> Node:
        """The node with what its inputs have become."""
        inputs = tuple([self.now(value) for value in node.inputs])
        if inputs == node.inputs:
            return node
        copies = tuple([Value(value.type, value.name) for value in node.outputs])
        for old, new in zip(node.outputs, copies):
            self._originals[new] = []
            self._stands(old, new)
        return node.reading(inputs, copies)

    def _stands(self, old: Value, new: Value) -> None:
        """From now on `new` is read where `old` was."""
        self._new[old] = new
        self._readers.setdefault(new, []).extend(self._readers.get(old, ()))
        self._originals.setdefault(new, [new]).extend(self.originals(old))

    def keep(self, node: Node) -> None:
        self.builder.append(node)
        self.producer.update(dict.fromkeys(node.outputs, node))
        if stands_still(node, self._frozen):
            self._frozen.update(node.outputs)

    def rules(self, node: Node) -> Sequence[Rule]:
        """Those that look at nodes of this op: first those with a pattern of it, then functions."""
        if node.op not in self._looking:
            self._looking[node.op] = [rule for rule in self._rules if rule.looks_at(node.op)]
        return self._looking[node.op]

    def _fires(self, node: Node) -> Match | None:
        for rule in self.rules(node):
            for match in rule.matches(self, node):
                if not match.refusal():
                    return match
        return None

    def _replace(self, match: Match) -> list[Node]:
        """Build what stands for the match's node. The nodes built are taken back, to be walked through."""
        node, rule, builder = match.node, match.rule, self.builder
        matched = [node, *(n for n in match.bound.values() if isinstance(n, Node) and n is not node)]
        tensors = {k: Tensor(builder, v) for k, v in match.bound.items() if isinstance(v, Value)}
        start = len(builder.nodes)
        origin = replace(node.origin, rule=rule.name, sources=sources(matched))
        with builder.root(), builder.origin(origin), builder.scope(origin.sources[0].replace("~", "_")):
            try:
                result = rule.becomes(match, **tensors)
            except GraphError as error:
                raise GraphError(f"the rule {rule.name} cannot be applied at {node.name}: {error}") from None
        results = result if isinstance(result, tuple) else (result,)
        expect(
            len(results) == len(node.outputs),
            "{}: {} needs a tensor for each output, {} in all, not {}",
            rule.name,
            node.name,
            len(node.outputs),
            len(results),
        )
        built, builder.nodes[start:] = builder.nodes[start:], []
        for old, tensor in zip(node.outputs, results):
            fits = isinstance(tensor, Tensor) and tensor.value.type == old.type
            expect(fits, "{}: {} would become {}", rule.name, old, getattr(tensor, "value", tensor))
        built = self._named(node, built, [tensor.value for tensor in results])
        names = [n.name for n in (*matched, *match.used)]
        self.fired.append(Fired(rule.name, node.name, tuple(dict.fromkeys(names)), tuple(n.name for n in built)))
        return built

    def _named(self, root: Node, built: Sequence[Node], results: Sequence[Value]) -> list[Node]:
        """The nodes built, under the names they are to have, and the root's outputs led over to `results`."""
        takes = {new: old.name for old, new in zip(root.outputs, results) if self.originals(old)}
        renamed: dict[Value, Value] = {}
        final: list[Node] = []
        inside: set[Value] = set()
        for node in built:
            name, alone = self.names.pop(node, node.name), len(node.outputs) == 1
            if name in takes.values():  # the name of what the root gave belongs to what stands for it
                name = node.name
            if alone:
                name = takes.get(node.outputs[0], name)
            elif any(value in takes for value in node.outputs):
                name = root.name
            outputs = tuple(
                Value(v.type, takes.get(v, name if alone else f"{name}.{o}"))
                for v, o in zip(node.outputs, node.op.outputs)
            )
            renamed.update(zip(node.outputs, outputs))
            inputs = tuple([renamed.get(v, v) for v in node.inputs])
            final.append(replace(node, name=name, inputs=inputs, outputs=outputs))
            self._originals.update((value, []) for value in outputs)
            for value in inputs:
                if value in inside:
                    self._readers.setdefault(value, []).append(final[-1])
            inside.update(outputs)
        for old, new in zip(root.outputs, results):
            self._stands(old, renamed.get(new, new))
        return final


def without_dead(graph: Graph) -> Graph:
    """The graph without nodes and state that nothing needs. Inputs stay: they are what callers give."""
    nodes, live = needed(graph.nodes, (*graph.outputs.values(), *graph.updates, *graph.updates.values()))
    state = tuple(variable for variable in graph.state if variable.value in live)
    if len(nodes) == len(graph.nodes) and len(state) == len(graph.state):
        return graph
    return Graph(graph.name, graph.inputs, state, nodes, graph.outputs, graph.updates)


def rewrite(graph: Graph, rules: Sequence[Rule], state: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph after one walk with these rules; the graph itself if none fired."""
    return Walk(graph, rules, state).run()


def refusals(graph: Graph, rules: Sequence[Rule], state: Mapping[str, np.ndarray] | None = None) -> tuple[Refused, ...]:
    """For each rule and node where its pattern fits, why it does not fire."""
    walk = Walk(graph, rules, state)
    found = []
    for node in graph.nodes:
        for rule in walk.rules(node):
            reasons = [match.refusal() for match in rule.matches(walk, node)]
            if reasons and all(reasons):
                found.append(Refused(rule.name, node.name, reasons[0]))
        walk.keep(node)
    return tuple(found)
