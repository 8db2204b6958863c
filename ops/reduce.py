"""Reductions beyond the sum: mean, var, std, max, min, argmax, argmin, prod, logsumexp, all, any, and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, known, product
from minigraph.core.dtypes import wide_dtype
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import (
    Example,
    Kernel,
    Op,
    axis_of,
    booleans,
    float_dtype,
    integers,
    no_flops,
    per_number,
    real,
    whole,
)
from minigraph.ops import broadcast
from minigraph.ops.broadcast import REDUCTIONS, axes_canonical, beside_reduced, reduced, spread
from minigraph.ops.constant import count_along
from minigraph.ops.half import widened
from minigraph.ops.moments import moments
from minigraph.ops.pointwise import absolute, cast, equal, exp, log, relu, sqrt, stop_gradient, where
from minigraph.ops.shape import concat, reshape, slice_axis

# mean


def mean_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The mean over `axes` (all by default); of no numbers it is NaN. Narrow floats are added up in float32."""
    float_dtype(x)
    return Type(reduced(x, axes, keepdims), x.dtype)


def mean_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.asarray(x.sum(axes, keepdims=keepdims)) / math.prod(x.shape[axis] for axis in axes)


def shared_out(total: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """total / (how many numbers x has along the axes). In float32 where x is narrow: float16 ends at 65504."""
    dtype = wide_dtype(x.dtype)
    return cast(cast(total, dtype) / count_along(x, axes, dtype), x.dtype)


def mean_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    wide = widened(x)
    return cast(broadcast.sum(wide, axes, keepdims) / count_along(x, axes, wide.dtype), x.dtype)


mean = Op(
    "mean",
    mean_types,
    mean_reference,
    expand=mean_expand,
    canonical=axes_canonical,
    flops=per_number(1),
    channels=lambda types, axis, axes, keepdims: beside_reduced(axis, axes, keepdims, "any", True),
    gradient=lambda gs, xs, ys, axes, keepdims: (spread(shared_out(gs[0], xs[0], axes), xs[0], axes),),
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1)),
)


# variance and standard deviation


def var_types(x: Type, /, axes: Any = None, *, keepdims: bool = False, correction: int = 0) -> Type:
    """The variance over `axes` (all by default): the sum of (x - mean)^2 over (how many numbers - correction).

    correction: 0 for the biased variance, of the numbers themselves; 1 for the unbiased estimate from a sample. Where
    there are not more numbers than that, it is NaN. In float32 where x is narrow; see moments.py.
    """
    float_dtype(x)
    return Type(reduced(x, axes, keepdims), x.dtype)


def spread_canonical(x: Type, axes: Any, keepdims: Any, correction: Any) -> dict[str, Any]:
    correction = whole(correction, "correction, 0 or 1,")
    expect(correction in (0, 1), "correction is 0 or 1, not {}", correction)
    return {**axes_canonical(x, axes, keepdims), "correction": correction}


def var_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool, correction: int) -> Any:
    n = math.prod(x.shape[axis] for axis in axes)
    deviation = x - x.sum(axes, keepdims=True) / n
    deviation = deviation - deviation.sum(axes, keepdims=True) / n  # what the mean was rounded by
    squares = np.asarray((deviation * deviation).sum(axes, keepdims=keepdims))
    return squares / (n - correction if n > correction else 0)


def freedom(x: Tensor, axes: tuple[int, ...], correction: int, dtype: str) -> Tensor:
    """How many numbers x has along the axes, less the correction; 0 where these are more."""
    n = product(x.shape[axis] for axis in axes)
    if isinstance(n, int):
        return x.builder.constant(n - correction if n > correction else 0, dtype)
    number = count_along(x, axes, dtype)
    return relu(number - correction) if correction else number


def deviations(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x less its mean, and less what that was rounded by, which is much where the mean is far from 0."""
    average, rest, _ = moments(x, axes, True)
    return x - average - rest


def var_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool, correction: int) -> Tensor:
    wide = widened(x)
    _, _, found = moments(wide, axes, keepdims)
    if correction:
        squares = found * count_along(wide, axes, wide.dtype)
        found = squares / freedom(x, axes, correction, wide.dtype)
    return cast(found, x.dtype)


def var_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool, correction: int) -> tuple[Tensor]:
    """2 (x - mean) / (n - correction), times g."""
    wide = widened(xs[0])
    share = 2 * cast(gs[0], wide.dtype) / freedom(wide, axes, correction, wide.dtype)
    return (cast(spread(share, wide, axes) * deviations(wide, axes), xs[0].dtype),)


VARIANCES = (
    Example(real(2, 3)),
    Example(real(3, 2), axes=0, correction=1),
    Example(real(2, 3, 2), axes=(0, -1), keepdims=True),
    Example(real(1, 3), axes=(0, 1), correction=1),
    Example(real(3, 1, 2), axes=(1, 2)),
    Example(real(0, 3), axes=1, correction=1),
)

var: Op = Op(
    "var",
    var_types,
    var_reference,
    var_gradient,
    var_expand,
    canonical=spread_canonical,
    flops=per_number(4),
    examples=(*VARIANCES, Example(real(2, 3), axes=()), Example(real(4), axes=0, correction=1)),
)


def std_types(x: Type, /, axes: Any = None, *, keepdims: bool = False, correction: int = 0) -> Type:
    """The standard deviation over `axes` (all by default): the root of `var`, which see.

    Where it is 0 it has no derivative; the gradient there is 0.
    """
    return var_types(x, axes, keepdims=keepdims, correction=correction)


def std_reference(x: np.ndarray, **attrs: Any) -> Any:
    return scalar.sqrt(var_reference(x, **attrs))


def std_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool, correction: int) -> tuple[Tensor]:
    """(x - mean) / ((n - correction) std), times g."""
    wide, deviation = widened(xs[0]), widened(ys[0])
    none = equal(deviation, 0.0)
    share = where(none, 0.0, cast(gs[0], wide.dtype) / where(none, 1.0, deviation))
    share = share / freedom(wide, axes, correction, wide.dtype)
    return (cast(spread(share, wide, axes) * deviations(wide, axes), xs[0].dtype),)


def std_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool, correction: int) -> Tensor:
    return cast(sqrt(var(widened(x), axes, keepdims=keepdims, correction=correction)), x.dtype)


std: Op = Op(
    "std",
    std_types,
    std_reference,
    std_gradient,
    std_expand,
    canonical=spread_canonical,
    flops=per_number(4),
    examples=VARIANCES,
)


# max


def max_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The largest number along `axes` (all by default), NaN if there is one. Of no numbers there is none: an error.

    Where several are largest, each takes an equal share of the gradient.
    """
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    expect(product(x.shape[axis] for axis in axes) != 0, "there is no largest of no numbers: {} over axes {}", x, axes)
    return Type(reduced(x, axes, keepdims), x.dtype)


def extreme_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[Any]:
    x = xs[0]
    chosen = cast(equal(x, spread(ys[0], x, axes)), x.dtype)
    share = gs[0] / broadcast.sum(chosen, axes, keepdims)
    return (chosen * spread(share, x, axes),)


max = Op(
    "max",
    max_types,
    lambda x, axes, keepdims: np.max(x, axes, keepdims=keepdims),
    extreme_gradient,
    canonical=axes_canonical,
    reduction="max",
    flops=per_number(1),
    channels=lambda types, axis, axes, keepdims: beside_reduced(axis, axes, keepdims, "positive", True),
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1), Example(integers(5, below=9))),
)


# min


def min_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The smallest number along `axes` (all by default), NaN if there is one. Of no numbers there is none: an error.

    Where several are smallest, each takes an equal share of the gradient.
    """
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    expect(product(x.shape[axis] for axis in axes) != 0, "there is no smallest of no numbers: {} over axes {}", x, axes)
    return Type(reduced(x, axes, keepdims), x.dtype)


min = Op(
    "min",
    min_types,
    lambda x, axes, keepdims: np.min(x, axes, keepdims=keepdims),
    extreme_gradient,
    canonical=axes_canonical,
    reduction="min",
    flops=per_number(1),
    channels=lambda types, axis, axes, keepdims: beside_reduced(axis, axes, keepdims, "positive", True),
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1), Example(integers(5, below=9))),
)


# argmax and argmin


def argmax_types(x: Type, /, axis: int = -1, keepdims: bool = False) -> Type:
    """Where along `axis` the first largest number stands (the first NaN if there is one), as int64."""
    expect(x.shape[axis] != 0, "there is no largest of no numbers: {} over axis {}", x, axis)
    return Type(reduced(x, (axis,), keepdims), "int64")


def argmin_types(x: Type, /, axis: int = -1, keepdims: bool = False) -> Type:
    """Where along `axis` the first smallest number stands (the first NaN if there is one), as int64."""
    expect(x.shape[axis] != 0, "there is no smallest of no numbers: {} over axis {}", x, axis)
    return Type(reduced(x, (axis,), keepdims), "int64")


def position_canonical(x: Type, axis: Any, keepdims: Any) -> dict[str, Any]:
    return {"axis": axis_of(axis, x.rank), "keepdims": bool(keepdims)}


def position_shape(ins: Sequence[Type], outs: Sequence[Type], axis: int, keepdims: bool) -> dict[str, Size]:
    return {"size": ins[0].shape[axis], "after": product(ins[0].shape[axis + 1 :])}


POSITIONS = (
    Example(real(2, 3)),
    Example(real(3, 4, 1), axis=1, keepdims=True),
    Example(real(0, 3)),
    Example(integers(5, below=3)),
    Example(booleans(4, 2), axis=0),
)

argmax = Op(
    "argmax",
    argmax_types,
    lambda x, axis, keepdims: np.argmax(x, axis, keepdims=keepdims),
    flops=per_number(1),
    canonical=position_canonical,
    kernel=Kernel("reduce.h", position_shape),
    examples=POSITIONS,
)

argmin = Op(
    "argmin",
    argmin_types,
    lambda x, axis, keepdims: np.argmin(x, axis, keepdims=keepdims),
    flops=per_number(1),
    canonical=position_canonical,
    kernel=Kernel("reduce.h", position_shape),
    examples=POSITIONS,
)


# product


def prod_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """The product over `axes` (all by default); of no numbers it is 1. Narrow floats are multiplied in float32.

    Its gradient multiplies the other numbers and never divides, so that it is right where any of them are 0. It needs
    the sizes of the axes when the graph is built.
    """
    expect(x.dtype != "bool", "{} cannot be multiplied; cast it, or take all(x)", x)
    return Type(reduced(x, axes, keepdims), x.dtype)


def prod_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.prod(x, axes, dtype=x.dtype, keepdims=keepdims)


def prod_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """A tree: along each axis the first half times the second half, until one is left. Gradients go through it."""
    y = widened(x)
    if product(x.shape[axis] for axis in axes) == 0:
        return broadcast.sum(x, axes, keepdims) + 1  # no factors: 1, whose gradient is of no numbers
    for axis in axes:
        n = known(y.shape[axis], f"size {axis} of {x.value}, for the factors of a product,")
        while n > 1:
            half, odd = divmod(n, 2)
            pairs = slice_axis(y, axis, 0, half) * slice_axis(y, axis, half, 2 * half)
            y = concat([pairs, slice_axis(y, axis, 2 * half)], axis=axis) if odd else pairs
            n = half + odd
    return cast(reshape(y, reduced(x.value.type, axes, keepdims)), x.dtype)


prod = Op(
    "prod",
    prod_types,
    prod_reference,
    expand=prod_expand,
    canonical=axes_canonical,
    reduction="prod",
    flops=per_number(1),
    examples=(
        *REDUCTIONS,
        Example(real()),
        Example(real(0, 3), axes=0),
        Example(real(0, 3), axes=1),
        Example(real(7, 1), axes=(0, 1), keepdims=True),
        Example(integers(5, below=9)),
    ),
)


# log-sum-exp


def logsumexp_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """log(sum(e^x)) over `axes` (all by default), computed as max + log(sum(e^(x - max))): nothing overflows.

    Numbers that are all -inf give -inf, with gradient 0. Of no numbers there is none: an error.
    """
    float_dtype(x)
    expect(product(x.shape[axis] for axis in axes) != 0, "there is no largest of no numbers: {} over axes {}", x, axes)
    return Type(reduced(x, axes, keepdims), x.dtype)


def logsumexp_reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    largest = np.max(x, axes, keepdims=True)
    if x.dtype != object:
        largest = np.where(np.isfinite(largest), largest, np.zeros((), x.dtype))  # inf - inf is NaN
    logs = scalar.log(scalar.exp(x - largest).sum(axes, keepdims=True)) + largest
    return logs if keepdims else np.squeeze(logs, axes)


def shifted_exp(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """e^(x - shift), and the shift: the largest number where that is finite, else 0. What is shifted by cancels."""
    largest = stop_gradient(max(x, axes, True))
    shift = where(equal(largest - largest, 0.0), largest, 0.0)  # inf - inf is NaN
    return exp(x - shift), shift


def logsumexp_expand(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    e, shift = shifted_exp(widened(x), axes)
    logs = log(broadcast.sum(e, axes, True)) + shift
    return cast(reshape(logs, reduced(x.value.type, axes, keepdims)), x.dtype)


def logsumexp_gradient(gs: Any, xs: Any, ys: Any, axes: tuple[int, ...], keepdims: bool) -> tuple[Tensor]:
    """The softmax over the axes, times g."""
    wide = widened(xs[0])
    e, _ = shifted_exp(wide, axes)
    total = broadcast.sum(e, axes, True)
    share = e / where(equal(total, 0.0), 1.0, total)
    return (cast(share * spread(cast(gs[0], wide.dtype), wide, axes), xs[0].dtype),)


logsumexp = Op(
    "logsumexp",
    logsumexp_types,
    logsumexp_reference,
    logsumexp_gradient,
    logsumexp_expand,
    canonical=axes_canonical,
    flops=per_number(4),
    channels=lambda types, axis, axes, keepdims: beside_reduced(axis, axes, keepdims, "none", True),
    examples=(*REDUCTIONS, Example(real(0, 3), axes=1), Example(real(2, 1), axes=1)),
)


# all and any


def all_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """Whether all bools along `axes` (all axes by default) are true; of none it is true."""
    expect(x.dtype == "bool", "needs bools, got {}", x)
    return Type(reduced(x, axes, keepdims), "bool")


def any_types(x: Type, /, axes: Any = None, keepdims: bool = False) -> Type:
    """Whether any bool along `axes` (all axes by default) is true; of none it is false."""
    return all_types(x, axes, keepdims)


TRUTHS = (
    Example(booleans(2, 3)),
    Example(booleans(2, 1, 3), axes=(0, -1), keepdims=True),
    Example(booleans(0, 3), axes=0),
    Example(booleans(3), axes=()),
)

all = Op(
    "all",
    all_types,
    lambda x, axes, keepdims: np.all(x, axes, keepdims=keepdims),
    canonical=axes_canonical,
    reduction="and",
    flops=no_flops,
    examples=TRUTHS,
)

any = Op(
    "any",
    any_types,
    lambda x, axes, keepdims: np.any(x, axes, keepdims=keepdims),
    canonical=axes_canonical,
    reduction="or",
    flops=no_flops,
    examples=TRUTHS,
)


# norms


def l1_norm(x: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    """The sum of |x| over `axes` (all by default). The gradient is the sign of x; at 0 it is 0."""
    return broadcast.sum(absolute(x), axes, keepdims)


def l2_norm(x: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    """The root of the sum of x^2 over `axes` (all by default); squared in float32 where x is narrow.

    Where the norm is 0 the gradient is 0.
    """
    wide = widened(x)
    squares = broadcast.sum(wide * wide, axes, keepdims)
    none = equal(squares, 0.0)
    return cast(where(none, 0.0, sqrt(where(none, 1.0, squares))), x.dtype)
