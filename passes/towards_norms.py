"""How far a shift of channels can go down a training graph: it is to get to batch norms, which take it off again.

The question is answered for all ways at once, by looking at the graph only; its answer is "" or a sentence. A value
that several nodes read takes its shift to all of them, or keeps it.
"""

from __future__ import annotations

from typing import NamedTuple

from minigraph.core.ir import Node, Value
from minigraph.core.op import Channels
from minigraph.core.rewrite import Walk, called
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference
from minigraph.ops.constant import count
from minigraph.ops.conv import conv
from minigraph.ops.norm import group_norm, layer_norm, local_response_norm, rms_norm
from minigraph.ops.pointwise import add, div, mul, stop_gradient, sub
from minigraph.ops.pool import avg_pool
from minigraph.ops.shape import concat, pad
from minigraph.passes.per_channel import varies
from minigraph.passes.reach import first_stop, weights

Place = tuple[Value, "int | None"]  # a value, and the axis of its channels; None for a number that is one for all
OTHER_NORMS = (layer_norm, rms_norm, group_norm, local_response_norm)
WHY = {avg_pool: "the zeros of its padding count", pad: "what it pads with stays as it is"}


class Shift(NamedTuple):
    """A value y = x + b, where b alone is frozen and is one number for each channel, along `axis`, or one for all."""

    node: Node
    x: Value
    b: Value
    axis: int | None


def shift_of(walk: Walk, value: Value) -> Shift | None:
    """What the value is a shift of, if it is one."""
    node = walk.producer.get(value)
    if node is None or node.op is not add:
        return None
    for x, b in (node.inputs, node.inputs[::-1]):
        if walk.is_frozen(b) and not walk.is_frozen(x):
            axes = varies(b.type, x.type)
            if axes is not None and len(axes) <= 1:
                return Shift(node, x, b, axes[0] if axes else None)
    return None


def stops(walk: Walk, value: Value, axis: int | None) -> str:
    """What keeps a shift of the value, one number for each index of `axis`, from getting to batch norms alone."""
    return first_stop(walk, "shift down", (value, axis), lambda place: _ways(walk, *place))


def _ways(walk: Walk, value: Value, axis: int | None) -> str | list[Place]:
    """Where the shift goes on from this value through its readers, or what stops it."""
    readers = list(dict.fromkeys(walk.readers(value)))
    if not readers:
        return f"nothing reads {value.name}"
    ways: list[Place] = []
    for reader in readers:
        if isinstance(reader, str):
            return f"{value.name} is {reader}"
        found = past(walk, reader, value, axis)
        if isinstance(found, str):
            return found if len(readers) == 1 else f"{value.name} is also read by {reader.name}, and {found}"
        ways += found
    return ways


def past(walk: Walk, node: Node, value: Value, axis: int | None) -> str | list[Place]:
    """Where a shift of the value comes out of a node that reads it: nowhere behind a batch norm. Or what stops it.

    What asks for the size only does not see the shift.
    """
    at = [i for i, v in enumerate(node.inputs) if walk.now(v) is walk.now(value)]
    if node.op is batch_norm and at == [0]:
        wrong = axis not in (None, node.attrs["axis"])
        return f"its channels, axis {axis}, are not those of {node.name}, axis {node.attrs['axis']}" if wrong else []
    if node.op is count:
        return []
    if node.op is batch_norm_inference:
        return f"{node.name} uses running statistics"
    if node.op in OTHER_NORMS:
        return f"{called(node)} is no batch norm"
    result = node.outputs[0]
    found: str | int | None
    if weights(node):
        found = _past_weight(walk, node, at, axis)
    elif node.op is add or (node.op is sub and len(at) == 1):
        found = None if axis is None else axis + result.type.rank - value.type.rank
    elif node.op is concat:
        found = past_concat(node, axis)
    elif (node.op is mul and len(at) == 1) or (node.op is div and at == [0]):
        found = _past_factor(walk, node, value, node.inputs[1 - at[0]], axis)
    else:
        found = past_op(node, axis) if at == [0] else no_way(node)
    if isinstance(found, str):
        return found
    return [(result, None if found is None or result.type.shape[found] == 1 else found)]


def no_way(node: Node) -> str:
    return f"no shift passes through {called(node)}"


def past_op(node: Node, axis: int | None) -> str | int | None:
    """The axis at which a shift of the first input comes out, through an op that keeps channels apart."""
    if node.op is stop_gradient:
        return f"{node.name} stops the gradient, which a shift behind it would get"
    types = tuple(value.type for value in node.inputs)
    passes: Channels | None = None
    for origin in range(types[0].rank) if axis is None else (axis,):
        passes = node.op.passes(types, node.attrs, origin)
        if passes is not None and passes.shift:
            return None if axis is None else passes.axis
    return no_way(node) + (f": {WHY[node.op]}" if node.op in WHY and passes is not None else "")


def past_concat(node: Node, axis: int | None) -> str | int:
    """The axis of the result along which the shift of one branch, and zeros for the others, lie."""
    at: int = node.attrs["axis"]
    return at if axis in (None, at) else f"{node.name} joins along axis {at}, and its channels are axis {axis}"


def _past_factor(walk: Walk, node: Node, value: Value, factor: Value, axis: int | None) -> str | int | None:
    if not walk.is_frozen(factor):
        return f"the other operand of {called(node)}, {factor.name}, is not frozen"
    axes = varies(factor.type, value.type)
    if axes is None or len({*axes} | {axis} - {None}) > 1:
        return f"{factor.name} is not one number for each channel of {value.name}"
    return axes[0] if axes else axis


def _past_weight(walk: Walk, node: Node, at: list[int], axis: int | None) -> str | int:
    for weight in weights(node):
        if at == [weight.data] and walk.is_frozen(node.inputs[weight.index]):
            if axis not in (None, weight.data_axis):
                return f"its channels, axis {axis}, are not the input channels of {node.name}, axis {weight.data_axis}"
            return weight.axis if weight.even else uneven(node)
    return f"no factor of {called(node)} is frozen"


def uneven(node: Node) -> str:
    if node.op is conv:
        return f"windows of {node.name} reach into padding"
    return f"one shift comes out of {called(node)} as several"


def bias_above(walk: Walk, value: Value) -> tuple[Value, Value, int | None] | None:
    """The nearest y = x + b up the source graph, before any weight and any norm: y, b and the axis of its channels."""
    if "biases" not in walk.memo:
        walk.memo["biases"] = _nearest_biases(walk)
    found: dict[Value, tuple[Value, Value, int | None]] = walk.memo["biases"]
    return next((found[v] for v in walk.originals(value) if v in found), None)


def _nearest_biases(walk: Walk) -> dict[Value, tuple[Value, Value, int | None]]:
    found: dict[Value, tuple[Value, Value, int | None]] = {}
    for node in walk.source.nodes:
        y = node.outputs[0]
        if walk.is_frozen(y) or weights(node) or node.op in (batch_norm, batch_norm_inference, *OTHER_NORMS):
            continue
        bias = _bias(walk, node)
        above = bias or next((found[value] for value in node.inputs if value in found), None)
        if above is not None:
            found[y] = above
    return found


def _bias(walk: Walk, node: Node) -> tuple[Value, Value, int | None] | None:
    if node.op in (add, sub):
        x, b = node.inputs if node.op is sub or walk.is_frozen(node.inputs[1]) else node.inputs[::-1]
        axes = varies(b.type, x.type) if walk.is_frozen(b) else None
        if axes is not None and len(axes) <= 1:
            return node.outputs[0], b, axes[0] if axes else None
    return None
