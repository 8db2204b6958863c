"""Reductions beyond the sum: mean, max, argmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import product
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, axis_of, float_dtype, integers, real
from minigraph.ops import broadcast
from minigraph.ops.broadcast import REDUCTIONS, axes_canonical, reduced, spread
from minigraph.ops.constant import count_along
from minigraph.ops.half import in_float32
from minigraph.ops.pointwise import cast, equal


def reading_flops(inputs: Any, outputs: Any, attrs: Any) -> Any:
    """One operation for each number that is read."""
    return inputs[0].size


# mean


def mean_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The mean over `axes` (all by default); of no numbers it is NaN. Half precision is added up in float32."""
    float_dtype(x)
    return Type(reduced(x, axes, keepdims), x.dtype)


@in_float32
def mean_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.asarray(x.sum(axes, keepdims=keepdims)) / math.prod(x.shape[axis] for axis in axes)


def shared_out(total: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """total / (how many numbers x has along the axes). In float32 where x is float16, which ends at 65504."""
    wide = "float32" if x.dtype == "float16" else x.dtype
    return cast(cast(total, wide) / count_along(x, axes, wide), x.dtype)


def mean_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    wide = cast(x, "float32") if x.dtype == "float16" else x
    return cast(broadcast.sum(wide, axes, keepdims) / count_along(x, axes, wide.dtype), x.dtype)


mean = Op(
    "mean",
    mean_types,
    mean_reference,
    expand=mean_expand,
    canonical=axes_canonical,
    flops=reading_flops,
    gradient=lambda gs, xs, ys, axes, keepdims: (spread(shared_out(gs[0], xs[0], axes), xs[0], axes),),
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1)),
)


# max


def max_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The largest number along `axes` (all by default), NaN if there is one. Of no numbers there is none: an error.

    Where several are largest, each takes an equal share of the gradient.
    """
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    expect(product(x.shape[axis] for axis in axes) != 0, "there is no largest of no numbers: {} over axes {}", x, axes)
    return Type(reduced(x, axes, keepdims), x.dtype)


def max_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    x = xs[0]
    largest = cast(equal(x, spread(ys[0], x, axes)), x.dtype)
    share = gs[0] / broadcast.sum(largest, axes, keepdims)
    return (largest * spread(share, x, axes),)


max = Op(
    "max",
    max_types,
    lambda x, axes, keepdims: np.max(x, axes, keepdims=keepdims),
    max_gradient,
    canonical=axes_canonical,
    flops=reading_flops,
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1), Example(integers(5, below=9))),
)


# argmax


def argmax_types(x: Type, /, axis: int = -1, keepdims: bool = False) -> Type:
    """Where along `axis` the first largest number stands (the first NaN if there is one), as int64."""
    expect(x.shape[axis] != 0, "there is no largest of no numbers: {} over axis {}", x, axis)
    return Type(reduced(x, (axis,), keepdims), "int64")


argmax = Op(
    "argmax",
    argmax_types,
    lambda x, axis, keepdims: np.argmax(x, axis, keepdims=keepdims),
    flops=reading_flops,
    canonical=lambda x, axis, keepdims: {"axis": axis_of(axis, x.rank), "keepdims": bool(keepdims)},
    examples=(
        Example(real(2, 3)),
        Example(real(3, 4, 1), axis=1, keepdims=True),
        Example(real(0, 3)),
        Example(integers(5, below=3)),
    ),
)
