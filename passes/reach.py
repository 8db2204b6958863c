"""How far a scale or a shift of channels can go up a graph: through which ops, and what stops it.

A question is answered for all ways at once, by looking at the graph only; its answer is "" or a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from minigraph.core.ir import Node, Value
from minigraph.core.op import Weight
from minigraph.core.rewrite import Match, Walk, called, known_as
from minigraph.ops.pointwise import add, mul
from minigraph.ops.shape import concat
from minigraph.passes.per_channel import passing_scale, passing_shift, varies

# A value, the axis of its channels, or None for a number that is one for all, and whether only sums lie behind it.
Place = tuple[Value, "int | None", bool]
P = TypeVar("P")


def all_positive(scale: np.ndarray) -> bool:
    return bool((scale > 0).all())


def weights(node: Node) -> tuple[Weight, ...]:
    """The inputs in which the node is linear, channel by channel."""
    if node.op.weights is None:
        return ()
    return tuple(node.op.weights(tuple(value.type for value in node.inputs), **node.attrs))


def the_weight(match: Match) -> Weight:
    """The weight of the match's node that y is the data of."""
    return next(weight for weight in weights(match.node) if match.node.inputs[weight.data] is match["y"])


@dataclass(frozen=True)
class OneOf(Generic[P]):
    """Ways of which one is enough: at least one, the last of which says what stops them all."""

    ways: list[P]


def first_stop(walk: Walk, question: Any, start: P, step: Callable[[P], str | list[P] | OneOf[P]]) -> str:
    """What stops it on one of the ways from a place; "" if all ways come to an end.

    step: from a place to those that follow, none where a way ends, or to a sentence where it is stopped. Answers are
    kept for the whole walk, under the question: what is asked all along a chain takes time in proportion to it.
    """
    answers: dict[P, str] = walk.memo.setdefault(("stops", question), {})
    left: dict[P, list[P]] = {}  # the ways from a place that are not looked at yet, the next one last
    one_is_enough: set[P] = set()
    path = [start]
    while start not in answers:
        place = path[-1]
        if place not in left:
            found = step(place)
            if isinstance(found, str):
                answers[path.pop()] = found
                continue
            if isinstance(found, OneOf):
                one_is_enough.add(place)
                found = found.ways
            left[place] = found[::-1]
        ways, why = left[place], ""
        while ways and ways[-1] in answers:
            why = answers[ways.pop()]
            if (why == "") == (place in one_is_enough):  # the others cannot change it
                ways.clear()
        if ways:
            path.append(ways[-1])
        else:
            answers[path.pop()] = why
    return answers[start]


def scale_stops(walk: Walk, y: Value, scale: Value) -> str:
    """What keeps a scale of y from being folded into frozen weights before it."""
    along = varies(scale.type, y.type)
    if along is None or len(along) > 1:
        return f"{scale.name} is not one number for each channel of {y.name}"
    start = y, along[0] if along else None, True
    return first_stop(walk, ("up", scale), start, lambda place: _scale_step(walk, *place, scale))


def _scale_step(walk: Walk, value: Value, axis: int | None, near: bool, scale: Value) -> str | list[Place]:
    """Where the scale goes on from this value, or what stops it.

    It may end at another scale that it meets at once, and become one with it. It does not go far for that, which in a
    chain without weights would have every scale go up all of the chain.
    """
    if walk.is_frozen(value):
        return []
    node = walk.producer.get(value)
    if node is None:
        return nothing_before(walk, value)
    if also := walk.also_read(value):
        return also
    if weights(node):
        fixed = [weight for weight in weights(node) if walk.is_frozen(node.inputs[weight.index])]
        if any(axis in (None, weight.axis) for weight in fixed):
            return []
        if fixed:
            return f"its channels, axis {axis}, are not the output channels of {known_as(node)}, axis {fixed[0].axis}"
        return f"no factor of {called(node)} is frozen"
    moving = [v for v in node.inputs if not walk.is_frozen(v)]
    if node.op is mul and len(moving) > 1:
        return f"{known_as(node)} is a product of two values that are not frozen"
    if node.op is mul:
        return [] if near else [(v, met(node, v, axis), False) for v in moving]
    if node.op is add:
        return [(v, met(node, v, axis), near) for v in moving]
    if node.op is concat:
        return [(v, axis, near) for v in node.inputs]
    return _scale_passes(walk, node, axis, scale)


def _scale_passes(walk: Walk, node: Node, axis: int | None, scale: Value) -> str | list[Place]:
    found = passing_scale(node, axis)
    if found is None:
        return f"it comes from {called(node)}, through which no scale passes"
    if found[1].scale == "positive" and not walk.ask(scale, all_positive):
        return f"only positive scales pass through {called(node)}, and {not_known(walk)}"
    return [(node.inputs[0], None if axis is None else found[0], False)]


def nothing_before(walk: Walk, value: Value) -> str:
    what = "an input" if value in walk.source.inputs else "state that moves"
    return f"{value.name} is {what}, with no weight before it"


def not_known(walk: Walk) -> str:
    """How scales miss a condition, as the end of a sentence: without a state they are not known."""
    return "without a state these are not known" if walk.state is None else "not all of these are"


def met(node: Node, value: Value, axis: int | None) -> int | None:
    """The axis of an input that meets this axis of the result of an op that broadcasts."""
    return None if axis is None else axis - (node.outputs[0].type.rank - value.type.rank)


def shift_stops(walk: Walk, y: Value, shift: Value) -> str:
    """What keeps a shift of y from going up to another shift, or to stand right behind a weight."""
    along = varies(shift.type, y.type)
    if along is None or len(along) > 1:
        return f"{shift.name} is not one number for each channel of {y.name}"
    start = y, along[0] if along else None
    return first_stop(walk, "shift up", start, lambda place: _shift_step(walk, *place))


ShiftPlace = tuple[Value, "int | None"]


def _shift_step(walk: Walk, value: Value, axis: int | None) -> str | list[ShiftPlace] | OneOf[ShiftPlace]:
    """Where the shift goes on from this value, or what stops it. Of a sum one branch takes it up."""
    if walk.is_frozen(value):
        return []
    node = walk.producer.get(value)
    if node is None:
        return nothing_before(walk, value)
    if also := walk.also_read(value):
        return also
    if weights(node) or is_shift(walk, node):
        return []
    if node.op is add:
        branches = [(v, axis) for v in node.inputs if v.type == value.type]
        return OneOf(branches) if branches else f"no branch of {known_as(node)} is of its shape"
    if node.op is concat:
        return [(v, axis) for v in node.inputs]
    found = passing_shift(node, axis)
    if found is None:
        return f"it comes from {called(node)}, through which no shift passes"
    return [(node.inputs[0], None if axis is None else found[0])]


def is_shift(walk: Walk, node: Node) -> bool:
    """Whether the node adds something frozen."""
    return node.op is add and any(map(walk.is_frozen, node.inputs))
