"""Fold scales and shifts into what comes before them.

    f(x, w) · s  =  f(x, w · s)         f linear in w, one output channel at a time: conv, conv_transpose, matmul

A scale behind something else moves up to where it can be folded: through sums and concatenations into each branch,
through pooling, and through ReLU where it is positive. It moves only if all its ways end in a weight. A shift moves up
to another shift, or to stand right behind a weight, as a bias.
"""

from __future__ import annotations

from collections.abc import Callable

from minigraph.core.builder import Tensor
from minigraph.core.ir import Node
from minigraph.core.op import Weight
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, called, known_as
from minigraph.ops.pointwise import add, mul
from minigraph.ops.shape import concat, reshape, slice_axis
from minigraph.passes import merge_scales
from minigraph.passes.merge_scales import inner_is_read
from minigraph.passes.per_channel import (
    frozen,
    is_along,
    made_by,
    meeting,
    moving,
    passes_channels,
    passing,
    passing_scale,
    passing_shift,
    varies,
    vector,
)
from minigraph.passes.reach import all_positive, not_known, scale_stops, shift_stops, weights


def maker(match: Match) -> Node:
    """The node that makes y."""
    return match.walk.producer[match["y"]]


# into a weight


def chosen_weight(match: Match) -> Weight:
    """The frozen weight of the node that makes y whose output channels are those of s; else the first of them."""
    node = maker(match)
    fixed = [weight for weight in weights(node) if match.walk.is_frozen(node.inputs[weight.index])]
    found = fixed or list(weights(node))
    fits = [weight for weight in found if is_along(match["s"].type, match["y"].type, weight.axis)]
    return (fits or found)[0]


def into_weight(match: Match, y: Tensor, s: Tensor) -> Tensor:
    node, weight = maker(match), chosen_weight(match)
    inputs = [match.tensor(value) for value in node.inputs]
    inputs[weight.index] = inputs[weight.index] * weight.outputs(vector(s, y.shape[weight.axis]))
    return match.again(node, *inputs)


def scales_other_channels(match: Match) -> str:
    node = match.walk.producer.get(match["y"])
    if node is None or not weights(node):  # it does not end here
        return ""
    axis = chosen_weight(match).axis
    if is_along(match["s"].type, match["y"].type, axis):
        return ""
    return f"its channels are not the output channels of {known_as(node)}, axis {axis}"


# up, through what keeps channels apart


def before(match: Match, number: Tensor) -> Tensor:
    """The number for each channel of y in the shape that meets what y is made of."""
    node, along = maker(match), varies(number.value.type, match["y"].type)
    if not along:
        return reshape(number, ())
    x = node.inputs[0].type
    found = passing(node, along[0])
    axis = found[0] if found else min(along[0], x.rank - 1)
    return meeting(vector(number, x.shape[axis]), x.rank, axis)


def up(op: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """f(x) op number = f(x op number)."""

    def moved(match: Match, y: Tensor, **number: Tensor) -> Tensor:
        node = maker(match)
        x, *others = map(match.tensor, node.inputs)
        return match.again(node, op(x, before(match, *number.values())), *others)

    return moved


def up_branches(op: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """concat(a, b, ...) op number: each branch gets what belongs to its channels."""

    def moved(match: Match, y: Tensor, **number: Tensor) -> Tensor:
        node, (n,) = maker(match), number.values()
        at, start, parts = node.attrs["axis"], 0, []
        for value in node.inputs:
            branch, size = match.tensor(value), value.type.shape[at]
            own = n
            if at in (varies(n.value.type, y.value.type) or ()):
                own = slice_axis(n, at - (y.rank - n.rank), start, start + size)
            parts.append(op(branch, own))
            start += size
        return match.again(node, *parts)

    return moved


def axes_of(match: Match, number: str) -> tuple[int | None, ...]:
    """The axes of y along which the number varies; one None where it is one for all."""
    return varies(match[number].type, match["y"].type) or (None,)


def passes_no_scale(match: Match) -> str:
    node = maker(match)
    for axis in axes_of(match, "s"):
        if passing_scale(node, axis) is None:
            which = "" if axis is None else f" of axis {axis}"
            return f"no scale{which} passes through {called(node)}"
    return ""


def scale_is_not_positive(match: Match) -> str:
    node = maker(match)
    found = [passing_scale(node, axis) for axis in axes_of(match, "s")]
    if all(way is None or way[1].scale != "positive" for way in found) or match.walk.ask(match["s"], all_positive):
        return ""
    return f"only positive scales pass through {called(node)}, and {not_known(match.walk)}"


def passes_no_shift(match: Match) -> str:
    node = maker(match)
    for axis in axes_of(match, "t"):
        if passing_shift(node, axis) is None:
            which = "" if axis is None else f" of axis {axis}"
            return f"no shift{which} passes through {called(node)}"
    return ""


def scale_gets_nowhere(match: Match) -> str:
    return scale_stops(match.walk, match["y"], match["s"])


def scale_is_not_behind_a_weight(match: Match) -> str:
    node = match.walk.producer.get(match["y"])
    behind = node is not None and weights(node)
    return scale_gets_nowhere(match) or ("" if behind else f"{match['y'].name} is not what a weight makes")


def shift_gets_nowhere(match: Match) -> str:
    return shift_stops(match.walk, match["y"], match["t"])


def a_branch_stops(match: Match) -> str:
    """For (a + b)·s: the sum takes the scale up."""
    total = next(v for v in match.node.inputs if v is not match["s"])
    return scale_stops(match.walk, total, match["s"])


def meets_no_shift(match: Match) -> str:
    """For (a + b) + t: the shift can go on from a."""
    return inner_is_read(match) or shift_stops(match.walk, match["a"], match["t"])


x, y, a, b = values("x y a b", moving)
s, t, c = values("s t c", frozen)
(joined,) = values("y", made_by(concat))
(carried,) = values("y", passes_channels)

SCALE_GETS_THERE = Condition(
    "all ways of the scale end in frozen weights, past values that nothing else reads", scale_gets_nowhere
)
SHIFT_GETS_THERE = Condition(
    "the shift meets another one, or a weight, past values that nothing else reads", shift_gets_nowhere
)

RULES = (
    Rule(
        "scale-both-branches",
        "(a + b)·s = a·s + b·s",
        (a + b) * s,
        lambda match, a, b, s: a * s + b * s,
        pays=(
            Condition(
                "both branches take the scale up",
                a_branch_stops,
            ),
        ),
    ),
    Rule(
        "shift-one-branch",
        "(a + b) + t = (a + t) + b",
        (a + b) + t,
        lambda match, a, b, t: (a + t) + b,
        pays=(Condition("a takes the shift up", meets_no_shift),),
    ),
    Rule(
        "scale-into-weight",
        "f(x, w)·s = f(x, w·s), f linear in w, one output channel at a time",
        y * s,
        into_weight,
        sound=(Condition("the scale is one number for each output channel of the weight", scales_other_channels),),
        pays=(
            Condition(
                "it stands right behind a frozen weight, and nothing else reads that", scale_is_not_behind_a_weight
            ),
        ),
    ),
    Rule(
        "scale-through",
        "f(x)·s = f(x·s)",
        carried * s,
        up(mul),
        sound=(
            Condition("the op passes a scale of these channels", passes_no_scale),
            Condition("where it passes positive scales only, all are positive", scale_is_not_positive),
        ),
        pays=(SCALE_GETS_THERE,),
    ),
    Rule(
        "shift-through",
        "f(x) + t = f(x + t)",
        carried + t,
        up(add),
        sound=(Condition("the op passes a shift of these channels", passes_no_shift),),
        pays=(SHIFT_GETS_THERE,),
    ),
    Rule(
        "scale-each-branch",
        "concat(a, b, …)·s = concat(a·s₁, b·s₂, …)",
        joined * s,
        up_branches(mul),
        pays=(SCALE_GETS_THERE,),
    ),
    Rule(
        "shift-each-branch",
        "concat(a, b, …) + t = concat(a + t₁, b + t₂, …)",
        joined + t,
        up_branches(add),
        pays=(SHIFT_GETS_THERE,),
    ),
)

PASS = Pass("fold-before", "Scales and shifts go into the weights before them.", (*merge_scales.RULES, *RULES))
