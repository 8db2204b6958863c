"""One number for each channel: how such a factor or summand is told from others, and brought into shape."""

from __future__ import annotations

from collections.abc import Callable

from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, broadcast
from minigraph.core.errors import GraphError
from minigraph.core.ir import Node, Type, Value
from minigraph.core.op import Channels, Op
from minigraph.core.rewrite import Walk
from minigraph.ops.batch_norm import along
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.shape import reshape


def varies(number: Type, x: Type) -> tuple[int, ...] | None:
    """The axes of x along which `number` is not the same everywhere when it meets x. None if x would grow by it."""
    try:
        if broadcast(number.shape, x.shape) != x.shape:
            return None
    except GraphError:
        return None
    first = x.rank - number.rank
    return tuple(first + i for i, n in enumerate(number.shape) if n != 1)


def is_along(number: Type, x: Type, axis: int) -> bool:
    """Whether `number` is one number for each index of that axis of x, or one for all."""
    return varies(number, x) in ((), (axis,))


def vector(number: Tensor, channels: Size) -> Tensor:
    """Numbers for each channel, or one for all, as (channels,)."""
    flat = reshape(number, (-1,))
    return flat if flat.shape == (channels,) else broadcast_to(flat, (channels,))


def meeting(numbers: Tensor, rank: int, axis: int) -> Tensor:
    """Numbers (C,) in the shape that meets a tensor of that rank at its axis of channels."""
    return reshape(numbers, along(rank, axis))


def passing(node: Node, axis: int) -> tuple[int, Channels] | None:
    """The axis of the node's first input whose channels come out along `axis`, and how numbers pass; None if none."""
    if node.op.channels is None:
        return None
    types = tuple(value.type for value in node.inputs)
    for origin in range(types[0].rank):
        found = node.op.passes(types, node.attrs, origin)
        if found is not None and found.axis == axis:
            return origin, found
    return None


def passing_scale(node: Node, axis: int | None) -> tuple[int, Channels] | None:
    """As `passing`, for a scale; axis None: of one number for all, which passes if it does along any axis."""
    ways = [way for way in _ways(node, axis) if way[1].scale != "none"]
    return min(ways, key=lambda way: way[1].scale != "any", default=None)


def passing_shift(node: Node, axis: int | None) -> tuple[int, Channels] | None:
    """As `passing_scale`, for a shift."""
    return next((way for way in _ways(node, axis) if way[1].shift), None)


def _ways(node: Node, axis: int | None) -> list[tuple[int, Channels]]:
    axes = range(node.outputs[0].type.rank) if axis is None else (axis,)
    return [way for a in axes if (way := passing(node, a)) is not None]


def frozen(walk: Walk, value: Value) -> bool:
    """For patterns: a value that is computed before the first call."""
    return walk.is_frozen(value)


def moving(walk: Walk, value: Value) -> bool:
    """For patterns: a value that depends on inputs, or on state that moves."""
    return not walk.is_frozen(value)


def made_by(*ops: Op) -> Callable[[Walk, Value], bool]:
    """For patterns: a value that a node of one of these ops makes, of what moves."""
    return lambda walk, value: value in walk.producer and walk.producer[value].op in ops and moving(walk, value)


def passes_channels(walk: Walk, value: Value) -> bool:
    """For patterns: a moving value made by an op through which numbers for each channel pass.

    Of floats only: integers wrap around, and then of the largest one plus 1 nothing is known.
    """
    made = value in walk.producer and walk.producer[value].op.channels is not None
    return made and value.type.is_float and moving(walk, value)
