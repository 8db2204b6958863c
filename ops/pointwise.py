"""Pointwise ops: one function of numbers each, applied element by element, with NumPy's broadcasting.

All inputs have one dtype (conditions are bool). The function is the op: on arrays the reference, on exact numbers the
proof, on `Scalar`s the expression. Gradients are given for one element; what broadcasting repeated is added up here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigraph.core import scalar
from minigraph.core.builder import Tensor
from minigraph.core.dim import broadcast
from minigraph.core.dtypes import FLOATS, INTEGERS, dtype_of
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import (
    Channels,
    Example,
    Half,
    Op,
    Sample,
    booleans,
    each_number,
    float_dtype,
    integers,
    no_flops,
    positive,
    real,
    same_dtype,
    whole,
)
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
    attribute: Callable[[str, Any], Any] | None = None,
    commutative: bool = False,
    channels: Callable[..., Channels | None] | None = None,
    half: Half | None = None,
) -> Op:
    """Declare a pointwise op of one, two or three inputs.

    expression: its positional parameters are the inputs, its keyword-only ones the attributes with their defaults.
    dtype: types of the inputs -> dtype of the result, or GraphError.
    rule: (g, *inputs, y, *, attributes) -> a gradient for each input, or None for zero.
    attribute: (name, value) -> the attribute in its one form, or GraphError; by default a finite number becomes a
        float.
    commutative, channels, half: as of Op.
    """

    def result(*types: Type, **attrs: Any) -> Type:
        return Type(broadcast(*[t.shape for t in types]), dtype(*types))

    def canonical(*types: Type, **attrs: Any) -> dict[str, Any]:
        return {name: (attribute or finite)(name, value) for name, value in attrs.items()}

    def gradient(gs: Any, xs: Any, ys: Any, **attrs: Any) -> list[Any]:
        contributions = rule(gs[0], *xs, ys[0], **attrs)  # type: ignore[misc]
        return [g if g is None else sum_to(g, x.shape) for g, x in zip(contributions, xs, strict=True)]

    parameters = list(inspect.signature(expression).parameters.values())
    inputs = [p.replace(kind=p.POSITIONAL_ONLY) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    result.__doc__ = doc + ("" if len(inputs) == 1 else " Shapes broadcast.")
    result.__signature__ = inspect.Signature([*inputs, *parameters[len(inputs) :]])  # type: ignore[attr-defined]
    return Op(
        name,
        result,
        expression,
        gradient if rule else None,
        canonical=canonical if len(inputs) < len(parameters) else None,
        expression=expression,
        commutative=commutative,
        channels=channels,
        half=half,
        examples=tuple(examples),
    )


def finite(name: str, value: Any) -> float:
    """An attribute that is a finite number, as a float."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    expect(is_number and math.isfinite(value), "{} is a finite number, not {!r}", name, value)
    return float(value)


def flag(name: str, value: Any) -> bool:
    """An attribute that is true or false."""
    expect(isinstance(value, (bool, np.bool_)), "{} is True or False, not {!r}", name, value)
    return bool(value)


def number_dtype(*types: Type) -> str:
    expect(types[0].dtype != "bool", "needs numbers, got {}", types[0])
    return same_dtype(*types)


def signed_dtype(x: Type) -> str:
    expect(x.dtype in (*FLOATS, *INTEGERS) and not x.dtype.startswith("u"), "needs signed numbers, got {}", x)
    return x.dtype


def comparison_dtype(*types: Type) -> str:
    same_dtype(*types)
    return "bool"


def question_dtype(x: Type) -> str:
    expect(x.is_float, "needs floats, got {}", x)
    return "bool"


def logical_dtype(*types: Type) -> str:
    for t in types:
        expect(t.dtype == "bool", "needs bools, got {}", t)
    return "bool"


def choice_dtype(condition: Type, x: Type, y: Type) -> str:
    expect(condition.dtype == "bool", "the condition is bool, not {}", condition)
    return same_dtype(x, y)


# arithmetic
add = pointwise(
    "add",
    "x + y.",
    lambda x, y: x + y,
    number_dtype,
    TWO + WHOLE,
    lambda g, x, y, z: (g, g),
    commutative=True,
    half=Half(),
)
sub = pointwise(
    "sub",
    "x - y.",
    lambda x, y: x - y,
    number_dtype,
    TWO + WHOLE,
    lambda g, x, y, z: (g, -g),
    half=Half(),
)
mul = pointwise(
    "mul",
    "x * y.",
    lambda x, y: x * y,
    number_dtype,
    TWO + WHOLE,
    lambda g, x, y, z: (g * y, g * x),
    commutative=True,
    half=Half(),
)
div = pointwise(
    "div",
    "x / y, of floats.",
    lambda x, y: x / y,
    float_dtype,
    (Example(real(2, 3), positive(2, 3)), Example(real(4, 1, 3), positive(2, 1)), Example(real(0, 3), positive(3))),
    lambda g, x, y, z: (g / y, -(g * z / y)),
)
neg = pointwise(
    "neg",
    "-x.",
    lambda x: -x,
    signed_dtype,
    (*ONE, Example(integers(4, below=9))),
    lambda g, x, y: (-g,),
    channels=each_number("any"),
    half=Half(),
)
square = pointwise(
    "square",
    "x * x.",
    lambda x: x * x,
    number_dtype,
    (*ONE, Example(integers(4, below=9))),
    lambda g, x, y: (g * (x + x),),
)
reciprocal = pointwise(
    "reciprocal", "1 / x, of floats.", lambda x: 1 / x, float_dtype, POSITIVE, lambda g, x, y: (-(g * y * y),)
)
absolute: Op = pointwise(
    "abs",
    "x without its sign. The derivative at 0 is 0.",
    scalar.absolute,
    number_dtype,
    (*ONE, Example(integers(4, below=9))),
    lambda g, x, y: (g * sign(x),),
    channels=each_number("positive"),
    half=Half(),
)
sign: Op = pointwise(
    "sign",
    "1 where x is above 0, -1 where it is below, else 0; NaN stays NaN. The gradient is 0 everywhere.",
    lambda x: scalar.sign(x),
    number_dtype,
    (*ONE, Example(integers(4, below=9))),
    lambda g, x, y: (None,),
)


def _chosen(g: Any, x: Any, y: Any, x_loses: Any) -> tuple[Any, Any]:
    """The gradients of the larger or smaller of x and y: who loses gets none, and a tie is shared equally."""
    shared = where(equal(x, y), g * 0.5, g)
    return where(x_loses(x, y), 0.0, shared), where(x_loses(y, x), 0.0, shared)


maximum: Op = pointwise(
    "maximum",
    "The larger of x and y; NaN if either is. Where they are equal, each gets half of the gradient.",
    lambda x, y: scalar.maximum(x, y),
    number_dtype,
    TWO + WHOLE,
    lambda g, x, y, z: _chosen(g, x, y, lambda a, b: a < b),
    commutative=True,
    half=Half(),
)
minimum: Op = pointwise(
    "minimum",
    "The smaller of x and y; NaN if either is. Where they are equal, each gets half of the gradient.",
    lambda x, y: scalar.minimum(x, y),
    number_dtype,
    TWO + WHOLE,
    lambda g, x, y, z: _chosen(g, x, y, lambda a, b: a > b),
    commutative=True,
    half=Half(),
)


def _remainder(g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    """z = x - n * y with a whole n, which jumps where z does and is constant elsewhere.

    Rounded, because x / y may have been rounded across a whole number where z was not.
    """
    return g, -(g * round((x - z) / y))


DIVISIONS = (
    Example(real(2, 3), positive(2, 3)),
    Example(real(4, 1, 3), Sample((2, 1), low=-2.0, high=-0.1)),
    Example(real(0, 3), positive(3)),
    Example(integers(2, 3, below=9), Sample((3,), "int64", 1, 5)),
)
mod: Op = pointwise(
    "mod",
    "The remainder x - floor(x / y) * y with the sign of y, as Python's %. Integers modulo 0 are 0, floats NaN. The"
    " gradient takes floor(x / y) as constant.",
    lambda x, y: scalar.mod(x, y),
    number_dtype,
    DIVISIONS,
    _remainder,
)
fmod: Op = pointwise(
    "fmod",
    "The remainder x - trunc(x / y) * y with the sign of x, as C's fmod and C's % of integers. Integers modulo 0 are"
    " 0, floats NaN. The gradient takes trunc(x / y) as constant.",
    lambda x, y: scalar.fmod(x, y),
    number_dtype,
    DIVISIONS,
    _remainder,
)


# powers


def _pow_rule(g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    """d(x^y) = y x^(y-1) dx + x^y log(x) dy.

    Where y is 0, y x^(y-1) is y / x without an infinity of x^-1 that 0 would meet, and 0 at x = 0. Where x is 0, the
    logarithm is left out: x^y is 0 around it for y > 0.
    """
    safe = where(equal(x, 0.0), 1.0, x)
    power = where(equal(y, 0.0), y / safe, y * _pow(x, where(equal(y, 0.0), 1.0, y) - 1.0))
    return g * power, g * z * log(safe)


_pow: Op = pointwise(
    "pow",
    "x to the power y, of floats. Negative x have powers with whole y only, else NaN. x^0 is 1. At x = 0 the gradient"
    " of x is 0 for y = 0, and that of y is 0 for y >= 0.",
    lambda x, y: scalar.pow(x, y),
    float_dtype,
    (
        Example(positive(2, 3), real(2, 3)),
        Example(positive(4, 1, 3), real(2, 1)),
        Example(positive(), real(3)),
        Example(positive(0, 3), real(3)),
    ),
    _pow_rule,
)
power: Op = pointwise(
    "power",
    "x to a power that is a number, of floats. Negative x have powers with whole exponents only, else NaN.",
    lambda x, *, exponent: scalar.pow(x, exponent),
    float_dtype,
    (
        Example(real(2, 3), exponent=3),
        Example(real(3), exponent=2),
        Example(real(3), exponent=1),
        Example(real(3), exponent=0),
        Example(positive(2, 1), exponent=-2),
        Example(positive(3), exponent=0.3),
        Example(positive(0, 3), exponent=-0.5),
    ),
    lambda g, x, y, exponent: (None if exponent == 0 else g * (pow(x, exponent - 1) * exponent),),
)


def pow(x: Any, y: Any) -> Tensor:
    """x to the power y, of floats; y is a tensor or a number. Shapes broadcast."""
    if isinstance(y, (int, float, np.integer, np.floating)) and isinstance(x, Tensor):
        return x if y == 1 and x.value.type.is_float else power(x, exponent=y)
    return _pow(x, y)


# functions
exp = pointwise("exp", "e to the power x.", lambda x: scalar.exp(x), float_dtype, ONE, lambda g, x, y: (g * y,))
log = pointwise(
    "log", "The natural logarithm.", lambda x: scalar.log(x), float_dtype, POSITIVE, lambda g, x, y: (g / x,)
)
sqrt = pointwise(
    "sqrt", "The square root.", lambda x: scalar.sqrt(x), float_dtype, POSITIVE, lambda g, x, y: (g / (y + y),)
)
expm1 = pointwise(
    "expm1",
    "e^x - 1, also where that is near 0.",
    lambda x: scalar.expm1(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g * (y + 1.0),),
)
log1p = pointwise(
    "log1p",
    "log(1 + x), also where x is near 0.",
    lambda x: scalar.log1p(x),
    float_dtype,
    POSITIVE,
    lambda g, x, y: (g / (x + 1.0),),
)
rsqrt = pointwise(
    "rsqrt",
    "1 / sqrt(x).",
    lambda x: scalar.rsqrt(x),
    float_dtype,
    POSITIVE,
    lambda g, x, y: (g * y * y * y * -0.5,),
)
tanh = pointwise(
    "tanh",
    "The hyperbolic tangent.",
    lambda x: scalar.tanh(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g - g * y * y,),
    half=Half(),
)
sigmoid = pointwise(
    "sigmoid",
    "1 / (1 + e^-x), without overflow.",
    lambda x: scalar.sigmoid(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g * y - g * y * y,),
    half=Half(),
)
softplus = pointwise(
    "softplus",
    "log(1 + e^x), without overflow.",
    lambda x: scalar.softplus(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g * sigmoid(x),),
)
sin: Op = pointwise(
    "sin", "The sine of x in radians.", lambda x: scalar.sin(x), float_dtype, ONE, lambda g, x, y: (g * cos(x),)
)
cos: Op = pointwise(
    "cos", "The cosine of x in radians.", lambda x: scalar.cos(x), float_dtype, ONE, lambda g, x, y: (-(g * sin(x)),)
)
tan = pointwise(
    "tan",
    "The tangent of x in radians.",
    lambda x: scalar.tan(x),
    float_dtype,
    (Example(Sample((2, 3), low=-1.2, high=1.2)), Example(Sample((), low=-1.2, high=1.2)), Example(real(0, 3))),
    lambda g, x, y: (g + g * y * y,),
)
PROPER = tuple(Example(Sample(shape, low=-0.9, high=0.9)) for shape in ((2, 2), (), (0, 3), (3, 1)))
asin = pointwise(
    "asin",
    "The angle in radians between -pi/2 and pi/2 whose sine is x.",
    lambda x: scalar.asin(x),
    float_dtype,
    PROPER,
    lambda g, x, y: (g * rsqrt(1.0 - x * x),),
)
acos = pointwise(
    "acos",
    "The angle in radians between 0 and pi whose cosine is x.",
    lambda x: scalar.acos(x),
    float_dtype,
    PROPER,
    lambda g, x, y: (-(g * rsqrt(1.0 - x * x)),),
)
atan = pointwise(
    "atan",
    "The angle in radians between -pi/2 and pi/2 whose tangent is x.",
    lambda x: scalar.atan(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g / (x * x + 1.0),),
)
sinh: Op = pointwise(
    "sinh", "The hyperbolic sine.", lambda x: scalar.sinh(x), float_dtype, ONE, lambda g, x, y: (g * cosh(x),)
)
cosh: Op = pointwise(
    "cosh", "The hyperbolic cosine.", lambda x: scalar.cosh(x), float_dtype, ONE, lambda g, x, y: (g * sinh(x),)
)
erf = pointwise(
    "erf",
    "The error function, 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x. The reference is the C library's in"
    " float64 (within one unit of its last place), rounded once to the dtype of x.",
    lambda x: scalar.erf(x),
    float_dtype,
    ONE,
    lambda g, x, y: (g * exp(-(x * x)) * scalar.TWO_OVER_ROOT_PI,),
)
relu: Op = pointwise(
    "relu",
    "x where it is above 0, else 0; NaN stays NaN. The derivative at 0 is 0.",
    lambda x: scalar.maximum(x, 0),
    float_dtype,
    ONE,
    lambda g, x, y: (where(x <= 0, 0.0, g),),
    channels=each_number("positive"),
    half=Half(),
)


# steps
floor, ceil, trunc, round = (
    pointwise(name, f"{doc} The gradient is 0 everywhere.", function, float_dtype, ONE, lambda g, x, y: (None,))
    for name, doc, function in (
        ("floor", "The next whole number at or below x.", lambda x: scalar.floor(x)),
        ("ceil", "The next whole number at or above x.", lambda x: scalar.ceil(x)),
        ("trunc", "x without its fraction.", lambda x: scalar.trunc(x)),
        ("round", "The nearest whole number, and the even one of two.", lambda x: scalar.round(x)),
    )
)


def clip_types(x: Type, /, low: Any = None, high: Any = None) -> Type:
    """x where it lies between two numbers, else the nearer one; None bounds nothing. high wins where low is above it.

    NaN stays NaN. The gradient passes where x lies between them, the bounds included, and is 0 elsewhere.
    """
    number_dtype(x)
    return x


def clip_canonical(x: Type, low: Any, high: Any) -> dict[str, Any]:
    bounds = {"low": low, "high": high}
    for name, bound in bounds.items():
        if bound is None or bound in (-math.inf, math.inf):
            expect(bound != {"low": math.inf, "high": -math.inf}[name], "{} is {}: nothing would be left", name, bound)
            bounds[name] = None
        elif x.is_float:
            bounds[name] = finite(name, bound)
        else:
            bound = whole(bound, f"{name} of integers")
            limits = np.iinfo(x.dtype)
            expect(limits.min <= bound <= limits.max, "{} is no number of dtype {}: {}", name, x.dtype, bound)
            bounds[name] = bound
    expect(bounds != {"low": None, "high": None}, "needs a low or a high bound")
    return bounds


def clip_expression(x: Any, low: Any, high: Any) -> Any:
    raised = x if low is None else scalar.maximum(x, low)
    return raised if high is None else scalar.minimum(raised, high)


def clip_gradient(gs: Any, xs: Any, ys: Any, low: Any, high: Any) -> tuple[Any]:
    g, x = gs[0], xs[0]
    if low is not None:
        g = where(x < low, 0.0, g)
    return (g if high is None else where(x > high, 0.0, g),)


clip: Op = Op(
    "clip",
    clip_types,
    clip_expression,
    clip_gradient,
    canonical=clip_canonical,
    expression=clip_expression,
    half=Half(),
    examples=(
        Example(real(2, 3), low=-1, high=0.5),
        Example(real(0, 3), low=0.25),
        Example(real(), high=0),
        Example(real(3, 1), low=0, high=0),
        Example(integers(3, below=9), low=2, high=5),
    ),
)

# comparison and logic
equal = pointwise(
    "equal", "Whether x is y.", lambda x, y: scalar.equal(x, y), comparison_dtype, TWO + WHOLE, commutative=True
)
less = pointwise("less", "Whether x < y.", lambda x, y: x < y, comparison_dtype, TWO + WHOLE)
less_equal = pointwise("less_equal", "Whether x <= y.", lambda x, y: x <= y, comparison_dtype, TWO + WHOLE)
BOOLS = (Example(booleans(2, 3), booleans(3)), Example(booleans(0), booleans()))
logical_and = pointwise(
    "logical_and", "x and y, of bools.", lambda x, y: scalar.logical_and(x, y), logical_dtype, BOOLS, commutative=True
)
logical_or = pointwise(
    "logical_or", "x or y, of bools.", lambda x, y: scalar.logical_or(x, y), logical_dtype, BOOLS, commutative=True
)
logical_xor = pointwise(
    "logical_xor",
    "x or y but not both, of bools.",
    lambda x, y: scalar.logical_xor(x, y),
    logical_dtype,
    BOOLS,
    commutative=True,
)
logical_not = pointwise(
    "logical_not", "not x, of bools.", lambda x: scalar.logical_not(x), logical_dtype, (Example(booleans(2, 3)),)
)
isnan = pointwise("isnan", "Whether x is not a number.", lambda x: scalar.isnan(x), question_dtype, ONE)


def _is_infinite(x: Any, *, detect_positive: bool = True, detect_negative: bool = True) -> Any:
    found = scalar.isinf(x)
    if not detect_positive:
        found = scalar.logical_and(found, x < 0)
    return found if detect_negative else scalar.logical_and(found, x > 0)


isinf = pointwise(
    "isinf",
    "Whether x is an infinity, of the signs that are to be detected.",
    _is_infinite,
    question_dtype,
    (
        *ONE,
        Example(real(3), detect_positive=False),
        Example(real(3), detect_negative=False),
        Example(real(3), detect_positive=False, detect_negative=False),
    ),
    attribute=flag,
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
    half=Half(),
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


stop_gradient = Op(
    "stop_gradient",
    _same,
    lambda x: x,
    lambda gs, xs, ys: (None,),
    flops=no_flops,
    in_order=True,
    channels=each_number("any", shift=True),
    half=Half(),
    examples=ONE,
)


def not_equal(x: Any, y: Any) -> Tensor:
    """Whether x is not y. Shapes broadcast."""
    return logical_not(equal(x, y))


def greater(x: Any, y: Any) -> Tensor:
    """Whether x > y. Shapes broadcast."""
    return less(y, x)


def greater_equal(x: Any, y: Any) -> Tensor:
    """Whether x >= y. Shapes broadcast."""
    return less_equal(y, x)


def isfinite(x: Any) -> Tensor:
    """Whether x is neither NaN nor an infinity, of floats."""
    return logical_not(logical_or(isnan(x), isinf(x)))
