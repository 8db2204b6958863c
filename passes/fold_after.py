"""Fold scales and shifts into what comes after them, as in networks that normalize before the weights.

    f(x · s, w)  =  f(x, w · s)              f linear in w and in x, one input channel at a time
    f(x + t, w)  =  f(x, w) + f(t, w)

f(t, w) is frozen. Where no window reaches into padding it is one number for each output channel. At the edges of a
padded image, where x + t is cut off, it is not: there f(t, w) is a whole image, the response to the shift alone. If
the size of the image is not known before the call, the scale alone is folded, by f(x·s + t, w) = f(x + t/s, w·s).

Before a weight that is further down, a scale or a shift moves down to it, through what keeps channels apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import known, product, symbolic
from minigraph.core.dtypes import least_normal
from minigraph.core.ir import Node, Value
from minigraph.core.op import Channels, Op
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, Walk, called, known_as
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.pointwise import add, mul
from minigraph.ops.shape import reshape
from minigraph.passes import merge_scales, pad_into_conv
from minigraph.passes.per_channel import is_along, meeting, varies, vector
from minigraph.passes.reach import all_positive, first_stop, not_known, the_weight, weights

# what takes a number up further down


def left_over(walk: Walk, y: Value, number: Value, op: Op) -> str:
    """What reads y = x op number, or what comes of it, without taking the number up; "" if weights take up all."""
    along = varies(number.type, y.type)
    if along is None or len(along) > 1:
        return f"{number.name} is not one number for each channel of {y.name}"
    start = y, along[0] if along else None, op
    return first_stop(walk, ("down", number), start, lambda place: _readers_step(walk, *place, number))


Waiting = list[tuple[Value, "int | None", Op]]


def _readers_step(walk: Walk, value: Value, axis: int | None, op: Op, number: Value) -> str | Waiting:
    """Where the number goes on from this value, or what stops it."""
    ways: Waiting = []
    for reader in walk.readers(value):
        if isinstance(reader, str):
            return f"{value.name} is read by {reader}"
        found = _reader_step(walk, reader, value, axis, op, number)
        if isinstance(found, str):
            return found
        ways += found
    return ways


def _reader_step(walk: Walk, reader: Node, value: Value, axis: int | None, op: Op, number: Value) -> str | Waiting:
    at = [i for i, v in enumerate(reader.inputs) if walk.now(v) is walk.now(value)]
    for weight in weights(reader):
        if at == [weight.data] and walk.is_frozen(walk.now(reader.inputs[weight.index])):
            if axis not in (None, weight.data_axis):
                own = weight.data_axis
                return f"its channels, axis {axis}, are not the input channels of {known_as(reader)}, axis {own}"
            if op is add and not weight.even and symbolic(reader.outputs[0].type.shape[1:]):
                what = "pads an image" if "padding" in reader.attrs else "makes of a shift something"
                return f"{known_as(reader)} {what} whose size is not known"
            return []
    if reader.op in (add, mul) and any(walk.is_frozen(walk.now(v)) for v in reader.inputs):
        at_end = None if axis is None else axis + reader.outputs[0].type.rank - value.type.rank
        return [(reader.outputs[0], at_end, kind) for kind in {op, reader.op}]  # what it meets goes on as well
    if reader.op is reshape and axis is not None and _keeps_samples(reader):
        passes = reader.op.passes([value.type], reader.attrs, axis)
        return [(reader.outputs[0], 1 if passes is None else passes.axis, op)]
    if reader.op.channels is not None and at == [0] and axis is not None:
        passes = reader.op.passes([v.type for v in reader.inputs], reader.attrs, axis)
        fits = passes is not None and (passes.shift if op is add else passes.scale != "none")
        if passes is not None and fits:
            if op is mul and passes.scale == "positive" and not walk.ask(number, all_positive):
                return f"only positive scales pass through {called(reader)}, and {not_known(walk)}"
            return [(reader.outputs[0], passes.axis, op)]
    return f"{value.name} is read by {called(reader)}, which does not take it up"


def _keeps_samples(node: Node) -> bool:
    """Whether a reshape leaves the first axis alone and makes one axis of all others."""
    x, y = node.inputs[0].type, node.outputs[0].type
    same = x.shape[:1] == y.shape[:1] and product(x.shape[1:]) == product(y.shape[1:])  # (0, 3) also becomes (0, 5)
    return y.rank == 2 and x.rank >= 2 and same and not symbolic(y.shape[1:])


# at the weight


def behind(op: Op, padded: bool = False) -> Callable[[Walk, Node], Bound | None]:
    """For patterns: a node that is linear in a frozen weight, and whose data is y = x op n with a frozen n.

    padded: only where windows reach into padding.
    """

    def found(walk: Walk, node: Node) -> Bound | None:
        for weight in weights(node):
            y = node.inputs[weight.data]
            parts = parts_of(walk, y, op)
            if parts is not None and not (padded and weight.even) and walk.is_frozen(node.inputs[weight.index]):
                return {"x": parts[0], "n": parts[1], "y": y}
        return None

    return found


def parts_of(walk: Walk, value: Value, op: Op) -> tuple[Value, Value] | None:
    """x and n of value = x op n, where n alone is frozen. A shift right behind a weight is a bias, and at its place."""
    node = walk.producer.get(value)
    if node is None or node.op is not op or walk.is_frozen(value):
        return None
    frozen, moving = ([v for v in node.inputs if walk.is_frozen(v) is want] for want in (True, False))
    if len(moving) != 1 or moving[0].type != value.type:
        return None
    maker = walk.producer.get(moving[0])
    return None if op is add and maker is not None and weights(maker) else (moving[0], frozen[0])


def scale_the_weight(match: Match, x: Tensor, y: Tensor, n: Tensor) -> Tensor:
    weight = the_weight(match)
    inputs = [match.tensor(value) for value in match.node.inputs]
    inputs[weight.data] = x
    inputs[weight.index] *= weight.inputs(vector(n, x.shape[weight.data_axis]))
    return match.again(match.node, *inputs)


def shift_the_channels(match: Match, x: Tensor, y: Tensor, n: Tensor) -> Tensor:
    """f(x + n, w) = f(x, w) + one number for each output channel."""
    weight = the_weight(match)
    inputs = [match.tensor(value) for value in match.node.inputs]
    inputs[weight.data] = x
    response = weight.shifts(inputs[weight.index], vector(n, x.shape[weight.data_axis]))
    result = match.node.outputs[0].type
    return match.again(match.node, *inputs) + meeting(response, result.rank, weight.axis)


def shift_the_image(match: Match, x: Tensor, y: Tensor, n: Tensor) -> Tensor:
    """f(x + n, w) = f(x, w) + f(n, w), the response to the shift alone, of one sample if all have the same shift.

    The first axis counts samples, unless the channels lie there: behind a factor on the left.
    """
    weight = the_weight(match)
    inputs = [match.tensor(value) for value in match.node.inputs]
    alone = list(inputs)
    differ = weight.data_axis == 0 or 0 in (varies(n.value.type, x.value.type) or ())
    samples = x.shape[0] if differ else 1
    alone[weight.data] = broadcast_to(n, (samples, *x.shape[1:]))
    inputs[weight.data] = x
    return match.again(match.node, *inputs) + match.again(match.node, *alone)


def drop_the_shift(match: Match, x: Tensor, y: Tensor, n: Tensor) -> Tensor:
    weight = the_weight(match)
    inputs = [match.tensor(value) for value in match.node.inputs]
    inputs[weight.data] = x
    return match.again(match.node, *inputs)


def unscaled_shift(match: Match, x: Tensor, y: Tensor, n: Tensor, s: Tensor, scaled: Tensor) -> Tensor:
    """f(x·s + n, w) -> f(x + n/s, w·s)"""
    weight = the_weight(match)
    inputs = [match.tensor(value) for value in match.node.inputs]
    channels = x.shape[weight.data_axis]
    inputs[weight.data] = x + n / s
    inputs[weight.index] *= weight.inputs(vector(s, channels))
    return match.again(match.node, *inputs)


def behind_both(walk: Walk, node: Node) -> Bound | None:
    """For patterns: the same of y = x·s + n, where windows reach into padding."""
    found = behind(add, padded=True)(walk, node)
    parts = found and parts_of(walk, found["x"], mul)
    return {**found, "scaled": found["x"], "x": parts[0], "s": parts[1]} if found and parts else None


def all_zero(numbers: np.ndarray) -> bool:
    return not numbers.any()


@cache
def none_tiny(dtype: str) -> Callable[[np.ndarray], bool]:
    """The question whether numbers are so large that what is divided by them, and a weight times them, is in range."""
    least = math.sqrt(least_normal(dtype))
    return lambda numbers: bool((np.abs(numbers) >= least).all())


def other_channels(match: Match) -> str:
    axis = the_weight(match).data_axis
    if is_along(match["n"].type, match["y"].type, axis):
        return ""
    return f"its channels are not the input channels of {known_as(match.node)}, axis {axis}"


def some_tiny(match: Match) -> str:
    s = match["s"]
    return "" if match.walk.ask(s, none_tiny(s.type.dtype)) else f"{s.name} is not known to be far enough from zero"


def scales_other_channels(match: Match) -> str:
    axis = the_weight(match).data_axis
    if is_along(match["s"].type, match["x"].type, axis):
        return ""
    return f"its channels are not the input channels of {known_as(match.node)}, axis {axis}"


def read_besides(match: Match) -> str:
    return match.walk.also_read(match["y"]) or match.walk.also_read(match["scaled"])


def not_even(match: Match) -> str:
    if the_weight(match).even:
        return ""
    if "padding" in match.node.attrs:
        return f"windows of {known_as(match.node)} reach into padding"
    return f"each matrix of {known_as(match.node)} makes another number of a shift"


def not_zero(match: Match) -> str:
    zero = match.walk.ask(match["n"], all_zero)
    return "" if zero else f"{match['n'].name} is not known to be zero"


def some_is_left(op: Op) -> Callable[[Match], str]:
    return lambda match: left_over(match.walk, match["y"], match["n"], op)


# on the way down


def carried(op: Op) -> Callable[[Walk, Node], Bound | None]:
    """For patterns: a node with channels of its own whose first input is y = x op n with a frozen n."""

    def found(walk: Walk, node: Node) -> Bound | None:
        if not node.inputs or (node.op.channels is None and node.op is not reshape):
            return None
        parts = parts_of(walk, node.inputs[0], op)
        return None if parts is None else {"x": parts[0], "n": parts[1], "y": node.inputs[0]}

    return found


def passed_on(match: Match) -> Channels | None:
    """How the number passes through the node."""
    node, along = match.node, varies(match["n"].type, match["y"].type)
    return node.op.passes([v.type for v in node.inputs], node.attrs, along[0]) if along else None


def down(op: Op) -> Callable[..., Tensor]:
    """f(x op n) = f(x) op n"""

    def moved(match: Match, x: Tensor, y: Tensor, n: Tensor) -> Tensor:
        node, passes = match.node, passed_on(match)
        others = [match.tensor(value) for value in node.inputs[1:]]
        result = node.outputs[0].type
        if passes is None and node.op is reshape:  # channels and what lies along others become features
            behind = reshape(broadcast_to(n, (1, *x.shape[1:])), (1, *result.shape[1:]))
        else:
            axis = passes.axis if passes else 1
            behind = meeting(vector(n, known(result.shape[axis], "channels")), result.rank, axis)
        return op(match.again(node, x, *others), behind)

    return moved


def does_not_pass(op: Op) -> Callable[[Match], str]:
    def fails(match: Match) -> str:
        node, passes = match.node, passed_on(match)
        if passes is not None and (passes.shift if op is add else passes.scale != "none"):
            return ""
        if node.op is reshape and _keeps_samples(node) and 0 not in (varies(match["n"].type, match["y"].type) or ()):
            return ""
        what = "shift" if op is add else "scale"
        return f"no {what} of these channels passes through {called(node)}"

    return fails


def negative(match: Match) -> str:
    passes = passed_on(match)
    if passes is None or passes.scale != "positive" or match.walk.ask(match["n"], all_positive):
        return ""
    return f"only positive scales pass through {called(match.node)}, and {not_known(match.walk)}"


ITS_CHANNELS = Condition("it is one number for each input channel of the weight", other_channels)
ALL_SCALES = Condition("all that reads the scaled value takes the scale up", some_is_left(mul))
ALL_SHIFTS = Condition("all that reads the shifted value takes the shift up", some_is_left(add))

RULES = (
    Rule(
        "scale-into-next-weight",
        "f(x·n, w) = f(x, w·n), f linear in w, one input channel at a time",
        behind(mul),
        scale_the_weight,
        sound=(ITS_CHANNELS,),
        pays=(ALL_SCALES,),
    ),
    Rule(
        "shift-past-weight",
        "f(x + n, w) = f(x, w) + Σ w·n, f linear, without padding",
        behind(add),
        shift_the_channels,
        sound=(ITS_CHANNELS, Condition("no window reaches into padding", not_even)),
        pays=(ALL_SHIFTS,),
    ),
    Rule(
        "drop-shift-of-zero",
        "f(x + 0, w) = f(x, w)",
        behind(add, padded=True),
        drop_the_shift,
        sound=(Condition("the shift is zero", not_zero),),
    ),
    Rule(
        "shift-past-padding",
        "f(x + n, w) = f(x, w) + f(n, w), f linear",
        behind(add, padded=True),
        shift_the_image,
        pays=(ALL_SHIFTS,),
    ),
    Rule(
        "scale-past-shift",
        "f(x·s + n, w) = f(x + n/s, w·s)",
        behind_both,
        unscaled_shift,
        sound=(
            Condition("the scale is one number for each input channel of the weight", scales_other_channels),
            Condition("no scale is zero, or near it", some_tiny),
        ),
        pays=(Condition("nothing else reads the scaled or the shifted value", read_besides),),
    ),
    Rule(
        "scale-down",
        "f(x·n) = f(x)·n",
        carried(mul),
        down(mul),
        sound=(
            Condition("the op passes a scale of these channels", does_not_pass(mul)),
            Condition("where it passes positive scales only, all are positive", negative),
        ),
        pays=(ALL_SCALES,),
    ),
    Rule(
        "shift-down",
        "f(x + n) = f(x) + n",
        carried(add),
        down(add),
        sound=(Condition("the op passes a shift of these channels", does_not_pass(add)),),
        pays=(ALL_SHIFTS,),
    ),
)

PASS = Pass(
    "fold-after",
    "Scales and shifts go into the weights after them.",
    (*RULES, *merge_scales.RULES, *pad_into_conv.RULES),
)
