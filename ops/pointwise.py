"""Pointwise ops: one function of numbers each, applied element by element, with NumPy's broadcasting.

All inputs have one dtype (conditions are bool). The function is the op: on arrays the reference, on exact numbers the
proof, on `Scalar`s the expression. Gradients are given for one element; what broadcasting repeated is added up here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast
from minigraph.core.errors import expect
from minigraph.core.ir import Type, dtype_of
from minigraph.core.op import Example, Op, booleans, float_dtype, integers, positive, real, same_dtype
from minigraph.ops.broadcast import sum_to

ONE = (Example(real(2, 3)), Example(real()), Example(real(0, 3)), Example(real(3, 1, 5)))
TWO = (
    Example(real(2, 3), real(2, 3)),
    Example(real(4, 1, 3), real(2, 1)),
    Example(real(), real(3)),
    Example(real(0, 3), real(3)),
)
POSITIVE = (Example(positive(2, 3)), Example(positive()), Example(positive(0, 3)))
WHOLE = (Example(integers(2, 3, below=9), integers(3, below=9)),)


def pointwise(
    name: str,
    doc: str,
    expression: Callable[..., Any],
    dtype: Callable[..., str],
    examples: Sequence[Example],
    rule: Callable[..., Sequence[Any]] | None = None,
) -> Op:
    """Declare a pointwise op of one, two or three inputs.

    dtype: types of the inputs -> dtype of the result, or GraphError. rule: (g, *inputs, y) -> a gradient for each
        input.
    """

    def result(*types: Type) -> Type:
        return Type(broadcast(*[t.shape for t in types]), dtype(*types))

    arity = expression.__code__.co_argcount
    types: Any = {1: lambda x, /: result(x), 2: lambda x, y, /: result(x, y), 3: lambda x, y, z, /: result(x, y, z)}[
        arity
    ]
    types.__doc__ = doc + ("" if arity == 1 else " Shapes broadcast.")

    def gradient(gs: Any, xs: Any, ys: Any) -> list[Any]:
        contributions = rule(gs[0], *xs, ys[0])  # type: ignore[misc]
        return [g if g is None else sum_to(g, x.shape) for g, x in zip(contributions, xs, strict=True)]

    return Op(name, types, expression, gradient if rule else None, expression=expression, examples=tuple(examples))


def number_dtype(*types: Type) -> str:
    expect(types[0].dtype != "bool", "needs numbers, got {}", types[0])
    return same_dtype(*types)


def signed_dtype(x: Type) -> str:
    expect(not x.dtype.startswith(("u", "b")), "needs signed numbers, got {}", x)
    return x.dtype


def comparison_dtype(*types: Type) -> str:
    same_dtype(*types)
    return "bool"


def logical_dtype(*types: Type) -> str:
    for t in types:
        expect(t.dtype == "bool", "needs bools, got {}", t)
    return "bool"


def choice_dtype(condition: Type, x: Type, y: Type) -> str:
    expect(condition.dtype == "bool", "the condition is bool, not {}", condition)
    return same_dtype(x, y)


# arithmetic
add = pointwise("add", "x + y.", lambda x, y: x + y, number_dtype, TWO + WHOLE, lambda g, x, y, z: (g, g))
sub = pointwise("sub", "x - y.", lambda x, y: x - y, number_dtype, TWO + WHOLE, lambda g, x, y, z: (g, -g))
mul = pointwise("mul", "x * y.", lambda x, y: x * y, number_dtype, TWO + WHOLE, lambda g, x, y, z: (g * y, g * x))
div = pointwise(
    "div",
    "x / y, of floats.",
    lambda x, y: x / y,
    float_dtype,
    (Example(real(2, 3), positive(2, 3)), Example(real(4, 1, 3), positive(2, 1)), Example(real(0, 3), positive(3))),
    lambda g, x, y, z: (g / y, -(g * z / y)),
)
neg = pointwise("neg", "-x.", lambda x: -x, signed_dtype, (*ONE, Example(integers(4, below=9))), lambda g, x, y: (-g,))

# functions
exp = pointwise("exp", "e to the power x.", lambda x: scalar.exp(x), float_dtype, ONE, lambda g, x, y: (g * y,))
log = pointwise(
    "log", "The natural logarithm.", lambda x: scalar.log(x), float_dtype, POSITIVE, lambda g, x, y: (g / x,)
)
sqrt = pointwise(
    "sqrt", "The square root.", lambda x: scalar.sqrt(x), float_dtype, POSITIVE, lambda g, x, y: (g / (y + y),)
)
tanh = pointwise(
    "tanh", "The hyperbolic tangent.", lambda x: scalar.tanh(x), float_dtype, ONE, lambda g, x, y: (g - g * y * y,)
)
sigmoid = pointwise(
    "sigmoid",
    "1 / (1 + e^-x), without overflow.",
    lambda x: scalar.sigmoid(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g * y - g * y * y,),
)
sin: Op = pointwise(
    "sin", "The sine of x in radians.", lambda x: scalar.sin(x), float_dtype, ONE, lambda g, x, y: (g * cos(x),)
)
cos: Op = pointwise(
    "cos", "The cosine of x in radians.", lambda x: scalar.cos(x), float_dtype, ONE, lambda g, x, y: (-(g * sin(x)),)
)
relu: Op = pointwise(
    "relu",
    "x where it is above 0, else 0; NaN stays NaN. The derivative at 0 is 0.",
    lambda x: scalar.maximum(x, 0),
    float_dtype,
    ONE,
    lambda g, x, y: (where(x <= 0, 0.0, g),),
)

# comparison and logic
equal = pointwise("equal", "Whether x is y.", lambda x, y: scalar.equal(x, y), comparison_dtype, TWO + WHOLE)
less = pointwise("less", "Whether x < y.", lambda x, y: x < y, comparison_dtype, TWO + WHOLE)
less_equal = pointwise("less_equal", "Whether x <= y.", lambda x, y: x <= y, comparison_dtype, TWO + WHOLE)
BOOLS = (Example(booleans(2, 3), booleans(3)), Example(booleans(0), booleans()))
logical_and = pointwise(
    "logical_and", "x and y, of bools.", lambda x, y: scalar.logical_and(x, y), logical_dtype, BOOLS
)
logical_or = pointwise("logical_or", "x or y, of bools.", lambda x, y: scalar.logical_or(x, y), logical_dtype, BOOLS)
logical_not = pointwise(
    "logical_not", "not x, of bools.", lambda x: scalar.logical_not(x), logical_dtype, (Example(booleans(2, 3)),)
)
where: Op = pointwise(
    "where",
    "x where the condition holds, else y. A gradient can be NaN through the side that is not taken.",
    lambda c, x, y: scalar.where(c, x, y),
    choice_dtype,
    (
        Example(booleans(2, 3), real(2, 3), real(2, 3)),
        Example(booleans(3, 1), real(), real(2)),
        Example(booleans(0, 3), real(3), real(0, 1)),
    ),
    lambda g, c, x, y, z: (None, where(c, g, 0.0), where(c, 0.0, g)),
)


# casts


def cast_types(x: Type, /, dtype: Any) -> Type:
    """x in another dtype. Floats lose their fraction on the way to integers; what is not 0 becomes True."""
    return Type(x.shape, dtype)


def cast_gradient(gs: Any, xs: Any, ys: Any, dtype: str) -> tuple[Any]:
    return (cast(gs[0], xs[0].dtype) if xs[0].value.type.is_float else None,)


_cast: Op = Op(
    "cast",
    cast_types,
    scalar.cast,
    cast_gradient,
    canonical=lambda x, dtype: {"dtype": dtype_of(dtype)},
    expression=scalar.cast,
    examples=(
        Example(real(2, 3), dtype="float64"),
        Example(integers(3, below=5), dtype="float32"),
        Example(real(0, 2), dtype="int32"),
        Example(booleans(4), dtype="float64"),
        Example(real(3), dtype="bool"),
    ),
)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype; x itself if it has that one."""
    return x if x.dtype == dtype_of(dtype) else _cast(x, dtype)


def _same(x: Type, /) -> Type:
    """x, through which no gradient flows."""
    return x


stop_gradient = Op("stop_gradient", _same, lambda x: x, lambda gs, xs, ys: (None,), flops=lambda *_: 0, examples=ONE)


def not_equal(x: Any, y: Any) -> Tensor:
    """Whether x is not y. Shapes broadcast."""
    return logical_not(equal(x, y))


def greater(x: Any, y: Any) -> Tensor:
    """Whether x > y. Shapes broadcast."""
    return less(y, x)


def greater_equal(x: Any, y: Any) -> Tensor:
    """Whether x >= y. Shapes broadcast."""
    return less_equal(y, x)
