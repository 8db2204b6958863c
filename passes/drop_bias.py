"""Drop what a batch norm takes off again: a bias before it.

    batch_norm(x + b, γ, β)  =  (y, μ + b, v)   where   batch_norm(x, γ, β) = (y, μ, v)

The result does not depend on b, one number for each channel: b would get the gradient 0. Only the mean that the norm
reports does, and running averages of it get b back. A bias that lies further up first moves down to the norm, through
whatever gives f(x + b) = f(x) + b. It moves only if it gets to batch norms on all ways, and then it is gone.

This comes before the gradient is taken. What is frozen is, there, all that is made of parameters and constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigraph.core.builder import Tensor
from minigraph.core.dim import known
from minigraph.core.ir import Node, Value
from minigraph.core.op import Op
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, Walk
from minigraph.ops.batch_norm import batch_norm
from minigraph.ops.constant import count, fill
from minigraph.ops.pointwise import add, cast, div, mul, sub
from minigraph.ops.shape import concat, reshape
from minigraph.passes.per_channel import meeting, varies, vector
from minigraph.passes.reach import the_weight, weights
from minigraph.passes.towards_norms import (
    Shift,
    bias_above,
    past,
    past_concat,
    past_op,
    shift_of,
    stops,
    uneven,
)

# at the batch norm


def norm_of_bias(walk: Walk, node: Node) -> Bound | None:
    """For patterns: a batch norm of y = x + b; also one with such a y further up that stays where it is."""
    if shift := shift_of(walk, node.inputs[0]):
        return bound(shift, node.inputs[0])
    above = bias_above(walk, node.inputs[0])
    if above is None or not stops(walk, above[0], above[2]):
        return None
    return {"x": node.inputs[0], "y": above[0], "b": above[1]}


def bound(shift: Shift, y: Value, **more: Value) -> Bound:
    return {"add": shift.node, "x": shift.x, "b": shift.b, "y": y, **more}


def without_bias(match: Match, x: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _, gamma, beta = map(match.tensor, match.node.inputs)
    with match.walk.builder.origin(role="statistic"):
        shift = cast(vector(b, known(gamma.shape[0], "channels")), gamma.dtype)
    result, mean, var = match.again(match.node, x, gamma, beta)
    with match.walk.builder.origin(role="statistic"):
        return result, mean + shift, var


def stays_above(match: Match) -> str:
    """Whether the bias is not what the batch norm reads, and why it has not come down."""
    shift = shift_of(match.walk, match.node.inputs[0])
    if shift is not None:
        return ""
    _, _, axis = bias_above(match.walk, match.node.inputs[0]) or (None, None, None)
    return f"{match['y'].name} keeps its bias: {stops(match.walk, match['y'], axis)}"


def not_of_its_channels(match: Match) -> str:
    shift = shift_of(match.walk, match.node.inputs[0])
    found = past(match.walk, match.node, match.node.inputs[0], shift.axis) if shift else ""
    return found if isinstance(found, str) else ""


# on the way down: what a shift passes through


def gets_down(walk: Walk, node: Node) -> bool:
    """Whether a shift behind this node might get to batch norms: where it might not, there is nothing to say."""
    return len(node.outputs) == 1 and not stops(walk, node.outputs[0], None)


def first_is_shift(fits: Callable[[Walk, Node], bool]) -> Callable[[Walk, Node], Bound | None]:
    """For patterns: f(x + b, ...) for such a node."""

    def found(walk: Walk, node: Node) -> Bound | None:
        if not node.inputs or not fits(walk, node) or not (shift := shift_of(walk, node.inputs[0])):
            return None
        return bound(shift, node.inputs[0]) if gets_down(walk, node) else None

    return found


def with_shift(op: Op, places: Sequence[int], other: str, still: bool = False) -> Callable[[Walk, Node], Bound | None]:
    """For patterns: op of x + b, in one of these places, and another value; still: a frozen one.

    Where both are such, the one whose bias may go on.
    """

    def found(walk: Walk, node: Node) -> Bound | None:
        if node.op is not op or not gets_down(walk, node):
            return None
        ways = []
        for i in places:
            shift, second = shift_of(walk, node.inputs[i]), node.inputs[1 - i]
            if shift is not None and (walk.is_frozen(second) or not still):
                ways.append(bound(shift, node.inputs[i], **{other: second}))
                if not stops(walk, node.inputs[i], shift.axis):
                    return ways[-1]
        return ways[0] if ways else None

    return found


def sum_of_shift(walk: Walk, node: Node) -> Bound | None:
    """For patterns: (x + b) + z. Not where z is a bias that joins b: the two would change places for ever."""
    found = with_shift(add, (0, 1), "z")(walk, node)
    if found is None or not walk.is_frozen(found["z"]):
        return found
    own, other = varies(found["b"].type, found["x"].type), varies(found["z"].type, found["y"].type)
    return found if own is None or other is None or len({*own, *other}) > 1 else None


def subtracted(walk: Walk, node: Node) -> Bound | None:
    """For patterns: x - b."""
    if walk.is_frozen(node.inputs[0]) or not walk.is_frozen(node.inputs[1]):
        return None
    x, b = node.inputs
    return {"x": x, "b": b} if gets_down(walk, node) and x.type == node.outputs[0].type else None


def branch_is_shift(walk: Walk, node: Node) -> Bound | None:
    """For patterns: concat(x + b, y, ...), in any place; the first branch whose bias may go on, else the first."""
    shifts = [(y, shift) for y in node.inputs if (shift := shift_of(walk, y))]
    shifts.sort(key=lambda found: bool(stops(walk, found[0], found[1].axis)))
    return bound(shifts[0][1], shifts[0][0]) if shifts and gets_down(walk, node) else None


def count_of_shift(walk: Walk, node: Node) -> Bound | None:
    """For patterns: how many numbers x + b has."""
    shift = shift_of(walk, node.inputs[0]) if node.op is count else None
    return bound(shift, node.inputs[0]) if shift and not stops(walk, node.inputs[0], None) else None


def past_node(match: Match, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """f(x) + b, with b where f has the channels."""
    node, shift, result = match.node, the_shift(match), match.node.outputs[0].type
    others = [match.tensor(value) for value in node.inputs[1:]]
    axis = past_op(node, shift.axis)
    if shift.axis is None or isinstance(axis, str):
        return match.again(node, x, *others) + (reshape(b, ()) if b.rank > result.rank else b)
    assert axis is not None
    return match.again(node, x, *others) + meeting(vector(b, known(result.shape[axis], "channels")), result.rank, axis)


def the_shift(match: Match) -> Shift:
    shift = shift_of(match.walk, match["y"])
    assert shift is not None
    return shift


def past_branches(match: Match, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """concat(x, y, ...) + (b, 0, ...): of all branches at once that have a bias which may go on."""
    node, axis = match.node, match.node.attrs["axis"]
    branches, numbers = [], []
    for value in node.inputs:
        branch, size = match.tensor(value), known(value.type.shape[axis], "channels")
        shift = shift_of(match.walk, value)
        if shift and (value is y.value or not stops(match.walk, value, shift.axis)):
            branch = match.tensor(shift.x)
            numbers.append(vector(match.tensor(shift.b), size))
        else:
            zeros = {"value": 0.0, "shape": (size,), "dtype": branch.dtype}
            numbers.append(match.walk.builder.emit(fill, (), zeros)[0])
        branches.append(branch)
    return match.again(node, *branches) + meeting(concat(numbers, axis=0), node.outputs[0].type.rank, axis)


def past_scale(match: Match, x: Tensor, b: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return match.again(match.node, x, c) + match.node.op(b, c)


def past_sum(match: Match, x: Tensor, b: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return match.again(match.node, x, z) + b


def past_minuend(match: Match, x: Tensor, b: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return match.again(match.node, x, z) + b


def past_subtrahend(match: Match, x: Tensor, b: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return match.again(match.node, z, x) - b


def data_is_shift(walk: Walk, node: Node) -> Bound | None:
    """For patterns: f(x + b, w), f linear in a frozen w."""
    for weight in weights(node):
        y = node.inputs[weight.data]
        if walk.is_frozen(node.inputs[weight.index]) and (shift := shift_of(walk, y)) and gets_down(walk, node):
            return bound(shift, y)
    return None


def past_weight(match: Match, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """f(x, w) + f(b, w)."""
    weight, result = the_weight(match), match.node.outputs[0].type
    inputs = [match.tensor(value) for value in match.node.inputs]
    inputs[weight.data] = x
    response = weight.shifts(inputs[weight.index], vector(b, known(x.shape[weight.data_axis], "channels")))
    return match.again(match.node, *inputs) + meeting(response, result.rank, weight.axis)


# conditions


def passes_no_shift(match: Match) -> str:
    found = past_op(match.node, the_shift(match).axis)
    return found if isinstance(found, str) else ""


def joins_other_axis(match: Match) -> str:
    found = past_concat(match.node, the_shift(match).axis)
    return found if isinstance(found, str) else ""


def not_its_inputs(match: Match) -> str:
    axis, weight = the_shift(match).axis, the_weight(match)
    if axis in (None, weight.data_axis):
        return ""
    return f"its channels, axis {axis}, are not the input channels of {match.node.name}, axis {weight.data_axis}"


def reaches_into_padding(match: Match) -> str:
    return "" if the_weight(match).even else uneven(match.node)


def bias_stays(match: Match) -> str:
    """Why y = x + b keeps its bias."""
    return stops(match.walk, match["y"], the_shift(match).axis)


def number_stays(match: Match) -> str:
    """Why x - b keeps its b."""
    return result_stays(match, match["x"], match["b"])


def joint_bias_stays(match: Match) -> str:
    """Why (x + b) + c keeps b + c."""
    return bias_stays(match) or result_stays(match, match["x"], match["b"], match["c"])


def result_stays(match: Match, x: Value, *numbers: Value) -> str:
    axes: set[int] = set()
    for number in numbers:
        along = varies(number.type, x.type)
        if along is None:
            return f"{number.name} is more than one number for each channel of {x.name}"
        axes.update(along)
    if len(axes) > 1:
        return f"{' and '.join(number.name for number in numbers)} are not numbers for channels of {x.name}"
    return stops(match.walk, match.node.outputs[0], next(iter(axes), None))


IT_GOES = Condition("the bias gets to batch norms, on all ways", bias_stays)

DROP = Rule(
    "drop-bias",
    "batch_norm(x + b, γ, β) = (y, μ + b, v), where batch_norm(x, γ, β) = (y, μ, v)",
    norm_of_bias,
    without_bias,
    sound=(
        Condition("the batch norm reads x + b itself", stays_above),
        Condition("b is one number for each channel of the batch norm", not_of_its_channels),
    ),
    ops=(batch_norm,),
    pays=(IT_GOES,),
)

RULES = (
    DROP,
    Rule(
        "add-the-negative",
        "x − b = x + (−b)",
        subtracted,
        lambda match, x, b: x + (-b),
        pays=(Condition("−b gets to batch norms, on all ways", number_stays),),
        ops=(sub,),
    ),
    Rule(
        "join-biases",
        "(x + b) + c = x + (b + c)",
        with_shift(add, (0, 1), "c", still=True),
        lambda match, x, b, y, c: x + (b + c),
        pays=(Condition("b + c gets to batch norms, on all ways", joint_bias_stays),),
    ),
    Rule(
        "bias-past-op",
        "f(x + b) = f(x) + b",
        first_is_shift(lambda walk, node: node.op.channels is not None),
        past_node,
        sound=(Condition("the op passes a shift of these channels", passes_no_shift),),
        pays=(IT_GOES,),
    ),
    Rule("bias-past-sum", "(x + b) + z = (x + z) + b", sum_of_shift, past_sum, pays=(IT_GOES,)),
    Rule("bias-past-minuend", "(x + b) − z = (x − z) + b", with_shift(sub, (0,), "z"), past_minuend, pays=(IT_GOES,)),
    Rule(
        "bias-past-subtrahend",
        "z − (x + b) = (z − x) − b",
        with_shift(sub, (1,), "z"),
        past_subtrahend,
        pays=(IT_GOES,),
    ),
    Rule(
        "bias-past-concat",
        "concat(x + b, z, …) = concat(x, z, …) + (b, 0, …)",
        branch_is_shift,
        past_branches,
        sound=(Condition("it joins channels, or the bias is one for all", joins_other_axis),),
        pays=(IT_GOES,),
        ops=(concat,),
    ),
    Rule(
        "bias-past-scale",
        "(x + b)·c = x·c + b·c",
        with_shift(mul, (0, 1), "c", still=True),
        past_scale,
        pays=(IT_GOES,),
    ),
    Rule(
        "bias-past-divisor",
        "(x + b)/c = x/c + b/c",
        with_shift(div, (0,), "c", still=True),
        past_scale,
        pays=(IT_GOES,),
    ),
    Rule(
        "count-without-bias",
        "count(x + b) = count(x)",
        count_of_shift,
        lambda match, x, b, y: match.again(match.node, x),
        pays=(IT_GOES,),
    ),
    Rule(
        "bias-past-weight",
        "f(x + b, w) = f(x, w) + f(b, w), f linear, without padding",
        data_is_shift,
        past_weight,
        sound=(
            Condition("b is one number for each input channel of the weight", not_its_inputs),
            Condition("no window reaches into padding", reaches_into_padding),
        ),
        pays=(IT_GOES,),
    ),
)

PASS = Pass("drop-bias", "Biases that a batch norm takes off again go, and its running mean gets them back.", RULES)
