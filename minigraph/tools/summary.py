"""A table of a graph: for each layer its ops, what it hands on, its parameters, and its floating-point operations.

A multiply-add counts as two operations. Sizes that are known only at run time stay in the numbers as symbols, 118*N,
unless the call gives them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from minigraph.core.dim import Dim, Size, product
from minigraph.core.errors import expect
from minigraph.core.ir import KINDS, ROLES, Graph, Node, Type, Variable
from minigraph.core.table import aligned
from minigraph.tools.labels import ops_lines, type_text
from minigraph.tools.outline import Layer, Outline, is_number, outline


@dataclass(frozen=True)
class Row:
    """A layer. output: the type of what it hands on, None if it has no forward. flops: by role, only those that it
    has.
    """

    name: str
    ops: str
    output: Type | None
    parameters: int
    flops: Mapping[str, Size]


@dataclass(frozen=True)
class Summary:
    """rows: the layers. numbers: how many numbers the state has, by kind. trained: how many of the parameters the graph
    updates. flops: of one run, by role. Prints as a table."""

    title: str
    rows: tuple[Row, ...]
    numbers: Mapping[str, int]
    trained: int
    flops: Mapping[str, Size]

    @property
    def parameters(self) -> int:
        return self.numbers.get("parameter", 0)

    def __str__(self) -> str:
        roles = list(self.flops)
        table = [["layer", "ops", "output", "parameters", *(f"FLOPs {role}" for role in roles)]]
        for row in self.rows:
            flops = [number_text(row.flops[role]) if role in row.flops else "" for role in roles]
            output = type_text(row.output) if row.output else ""
            table.append([row.name, row.ops, output, f"{row.parameters:,}" if row.parameters else "", *flops])
        table.append(["total", "", "", f"{self.parameters:,}", *map(number_text, self.flops.values())])
        head, rule, *layers, total = aligned(table, left=(0, 1, 2))
        return "\n".join([self.title, "", head, rule, *layers, rule, total, "", *self._totals()])

    def _totals(self) -> list[str]:
        """What the state holds and what a run computes, in words."""
        names = {"parameter": "parameters", "statistic": "statistics", "slot": "optimizer slots"}
        state = [f"{names[kind]} {count:,}" for kind, count in self.numbers.items() if kind in names]
        if 0 < self.trained < self.parameters:
            state[0] += f" ({self.trained:,} trained)"
        total = sum(self.flops.values(), 0)
        return [f"state: {', '.join(state) or 'none'}", f"FLOPs of one run: {number_text(total)}"]


def summary(graph: Graph, /, **symbols: int) -> Summary:
    """The table of a graph; `print` shows it. summary(graph, N=64) puts in the sizes that are known at run time.

    Raises GraphError for a symbol that the graph does not have, and for what is no size.
    """
    expect(isinstance(graph, Graph), "summary needs a Graph, such as program.graph, not a {}", type(graph).__name__)
    for name, size in symbols.items():
        known = ", ".join(sorted(graph.symbols)) or "none"
        expect(name in graph.symbols, "{!r} has no size {!r}; known at run time are {}", graph.name, name, known)
        expect(isinstance(size, int) and size >= 0, "the size {} is a number of 0 or more, not {!r}", name, size)
    whole = outline(graph)
    rows = tuple(_row(whole, layer, symbols) for layer in whole.layers)
    numbers = {kind: _numbers([v for v in graph.state if v.kind == kind]) for kind in KINDS}
    numbers = {kind: count for kind, count in numbers.items() if count}
    trained = _numbers([v for v in graph.state if v.kind == "parameter" and v.value in graph.updates])
    flops = {
        role: sum((row.flops[role] for row in rows if role in row.flops), 0)
        for role in ROLES
        if any(role in row.flops for row in rows)
    }
    nodes = sum(not is_number(node) for node in graph.nodes)
    sizes = "".join(f", {name} = {size:,}" for name, size in symbols.items())
    return Summary(f"{graph.name}: {nodes} nodes{sizes}", rows, numbers, trained, flops)


def _row(whole: Outline, layer: Layer, symbols: Mapping[str, int]) -> Row:
    forward = layer.nodes["forward"]
    value = whole.main.get(layer) or (forward[-1].outputs[0] if forward else None)
    output = None if value is None else Type(tuple(_with(n, symbols) for n in value.type.shape), value.type.dtype)
    lines = ops_lines(whole.graph, forward or list(chain(*layer.nodes.values())), attributes=False)
    parameters = _numbers([v for v in layer.state if v.kind == "parameter"])
    flops = {
        role: sum((_with(_flops(node), symbols) for node in nodes), 0) for role, nodes in layer.nodes.items() if nodes
    }
    return Row(layer.name, lines[0] if lines else "", output, parameters, flops)


def _numbers(variables: Iterable[Variable]) -> int:
    """How many numbers these variables hold."""
    return sum(math.prod(n for n in v.value.type.shape if isinstance(n, int)) for v in variables)


def _flops(node: Node) -> Size:
    return node.op.count([value.type for value in node.inputs], [value.type for value in node.outputs], node.attrs)


def _with(size: Size, symbols: Mapping[str, int]) -> Size:
    """A size with the symbols that are known put in."""
    if not isinstance(size, Dim):
        return size
    known = lambda name: symbols[name] if name in symbols else Dim.symbol(name)
    return sum((factor * product(map(known, monomial)) for monomial, factor in size.terms), 0)


def number_text(size: Size) -> str:
    """A size with its thousands apart: 1,204,224*N."""
    return re.sub(r"(?<!\w)\d+", lambda digits: f"{int(digits[0]):,}", str(size))
