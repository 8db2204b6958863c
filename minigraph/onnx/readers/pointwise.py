"""Arithmetic, comparisons, logic and activations: one number of the result from one number of each input."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import expect
from minigraph.core.op import OPS
from minigraph.onnx.call import Call, reads
from minigraph.ops import pointwise as ops
from minigraph.ops.activation import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    mish,
    selu,
    softsign,
    thresholded_relu,
)
from minigraph.ops.index import arange
from minigraph.ops.random import dropout
from minigraph.ops.reduce import argmax
from minigraph.ops.shape import reshape
from minigraph.ops.softmax import log_softmax, softmax

# one op of minigraph for one of ONNX
SAME: dict[str, Callable[..., Any]] = {
    "Abs": ops.absolute,
    "Acos": ops.acos,
    "Add": ops.add,
    "And": ops.logical_and,
    "Asin": ops.asin,
    "Atan": ops.atan,
    "Ceil": ops.ceil,
    "Cos": ops.cos,
    "Cosh": ops.cosh,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Floor": ops.floor,
    "Greater": ops.greater,
    "GreaterOrEqual": ops.greater_equal,
    "HardSwish": hard_swish,
    "IsNaN": ops.isnan,
    "Less": ops.less,
    "LessOrEqual": ops.less_equal,
    "Log": ops.log,
    "Mish": mish,
    "Mul": ops.mul,
    "Neg": ops.neg,
    "Not": ops.logical_not,
    "Or": ops.logical_or,
    "PRelu": OPS["prelu"],
    "Reciprocal": ops.reciprocal,
    "Round": ops.round,
    "Sigmoid": ops.sigmoid,
    "Sign": ops.sign,
    "Sin": ops.sin,
    "Sinh": ops.sinh,
    "Softplus": ops.softplus,
    "Softsign": softsign,
    "Sqrt": ops.sqrt,
    "Sub": ops.sub,
    "Tan": ops.tan,
    "Tanh": ops.tanh,
    "Where": ops.where,
    "Xor": ops.logical_xor,
}


def _same(op: Callable[..., Any]) -> Callable[[Call], Tensor]:
    return lambda call: op(*call.tensors())


for name, op in SAME.items():
    reads(name)(_same(op))


@reads("Identity")
def identity(call: Call) -> Any:
    return call.operand(0)


@reads("Equal")
def equal(call: Call) -> Tensor:
    return ops.equal(call.tensor(0), call.tensor(1))


@reads("Div")
def div(call: Call) -> Tensor:
    x, y = call.tensor(0), call.tensor(1)
    return ops.div(x, y) if x.dtype in FLOATS else whole_quotient(x, y)


def whole_quotient(x: Tensor, y: Tensor) -> Tensor:
    """x / y of whole numbers, rounded towards 0.

    x - x % y divides evenly. Its quotient in float64 is exact up to 2^53; beyond, the division of what is left over
    gives the rest.
    """
    even = x - ops.fmod(x, y)
    divided = lambda part: ops.round(ops.cast(part, "float64") / ops.cast(y, "float64"))
    quotient = ops.cast(divided(even), x.dtype)
    if x.dtype not in ("int64", "uint64"):
        return quotient
    left = ops.cast(even - quotient * y, "int64")
    return quotient + ops.cast(divided(left), x.dtype)


@reads("Mod")
def mod(call: Call) -> Tensor:
    x, y = call.tensor(0), call.tensor(1)
    return ops.fmod(x, y) if call.flag("fmod") else ops.mod(x, y)


@reads("Pow")
def power(call: Call) -> Tensor:
    x, exponent = call.tensor(0), call.maybe(1)
    wide = x if x.dtype in FLOATS else ops.cast(x, "float64")
    if exponent is not None and exponent.size == 1 and exponent.ndim <= x.rank and math.isfinite(exponent.flat[0]):
        return ops.cast(ops.pow(wide, float(exponent.flat[0])), x.dtype)
    return ops.cast(ops.pow(wide, ops.cast(call.tensor(1), wide.dtype)), x.dtype)


@reads("Sum")
def total(call: Call) -> Tensor:
    return reduce(ops.add, call.tensors())


@reads("Mean")
def average(call: Call) -> Tensor:
    tensors = call.tensors()
    return reduce(ops.add, tensors) / float(len(tensors))


@reads("Max")
def largest(call: Call) -> Tensor:
    return reduce(ops.maximum, call.tensors())


@reads("Min")
def smallest(call: Call) -> Tensor:
    return reduce(ops.minimum, call.tensors())


@reads("Cast")
def cast(call: Call) -> Tensor:
    return ops.cast(call.tensor(0), call.dtype("to", ""))


@reads("CastLike")
def cast_like(call: Call) -> Tensor:
    return ops.cast(call.tensor(0), call.tensor(1).dtype)


@reads("IsInf")
def isinf(call: Call) -> Tensor:
    signs = {name: bool(call.integer(name, 1)) for name in ("detect_positive", "detect_negative")}
    return ops.isinf(call.tensor(0), **signs)


@reads("Clip")
def clip(call: Call) -> Tensor:
    """min and max are attributes before opset 11, then inputs of one number, which may be computed. max wins."""
    x = call.tensor(0)
    if call.opset < 11:
        low, high = call.real("min", -math.inf), call.real("max", math.inf)
        return bounded(x, low, high)
    given = [call.maybe(i) if call.has(i) else np.asarray(None) for i in (1, 2)]
    if all(bound is not None and bound.size == 1 for bound in given):
        low, high = (None if bound is None else bound.flat[0] for bound in given)
        return bounded(x, None if low is None else low.item(), None if high is None else high.item())
    if call.has(1):
        x = ops.maximum(x, reshape(call.tensor(1), ()))
    return ops.minimum(x, reshape(call.tensor(2), ())) if call.has(2) else x


def bounded(x: Tensor, low: Any, high: Any) -> Tensor:
    """x between two numbers, either of which may be missing or infinite."""
    low = None if low == -math.inf else low
    high = None if high == math.inf else high
    return x if low is None and high is None else ops.clip(x, low, high)


# activations


@reads("Relu")
def relu(call: Call) -> Tensor:
    x = call.tensor(0)
    return ops.relu(x) if x.dtype in FLOATS else ops.maximum(x, 0)


WITH_ALPHA: dict[str, tuple[Callable[..., Tensor], float]] = {  # which is the second where a file does not say it
    "LeakyRelu": (leaky_relu, 0.01),
    "ThresholdedRelu": (thresholded_relu, 1.0),
    "Elu": (elu, 1.0),
    "Celu": (celu, 1.0),
}


@reads(*WITH_ALPHA)
def read_with_alpha(call: Call) -> Tensor:
    op, usual = WITH_ALPHA[call.op]
    return op(call.tensor(0), alpha=call.real("alpha", usual))


@reads("Selu")
def read_selu(call: Call) -> Tensor:
    """gamma * (x above 0, else alpha * (e^x - 1)). With the usual numbers it is minigraph's selu."""
    alpha, gamma = call.real("alpha", 1.6732632423543772), call.real("gamma", 1.0507009873554805)
    usual = abs(alpha - 1.6732632423543772) < 1e-6 and abs(gamma - 1.0507009873554805) < 1e-6
    x = call.tensor(0)
    return selu(x) if usual else elu(x, alpha=alpha) * gamma


@reads("HardSigmoid")
def read_hard_sigmoid(call: Call) -> Tensor:
    return hard_sigmoid(call.tensor(0), alpha=call.real("alpha", 0.2), beta=call.real("beta", 0.5))


@reads("Gelu")
def read_gelu(call: Call) -> Tensor:
    return gelu(call.tensor(0), approximate=call.string("approximate", "none"))


@reads("Swish")
def swish(call: Call) -> Tensor:
    x, alpha = call.tensor(0), call.real("alpha", 1.0)
    return x * ops.sigmoid(x if alpha == 1 else x * alpha)


@reads("Shrink")
def shrink(call: Call) -> Tensor:
    """x - bias above lambd, x + bias below -lambd, else 0."""
    x, bias, edge = call.tensor(0), call.real("bias", 0.0), call.real("lambd", 0.5)
    if x.dtype not in FLOATS:
        return ops.cast(_shrunk(ops.cast(x, "float64"), bias, edge), x.dtype)
    return _shrunk(x, bias, edge)


def _shrunk(x: Tensor, bias: float, edge: float) -> Tensor:
    return ops.where(x < -edge, x + bias, ops.where(x > edge, x - bias, 0.0))


@reads("Asinh")
def asinh(call: Call) -> Tensor:
    """sign(x) * log(|x| + sqrt(x^2 + 1)), whose argument less 1 is |x| + x^2 / (1 + sqrt(x^2 + 1))."""
    x = call.tensor(0)
    size = ops.absolute(x)
    return ops.sign(x) * ops.log1p(size + size * size / (ops.sqrt(size * size + 1.0) + 1.0))


@reads("Acosh")
def acosh(call: Call) -> Tensor:
    """log(x + sqrt(x^2 - 1))."""
    x = call.tensor(0)
    return ops.log(x + ops.sqrt((x - 1.0) * (x + 1.0)))


@reads("Atanh")
def atanh(call: Call) -> Tensor:
    """log((1 + x) / (1 - x)) / 2."""
    x = call.tensor(0)
    return ops.log1p(2.0 * x / (1.0 - x)) * 0.5


# along an axis


def _flat_before_13(call: Call, function: Callable[..., Tensor]) -> Tensor:
    """Up to opset 12 all axes from `axis` on count as one; later, `axis` alone counts."""
    x = call.tensor(0)
    axis = call.integer("axis", 1 if call.opset < 13 else -1)
    expect(-x.rank <= axis < max(x.rank, 1), "axis {} is outside of {}", axis, x.value)
    axis = axis % x.rank if x.rank else 0
    if call.opset >= 13 or axis == x.rank - 1 or all(n == 1 for n in x.shape[axis + 1 :]):
        return function(x, axis)
    flat = reshape(x, (*x.shape[:axis], -1))
    return reshape(function(flat, axis), x.shape)


@reads("Softmax")
def read_softmax(call: Call) -> Tensor:
    return _flat_before_13(call, softmax)


@reads("LogSoftmax")
def read_log_softmax(call: Call) -> Tensor:
    return _flat_before_13(call, log_softmax)


@reads("Hardmax")
def hardmax(call: Call) -> Tensor:
    """1 at the first of the largest numbers, else 0."""

    def chosen(x: Tensor, axis: int) -> Tensor:
        places = reshape(arange(x, x.shape[axis]), tuple(-1 if i == axis else 1 for i in range(x.rank)))
        return ops.cast(ops.equal(places, argmax(x, axis, keepdims=True)), x.dtype)

    return _flat_before_13(call, chosen)


@reads("Dropout")
def read_dropout(call: Call) -> Any:
    """In training mode (opset 12, an input) random; else x itself. The mask says what was let through."""
    x = call.tensor(0)
    training = call.opset >= 12 and call.has(2) and bool(call.array(2).all())
    rate = float(call.number(1)) if call.opset >= 12 and call.has(1) else 0.5
    expect(0 <= rate <= 1, "the rate is from 0 to 1, not {}", rate)
    if not training or rate == 0:
        return (x, call.net.filled(True, x.shape, "bool")) if call.wants(1) else x
    seed, step, stream = x.builder.random_stream()
    ones = call.net.filled(1.0, x.shape, "float32")
    kept = dropout(ones, seed, step, rate=rate, stream=stream)
    return x * ops.cast(kept, x.dtype), kept > 0.0
