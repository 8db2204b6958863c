"""Matrix products. There is no bias: that is an `add`."""

from __future__ import annotations

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, float_dtype, real
from minigraph.ops.broadcast import sum_to
from minigraph.ops.half import in_float32
from minigraph.ops.shape import transpose


def matmul_types(x: Type, y: Type, /) -> Type:
    """x @ y over the last two axes, (..., M, K) by (..., K, N) -> (..., M, N); the axes in front broadcast."""
    dtype = float_dtype(x, y)
    expect(x.rank >= 2 and y.rank >= 2, "needs matrices, got {} and {}", x, y)
    expect(x.shape[-1] == y.shape[-2], "{} has {} columns and {} has {} rows", x, x.shape[-1], y, y.shape[-2])
    return Type((*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]), dtype)


def swap(x: Tensor) -> Tensor:
    """The transpose of each matrix."""
    return transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


matmul = Op(
    "matmul",
    matmul_types,
    in_float32(np.matmul),
    lambda gs, xs, ys: (sum_to(gs[0] @ swap(xs[1]), xs[0].shape), sum_to(swap(xs[0]) @ gs[0], xs[1].shape)),
    flops=lambda inputs, outputs, attrs: 2 * outputs[0].size * inputs[0].shape[-1],
    examples=(
        Example(real(2, 3), real(3, 4)),
        Example(real(2, 3, 1), real(1, 5)),
        Example(real(3, 1, 2, 2), real(4, 2, 3)),
        Example(real(0, 3), real(3, 2)),
        Example(real(2, 0), real(0, 3)),
    ),
)
