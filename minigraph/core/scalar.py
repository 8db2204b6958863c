"""Scalar expressions: a pointwise op is written once, as a function of numbers.

Called on arrays the function is the op's reference, on exact numbers it is what proofs run on, and on `Scalar`s it
yields an expression that can be counted, and printed in another language. The functions below serve all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)  # erf'(0), rounded: proofs and gradient rules use this very number


@dataclass(frozen=True)
class Scalar:
    """An expression: op "var" (args: a name), "const" (a number), "cast" (a dtype, an expression), or a function."""

    op: str
    args: tuple[Any, ...]

    # fmt: off (one formula a line)
    def __add__(self, other: Any) -> Scalar:
        return _node("add", self, other)

    def __radd__(self, other: Any) -> Scalar:
        return _node("add", other, self)

    def __sub__(self, other: Any) -> Scalar:
        return _node("sub", self, other)

    def __rsub__(self, other: Any) -> Scalar:
        return _node("sub", other, self)

    def __mul__(self, other: Any) -> Scalar:
        return _node("mul", self, other)

    def __rmul__(self, other: Any) -> Scalar:
        return _node("mul", other, self)

    def __truediv__(self, other: Any) -> Scalar:
        return _node("div", self, other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return _node("div", other, self)

    def __neg__(self) -> Scalar:
        return _node("neg", self)

    def __lt__(self, other: Any) -> Scalar:
        return _node("less", self, other)

    def __le__(self, other: Any) -> Scalar:
        return _node("less_equal", self, other)

    def __gt__(self, other: Any) -> Scalar:
        return _node("less", other, self)

    def __ge__(self, other: Any) -> Scalar:
        return _node("less_equal", other, self)

    # fmt: on

    def operations(self) -> int:
        """How many arithmetic operations one evaluation takes."""
        if self.op in ("var", "const"):
            return 0
        return (self.op != "cast") + sum(a.operations() for a in self.args if isinstance(a, Scalar))


def var(name: str) -> Scalar:
    return Scalar("var", (name,))


def _node(op: str, *args: Any) -> Scalar:
    return Scalar(op, tuple(a if isinstance(a, Scalar) else Scalar("const", (a,)) for a in args))


def _function(name: str, on_floats: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function on arrays of floats; the first number's own method on exact numbers; a node on Scalars."""

    def function(*xs: Any) -> Any:
        if any(isinstance(x, Scalar) for x in xs):
            return _node(name, *xs)
        if not any(map(_is_exact, xs)):
            return on_floats(*xs)
        return np.frompyfunc(lambda number, *others: getattr(number, name)(*others), len(xs), 1)(*xs)

    function.__name__ = name
    return function


def _stable_sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + e^-x), with e^-|x| so that nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _stable_softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), where nothing overflows and small answers keep their digits."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Any) -> np.ndarray:
    """NumPy has none: the C library's, in float64, rounded once to the dtype of x."""
    x = np.asarray(x)
    return np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size).reshape(x.shape).astype(x.dtype)


exp = _function("exp", np.exp)
log = _function("log", np.log)
sqrt = _function("sqrt", np.sqrt)
tanh = _function("tanh", np.tanh)
sin = _function("sin", np.sin)
cos = _function("cos", np.cos)
sigmoid = _function("sigmoid", _stable_sigmoid)
softplus = _function("softplus", _stable_softplus)
expm1 = _function("expm1", np.expm1)
log1p = _function("log1p", np.log1p)
rsqrt = _function("rsqrt", lambda x: 1 / np.sqrt(x))
tan = _function("tan", np.tan)
asin = _function("asin", np.arcsin)
acos = _function("acos", np.arccos)
atan = _function("atan", np.arctan)
sinh = _function("sinh", np.sinh)
cosh = _function("cosh", np.cosh)
erf = _function("erf", _erf)
sign = _function("sign", np.sign)
floor = _function("floor", np.floor)
ceil = _function("ceil", np.ceil)
round = _function("round", np.rint)
trunc = _function("trunc", np.trunc)
pow = _function("pow", np.power)
mod = _function("mod", np.mod)
fmod = _function("fmod", np.fmod)


def isnan(x: Any) -> Any:
    """Whether x is not a number; exact numbers always are one."""
    return _node("isnan", x) if isinstance(x, Scalar) else _never(x) if _is_exact(x) else np.isnan(x)


def isinf(x: Any) -> Any:
    """Whether x is an infinity of either sign; exact numbers never are."""
    return _node("isinf", x) if isinstance(x, Scalar) else _never(x) if _is_exact(x) else np.isinf(x)


def _is_exact(x: Any) -> bool:
    return np.asarray(x).dtype == object


def _never(x: Any) -> np.ndarray:
    return np.zeros(np.shape(x), bool)


def where(condition: Any, x: Any, y: Any) -> Any:
    return _node("where", condition, x, y) if isinstance(condition, Scalar) else np.where(condition, x, y)


def _alike(x: Any, y: Any) -> tuple[Any, Any]:
    """Where one is of exact numbers the other too, so that what is chosen is one and knows the functions."""
    return (x, x * 0 + y) if _is_exact(x) and not _is_exact(y) else (x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger one; NaN if either is."""
    return _node("max", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.maximum(*_alike(x, y))


def minimum(x: Any, y: Any) -> Any:
    """The smaller one; NaN if either is."""
    return _node("min", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.minimum(*_alike(x, y))


def absolute(x: Any) -> Any:
    return _node("abs", x) if isinstance(x, Scalar) else np.abs(x)


def equal(x: Any, y: Any) -> Any:
    return _node("equal", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.equal(x, y)


def logical_and(x: Any, y: Any) -> Any:
    return _node("and", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.logical_and(x, y)


def logical_or(x: Any, y: Any) -> Any:
    return _node("or", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.logical_or(x, y)


def logical_xor(x: Any, y: Any) -> Any:
    return _node("xor", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.logical_xor(x, y)


def logical_not(x: Any) -> Any:
    return _node("not", x) if isinstance(x, Scalar) else np.logical_not(x)


def cast(x: Any, dtype: str) -> Any:
    return Scalar("cast", (dtype, x)) if isinstance(x, Scalar) else np.asarray(x).astype(dtype)


def tf32(x: Any) -> Any:
    """The nearest float32 number with 10 bits behind the point, of two the farther from 0; other dtypes as they are.

    Of numbers that are exact, or float64 where a rewrite is tried, nothing is rounded: it is float32 that TF32 stands
    in for, and what is narrower has no more bits.
    """
    if isinstance(x, Scalar):
        return _node("tf32", x)
    x = np.asarray(x)
    if x.dtype != np.float32:
        return x
    bits = np.where(np.isnan(x), np.float32(0), x).view(np.uint32)
    return np.where(np.isnan(x), x, ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32))
