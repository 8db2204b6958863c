"""TF32: float32 numbers with 10 bits behind the point, as tensor cores multiply them.

    tf32(x) = x + d,   |d| <= 2^-11 |x|            the nearest such number, of two the one farther from 0

The result is float32 still: what is rounded is what it holds. So a product of two rounded factors means the same on
every backend, and a GPU may make it of tensor cores; passes/tensor_float.py puts the op where products are.

A number of 11 bits times another has 22: products of rounded factors are exact in float32, and only their sum rounds.
The op takes narrow floats, which have no more bits, and float64, which TF32 does not stand in for: they stay as they
are. Its gradient passes straight through, as that of a cast does.
"""

from __future__ import annotations

from minigraph.core import scalar
from minigraph.core.op import Half, float_dtype
from minigraph.ops.pointwise import ONE, pointwise

tf32 = pointwise(
    "tf32",
    "The nearest number with 10 bits behind the point, of float32; other floats stay as they are. The gradient passes"
    " as if nothing was rounded.",
    scalar.tf32,
    float_dtype,
    ONE,
    lambda g, x, y: (g,),
    half=Half(),
)
