"""Algebra: what changes nothing goes, and what is said in two steps is said in one.

Every rule gives the same floats to the last bit, infinities and NaNs included, but for the sign of a zero: x + 0 is x
here, which makes of -0.0 what it was and not 0.0. So x · 0 is not 0 and x - x is not 0: for x = NaN neither is.

Gradients stay what they were, too, except that AFTER_AUTODIFF takes out what only autodiff asks for.

x + 0 stays where the zeros make x grow by broadcasting, and x / c where c is no power of two: x · (1/c) rounds twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast
from minigraph.core.dtypes import FLOATS, digits, least_normal
from minigraph.core.ir import Node, Type, Value
from minigraph.core.op import OPS, Op
from minigraph.core.pattern import Bound, values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, Walk
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.broadcast import sum as sum_
from minigraph.ops.constant import fill
from minigraph.ops.pointwise import (
    absolute,
    add,
    cast,
    ceil,
    div,
    equal,
    floor,
    less,
    less_equal,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mul,
    neg,
    power,
    relu,
    sign,
    stop_gradient,
    sub,
    trunc,
    where,
)
from minigraph.ops.pointwise import round as rounded
from minigraph.ops.reduce import max as largest
from minigraph.ops.reduce import mean, prod
from minigraph.ops.reduce import min as smallest
from minigraph.ops.shape import concat, pad, reshape, slice_, transpose, unslice

CAST = OPS["cast"]  # `cast` itself leaves out casts that change nothing

# neutral elements


def itself(match: Match, x: Tensor, **_: Any) -> Tensor:
    return x


def grows(match: Match) -> str:
    """The other operand may only be broadcast to x, and not x to it."""
    x, result = match["x"], match.node.outputs[0]
    return "" if x.type == result.type else f"{x.name} is {x.type}, and {result.name} is {result.type}"


def unsigned(match: Match) -> str:
    t = match["x"].type
    return f"{match['x'].name} is {t}, and has no negative" if t.dtype.startswith("u") else ""


SAME_TYPE = Condition("the result is of x's type", grows)


def power_of_two(walk: Walk, value: Value) -> bool:
    """For patterns: a constant float whose reciprocal is one, too, so that dividing by it is multiplying."""
    node = walk.producer.get(value)
    if node is None or node.op is not fill or not value.type.is_float:
        return False
    number, least = node.attrs["value"], least_normal(value.type.dtype)
    inside = least <= abs(number) <= 1 / least
    return inside and math.frexp(abs(number))[0] == 0.5


def times_reciprocal(match: Match, x: Tensor, c: Tensor) -> Tensor:
    attrs = match.walk.producer[c.value].attrs
    reciprocal: Tensor = match.walk.builder.emit(fill, (), {**attrs, "value": 1 / attrs["value"]})[0]
    return x * reciprocal


# ops that give back what they get


def whole_slice(node: Node) -> bool:
    start, stop, step = (node.attrs[name] for name in ("start", "stop", "step"))
    shape = node.inputs[0].type.shape
    return start == (0,) * len(shape) and stop == shape and step == (1,) * len(shape)


def always(node: Node) -> bool:
    return True


# Where the type stays, too, the node changes nothing. For reductions: each number is reduced by itself.
CHANGES_NOTHING: Mapping[Op, Callable[[Node], bool]] = {
    reshape: always,
    broadcast_to: always,
    CAST: always,
    concat: lambda node: len(node.inputs) == 1,
    transpose: lambda node: node.attrs["axes"] == tuple(range(len(node.attrs["axes"]))),
    slice_: whole_slice,
    unslice: lambda node: node.attrs["step"] == (1,) * len(node.attrs["step"]),
    pad: lambda node: not any(n for pair in node.attrs["widths"] for n in pair),
    power: lambda node: bool(node.attrs["exponent"] == 1),
    **dict.fromkeys((sum_, mean, prod, largest, smallest), always),
}


def unchanged(walk: Walk, node: Node) -> Bound | None:
    """What the node gives back, if it does."""
    same = node.inputs[0].type == node.outputs[0].type and CHANGES_NOTHING[node.op](node)
    return {"x": node.inputs[0]} if same else None


ONCE = frozenset((relu, absolute, sign, floor, ceil, trunc, rounded, stop_gradient))


def again(walk: Walk, node: Node) -> Bound | None:
    """What an op makes of its own result, where that stays."""
    before = walk.producer.get(node.inputs[0])
    return {"x": node.inputs[0]} if before is not None and before.op is node.op else None


CHOICES = frozenset((maximum, minimum, logical_and, logical_or))


def same_twice(walk: Walk, node: Node) -> Bound | None:
    return {"x": node.inputs[0]} if node.inputs[0] is node.inputs[1] else None


# two steps in one


def in_one_order(match: Match, x: Tensor) -> Tensor:
    first, second = match["first"].attrs["axes"], match.node.attrs["axes"]
    return transpose(x, tuple(first[axis] for axis in second))


def in_one_step(match: Match, x: Tensor) -> Tensor:
    """The second cast, under its own origin: in what is computed once, a cast of the user rounds, one of a rule not."""
    with match.walk.builder.origin(match.node.origin):
        return cast(x, match.node.attrs["dtype"])


def loses(match: Match) -> str:
    """Unless the same number comes back from the middle, and what the last dtype makes of it is what it makes of x.

    Whole numbers that are too large wrap around, and floats that are too large for whole numbers become anything.
    """
    x, first, last = match["x"].type.dtype, match["first"], match.node.outputs[0].type.dtype
    middle = first.outputs[0].type.dtype
    bits = 8 * np.dtype(x).itemsize - (1 if x.startswith("i") else 0)
    room = digits(middle) if middle in FLOATS else 64
    fits = np.can_cast(x, middle, "safe") and (x in FLOATS or x == "bool" or bits <= room)
    if not fits:
        return f"{first.name} makes {middle} of {x}, which loses some"
    exact = last in (*FLOATS, "bool") or np.can_cast(x, last, "safe")
    if not exact and (x in FLOATS or middle in FLOATS):
        return f"{match.node.name} makes something else of {middle} than of {x} where that is too large for {last}"
    return ""


# broadcasting that happens anyway

MEETING = (add, sub, mul, div, maximum, minimum, equal, less, less_equal, logical_and, logical_or, logical_xor, where)


def broadcast_before(walk: Walk, node: Node) -> Bound | None:
    for i, value in enumerate(node.inputs):
        maker = walk.producer.get(value)
        if maker is not None and maker.op is broadcast_to and meets(node, i, maker.inputs[0].type):
            return {"index": i, "narrow": maker.inputs[0]}
    return None


def filled_before(walk: Walk, node: Node) -> Bound | None:
    for i, value in enumerate(node.inputs):
        maker = walk.producer.get(value)
        if maker is not None and maker.op is fill and value.type.shape and meets(node, i, Type((), value.type.dtype)):
            return {"index": i, "number": maker.attrs["value"]}
    return None


def meets(node: Node, i: int, narrow: Type) -> bool:
    """Whether the shape of the result stays if its i-th input gets that type."""
    shapes = [narrow.shape if i == j else value.type.shape for j, value in enumerate(node.inputs)]
    return broadcast(*shapes) == node.outputs[0].type.shape


def on_narrow(match: Match, narrow: Tensor) -> Any:
    return _with_input(match, narrow)


def on_number(match: Match) -> Any:
    dtype = match.node.inputs[match["index"]].type.dtype
    return _with_input(match, match.walk.builder.emit(fill, (), {"value": match["number"], "dtype": dtype})[0])


def _with_input(match: Match, new: Tensor) -> Any:
    node, i = match.node, match["index"]
    inputs = [match.tensor(value) for value in node.inputs]
    return node.op(*inputs[:i], new, *inputs[i + 1 :], **node.attrs)


x, y, c = values("x y condition")
(two,) = values("c", power_of_two)

RULES = (
    Rule("add-zero", "x + 0 = x", x + 0, itself, sound=(SAME_TYPE,)),
    Rule("subtract-zero", "x − 0 = x", x - 0, itself, sound=(SAME_TYPE,)),
    Rule("multiply-by-one", "x · 1 = x", x * 1, itself, sound=(SAME_TYPE,)),
    Rule("divide-by-one", "x / 1 = x", x / 1, itself, sound=(SAME_TYPE,)),
    Rule(
        "subtract-from-zero",
        "0 − x = −x",
        0 - x,
        lambda match, x: -x,
        sound=(SAME_TYPE, Condition("x has a sign", unsigned)),
    ),
    Rule("divide-by-power-of-two", "x / 2ⁿ = x · 2⁻ⁿ", x / two, times_reciprocal),
    Rule("negate-twice", "−(−x) = x", neg(neg(x)), itself),
    Rule("subtract-negative", "x − (−y) = x + y", x - (-y), lambda match, x, y: x + y),
    Rule("not-twice", "not not x = x", ~(~x), itself),
    Rule("changes-nothing", "f(x) = x", unchanged, itself, ops=frozenset(CHANGES_NOTHING)),
    Rule("done-already", "f(f(x)) = f(x), f such as relu", again, itself, ops=ONCE),
    Rule("same-twice", "f(x, x) = x, f one of maximum, minimum, and, or", same_twice, itself, ops=CHOICES),
    Rule("true-choice", "where(true, x, y) = x", where(True, x, y), itself, sound=(SAME_TYPE,)),
    Rule("false-choice", "where(false, y, x) = x", where(False, y, x), itself, sound=(SAME_TYPE,)),
    Rule("same-choice", "where(condition, x, x) = x", where(c, x, x), itself, sound=(SAME_TYPE,)),
    Rule(
        "transpose-twice",
        "transpose(transpose(x, a), b) = transpose(x, a[b])",
        transpose(transpose(x).named("first")),
        in_one_order,
    ),
    Rule(
        "reshape-twice",
        "reshape(reshape(x, a), b) = reshape(x, b)",
        reshape(reshape(x)),
        lambda match, x: reshape(x, **match.node.attrs),
    ),
    Rule(
        "broadcast-twice",
        "broadcast_to(broadcast_to(x, a), b) = broadcast_to(x, b)",
        broadcast_to(broadcast_to(x)),
        lambda match, x: broadcast_to(x, **match.node.attrs),
    ),
    Rule(
        "cast-twice",
        "cast(cast(x, a), b) = cast(x, b)",
        CAST(CAST(x).named("first")),
        in_one_step,
        sound=(Condition("the first cast loses nothing", loses),),
    ),
    Rule(
        "broadcast-anyway", "f(broadcast_to(x, a), y) = f(x, y), f pointwise", broadcast_before, on_narrow, ops=MEETING
    ),
    Rule("fill-anyway", "f(fill(a, …), y) = f(a, y), f pointwise", filled_before, on_number, ops=MEETING),
)

AFTER_AUTODIFF = (
    Rule(
        "pass-gradient-stop", "where nothing is differentiated any more, stop_gradient(x) = x", stop_gradient(x), itself
    ),
)

# A factor of -1 goes into a weight, as other factors do: -x is the shorter word for what is left behind the folding.
AFTER_FOLDING = (Rule("multiply-by-minus-one", "x · (−1) = −x", x * -1, lambda match, x: -x, sound=(SAME_TYPE,)),)

PASS = Pass("simplify", "What changes nothing goes.", (*RULES, *AFTER_AUTODIFF, *AFTER_FOLDING))
