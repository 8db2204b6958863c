"""Patterns: what a rule looks for, written as the ops are called.

    x, w, s = values("x w s")
    mul(conv(x, w).named("conv"), s)

An op called on a pattern gives a pattern. A named pattern of any value binds that value, of an op its node; the same
name twice is the same value. Attributes that a pattern does not name are free. A number is a constant that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minigraph.core.errors import expect
from minigraph.core.ir import Node, Value
from minigraph.core.op import OPS, Op, plain
from minigraph.core.operators import Operators

Producer = Callable[[Value], "Node | None"]


@dataclass(frozen=True, eq=False)
class Pattern(Operators):
    """op None: any value, of which `where`, if given, is true. Otherwise output `output` of a node of that op."""

    name: str = ""
    op: Op | None = None
    inputs: tuple[Pattern, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    output: int = 0
    where: Callable[[Any, Value], bool] | None = None
    number: Any = None

    def apply(self, op: Op, arguments: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        strange = [key for key in attrs if key not in op.defaults]
        expect(not strange, "{} has no attribute {}", op.name, ", ".join(strange))
        inputs = tuple(a if isinstance(a, Pattern) else Pattern(number=a) for a in arguments)
        found = Pattern("", op, inputs, {key: plain(value) for key, value in attrs.items()})
        return found if len(op.outputs) == 1 else tuple(replace(found, output=i) for i in range(len(op.outputs)))

    def named(self, name: str) -> Pattern:
        return replace(self, name=name)

    __hash__ = object.__hash__


def values(names: str, where: Callable[[Any, Value], bool] | None = None) -> tuple[Pattern, ...]:
    """Patterns of any value, one for each name; `where(walk, value)` narrows them down without a word in reports."""
    return tuple(Pattern(name, where=where) for name in names.split())


Bound = dict[Any, Any]  # by name: a Value, or the Node of an op; by itself where the pattern of an op has no name


def matches(pattern: Pattern, node: Node, producer: Producer, context: Any) -> Iterator[Bound]:
    """The ways in which a pattern of an op fits a node: several, where inputs may change places."""
    if node.op is not pattern.op or any(node.attrs[key] != want for key, want in pattern.attrs.items()):
        return
    for inputs in _orders(node, pattern):
        for bound in _all(pattern.inputs, inputs, producer, context, {}):
            yield {**bound, pattern.name or pattern: node}


def _orders(node: Node, pattern: Pattern) -> Iterator[tuple[Value, ...]]:
    if len(pattern.inputs) == len(node.inputs):
        yield node.inputs
        if node.op.commutative and node.inputs[0] is not node.inputs[1]:
            yield node.inputs[::-1]


def _all(
    patterns: Sequence[Pattern], found: Sequence[Value], producer: Producer, context: Any, bound: Bound
) -> Iterator[Bound]:
    """Ways in which the values fit the patterns one by one, going on from what is bound already."""
    if not patterns:
        yield bound
        return
    for more in _one(patterns[0], found[0], producer, context, bound):
        yield from _all(patterns[1:], found[1:], producer, context, more)


def _one(pattern: Pattern, value: Value, producer: Producer, context: Any, bound: Bound) -> Iterator[Bound]:
    if pattern.number is not None:
        if _holds(producer(value), pattern.number):
            yield bound
    elif pattern.op is None:
        if bound.get(pattern.name, value) is value and (pattern.where is None or pattern.where(context, value)):
            yield {**bound, pattern.name: value}
    else:
        node = producer(value)
        if node is not None and node.op is pattern.op and node.outputs[pattern.output] is value:
            for inner in matches(pattern, node, producer, context):
                if all(bound.get(name, found) is found for name, found in inner.items()):
                    yield {**bound, **inner}


def _holds(node: Node | None, number: Any) -> bool:
    """Whether a node is the constant that holds a number everywhere. 0.0 is also -0.0."""
    return node is not None and node.op is OPS["fill"] and bool(node.attrs["value"] == number)
