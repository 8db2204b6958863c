"""Broadcasting and summing, each the transpose of the other: what is repeated forward is added up backward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Shape, Size, broadcast, product, shape_of, show
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Along, Channels, Example, Half, Op, axis_of, integers, no_flops, per_number, real
from minigraph.ops.shape import reshape


def broadcast_to_types(x: Type, /, shape: Any) -> Type:
    """x repeated along new axes in front and along axes of size 1, as NumPy does."""
    expect(broadcast(x.shape, shape) == shape, "{} does not broadcast to {}", x, show(shape))
    return Type(shape, x.dtype)


def broadcast_to_channels(types: tuple[Type, ...], axis: int, shape: Shape) -> Channels | None:
    """The axes are counted from the end. One channel that is repeated is no longer one."""
    place = axis + len(shape) - types[0].rank
    return Channels(place, "any", True) if shape[place] == types[0].shape[axis] else None


def broadcast_to_view(ins: Sequence[Type], outs: Sequence[Type], shape: Shape) -> list[Along]:
    """Axes are counted from the end. One of size 1 that is repeated stays where it is."""
    new = len(shape) - ins[0].rank
    return [Along(new + i if n == shape[new + i] else None) for i, n in enumerate(ins[0].shape)]


broadcast_to = Op(
    "broadcast_to",
    broadcast_to_types,
    lambda x, shape: np.broadcast_to(x, shape),
    lambda gs, xs, ys, shape: (sum_to(gs[0], xs[0].shape),),
    canonical=lambda x, shape: {"shape": shape_of(shape)},
    flops=no_flops,
    channels=broadcast_to_channels,
    view=broadcast_to_view,
    half=Half(),
    examples=(
        Example(real(3), shape=(2, 3)),
        Example(real(2, 1, 3), shape=(4, 2, 5, 3)),
        Example(real(), shape=(2, 2)),
        Example(real(1, 3), shape=(0, 3)),
        Example(real(2), shape=(2,)),
        Example(integers(1, below=5), shape=(3,)),
    ),
)


def sum_to(g: Tensor, shape: Shape) -> Tensor:
    """g with what broadcasting from `shape` repeated added up again."""
    if g.shape == shape:
        return g
    extra = g.rank - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1))
    return reshape(sum(g, axes), shape)


def reduced(x: Type, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape that is left when `axes` are reduced away, or kept with size 1."""
    sizes: list[Size] = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes]
    return tuple(sizes)


def beside_reduced(axis: int, axes: tuple[int, ...], keepdims: bool, scale: str, shift: bool) -> Channels | None:
    """`channels` of an op that reduces `axes`: those of the other axes."""
    in_front = [i for i in axes if i < axis and not keepdims]
    return None if axis in axes else Channels(axis - len(in_front), scale, shift)


def axes_canonical(x: Type, axes: Any, keepdims: Any) -> dict[str, Any]:
    """None is all axes; one axis may stand alone; in order, counted from the front."""
    given = range(x.rank) if axes is None else axes if isinstance(axes, Iterable) else (axes,)
    axes = tuple(sorted(axis_of(axis, x.rank) for axis in given))
    expect(len(set(axes)) == len(axes), "an axis is named twice in {}", axes)
    return {"axes": axes, "keepdims": bool(keepdims)}


def spread(g: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """What was reduced over `axes`, repeated in the shape of x."""
    return broadcast_to(reshape(g, reduced(x.value.type, axes, True)), x.shape)


def sum_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The sum over `axes` (all by default). Narrow floats are added up in float32."""
    expect(x.dtype != "bool", "{} cannot be added up; cast it", x)
    return Type(reduced(x, axes, keepdims), x.dtype)


def sum_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.sum(x, axes, dtype=x.dtype, keepdims=keepdims)


REDUCTIONS = (
    Example(real(2, 3)),
    Example(real(2, 3, 4), axes=(0, -1)),
    Example(real(3, 1, 5), axes=1, keepdims=True),
    Example(real(2, 3), axes=()),
    Example(real(4), axes=0),
)


def sum_channels(types: tuple[Type, ...], axis: int, axes: tuple[int, ...], keepdims: bool) -> Channels | None:
    """A summand is added as often as there are numbers in a sum: it passes where that is once."""
    once = product(types[0].shape[i] for i in axes) == 1
    return beside_reduced(axis, axes, keepdims, "any", once)


sum: Op = Op(
    "sum",
    sum_types,
    sum_reference,
    lambda gs, xs, ys, axes, keepdims: (spread(gs[0], xs[0], axes),),
    canonical=axes_canonical,
    flops=per_number(1),
    channels=sum_channels,
    reduction="sum",
    examples=(
        *REDUCTIONS,
        Example(real()),
        Example(real(0, 3), axes=0),
        Example(real(0, 3), axes=1),
        Example(integers(5, below=9)),
    ),
)
