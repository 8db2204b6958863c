"""Numbers that do not round, for proving that two graphs are one function and that a gradient is right.

`Modular`: integers modulo the prime 2^61 - 1, where + - * / are exact. `Rational`: fractions, where numbers also have
an order. In both, exp, log, tanh, ... are not arithmetic: each is an *unknown function*, which gives one argument one
random answer and promises nothing more. Two graphs that agree on random inputs of this kind agree as formulas, whatever
those functions are, but for a chance of about degree / 2^61 (Schwartz, Zippel).

Each number carries a slope: its derivative in the direction in which the inputs move. One run of the references so
    gives
a directional derivative J v, against which a gradient rule is held: <u, J v> = <J^T u, v>.

What is known of the functions besides: sqrt(a)*sqrt(a) = a, and the derivatives, which are formulas of the answers
(exp' = exp, tanh' = 1 - tanh^2, ...). Some are made of others: expm1 = exp - 1, tan = sin / cos, and powers with whole
exponents are products. Where a proof needs a root that does not exist, it raises Redraw: draw other
inputs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from typing import Any, ClassVar, TypeVar

import numpy as np

from minigraph.core.errors import GraphError
from minigraph.core.scalar import TWO_OVER_ROOT_PI

PRIME = 2**61 - 1
N = TypeVar("N", bound="Number")


class Outside(Exception):
    """Exact arithmetic of this kind cannot go on."""


class Redraw(Outside):
    """These inputs lead outside of the domain; others will not."""


class Undefined(Outside):
    """0 / 0, such as the mean of nothing, which machine numbers call NaN."""


class NeedsOrder(Outside):
    """A comparison of numbers that have no order."""


class Unknown:
    """One random answer for each function and argument, remembered. A proof makes one and drops it."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self._answers: dict[tuple[str, Any], Any] = {}

    def answer(self, function: str, argument: Any, draw: Callable[[], Any]) -> Any:
        key = function, argument
        if key not in self._answers:
            self._answers[key] = draw()
        return self._answers[key]


def _operation(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operation with another number, which is lifted into the field; arrays do it element by element themselves."""

    @wraps(method)
    def operate(self: Number, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else method(self, self.lift(other))

    return operate


class Number:
    """A value and its slope in a field. Subclasses say how a plain number enters the field and how to divide in it."""

    __slots__ = ("slope", "value", "world")
    value: Any
    slope: Any
    world: Unknown
    zero: ClassVar[Any] = 0

    def __init__(self, value: Any, slope: Any, world: Unknown):
        self.value, self.slope, self.world = value, slope, world

    @classmethod
    def field(cls, number: Any) -> Any:
        """A plain number as an element of the field."""
        raise NotImplementedError

    @classmethod
    def draw(cls, world: Unknown, low: float, high: float) -> Any:
        """A random element; where there is an order, between low and high."""
        raise NotImplementedError

    def _make(self: N, value: Any, slope: Any) -> N:
        return type(self)(value, slope, self.world)

    def _inverse(self) -> Any:
        raise NotImplementedError

    def lift(self: N, other: Any) -> N:
        return other if isinstance(other, Number) else self._make(self.field(other), 0)  # type: ignore[return-value]

    @_operation
    def __add__(self: N, other: N) -> N:
        return self._make(self.value + other.value, self.slope + other.slope)

    @_operation
    def __mul__(self: N, other: N) -> N:
        return self._make(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __neg__(self: N) -> N:
        return self._make(-self.value, -self.slope)

    @_operation
    def __sub__(self: N, other: N) -> N:
        return self + -other

    @_operation
    def __truediv__(self: N, other: N) -> N:
        inverse = other._inverse()
        value = self.value * inverse
        return self._make(value, (self.slope - value * other.slope) * inverse)

    @_operation
    def __rsub__(self: N, other: N) -> N:
        return other - self

    @_operation
    def __rtruediv__(self: N, other: N) -> N:
        return other / self

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        return bool(self.value == self.lift(other).value)

    __hash__ = None  # type: ignore[assignment]

    def _ordered(self, other: Any) -> tuple[Any, Any]:
        """Both values, to be compared; an infinity stays a float."""
        infinite = isinstance(other, float) and math.isinf(other)
        return self.value, other if infinite else self.lift(other).value

    def __lt__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        a, b = self._ordered(other)
        return bool(a < b)

    def __le__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        a, b = self._ordered(other)
        return bool(a <= b)

    def __gt__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        a, b = self._ordered(other)
        return bool(a > b)

    def __ge__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        a, b = self._ordered(other)
        return bool(a >= b)

    def __abs__(self: N) -> N:
        return -self if self < 0 else self

    def __repr__(self) -> str:
        return f"{self.value}" + (f"(+{self.slope}·t)" if self.slope else "")

    # functions: the answer, and the slope as a formula of it

    def _unknown(self, function: str, low: float = 0.25, high: float = 4.0, *others: Any) -> Any:
        """The answer for this number, or for it and others."""
        argument = (self.value, *others) if others else self.value
        return self.world.answer(function, argument, lambda: self.draw(self.world, low, high))

    def exp(self: N) -> N:
        answer = self._unknown("exp")
        return self._make(answer, self.slope * answer)

    def log(self: N) -> N:
        return self._make(self._unknown("log", -2, 2), self.slope * self._inverse())

    def tanh(self: N) -> N:
        answer = self._unknown("tanh", -1, 1)
        return self._make(answer, self.slope * (1 - answer * answer))

    def sigmoid(self: N) -> N:
        answer = self._unknown("sigmoid", 0, 1)
        return self._make(answer, self.slope * (answer - answer * answer))

    def sin(self: N) -> N:
        return self._make(self._unknown("sin", -1, 1), self.slope * self._unknown("cos", -1, 1))

    def cos(self: N) -> N:
        return self._make(self._unknown("cos", -1, 1), -self.slope * self._unknown("sin", -1, 1))

    def sqrt(self: N) -> N:
        root = self._root()
        return self._make(root, self.slope * self._make(2 * root, 0)._inverse())

    def _root(self) -> Any:
        raise NotImplementedError

    def rsqrt(self: N) -> N:
        return 1 / self.sqrt()

    def expm1(self: N) -> N:
        return self.exp() - 1

    def log1p(self: N) -> N:
        return (1 + self).log()

    def softplus(self: N) -> N:
        return self._make(self._unknown("softplus"), self.slope * self._unknown("sigmoid", 0, 1))

    def tan(self: N) -> N:
        return self.sin() / self.cos()

    def asin(self: N) -> N:
        slope = self._at_rest(lambda x: (1 - x * x).rsqrt())
        return self._make(self._unknown("asin", -1.5, 1.5), self.slope * slope)

    def acos(self: N) -> N:
        slope = self._at_rest(lambda x: (1 - x * x).rsqrt())
        return self._make(self._unknown("acos", 0, 3), -self.slope * slope)

    def atan(self: N) -> N:
        return self._make(self._unknown("atan", -1.5, 1.5), self.slope * self._at_rest(lambda x: 1 / (1 + x * x)))

    def sinh(self: N) -> N:
        return self._make(self._unknown("sinh", -4, 4), self.slope * self._unknown("cosh", 1, 4))

    def cosh(self: N) -> N:
        return self._make(self._unknown("cosh", 1, 4), self.slope * self._unknown("sinh", -4, 4))

    def erf(self: N) -> N:
        slope = self._at_rest(lambda x: (-(x * x)).exp() * TWO_OVER_ROOT_PI)
        return self._make(self._unknown("erf", -1, 1), self.slope * slope)

    def _at_rest(self: N, formula: Callable[[N], N]) -> Any:
        """The value of a formula of this number."""
        return formula(self._make(self.value, 0)).value

    def pow(self: N, exponent: Any) -> N:
        """self ** exponent: a product where the exponent is whole, else an unknown function of both.

        d(x^y) = y x^(y-1) dx + x^y log(x) dy. A plain y - 1 is subtracted as machine numbers are, so that a rule that
        does the same means the same power.
        """
        y = self.lift(exponent)
        value = self._power(y.value)
        slope = 0
        if self.slope != 0 and y.value != 0:
            less = self.lift(exponent - 1).value
            slope += y.value * self._power(less) * self.slope
        if y.slope != 0:
            slope += value * self._unknown("log", -2, 2) * y.slope
        return self._make(value, slope)

    def _power(self, exponent: Any) -> Any:
        """The value of self ** exponent, an element of the field."""
        whole = self.whole(exponent)
        if whole is None:
            return self._unknown("pow", 0.25, 4.0, exponent)
        return (self._inverse() if whole < 0 else self.value) ** abs(whole)

    @classmethod
    def whole(cls, element: Any) -> int | None:
        """An element of the field as an exponent to multiply out, if it is a small whole number."""
        raise NotImplementedError

    # steps: pieces without slope

    def sign(self: N) -> N:
        return self._make((self > 0) - (self < 0), 0)

    def floor(self: N) -> N:
        return self._make(math.floor(self._ordered(0)[0]), 0)

    def ceil(self: N) -> N:
        return -(-self).floor()

    def trunc(self: N) -> N:
        return self.ceil() if self < 0 else self.floor()

    def round(self: N) -> N:
        """Half to even."""
        return self._make(round(self._ordered(0)[0]), 0)

    def mod(self: N, other: Any) -> N:
        """With the sign of `other`, as Python's %."""
        return self - (self / other).floor() * other

    def fmod(self: N, other: Any) -> N:
        """With the sign of self, as C's fmod."""
        return self - (self / other).trunc() * other


class Modular(Number):
    __slots__ = ()

    def __init__(self, value: int, slope: int, world: Unknown):
        super().__init__(value % PRIME, slope % PRIME, world)

    @classmethod
    def field(cls, number: Any) -> int:
        fraction = _fraction(number)
        return fraction.numerator * pow(fraction.denominator, -1, PRIME)

    @classmethod
    def draw(cls, world: Unknown, low: float, high: float) -> int:
        return world.random.randrange(1, PRIME)

    def _inverse(self) -> int:
        if self.value == 0:
            raise Redraw("division by zero")
        return pow(self.value, -1, PRIME)

    def _ordered(self, other: Any) -> tuple[Any, Any]:
        raise NeedsOrder("numbers modulo a prime have no order; prove this one with Rational")

    @classmethod
    def whole(cls, element: int) -> int | None:
        near = element if element < PRIME // 2 else element - PRIME
        return near if abs(near) <= 64 else None

    def _root(self) -> int:
        root = pow(self.value, (PRIME + 1) // 4, PRIME)
        if root * root % PRIME != self.value or root == 0:
            raise Redraw("no square root")
        return self.world.answer("sqrt", self.value, lambda: root if self.world.random.random() < 0.5 else PRIME - root)


class Rational(Number):
    """Fractions. sqrt(a)*sqrt(a) = a holds where a is a square; elsewhere sqrt is an unknown function."""

    __slots__ = ()

    @classmethod
    def field(cls, number: Any) -> Fraction:
        return _fraction(number)

    @classmethod
    def draw(cls, world: Unknown, low: float, high: float) -> Fraction:
        return Fraction(low) + Fraction(high - low) * Fraction(world.random.randrange(1, 1_000_003), 1_000_003)

    def _inverse(self) -> Fraction:
        if self.value == 0:
            raise Redraw("division by zero")
        return 1 / Fraction(self.value)

    @classmethod
    def whole(cls, element: Any) -> int | None:
        return int(element) if element == int(element) and abs(element) <= 64 else None

    def _root(self) -> Any:
        value = Fraction(self.value)
        if value > 0:
            root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
            if root * root == value:
                return root
        return self._unknown("sqrt")


def _fraction(number: Any) -> Fraction:
    if isinstance(number, np.generic):
        number = number.item()
    try:
        return Fraction(number)
    except (ValueError, OverflowError):
        raise GraphError(f"{number} is not a number that exact arithmetic knows") from None


def lift(array: np.ndarray, kind: type[Number], world: Unknown) -> np.ndarray:
    """An array of floats or of a mixture of plain and exact numbers, as one of exact numbers with slope 0."""
    lifted = np.empty(array.shape, object)
    for index in np.ndindex(*array.shape):
        number = array[index]
        lifted[index] = number if isinstance(number, Number) else kind(kind.field(number), kind.zero, world)
    return lifted


def draw(
    shape: tuple[int, ...],
    kind: type[Number],
    world: Unknown,
    low: float = -2.0,
    high: float = 2.0,
    moving: bool = False,
) -> np.ndarray:
    """Random exact numbers; `moving` ones have random slopes."""
    array = np.empty(shape, object)
    for index in np.ndindex(*shape):
        slope = kind.draw(world, -2.0, 2.0) if moving else kind.zero
        array[index] = kind(kind.draw(world, low, high), slope, world)
    return array


def still(array: np.ndarray) -> np.ndarray:
    """The same numbers with slope 0."""
    result = np.empty(array.shape, object)
    for index in np.ndindex(*array.shape):
        number: Any = array[index]
        result[index] = type(number)(number.value, number.zero, number.world)
    return result
