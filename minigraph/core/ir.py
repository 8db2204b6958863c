"""The graph: typed values, nodes that define them once, in order. Nothing here is ever changed after it is made.

A `Graph` has inputs, state (values that live across steps), nodes, named outputs, and updates: what each state becomes
after the step. Updates are simultaneous: every node reads the old state. Names of inputs, outputs and state are the
interface and are unique; names of inner values are for people. Values and nodes are the same only if they are one
object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minigraph.core import dim, text
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import GraphError, expect
from minigraph.core.initial import Initializer
from minigraph.core.state import State

if TYPE_CHECKING:
    import networkx

    from minigraph.core.op import Op


@dataclass(frozen=True, slots=True)
class Type:
    """Shape and dtype of a value. Sizes are ints, or polynomials in symbols that are known at run time."""

    shape: dim.Shape
    dtype: str = "float32"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> dim.Size:
        return dim.product(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def bind(self, symbols: Mapping[str, int]) -> Type:
        return Type(dim.bind(self.shape, symbols), self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    type: Type
    name: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from. Reports, pictures and profiles add up by it; comparisons of graphs ignore it."""

    role: str = "forward"  # forward, backward, statistic, update
    scope: str = ""
    file: str = ""
    line: int = 0
    forward: str = ""  # of a backward node: the name of the node whose gradient it computes
    rule: str = ""  # of a rewritten node: the rule, and the names of what it replaced
    sources: tuple[str, ...] = ()

    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


ROLES = ("forward", "backward", "statistic", "update")


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One application of an op. `attrs` is complete (defaults filled in), canonical and hashable."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    name: str
    origin: Origin = Origin()

    def reading(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...] | None = None) -> Node:
        """The node on other values of the same types, with its own outputs or with these."""
        return Node(self.op, inputs, self.outputs if outputs is None else outputs, self.attrs, self.name, self.origin)

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.name}>"


KINDS = ("parameter", "statistic", "slot", "counter", "stream")


@dataclass(frozen=True, eq=False)
class Variable:
    """A value that lives across steps, with how it begins.

    kind: parameter (learned), statistic (running mean and variance), slot (an optimizer's), counter, stream (random).
    """

    value: Value
    initializer: Initializer
    kind: str = "parameter"

    @property
    def name(self) -> str:
        return self.value.name


@dataclass(frozen=True, eq=False)
class Graph:
    name: str
    inputs: tuple[Value, ...]
    state: tuple[Variable, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, Value]
    updates: Mapping[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", MappingProxyType(dict(self.outputs)))
        object.__setattr__(self, "updates", MappingProxyType(dict(self.updates)))

    @cached_property
    def producer(self) -> Mapping[Value, Node]:
        """Which node defines a value; inputs and state have none."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def readers(self) -> Mapping[Value, tuple[Node, ...]]:
        """The nodes that read a value, once for each time they do. Outputs and updates are not nodes."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in found.items()}

    @cached_property
    def variables(self) -> Mapping[str, Variable]:
        return {variable.name: variable for variable in self.state}

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value by name; a name of the interface is that of the interface."""
        found = {value.name: value for node in self.nodes for value in node.outputs}
        found.update((variable.name, variable.value) for variable in self.state)
        found.update((value.name, value) for value in self.inputs)
        return found

    def value(self, name: str) -> Value:
        """The output, input, state or inner value of that name."""
        if name in self.outputs:
            return self.outputs[name]
        expect(
            name in self.values, "{!r} has no value {!r}; its outputs are {}", self.name, name, ", ".join(self.outputs)
        )
        return self.values[name]

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The symbols in the sizes of inputs."""
        return frozenset().union(*(dim.symbols_of(value.type.shape) for value in self.inputs))

    def init(self, seed: int = 0) -> State:
        """Fresh state: each variable from its initializer and its own stream of `seed`."""
        for variable in self.state:
            expect(not dim.symbolic(variable.value.type.shape), "state {} has an unknown size", variable.value)
        return State(
            {
                v.name: v.initializer.array(seed, v.name, v.value.type.shape, v.value.type.dtype)  # type: ignore[arg-type]
                for v in self.state
            }
        )

    def check(self) -> Graph:
        """Raise GraphError unless each value is defined once, before its use, with the type that its op infers."""
        known: set[Value] = set()
        names: set[str] = set()
        for value in (*self.inputs, *(variable.value for variable in self.state)):
            expect(value.name not in names, "two inputs or states are called {!r}", value.name)
            names.add(value.name)
            known.add(value)
        for variable in self.state:
            shape = variable.value.type.shape
            expect(not dim.symbolic(shape), "the sizes of state {} are numbers, not {}", variable.name, shape)
            expect(variable.kind in KINDS, "state {} is of unknown kind {!r}", variable.name, variable.kind)
        inferred: dict[Any, tuple[Mapping[str, Any], tuple[Type, ...]]] = {}  # layers repeat
        for node in self.nodes:
            if not known.issuperset(node.inputs):
                early = next(value for value in node.inputs if value not in known)
                raise GraphError(f"{node!r} reads {early} before it is defined")
            inputs = tuple([value.type for value in node.inputs])
            key = node.op, inputs, tuple(node.attrs.items())
            form = inferred.get(key)
            if form is None:
                form = inferred[key] = node.op.infer(inputs, node.attrs)
                for value in node.outputs:
                    strange = dim.symbols_of(value.type.shape) - self.symbols
                    expect(not strange, "no input tells how large {} is, in {}", strange, value)
            attrs, types = form
            expect(attrs == node.attrs, "{!r} has attributes {}, whose canonical form is {}", node, node.attrs, attrs)
            found = tuple([value.type for value in node.outputs])
            expect(types == found, "{!r} has outputs {}; its op infers {}", node, node.outputs, types)
            if not known.isdisjoint(node.outputs):
                twice = next(value for value in node.outputs if value in known)
                raise GraphError(f"{twice} is defined twice")
            known.update(node.outputs)
        for name, value in self.outputs.items():
            expect(value in known, "output {!r} is not defined", name)
            expect(name not in names or value.name == name, "output {!r} is not the input or state of that name", name)
        states = {variable.value for variable in self.state}
        for old, new in self.updates.items():
            expect(old in states, "{} is updated but is not state", old)
            expect(new in known, "the update of {} is not defined", old)
            expect(old.type == new.type, "state {} is updated with {}", old, new)
        return self

    def prune(self, outputs: Iterable[str] | None = None, updates: bool = True) -> Graph:
        """The graph of these outputs, with the updates or without any, and nothing that neither needs.

        Updates keep what they read: a training graph pruned to its loss still moves its running statistics.
        """
        expect(not isinstance(outputs, str), "outputs is a list of names, not {!r}", outputs)
        names = list(self.outputs if outputs is None else outputs)
        for name in names:
            expect(name in self.outputs, "there is no output {!r}; there are {}", name, ", ".join(self.outputs))
        kept = {name: self.outputs[name] for name in names}
        moved = self.updates if updates else {}
        nodes, live = needed(self.nodes, (*kept.values(), *moved, *moved.values()))
        return Graph(
            self.name,
            tuple(v for v in self.inputs if v in live),
            tuple(s for s in self.state if s.value in live),
            nodes,
            kept,
            moved,
        )

    def bind(self, /, **symbols: int) -> Graph:
        """The same graph with numbers for all of its symbols. Every node's types are inferred and checked anew."""
        missing = self.symbols - symbols.keys()
        expect(not missing, "no size is given for {}", ", ".join(sorted(missing)))
        sizes = ", ".join(f"{name} = {n}" for name, n in sorted(symbols.items()))
        return self.retyped(
            lambda given: given.bind(symbols), lambda value: dim.places(value, symbols), f"with {sizes}"
        )

    def retyped(self, new_type: Callable[[Type], Type], new_attr: Callable[[Any], Any], how: str) -> Graph:
        """The same graph with other types of inputs and state, and other attributes: the types of all that is computed
        are inferred, and checked, anew.

        how: what is new about them, for errors.
        """
        new: dict[Value, Value] = {}
        for value in (*self.inputs, *(variable.value for variable in self.state)):
            new[value] = Value(new_type(value.type), value.name)
        nodes = []
        for node in self.nodes:
            inputs = tuple([new[value] for value in node.inputs])
            try:
                given = {key: new_attr(value) for key, value in node.attrs.items()}
                attrs, types = node.op.infer(tuple([value.type for value in inputs]), given)
            except GraphError as error:
                raise GraphError(describe(node, f"{error} ({how})", inputs)) from None
            outputs = tuple([Value(t, old.name) for t, old in zip(types, node.outputs, strict=True)])
            new.update(zip(node.outputs, outputs))
            nodes.append(replace(node, inputs=inputs, outputs=outputs, attrs=attrs))
        return Graph(
            self.name,
            tuple(new[v] for v in self.inputs),
            tuple(replace(s, value=new[s.value]) for s in self.state),
            tuple(nodes),
            {name: new[v] for name, v in self.outputs.items()},
            {new[a]: new[b] for a, b in self.updates.items()},
        )

    def to_networkx(self) -> networkx.DiGraph[Any]:
        """Nodes, inputs and variables as vertices; an edge for each value that one makes and another reads.

        A vertex is a Node, an input's Value or a Variable. An edge holds `values`, the tuple of values it carries.
        """
        import networkx  # here: it takes 60 ms that a program which only computes need not spend

        graph: networkx.DiGraph[Any] = networkx.DiGraph(name=self.name)
        source: dict[Value, Any] = {**{v: v for v in self.inputs}, **{s.value: s for s in self.state}, **self.producer}
        graph.add_nodes_from((*self.inputs, *self.state, *self.nodes))
        for node in self.nodes:
            for value in node.inputs:
                maker = source[value]
                carried = graph.edges[maker, node]["values"] if graph.has_edge(maker, node) else ()
                graph.add_edge(maker, node, values=(*carried, value))
        return graph

    def __str__(self) -> str:
        return text.write(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self.inputs)} inputs, {len(self.state)} states, {len(self.nodes)} nodes>"


def needed(nodes: Sequence[Node], roots: Iterable[Value]) -> tuple[tuple[Node, ...], set[Value]]:
    """The nodes that the roots depend on, in order, and all values that these read or define."""
    live, kept = set(roots), []
    for node in reversed(nodes):
        if not live.isdisjoint(node.outputs):
            kept.append(node)
            live.update(node.inputs)
    return tuple(reversed(kept)), live


def describe(node: Node, message: str, inputs: Iterable[Value] | None = None) -> str:
    """An error about a node in the user's terms: the op, the node, what it reads, and the line that made it."""
    return explain(node.op.name, node.name, message, node.inputs if inputs is None else inputs, node.attrs, node.origin)


def explain(op: str, name: str, message: str, inputs: Iterable[Value], attrs: Mapping[str, Any], origin: Origin) -> str:
    lines = [f"{op} {name!r}: {message}"]
    lines += [f"  input {value}" for value in inputs]
    if attrs:
        lines.append("  with " + ", ".join(f"{key}={value!r}" for key, value in attrs.items()))
    if origin.file:
        lines.append(f"  at {origin.where()}")
    return "\n".join(lines)
