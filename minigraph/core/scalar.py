"""Scalar expressions: a pointwise op is written once, as a function of numbers.

Called on arrays the function is the op's reference, on exact numbers it is what proofs run on, and on `Scalar`s it
yields an expression that can be counted, and printed in another language. The functions below serve all three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


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
    """NumPy's function on arrays of floats; the number's own method on exact numbers; a node on Scalars."""

    def function(x: Any) -> Any:
        if isinstance(x, Scalar):
            return _node(name, x)
        x = np.asarray(x)
        if x.dtype != object:
            return on_floats(x)
        return np.frompyfunc(lambda number: getattr(number, name)(), 1, 1)(x)

    function.__name__ = name
    return function


def _stable_sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + e^-x), with e^-|x| so that nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


exp = _function("exp", np.exp)
log = _function("log", np.log)
sqrt = _function("sqrt", np.sqrt)
tanh = _function("tanh", np.tanh)
sin = _function("sin", np.sin)
cos = _function("cos", np.cos)
sigmoid = _function("sigmoid", _stable_sigmoid)


def where(condition: Any, x: Any, y: Any) -> Any:
    return _node("where", condition, x, y) if isinstance(condition, Scalar) else np.where(condition, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger one; NaN if either is."""
    return _node("max", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.maximum(x, y)


def equal(x: Any, y: Any) -> Any:
    return _node("equal", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.equal(x, y)


def logical_and(x: Any, y: Any) -> Any:
    return _node("and", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.logical_and(x, y)


def logical_or(x: Any, y: Any) -> Any:
    return _node("or", x, y) if isinstance(x, Scalar) or isinstance(y, Scalar) else np.logical_or(x, y)


def logical_not(x: Any) -> Any:
    return _node("not", x) if isinstance(x, Scalar) else np.logical_not(x)


def cast(x: Any, dtype: str) -> Any:
    return Scalar("cast", (dtype, x)) if isinstance(x, Scalar) else np.asarray(x).astype(dtype)
