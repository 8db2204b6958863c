"""Value numbering: values that are computed alike have one number, in one graph and across several.

A number stands for a formula: an input or a state by its name, or an op with its attributes on numbers. Numbers only
grow along the order of a graph, so what a formula reads has smaller numbers than the formula itself.

A *cone* is the part of a formula between its end and values at which it is cut off. With the cuts as inputs, the cones
of two formulas are two small graphs (`site`), and to compare these is to compare the formulas, whatever the cuts are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Node, Value, Variable

# Results that are above 0 whatever the inputs are, and ops of which this holds if it does for all inputs that matter:
# all of them (None), or the first so many.
ALWAYS_POSITIVE = frozenset(("exp", "sigmoid", "softplus", "softmax", "square", "cosh", "var", "std"))
KEEPS_POSITIVE: dict[str, int | None] = {
    **dict.fromkeys(("add", "mul", "div", "maximum", "minimum", "sum", "mean", "prod", "max", "min", "concat"), None),
    **dict.fromkeys(("sqrt", "rsqrt", "reciprocal", "reshape", "transpose", "broadcast_to", "cast", "slice"), None),
    "running_average": 2,
}


@dataclass(frozen=True)
class Formula:
    """What a number stands for: output `index` of a node on numbers, or an input or state, which has no node."""

    value: Value
    node: Node | None = None
    inputs: tuple[int, ...] = ()
    index: int = 0
    variable: Variable | None = None
    constant: bool = False  # computed from nothing


class Numbering:
    """The numbers given out so far, and the formula of each."""

    def __init__(self) -> None:
        self.formulas: list[Formula] = []
        self._known: dict[Any, tuple[int, ...]] = {}
        self._positive: dict[int, bool] = {}

    def given(self, graph: Graph) -> dict[Value, int]:
        """Numbers for inputs and state: the same for the same name and type."""
        numbers = {value: self._leaf("input", Formula(value)) for value in graph.inputs}
        for variable in graph.state:
            numbers[variable.value] = self._leaf("state", Formula(variable.value, variable=variable))
        return numbers

    def _leaf(self, role: str, formula: Formula) -> int:
        return self._number((role, formula.value.name, formula.value.type), [formula])[0]

    def node(self, node: Node, inputs: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        """The numbers of what a node computes from these numbers, and whether they were given out just now."""
        key = node.op, exactly(tuple(node.attrs.items())), inputs
        before = len(self.formulas)
        constant = all(self.formulas[i].constant for i in inputs)
        made = [Formula(v, node, inputs, i, constant=constant) for i, v in enumerate(node.outputs)]
        return self._number(key, made), len(self.formulas) > before

    def _number(self, key: Any, formulas: Sequence[Formula]) -> tuple[int, ...]:
        if key not in self._known:
            first = len(self.formulas)
            self._known[key] = tuple(range(first, first + len(formulas)))
            self.formulas.extend(formulas)
        return self._known[key]

    def all(self, graph: Graph) -> dict[Value, int]:
        """Numbers for every value of a graph."""
        numbers = self.given(graph)
        for node in graph.nodes:
            found, _ = self.node(node, tuple([numbers[v] for v in node.inputs]))
            numbers.update(zip(node.outputs, found))
        return numbers

    def positive(self, number: int) -> bool:
        """Whether the values are known to be above 0.

        A statistic that begins as 1 is a running variance (one that begins as 0 a running mean), and so is what a
        running average makes of it and of a batch's variance.
        """
        waiting = [number]
        while waiting:
            top = waiting[-1]
            formula = self.formulas[top]
            open_ = [i for i in _signs(formula) if i not in self._positive]
            if top in self._positive or not open_:
                self._positive[top] = self._decide(formula)
                waiting.pop()
            waiting.extend(open_)
        return self._positive[number]

    def _decide(self, formula: Formula) -> bool:
        if formula.node is None:
            variable = formula.variable
            begins = variable.initializer if variable is not None and variable.kind == "statistic" else None
            return isinstance(begins, Constant) and begins.value > 0
        name, attrs = formula.node.op.name, formula.node.attrs
        if name == "fill":
            return bool(attrs["value"] > 0)
        if name == "batch_norm":
            return formula.index == 2
        signs = _signs(formula)
        return name in ALWAYS_POSITIVE or (bool(signs) and all(self._positive[i] for i in signs))


def _signs(formula: Formula) -> tuple[int, ...]:
    """The inputs whose signs decide about the formula's."""
    if formula.node is None or formula.node.op.name not in KEEPS_POSITIVE:
        return ()
    return formula.inputs[: KEEPS_POSITIVE[formula.node.op.name]]


def exactly(attribute: Any) -> Any:
    """An attribute to be compared by: 1, 1.0 and True are three things, and so are 0.0 and -0.0; a NaN is itself."""
    if type(attribute) is tuple:
        return tuple(map(exactly, attribute))
    if type(attribute) is float:
        return "float", attribute.hex()
    return type(attribute), attribute


@dataclass(frozen=True)
class Cone:
    """The numbers between an end and the cuts, the end among them, and the cuts."""

    end: int
    inner: frozenset[int]
    cuts: frozenset[int]


def cone(numbering: Numbering, end: int, cut: Callable[[int], bool]) -> Cone:
    """The cone of a number; it ends where `cut` says so, and at inputs and state."""
    inner, cuts, waiting = {end}, set(), [end]
    if numbering.formulas[end].node is None:
        return Cone(end, frozenset(), frozenset((end,)))
    while waiting:
        for number in numbering.formulas[waiting.pop()].inputs:
            if numbering.formulas[number].node is None or cut(number):
                cuts.add(number)
            elif number not in inner:
                inner.add(number)
                waiting.append(number)
    return Cone(end, frozenset(inner), frozenset(cuts))


def site(numbering: Numbering, before: Cone, after: Cone) -> tuple[Graph, Graph, dict[str, int]]:
    """Both cones as graphs of the same inputs and one output, "y"; and which number each input stands for."""
    inputs: dict[int, Value] = {}
    taken: set[str] = set()
    for number in sorted(before.cuts | after.cuts):
        value = numbering.formulas[number].value
        name = value.name if value.name not in taken else f"{value.name}#{number}"
        taken.add(name)
        inputs[number] = Value(value.type, name)
    one, other = (_graph(numbering, c, inputs, name) for c, name in ((before, "before"), (after, "after")))
    return one, other, {value.name: number for number, value in inputs.items()}


def _graph(numbering: Numbering, part: Cone, inputs: dict[int, Value], name: str) -> Graph:
    found, nodes, made = dict(inputs), [], set()
    for number in sorted(part.inner):
        formula = numbering.formulas[number]
        first = number - formula.index
        if first in made:
            continue
        made.add(first)
        assert formula.node is not None
        outputs = tuple([Value(v.type, v.name) for v in formula.node.outputs])
        # an output at which the cone is cut off is an input, and not what this node makes
        found.update((first + i, v) for i, v in enumerate(outputs) if first + i not in inputs)
        read = tuple([found[i] for i in formula.inputs])
        nodes.append(Node(formula.node.op, read, outputs, formula.node.attrs, formula.node.name))
    return Graph(name, tuple(inputs.values()), (), tuple(nodes), {"y": found[part.end]})


def alike(graphs: Iterable[Graph]) -> Any:
    """What two sites have in common if and only if they are the same but for names."""
    key: list[Any] = []
    for graph in graphs:
        places = {value: i for i, value in enumerate(graph.inputs)}
        key.append(tuple(value.type for value in graph.inputs))
        for node in graph.nodes:
            key.append((node.op, exactly(tuple(node.attrs.items())), tuple(places[v] for v in node.inputs)))
            first = len(places)
            places.update((v, first + i) for i, v in enumerate(node.outputs))
        key.append(tuple(places[v] for v in graph.outputs.values()))
    return tuple(key)
