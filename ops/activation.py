"""Activations: pointwise functions that networks put between their layers.

Where the derivative jumps (a kink), the docstring says which value it takes there. NaN stays NaN. All are finite and
right up to the largest number of the dtype; at -inf itself silu, gelu and mish are NaN, the product -inf * 0.
"""

from __future__ import annotations

import math
from typing import Any

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Channels, Example, Half, Op, Sample, axis_of, each_number, float_dtype, real
from minigraph.ops.broadcast import broadcast_to_channels
from minigraph.ops.pointwise import (
    ONE,
    TWO,
    clip,
    erf,
    exp,
    finite,
    logical_or,
    pointwise,
    sigmoid,
    softplus,
    tanh,
    where,
)
from minigraph.ops.pointwise import absolute as magnitude
from minigraph.ops.shape import reshape

BOTH_SIDES = (*ONE, Example(Sample((7,), low=-9.0, high=9.0)))  # beyond the kinks at -3, 3 and 6


def above_zero(name: str, value: Any) -> float:
    """An attribute that is a finite number above 0."""
    number = finite(name, value)
    expect(number > 0, "{} is above 0, not {!r}", name, value)
    return number


# lines with kinks

relu6 = pointwise(
    "relu6",
    "min(max(x, 0), 6). The derivative is 0 at 0 and at 6.",
    lambda x: scalar.minimum(scalar.maximum(x, 0), 6),
    float_dtype,
    BOTH_SIDES,
    lambda g, x, y: (where(logical_or(x <= 0.0, x >= 6.0), 0.0, g),),
    half=Half(),
)
leaky_relu = pointwise(
    "leaky_relu",
    "x where it is above 0, else alpha * x. The derivative at 0 is alpha.",
    lambda x, *, alpha=0.01: scalar.where(x > 0, x, alpha * x),
    float_dtype,
    (*ONE, Example(real(2, 3), alpha=0.25), Example(real(3), alpha=0)),
    lambda g, x, y, alpha: (where(x > 0.0, g, g * alpha),),
    channels=each_number("positive"),
    half=Half(),
)
thresholded_relu = pointwise(
    "thresholded_relu",
    "x where it is above alpha, else 0. The derivative at alpha is 0.",
    lambda x, *, alpha=1.0: scalar.where(x <= alpha, 0, x),
    float_dtype,
    (*ONE, Example(real(2, 3), alpha=-0.5), Example(real(2, 3), alpha=0)),
    lambda g, x, y, alpha: (where(x <= alpha, 0.0, g),),
    channels=lambda types, axis, alpha: Channels(axis, "positive", False) if alpha == 0 else None,  # then it is relu
    half=Half(),
)
hard_sigmoid = pointwise(
    "hard_sigmoid",
    "min(max(alpha * x + beta, 0), 1). The derivative at both kinks is 0. The defaults are PyTorch's, relu6(x + 3) / 6;"
    " ONNX's default of alpha is 0.2.",
    lambda x, *, alpha=1 / 6, beta=0.5: scalar.minimum(scalar.maximum(alpha * x + beta, 0), 1),
    float_dtype,
    (*BOTH_SIDES, Example(real(2, 3), alpha=0.5, beta=0.25)),
    lambda g, x, y, alpha, beta: (where(logical_or(y <= 0.0, y >= 1.0), 0.0, g * alpha),),
    half=Half(),
)
hard_swish = pointwise(
    "hard_swish",
    "x * relu6(x + 3) / 6. The derivative is 0 at -3 and 1 at 3. Howard et al., Searching for MobileNetV3, 2019.",
    lambda x: scalar.where(x <= -3, 0, x * (scalar.minimum(scalar.maximum(x + 3, 0), 6) / 6)),
    float_dtype,
    BOTH_SIDES,
    lambda g, x, y: (where(x <= -3.0, 0.0, where(x >= 3.0, g, g * (x / 3.0 + 0.5))),),
    half=Half(),
)


def hard_tanh(x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """x clipped to [low, high]; the derivative at the bounds is 1, as that of clip."""
    return clip(x, low, high)


def prelu_channels(types: tuple[Type, ...], axis: int) -> Channels | None:
    """The slopes stay what they are, one for all channels or one for each."""
    x, slope = types
    repeated = broadcast_to_channels((x,), axis, broadcast(x.shape, slope.shape))
    return Channels(repeated.axis, "positive", False) if repeated else None


_prelu: Op = pointwise(
    "prelu",
    "x where it is above 0, else slope * x. The derivative at x = 0 is the slope.",
    lambda x, slope: scalar.where(x > 0, x, slope * x),
    float_dtype,
    TWO,
    lambda g, x, slope, y: (where(x > 0.0, g, g * slope), where(x > 0.0, 0.0, g * x)),
    channels=prelu_channels,
    half=Half(),
)


def prelu(x: Tensor, slope: Tensor, axis: int = 1) -> Tensor:
    """x where it is above 0, else slope * x, with a trained slope. The derivative at x = 0 is the slope.

    slope: one number, or one for each channel (C,), where `axis` is the axis of the channels of x.
    He et al., Delving Deep into Rectifiers, 2015.
    """
    if slope.rank == 1 and slope.shape != (1,):
        axis = axis_of(axis, x.rank)
        expect(slope.shape[0] == x.shape[axis], "slope {} is not one number a channel of {}", slope.value, x.value)
        slope = reshape(slope, tuple(slope.shape[0] if i == axis else 1 for i in range(x.rank)))
    else:
        expect(slope.shape in ((), (1,)), "slope is one number or one for each channel, not {}", slope.value)
    return _prelu(x, reshape(slope, ()) if slope.shape == (1,) else slope)


# exponentials below 0: e^min(x, 0), for nothing to overflow on the side that is not taken

elu = pointwise(
    "elu",
    "x where it is above 0, else alpha * (e^x - 1). The derivative at 0 is alpha. Clevert et al., Fast and Accurate"
    " Deep Network Learning by Exponential Linear Units, 2015.",
    lambda x, *, alpha=1.0: scalar.where(x > 0, x, alpha * scalar.expm1(scalar.minimum(x, 0))),
    float_dtype,
    (*ONE, Example(real(2, 3), alpha=0.3)),
    lambda g, x, y, alpha: (where(x > 0.0, g, g * (y + alpha)),),
    half=Half(),
)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
SELU_BELOW = SELU_SCALE * SELU_ALPHA
selu = pointwise(
    "selu",
    "1.0507 * x where x is above 0, else 1.0507 * 1.6733 * (e^x - 1): mean 0 and variance 1 are a fixed point. The"
    " derivative at 0 is that from below, 1.7581. Klambauer et al., Self-Normalizing Neural Networks, 2017.",
    lambda x: scalar.where(x > 0, SELU_SCALE * x, SELU_BELOW * scalar.expm1(scalar.minimum(x, 0))),
    float_dtype,
    ONE,
    lambda g, x, y: (where(x > 0.0, g * SELU_SCALE, g * (y + SELU_BELOW)),),
    half=Half(),
)
celu = pointwise(
    "celu",
    "x where it is above 0, else alpha * (e^(x / alpha) - 1), alpha > 0: smooth at 0. Barron, Continuously"
    " Differentiable Exponential Linear Units, 2017.",
    lambda x, *, alpha=1.0: scalar.where(x > 0, x, alpha * scalar.expm1(scalar.minimum(x, 0) / alpha)),
    float_dtype,
    (*ONE, Example(real(2, 3), alpha=0.3)),
    lambda g, x, y, alpha: (where(x > 0.0, g, g * (y / alpha + 1.0)),),
    above_zero,
    half=Half(),
)

# smooth ones

softsign = pointwise(
    "softsign",
    "x / (1 + |x|); NaN at the infinities.",
    lambda x: x / (1 + scalar.absolute(x)),
    float_dtype,
    ONE,
    lambda g, x, y: (g / (magnitude(x) + 1.0) / (magnitude(x) + 1.0),),
    half=Half(),
)
silu = pointwise(
    "silu",
    "x * sigmoid(x), also called swish. Elfwing et al., Sigmoid-Weighted Linear Units, 2017.",
    lambda x: x * scalar.sigmoid(x),
    float_dtype,
    ONE,
    lambda g, x, y: (_silu_gradient(g, x),),
    half=Half(),
)


def _silu_gradient(g: Tensor, x: Tensor) -> Tensor:
    s = sigmoid(x)
    return g * (s + x * (s - s * s))


mish = pointwise(
    "mish",
    "x * tanh(softplus(x)). Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019.",
    lambda x: x * scalar.tanh(scalar.softplus(x)),
    float_dtype,
    ONE,
    lambda g, x, y: (_mish_gradient(g, x),),
    half=Half(),
)


def _mish_gradient(g: Tensor, x: Tensor) -> Tensor:
    t = tanh(softplus(x))
    return g * (t + x * sigmoid(x) * (1.0 - t * t))


# gelu

ROOT_HALF = math.sqrt(0.5)
ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    if approximate == "none":
        return x * (0.5 * (1 + scalar.erf(x * ROOT_HALF)))
    return x * (0.5 * (1 + scalar.tanh(ROOT_TWO_OVER_PI * (x * (1 + CUBIC * (x * x))))))


def _gelu_gradient(g: Tensor, x: Tensor, approximate: str) -> Tensor:
    """Of x * gate(x): gate + x * gate'."""
    if approximate == "none":
        u = x * ROOT_HALF
        return g * (0.5 * (1.0 + erf(u)) + x * exp(-(u * u)) * scalar.TWO_OVER_ROOT_PI * ROOT_HALF * 0.5)
    # beyond 10 the gate is 0 or 1 to the last bit of float64, and its slope 0: no square may overflow to 0 * inf
    x = clip(x, -10.0, 10.0)
    square = x * x
    t = tanh((x * (square * CUBIC + 1.0)) * ROOT_TWO_OVER_PI)
    slope = (1.0 - t * t) * (square * CUBIC * 3.0 + 1.0) * ROOT_TWO_OVER_PI
    return g * (0.5 * (1.0 + t) + x * slope * 0.5)


def _approximation(name: str, value: Any) -> str:
    expect(value in ("none", "tanh"), '{} is "none" or "tanh", not {!r}', name, value)
    return str(value)


gelu = pointwise(
    "gelu",
    'x times the normal distribution function of x: x * (1 + erf(x / sqrt(2))) / 2; approximate="tanh" takes'
    " x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2. Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.",
    _gelu,
    float_dtype,
    (*ONE, Example(real(2, 3), approximate="tanh"), Example(real(0), approximate="tanh")),
    lambda g, x, y, approximate: (_gelu_gradient(g, x, approximate),),
    _approximation,
    half=Half(),
)
