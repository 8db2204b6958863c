"""Mean and variance of many numbers, read once.

Compiled backends add up d = x - s and d^2 in float64, s being the first of the numbers:

    mean = s + sum(d) / n        var = sum(d^2) / n - (sum(d) / n)^2

The difference of squares is safe here, whatever s is. It loses as many digits as (mean - s)^2 / var has, and as s is
one of the n numbers, (mean - s)^2 <= n * var: of the 16 digits of float64, no more than n has. So numbers far from 0
come out right, an outlier spoils nothing, be it s itself, and numbers that are all one have variance 0. An s that is
infinite or NaN is taken for 0.

The mean is rounded to the dtype of x. What that takes off, which is much beside a small deviation, is an output of its
own: x - mean - rest is right where x - mean is not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dtypes import wide_dtype
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, float_dtype, per_number, statistic
from minigraph.ops import broadcast
from minigraph.ops.broadcast import axes_canonical, reduced, spread
from minigraph.ops.constant import count_along
from minigraph.ops.shape import reshape


def moments_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> tuple[Type, Type, Type]:
    """(mean, rest, var) of x over `axes` (all by default): the mean, what it is rounded by, and the biased variance.

    Of no numbers all three are NaN. Where one is infinite the mean is, and the others are NaN. x is float32 or float64.
    """
    expect(wide_dtype(float_dtype(x)) == x.dtype, "needs float32 or float64, got {}; cast it", x)
    each = Type(reduced(x, axes, keepdims), x.dtype)
    return each, each, each


def channel_sum(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The sum over the axes, which stay with size 1; of float32 in float64."""
    return x.sum(axes, dtype=np.float64 if x.dtype == np.float32 else x.dtype, keepdims=True)


def rest_of(x: np.ndarray, average: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """What the mean of x over the axes, shaped to meet it, is more than `average`."""
    n = math.prod(x.shape[i] for i in axes)
    return (channel_sum(x - average, axes) / n).astype(x.dtype)


def moments_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> tuple[np.ndarray, ...]:
    """In two passes, and one more for the rest."""
    n = math.prod(x.shape[i] for i in axes)
    average = (channel_sum(x, axes) / n).astype(x.dtype)
    rest = rest_of(x, average, axes)
    deviation = x - average - rest
    var = (channel_sum(deviation * deviation, axes) / n).astype(x.dtype)
    return tuple(a if keepdims else np.squeeze(a, axes) for a in (average, rest, var))


def moments_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> tuple[Tensor, ...]:
    """The passes of the reference, for those who have no op of this kind."""
    n, shape = count_along(x, axes, x.dtype), reduced(x.value.type, axes, keepdims)
    average = broadcast.sum(x, axes, True) / n
    rest = broadcast.sum(x - average, axes, True) / n
    deviation = x - average - rest
    var = broadcast.sum(deviation * deviation, axes, True) / n
    return tuple(reshape(t, shape) for t in (average, rest, var))


def moments_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    """d mean = sum(dx) / n,  d var = 2 sum((x - mean) dx) / n; the rest, a rounding, does not move."""
    (x,), (mean, rest, _) = xs, ys
    n = count_along(x, axes, x.dtype)
    dx = None if gs[0] is None else spread(gs[0] / n, x, axes)
    if gs[2] is not None:
        deviation = x - spread(mean, x, axes) - spread(rest, x, axes)
        more = deviation * spread(2.0 * gs[2] / n, x, axes)
        dx = more if dx is None else dx + more
    return (dx,)


moments = Op(
    "moments",
    moments_types,
    moments_reference,
    moments_gradient,
    moments_expand,
    canonical=axes_canonical,
    reduction="moments",
    flops=per_number(4),
    outputs=("mean", "rest", "var"),
    examples=(
        Example(statistic(2, 3)),
        Example(statistic(2, 3, 4), axes=(0, -1)),
        Example(statistic(3, 1, 5), axes=1, keepdims=True),
        Example(statistic(2, 3), axes=()),
        Example(statistic(4), axes=0),
        Example(statistic(0, 3), axes=0),
        Example(statistic(0, 3), axes=1),
    ),
)
