"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, axis_of, float_dtype, per_number, real
from minigraph.ops import broadcast
from minigraph.ops.pointwise import exp, log
from minigraph.ops.reduce import max

AXES = (Example(real(2, 3)), Example(real(3, 2, 4), axis=1), Example(real(0, 3)), Example(real(2, 1)))


def softmax_types(x: Type, /, axis: int = -1) -> Type:
    """e^x over its sum along `axis`. The largest x is taken off first, so nothing overflows."""
    float_dtype(x)
    expect(x.shape[axis] != 0, "there is nothing to share among along axis {} of {}", axis, x)
    return x


def axis_canonical(x: Type, axis: Any) -> dict[str, Any]:
    return {"axis": axis_of(axis, x.rank)}


def softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    e = scalar.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_expand(x: Tensor, axis: int) -> Tensor:
    e = exp(x - max(x, axis, True))
    return e / broadcast.sum(e, axis, True)


softmax: Op = Op(
    "softmax",
    softmax_types,
    softmax_reference,
    expand=softmax_expand,
    canonical=axis_canonical,
    gradient=lambda gs, xs, ys, axis: (ys[0] * (gs[0] - broadcast.sum(gs[0] * ys[0], axis, True)),),
    flops=per_number(5),
    examples=AXES,
)


def log_softmax_types(x: Type, /, axis: int = -1) -> Type:
    """The logarithm of softmax, computed as x - max - log(sum(e^(x - max))): no overflow, and no log of 0."""
    return softmax_types(x, axis)


def log_softmax_reference(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - scalar.log(scalar.exp(shifted).sum(axis, keepdims=True))


def log_softmax_expand(x: Tensor, axis: int) -> Tensor:
    shifted = x - max(x, axis, True)
    return shifted - log(broadcast.sum(exp(shifted), axis, True))


log_softmax = Op(
    "log_softmax",
    log_softmax_types,
    log_softmax_reference,
    expand=log_softmax_expand,
    canonical=axis_canonical,
    gradient=lambda gs, xs, ys, axis: (gs[0] - softmax(xs[0], axis) * broadcast.sum(gs[0], axis, True),),
    flops=per_number(5),
    examples=AXES,
)
