"""Matrix products. There is no bias: that is an `add`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast, product
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Kernel, Op, Weight, float_dtype, real
from minigraph.ops.broadcast import sum, sum_to
from minigraph.ops.shape import reshape, transpose

MAX_RANK = 8  # of the axes in front of the matrices, in C


def matmul_types(x: Type, y: Type, /) -> Type:
    """x @ y over the last two axes, (..., M, K) by (..., K, N) -> (..., M, N); the axes in front broadcast."""
    dtype = float_dtype(x, y)
    expect(x.rank >= 2 and y.rank >= 2, "needs matrices, got {} and {}", x, y)
    expect(x.shape[-1] == y.shape[-2], "{} has {} columns and {} has {} rows", x, x.shape[-1], y, y.shape[-2])
    return Type((*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]), dtype)


def swap(x: Tensor) -> Tensor:
    """The transpose of each matrix."""
    return transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def matmul_weights(types: Sequence[Type]) -> tuple[Weight, Weight]:
    """The factor on the right, whose columns are the channels of the result, and that on the left, whose rows are."""
    x, y = types
    rank = max(x.rank, y.rank)
    row, column = lambda s: reshape(s, (1, -1)), lambda s: reshape(s, (-1, 1))
    return (
        Weight(
            index=1,
            data=0,
            axis=rank - 1,
            data_axis=x.rank - 1,
            outputs=row,
            inputs=column,
            shifts=lambda w, t: sum(w * column(t), 0),
            even=y.rank == 2,  # with more axes, the shift is another one for each of its matrices
        ),
        Weight(
            index=0,
            data=1,
            axis=rank - 2,
            data_axis=y.rank - 2,
            outputs=column,
            inputs=row,
            shifts=lambda w, t: sum(w * row(t), 1),
            even=x.rank == 2,
        ),
    )


def _fields(xs: Sequence[Type], ys: Sequence[Type]) -> dict[str, Any]:
    """What the kernel must know: the sizes of the matrices, and where each of them begins."""
    (x, y), front = xs, ys[0].shape[:-2]
    unused = MAX_RANK - len(front)
    return {
        "rows": x.shape[-2],
        "inner": x.shape[-1],
        "columns": y.shape[-1],
        "rank": len(front),
        "sizes": (*front, *(1,) * unused),
        "x_strides": (*_apart(x, len(front)), *(0,) * unused),
        "y_strides": (*_apart(y, len(front)), *(0,) * unused),
    }


def _apart(x: Type, rank: int) -> tuple[Any, ...]:
    """How far apart the matrices of x are along each of `rank` axes in front of them; 0 where x has none or one."""
    strides = [0 if n == 1 else product(x.shape[axis + 1 :]) for axis, n in enumerate(x.shape[:-2])]
    return (*(0,) * (rank - len(strides)), *strides)


matmul = Op(
    "matmul",
    matmul_types,
    np.matmul,
    lambda gs, xs, ys: (sum_to(gs[0] @ swap(xs[1]), xs[0].shape), sum_to(swap(xs[0]) @ gs[0], xs[1].shape)),
    weights=matmul_weights,
    flops=lambda inputs, outputs, attrs: 2 * outputs[0].size * inputs[0].shape[-1],
    kernel=Kernel("matmul.h", _fields),
    half=Half(seeks=True),
    examples=(
        Example(real(2, 3), real(3, 4)),
        Example(real(2, 3, 1), real(1, 5)),
        Example(real(3, 1, 2, 2), real(4, 2, 3)),
        Example(real(0, 3), real(3, 2)),
        Example(real(2, 0), real(0, 3)),
    ),
)
