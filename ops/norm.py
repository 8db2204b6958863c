"""Normalization within each image or token: nothing is shared along the batch, so training and inference are one.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

Layer norm (Ba, Kiros and Hinton, 2016) takes mean and (biased) variance over the last axes of each entry of the batch,
group norm (Wu and He, 2018) over a group of channels of each image, instance norm over each channel of each image. RMS
norm (Zhang and Sennrich, 2019) leaves out the mean. Local response normalization (Krizhevsky et al., 2012) divides by
a power of the squares of the neighbouring channels.

Statistics are as careful as those of batch norm: summed in float64 (see moments.py), of narrow floats in float32.
Parameters are float32 where x is narrow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import Shape, known, show
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Op, axis_of, float_dtype, per_number, real, statistic, whole
from minigraph.ops import broadcast
from minigraph.ops.batch_norm import EPS, along, eps_of, other_axes, statistics_dtype
from minigraph.ops.half import widened
from minigraph.ops.moments import channel_sum, moments, moments_reference
from minigraph.ops.pointwise import cast, exp, finite, log, sqrt
from minigraph.ops.reduce import mean
from minigraph.ops.shape import pad, reshape, slice_axis


def _check_parameters(x: Type, shape: Shape, meaning: str, **parameters: Type) -> None:
    wanted = Type(shape, statistics_dtype(x))
    for name, p in parameters.items():
        expect(p == wanted, "{} of {} is {}, {}; got {}", name, x, wanted, meaning, p)


def _standardized(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """x with mean 0 and variance 1 over the axes."""
    average, rest, var = moments_reference(x, axes, True)
    return (x - average - rest) / scalar.sqrt(var + eps)


def _standardize(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """The same in ops, and the deviation that it was divided by."""
    average, rest, var = moments(x, axes, keepdims=True)
    sigma = sqrt(var + eps)
    return (x - average - rest) / sigma, sigma


def _pulled(g: Tensor, standard: Tensor, sigma: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The gradient of x from that of x^ = (x - mean) / sigma:  (g - mean(g) - x^ * mean(g * x^)) / sigma."""
    return (g - mean(g, axes, keepdims=True) - standard * mean(g * standard, axes, keepdims=True)) / sigma


# layer norm


def layer_norm_types(x: Type, gamma: Type, beta: Type, /, *, axis: int = -1, eps: float = EPS) -> Type:
    """Normalize over `axis` and all axes behind it. gamma and beta have the shape of those: x.shape[axis:]."""
    _check_parameters(x, x.shape[axis:], f"the axes from {axis} on", gamma=gamma, beta=beta)
    return x


def _last_canonical(x: Type, axis: Any, eps: Any) -> dict[str, Any]:
    float_dtype(x)
    return {"axis": axis_of(axis, x.rank), "eps": eps_of(eps)}


def layer_norm_reference(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axis: int, eps: float) -> np.ndarray:
    return _standardized(x, tuple(range(axis, x.ndim)), eps) * gamma + beta


def layer_norm_expand(x: Tensor, gamma: Tensor, beta: Tensor, axis: int, eps: float) -> Tensor:
    standard, _ = _standardize(cast(x, gamma.dtype), tuple(range(axis, x.rank)), eps)
    return cast(standard * gamma + beta, x.dtype)


def layer_norm_gradient(gs: Any, xs: Any, ys: Any, axis: int, eps: float) -> tuple[Any, Any, Any]:
    x, gamma, _ = xs
    before, axes = tuple(range(axis)), tuple(range(axis, x.rank))
    g = cast(gs[0], gamma.dtype)
    standard, sigma = _standardize(cast(x, gamma.dtype), axes, eps)
    dx = cast(_pulled(g * gamma, standard, sigma, axes), x.dtype)
    return dx, broadcast.sum(g * standard, before), broadcast.sum(g, before)


layer_norm = Op(
    "layer_norm",
    layer_norm_types,
    layer_norm_reference,
    layer_norm_gradient,
    layer_norm_expand,
    canonical=lambda x, gamma, beta, axis, eps: _last_canonical(x, axis, eps),
    flops=per_number(9),
    layer="layers.layer_norm",
    half=Half(inputs=(0,)),
    examples=(
        Example(real(2, 3), statistic(3), statistic(3)),
        Example(real(2, 2, 3), statistic(2, 3), statistic(2, 3), axis=1, eps=1e-3),
        Example(real(1, 3, 1, 2), statistic(1, 2), statistic(1, 2), axis=-2),
        Example(real(5), statistic(5), statistic(5)),
        Example(real(0, 3), statistic(3), statistic(3)),
    ),
)


# group norm


def group_norm_types(x: Type, gamma: Type, beta: Type, /, groups: int, *, axis: int = 1, eps: float = EPS) -> Type:
    """Normalize each group of channels of each image, over all axes but the batch. gamma and beta: (C,).

    x (N, C, ...), with channels at `axis`; groups divides C.
    """
    channels = known(x.shape[axis], "the number of channels")
    expect(channels % groups == 0, "{} channels do not divide into {} groups", channels, groups)
    _check_parameters(x, (channels,), f"one for each channel (axis {axis})", gamma=gamma, beta=beta)
    return x


def group_norm_canonical(x: Type, gamma: Type, beta: Type, groups: Any, axis: Any, eps: Any) -> dict[str, Any]:
    expect(x.rank >= 2, "needs a batch and channels, (N, C, ...), got {}", x)
    float_dtype(x)
    groups = whole(groups, "groups", 1)
    axis = axis_of(axis, x.rank)
    expect(axis > 0, "axis 0 is the batch; channels lie along another axis of {}", x)
    return {"groups": groups, "axis": axis, "eps": eps_of(eps)}


def _grouped(shape: Any, groups: int, axis: int) -> tuple[Any, tuple[int, ...]]:
    """The shape with channels as (groups, channels of each), and the axes that one group lies along."""
    split = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return split, tuple(i for i in range(1, len(split)) if i != axis)


def group_norm_reference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, axis: int, eps: float
) -> np.ndarray:
    split, axes = _grouped(x.shape, groups, axis)
    shape = along(x.ndim, axis)
    standard = _standardized(x.reshape(split), axes, eps).reshape(x.shape)
    return standard * gamma.reshape(shape) + beta.reshape(shape)


def group_norm_expand(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, axis: int, eps: float) -> Tensor:
    split, axes = _grouped(x.shape, groups, axis)
    shape = along(x.rank, axis)
    standard, _ = _standardize(reshape(cast(x, gamma.dtype), split), axes, eps)
    return cast(reshape(standard, x.shape) * reshape(gamma, shape) + reshape(beta, shape), x.dtype)


def group_norm_gradient(gs: Any, xs: Any, ys: Any, groups: int, axis: int, eps: float) -> tuple[Any, Any, Any]:
    x, gamma, _ = xs
    split, axes = _grouped(x.shape, groups, axis)
    others = other_axes(x.rank, axis)
    g = cast(gs[0], gamma.dtype)
    standard, sigma = _standardize(reshape(cast(x, gamma.dtype), split), axes, eps)
    dx = _pulled(reshape(g * reshape(gamma, along(x.rank, axis)), split), standard, sigma, axes)
    dgamma = broadcast.sum(g * reshape(standard, x.shape), others)
    return cast(reshape(dx, x.shape), x.dtype), dgamma, broadcast.sum(g, others)


group_norm = Op(
    "group_norm",
    group_norm_types,
    group_norm_reference,
    group_norm_gradient,
    group_norm_expand,
    canonical=group_norm_canonical,
    flops=per_number(9),
    layer="layers.group_norm",
    half=Half(inputs=(0,)),
    examples=(
        Example(real(1, 4, 3), statistic(4), statistic(4), groups=2),
        Example(real(2, 3, 1, 2), statistic(3), statistic(3), groups=1, eps=1e-3),
        Example(real(1, 2, 2, 3), statistic(3), statistic(3), groups=3, axis=-1),
        Example(real(2, 4), statistic(4), statistic(4), groups=2),
        Example(real(0, 2, 3), statistic(2), statistic(2), groups=2),
    ),
)


def instance_norm(x: Any, gamma: Any, beta: Any, *, axis: int = 1, eps: float = EPS) -> Any:
    """Normalize each channel of each image (Ulyanov et al., 2016): group norm with a group for each channel."""
    channels = known(x.shape[axis_of(axis, x.rank)], "the number of channels")
    return group_norm(x, gamma, beta, groups=channels, axis=axis, eps=eps)


# RMS norm


def rms_norm_types(x: Type, gamma: Type, /, *, axis: int = -1, eps: float = EPS) -> Type:
    """gamma * x / sqrt(mean(x^2) + eps), the mean over `axis` and all axes behind it; gamma: x.shape[axis:]."""
    _check_parameters(x, x.shape[axis:], f"the axes from {axis} on", gamma=gamma)
    return x


def rms_norm_reference(x: np.ndarray, gamma: np.ndarray, axis: int, eps: float) -> np.ndarray:
    square = (channel_sum(x * x, tuple(range(axis, x.ndim))) / math.prod(x.shape[axis:])).astype(x.dtype)
    return x / scalar.sqrt(square + eps) * gamma


def rms_norm_expand(x: Tensor, gamma: Tensor, axis: int, eps: float) -> Tensor:
    x_wide = cast(x, gamma.dtype)
    return cast(x_wide / sqrt(mean(x_wide * x_wide, tuple(range(axis, x.rank)), keepdims=True) + eps) * gamma, x.dtype)


rms_norm = Op(
    "rms_norm",
    rms_norm_types,
    rms_norm_reference,
    expand=rms_norm_expand,
    canonical=lambda x, gamma, axis, eps: _last_canonical(x, axis, eps),
    flops=per_number(5),
    layer="layers.rms_norm",
    half=Half(inputs=(0,)),
    examples=(
        Example(real(2, 3), statistic(3)),
        Example(real(2, 2, 3), statistic(2, 3), axis=1, eps=1e-3),
        Example(real(3, 1), statistic(1)),
        Example(real(0, 3), statistic(3)),
    ),
)


# local response normalization


def local_response_norm_types(
    x: Type, /, size: int, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, axis: int = 1
) -> Type:
    """x / (bias + alpha/size * s)^beta, s the sum of x^2 over `size` channels around each, as far as there are.

    The channels (along `axis`) begin (size - 1) // 2 before their own; for an even size one more lies behind.
    """
    float_dtype(x)
    return x


def local_response_norm_canonical(x: Type, size: Any, axis: Any, **numbers: Any) -> dict[str, Any]:
    size = whole(size, "size", 1)
    expect(x.rank >= 2, "needs a batch and channels, (N, C, ...), got shape {}", show(x.shape))
    return {"size": size, "axis": axis_of(axis, x.rank), **{name: finite(name, n) for name, n in numbers.items()}}


def _around(rank: int, size: int, axis: int) -> tuple[tuple[int, int], ...]:
    return tuple(((size - 1) // 2, size // 2) if i == axis else (0, 0) for i in range(rank))


def local_response_norm_reference(
    x: np.ndarray, size: int, alpha: float, beta: float, bias: float, axis: int
) -> np.ndarray:
    squares = np.moveaxis(np.pad(x * x, _around(x.ndim, size, axis)), axis, 0)
    total: Any = sum(squares[i : i + x.shape[axis]] for i in range(size))
    return x * scalar.exp(-beta * scalar.log(bias + alpha / size * np.moveaxis(total, 0, axis)))


def local_response_norm_expand(x: Tensor, size: int, alpha: float, beta: float, bias: float, axis: int) -> Tensor:
    x_wide = widened(x)
    squares, channels = pad(x_wide * x_wide, _around(x.rank, size, axis)), x.shape[axis]
    total = slice_axis(squares, axis, 0, channels)
    for i in range(1, size):
        total = total + slice_axis(squares, axis, i, i + channels)
    return cast(x_wide * exp(-beta * log(bias + alpha / size * total)), x.dtype)


local_response_norm = Op(
    "local_response_norm",
    local_response_norm_types,
    local_response_norm_reference,
    expand=local_response_norm_expand,
    canonical=local_response_norm_canonical,
    flops=lambda inputs, outputs, attrs: (2 * attrs["size"] + 4) * inputs[0].size,
    examples=(
        Example(real(1, 5, 2), size=3, alpha=0.5),
        Example(real(2, 3, 1, 2), size=2, alpha=0.1, beta=0.5, bias=2.0),
        Example(real(1, 2, 4), size=5, axis=-1),
        Example(real(2, 3), size=1),
        Example(real(0, 3, 2), size=3),
    ),
)
