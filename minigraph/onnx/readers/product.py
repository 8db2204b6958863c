"""Matrix products."""

from __future__ import annotations

from minigraph.core.builder import Tensor
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops.matmul import matmul
from minigraph.ops.pointwise import cast
from minigraph.ops.shape import expand_dims, squeeze, transpose


@reads("MatMul")
def read_matmul(call: Call) -> Tensor:
    """NumPy's rules: one axis alone is a row on the left, a column on the right, and is gone from the result."""
    x, y = call.weight(0), call.weight(1)
    return product(x, y)


def product(x: Tensor, y: Tensor) -> Tensor:
    expect(x.rank and y.rank, "needs matrices, got {} and {}", x.value, y.value)
    dtype = x.dtype
    if dtype not in FLOATS:
        x, y = cast(x, "float64"), cast(y, "float64")
    left = expand_dims(x, 0) if x.rank == 1 else x
    right = expand_dims(y, 1) if y.rank == 1 else y
    z = matmul(left, right)
    gone = [axis for axis, vector in ((-2, x.rank == 1), (-1, y.rank == 1)) if vector]
    return cast(squeeze(z, gone) if gone else z, dtype)


@reads("Gemm")
def gemm(call: Call) -> Tensor:
    """alpha * A @ B + beta * C, A and B transposed where asked."""
    a, b = call.weight(0), call.weight(1)
    expect(a.rank == b.rank == 2, "needs two matrices, got {} and {}", a.value, b.value)
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    y = product(transpose(a) if call.flag("transA") else a, transpose(b) if call.flag("transB") else b)
    y = y if alpha == 1 else y * alpha
    if not call.has(2) or beta == 0:
        return y
    c = call.weight(2)
    return y + (c if beta == 1 else c * beta)
