"""Batch normalization (Ioffe and Szegedy, 2015): each channel is brought to mean beta and deviation gamma.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

A channel is an index of `axis`; its numbers are those along all other axes. Training takes mean and (biased) variance
from x itself and reports them; inference is given both. Averages of them over the steps are nodes of their own
(`running_average`), so that what moves them can be seen.

Statistics are computed in one pass, in float64 (see moments.py), and what the rounded mean is off by is taken off: so
1e4 +- 0.1 comes out right, an outlier spoils nothing, and a constant channel has variance 0. Of a channel with an
infinity the mean is infinite, and all else is NaN. Statistics have the dtype of x, but float32 where that is narrow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import product
from minigraph.core.dtypes import wide_dtype
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Op, axis_of, float_dtype, per_number, positive, real, statistic
from minigraph.ops import broadcast
from minigraph.ops.constant import count_along
from minigraph.ops.moments import channel_sum, moments, moments_gradient, moments_reference, rest_of
from minigraph.ops.pointwise import cast, equal, finite, sqrt, where
from minigraph.ops.shape import reshape

EPS = 1e-5


def other_axes(rank: int, axis: int) -> tuple[int, ...]:
    """The axes along which the numbers of a channel lie."""
    return tuple(i for i in range(rank) if i != axis)


def along(rank: int, axis: int) -> tuple[int, ...]:
    """The shape in which one number for each channel meets a tensor of that rank."""
    return tuple(-1 if i == axis else 1 for i in range(rank))


def eps_of(given: Any) -> float:
    """What is added to a variance: a finite number that is not below 0."""
    eps = finite("eps", given)
    expect(eps >= 0, "eps is 0 or more, not {}", eps)
    return eps


def statistics_dtype(x: Type) -> str:
    """The dtype of the statistics and parameters of x: that of x, but float32 where that is narrow."""
    return wide_dtype(float_dtype(x))


def _canonical(x: Type, axis: Any, eps: Any) -> dict[str, Any]:
    expect(x.rank >= 2, "needs a batch and channels, (N, C, ...), got {}", x)
    return {"axis": axis_of(axis, x.rank), "eps": eps_of(eps)}


def _check_parameters(x: Type, axis: int, **parameters: Type) -> None:
    for name, p in parameters.items():
        expect(
            p == Type((x.shape[axis],), statistics_dtype(x)),
            "{} is one {} for each of the {} channels (axis {}) of {}, not {}",
            name,
            statistics_dtype(x),
            x.shape[axis],
            axis,
            x,
            p,
        )


# training


def batch_norm_types(
    x: Type, gamma: Type, beta: Type, /, *, axis: int = 1, eps: float = EPS
) -> tuple[Type, Type, Type]:
    """Normalize x by the mean and the biased variance of this batch: (y, mean, var), the latter one for each channel.

    x (N, C), (N, C, L), (N, C, H, W), ...; for channels last axis=-1. gamma, beta: (C,). Needs at least two numbers for
    each channel; an empty batch has statistics NaN.
    """
    _check_parameters(x, axis, gamma=gamma, beta=beta)
    expect(
        product(x.shape[i] for i in other_axes(x.rank, axis)) != 1,
        "{} has one number for each channel, whose variance is 0: y would be beta whatever x is. "
        "Train with a larger batch, or normalize with running statistics (frozen=True)",
        x,
    )
    return x, gamma, gamma


def batch_norm_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axis: int, eps: float
) -> tuple[np.ndarray, ...]:
    axes, shape = other_axes(x.ndim, axis), along(x.ndim, axis)
    average, rest, var = moments_reference(x, axes, False)
    deviation = x - average.reshape(shape) - rest.reshape(shape)
    y = deviation * (gamma / scalar.sqrt(var + eps)).reshape(shape) + beta.reshape(shape)
    return y, average, var


def batch_norm_expand(x: Tensor, gamma: Tensor, beta: Tensor, axis: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    axes, shape = other_axes(x.rank, axis), along(x.rank, axis)
    wide = cast(x, gamma.dtype)
    average, rest, var = moments(wide, axes)
    deviation = wide - reshape(average, shape) - reshape(rest, shape)
    y = deviation * reshape(gamma / sqrt(var + eps), shape) + reshape(beta, shape)
    return cast(y, x.dtype), average, var


def batch_norm_rule(gs: Any, xs: Any, ys: Any, axis: int, eps: float) -> tuple[Any, Any, Any]:
    """That of y from `batch_norm_gradient`; those of the mean and the variance, where they are used, as of moments."""
    (x, gamma, _), (_, average, var) = xs, ys
    dx = dgamma = dbeta = None
    if gs[0] is not None:
        dx, dgamma, dbeta = batch_norm_gradient(gs[0], x, gamma, average, var, axis=axis, eps=eps)
    if gs[1] is not None or gs[2] is not None:
        axes, wide = other_axes(x.rank, axis), cast(x, gamma.dtype)
        once_more = moments(wide, axes)  # which makes one with those of the forward
        (more,) = moments_gradient((gs[1], None, gs[2]), (wide,), once_more, axes, keepdims=False)
        more = cast(more, x.dtype)
        dx = more if dx is None else dx + more
    return dx, dgamma, dbeta


SHAPES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((4, 3), {}),
    ((3, 2, 3), {"eps": 1e-3}),
    ((2, 2, 3, 1), {}),
    ((2, 3, 1, 2), {"axis": -1}),
    ((1, 2, 2, 1, 2), {}),
    ((0, 3), {}),
)

batch_norm = Op(
    "batch_norm",
    batch_norm_types,
    batch_norm_reference,
    batch_norm_rule,
    batch_norm_expand,
    canonical=lambda x, gamma, beta, axis, eps: _canonical(x, axis, eps),
    flops=per_number(7),
    outputs=("y", "mean", "var"),
    layer="layers.batch_norm",
    half=Half(inputs=(0,)),
    examples=tuple(
        Example(real(*s), statistic(c), statistic(c), **a) for s, a in SHAPES for c in [s[a.get("axis", 1)]]
    ),
)


# the gradient of training


def batch_norm_gradient_types(
    g: Type, x: Type, gamma: Type, mean: Type, var: Type, /, *, axis: int = 1, eps: float = EPS
) -> tuple[Type, Type, Type]:
    """From the gradient g of y, and x, gamma, mean and var of the forward: (dx, dgamma, dbeta).

    With x^ = (x - mean) / sigma:

        dbeta = sum(g),  dgamma = sum(g * x^),  dx = gamma / sigma * (g - dbeta/n - x^ * dgamma/n)

    `mean` is a rounded number. What it is off by, the mean of x - mean, is taken off as well: without that, x^ is off
    by mean / sigma * 6e-8 in float32, which at 1e4 +- 0.1 is half a percent.
    """
    expect(g == x, "the gradient is {}, and x is {}", g, x)
    _check_parameters(x, axis, gamma=gamma, mean=mean, var=var)
    return x, gamma, gamma


def batch_norm_gradient_reference(
    g: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray, axis: int, eps: float
) -> tuple[np.ndarray, ...]:
    axes, shape = other_axes(x.ndim, axis), along(x.ndim, axis)
    n = math.prod(x.shape[i] for i in axes)
    if n == 0:
        return x, np.zeros_like(gamma), np.zeros_like(gamma)
    mean = mean.reshape(shape)
    deviation = x - mean - rest_of(x, mean, axes)
    sigma = scalar.sqrt(var + eps)
    dbeta = channel_sum(g, axes).astype(x.dtype).reshape(-1)
    dgamma = channel_sum(g * deviation, axes).astype(x.dtype).reshape(-1) / sigma
    slope = dgamma / sigma / n
    dx = (g - (dbeta / n).reshape(shape) - deviation * slope.reshape(shape)) * (gamma / sigma).reshape(shape)
    return dx, dgamma, dbeta


def batch_norm_gradient_expand(
    g: Tensor, x: Tensor, gamma: Tensor, average: Tensor, var: Tensor, axis: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes, shape = other_axes(x.rank, axis), along(x.rank, axis)
    g_wide, wide = cast(g, gamma.dtype), cast(x, gamma.dtype)
    n = count_along(x, axes, gamma.dtype)
    average, rest, _ = moments(wide, axes)  # once more, which makes one with that of the forward
    deviation = wide - reshape(average, shape) - reshape(rest, shape)
    sigma = sqrt(var + eps)
    dbeta = broadcast.sum(g_wide, axes)
    dgamma = broadcast.sum(g_wide * deviation, axes) / sigma
    dgamma = where(equal(n, 0.0), 0.0, dgamma)  # of no numbers sigma is NaN, and an optimizer must not see it
    slope = dgamma / sigma / n
    dx = (g_wide - reshape(dbeta / n, shape) - deviation * reshape(slope, shape)) * reshape(gamma / sigma, shape)
    return cast(dx, x.dtype), dgamma, dbeta


batch_norm_gradient: Op = Op(
    "batch_norm_gradient",
    batch_norm_gradient_types,
    batch_norm_gradient_reference,
    expand=batch_norm_gradient_expand,
    canonical=lambda g, x, gamma, mean, var, axis, eps: _canonical(x, axis, eps),
    flops=per_number(11),
    outputs=("dx", "dgamma", "dbeta"),
    examples=tuple(
        Example(real(*s), real(*s), statistic(c), statistic(c), statistic(c, low=0.1), **a)
        for s, a in SHAPES
        for c in [s[a.get("axis", 1)]]
    ),
)


# inference


def batch_norm_inference_types(
    x: Type, gamma: Type, beta: Type, mean: Type, var: Type, /, *, axis: int = 1, eps: float = EPS
) -> Type:
    """Normalize x by a given mean and variance: one scale and one shift for each channel."""
    _check_parameters(x, axis, gamma=gamma, beta=beta, mean=mean, var=var)
    return x


def batch_norm_inference_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, axis: int, eps: float
) -> np.ndarray:
    shape = along(x.ndim, axis)
    scale = gamma / scalar.sqrt(var + eps)
    return (x - mean.reshape(shape)) * scale.reshape(shape) + beta.reshape(shape)


def batch_norm_inference_expand(
    x: Tensor, gamma: Tensor, beta: Tensor, average: Tensor, var: Tensor, axis: int, eps: float
) -> Tensor:
    shape = along(x.rank, axis)
    scale = gamma / sqrt(var + eps)
    y = (cast(x, gamma.dtype) - reshape(average, shape)) * reshape(scale, shape) + reshape(beta, shape)
    return cast(y, x.dtype)


batch_norm_inference = Op(
    "batch_norm_inference",
    batch_norm_inference_types,
    batch_norm_inference_reference,
    expand=batch_norm_inference_expand,
    canonical=lambda x, gamma, beta, mean, var, axis, eps: _canonical(x, axis, eps),
    flops=per_number(3),
    half=Half(inputs=(0,)),
    examples=tuple(
        Example(real(*s), statistic(c), statistic(c), statistic(c), statistic(c, low=0.1), **a)
        for s, a in SHAPES
        for c in [s[a.get("axis", 1)]]
    ),
)


# running averages


def running_average_types(
    running: Type, batch: Type, count: Type, momentum: Type, /, *, unbiased: bool = False
) -> Type:
    """running + momentum * (batch - running): a statistic of this batch, joined to those of the batches before.

    count: how many numbers the statistic is of; of none, `running` stays as it is. momentum: a scalar, the weight of
        the new one (PyTorch's convention).
    unbiased=True, for variances, first takes the batch's times count / (count - 1).
    """
    float_dtype(running)
    float_dtype(running)
    expect(running == batch, "the running average is {}, and the batch's {}", running, batch)
    for name, t in (("count", count), ("momentum", momentum)):
        expect(t == Type((), running.dtype), "{} is a scalar {}, not {}", name, running.dtype, t)
    return running


def running_average_reference(
    running: np.ndarray, batch: np.ndarray, count: np.ndarray, momentum: np.ndarray, unbiased: bool
) -> np.ndarray:
    if count == 0:
        return running
    value = batch * (count / (count - 1)) if unbiased else batch
    return running + momentum * (value - running)


def running_average_expand(running: Tensor, batch: Tensor, count: Tensor, momentum: Tensor, unbiased: bool) -> Tensor:
    value = batch * (count / (count - 1.0)) if unbiased else batch
    return where(equal(count, 0.0), running, running + momentum * (value - running))


running_average = Op(
    "running_average",
    running_average_types,
    running_average_reference,
    expand=running_average_expand,
    canonical=lambda running, batch, count, momentum, unbiased: {"unbiased": bool(unbiased)},
    flops=per_number(4),
    examples=(
        Example(real(3), real(3), positive(), positive()),
        Example(real(2), positive(2), positive(), positive(), unbiased=True),
        Example(real(0), real(0), positive(), positive()),
    ),
)
