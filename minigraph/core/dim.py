"""Sizes of axes: integers, and polynomials in named symbols for what is known only at run time.

A `Dim` is kept in normal form (a sorted sum of monomials with integer coefficients), so equal sizes compare equal:
2*(N + 1) == N + N + 2. A constant is always a plain int. Symbols stand for integers of 0 or more.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any, Union

import numpy as np

from minigraph.core.errors import GraphError, expect

Size = Union[int, "Dim"]
Shape = tuple[Size, ...]
Monomial = tuple[str, ...]  # ("H", "N", "N") is H*N*N; () is the constant


class Dim:
    """A polynomial that is not constant. Supports + - *, // by an int, == and hash; `bind` puts numbers in."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]):
        self.terms = terms
        self._hash = hash(terms)

    @staticmethod
    def symbol(name: str) -> Dim:
        expect(
            name.isidentifier() and name not in ("nan", "inf"),
            'a symbolic size is named like a variable ("N"), not {!r}',
            name,
        )
        return Dim((((name,), 1),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Size) -> Size:
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return _normal(total)

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, int):  # by far the most frequent case
            return Dim(tuple([(monomial, factor * other) for monomial, factor in self.terms])) if other else 0
        total: dict[Monomial, int] = {}
        for m, a in self.terms:
            for n, b in _terms(other):
                key = tuple(sorted(m + n))
                total[key] = total.get(key, 0) + a * b
        return _normal(total)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + -1 * other

    def __rsub__(self, other: Size) -> Size:
        return -1 * self + other

    def __floordiv__(self, divisor: int) -> Size:
        """Exact where the symbols' coefficients divide.

        (2*H - 1) // 2 == H - 1. Otherwise the size is not a polynomial.
        """
        quotient: dict[Monomial, int] = {}
        for monomial, factor in self.terms:
            expect(
                not monomial or factor % divisor == 0,
                "({}) // {} is not a polynomial; write the size as a multiple of {}",
                self,
                divisor,
                divisor,
            )
            quotient[monomial] = factor // divisor
        return _normal(quotient)

    def _order(self, other: object) -> bool:
        raise GraphError(f"the size {self} is known only at run time and cannot be compared with {other}")

    __lt__ = __le__ = __gt__ = __ge__ = _order

    def bind(self, symbols: Mapping[str, int]) -> int:
        """The number that this size has for these values of its symbols."""
        total = 0
        for monomial, factor in self.terms:
            for symbol in monomial:
                expect(symbol in symbols, "no input tells how large {} is", symbol)
                factor *= symbols[symbol]
            total += factor
        return total

    def symbols(self) -> set[str]:
        return {symbol for monomial, _ in self.terms for symbol in monomial}

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            body = "*".join(([str(abs(factor))] if abs(factor) != 1 or not monomial else []) + list(monomial))
            text += ("-" if factor < 0 else "+" if text else "") + body
        return text

    __repr__ = __str__


def _terms(size: Size) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _normal(total: Mapping[Monomial, int]) -> Size:
    terms = tuple(sorted(((m, f) for m, f in total.items() if f), key=lambda term: (-len(term[0]), term[0])))
    if not terms:
        return 0
    return terms[0][1] if terms[0][0] == () else Dim(terms)


def size(given: Any) -> Size:
    """An axis size from what a user writes: an int, "N", "49*N + 1", or a Dim."""
    if isinstance(given, (int, Dim)) and not isinstance(given, bool):
        return given
    if isinstance(given, str):
        return _parse(given)
    try:
        if isinstance(given, (bool, np.bool_)):
            raise TypeError
        return given.__index__()  # NumPy integers
    except (AttributeError, TypeError):
        raise GraphError(f'an axis size is an int or a symbol such as "N", not {given!r}') from None


def known(given: Size, what: str) -> int:
    """A size that must be a number before anything runs."""
    expect(isinstance(given, int), "{} must be known when the graph is built, not {}", what, given)
    return given  # type: ignore[return-value]


def shape_of(given: Any) -> Shape:
    """A shape from what a user writes: a sequence of sizes, or one size."""
    if isinstance(given, Iterable) and not isinstance(given, str):
        return tuple(size(n) for n in given)
    return (size(given),)


def _parse(text: str) -> Size:
    def walk(tree: ast.expr) -> Size:
        if isinstance(tree, ast.Constant) and type(tree.value) is int:
            return tree.value
        if isinstance(tree, ast.Name):
            return Dim.symbol(tree.id)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return -walk(tree.operand)
        if isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub, ast.Mult)):
            a, b = walk(tree.left), walk(tree.right)
            return a + b if isinstance(tree.op, ast.Add) else a - b if isinstance(tree.op, ast.Sub) else a * b
        raise GraphError(f"{text!r} is not a size: sizes are sums and products of integers and symbols")

    try:
        return walk(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError):
        raise GraphError(f"{text!r} is not a size: sizes are sums and products of integers and symbols") from None


def product(sizes: Iterable[Size]) -> Size:
    number: int = 1
    symbolic: list[Dim] = []
    for n in sizes:
        if isinstance(n, Dim):
            symbolic.append(n)
        else:
            number *= n
    result: Size = number
    for size in symbolic:
        result = size * result
    return result


def divide(total: Size, part: Size) -> Size:
    """total / part where that is exact: 196*N over N is 196. Raises GraphError where it is not."""
    if isinstance(part, Dim):
        if total == 0:
            return 0
        expect(len(part.terms) == 1, "cannot divide {} by {}", total, part)
        (divisor, factor), quotient = part.terms[0], {}
        for monomial, coefficient in _terms(total):
            left = list(monomial)
            for symbol in divisor:
                expect(symbol in left, "cannot divide {} by {}", total, part)
                left.remove(symbol)
            expect(coefficient % factor == 0, "cannot divide {} by {}", total, part)
            quotient[tuple(left)] = coefficient // factor
        return _normal(quotient)
    expect(part != 0 and all(f % part == 0 for _, f in _terms(total)), "cannot divide {} by {}", total, part)
    return total // part


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcasting of shapes; a symbol meets itself, 1, and nothing else."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    result: list[Size] = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if size == 1 or size == result[axis]:
                continue
            if result[axis] != 1:
                sizes = sorted({str(result[axis]), str(size)})
                given = " and ".join(map(show, shapes))
                raise GraphError(f"shapes {given} do not broadcast: axis {axis - rank} has sizes {' and '.join(sizes)}")
            result[axis] = size
    return tuple(result)


def bind(value: Any, symbols: Mapping[str, int]) -> Any:
    """`value` with each Dim in it, tuples included, replaced by its number."""
    if isinstance(value, Dim):
        return value.bind(symbols)
    return tuple(bind(v, symbols) for v in value) if type(value) is tuple else value


def places(value: Any, symbols: Mapping[str, int]) -> Any:
    """As bind, for attributes: a place before the beginning (N - 3 where N is 2) is the beginning, as in Python."""
    if isinstance(value, Dim):
        bound = value.bind(symbols)
        return bound if isinstance(bound, Dim) else max(0, bound)  # a symbol may stand for another symbol
    return tuple(places(v, symbols) for v in value) if type(value) is tuple else value


def symbols_of(shape: Shape) -> set[str]:
    found: set[str] = set()
    for n in shape:
        if isinstance(n, Dim):
            found.update(*[monomial for monomial, _ in n.terms])
    return found


def symbolic(value: Any) -> bool:
    return isinstance(value, Dim) or (type(value) is tuple and any(map(symbolic, value)))


def solve(declared: Shape, actual: tuple[int, ...], symbols: dict[str, int]) -> bool:
    """Whether an array of shape `actual` fits; learns the symbols that stand alone (N) or linearly (2*N + 1)."""
    if len(declared) != len(actual):
        return False
    learned = dict(symbols)
    waiting = list(zip(declared, actual))
    while waiting:
        left = [(want, got) for want, got in waiting if not _learn(want, got, learned)]
        if len(left) == len(waiting):
            return False
        waiting = left
    symbols.update(learned)
    return True


def _learn(want: Size, got: int, symbols: dict[str, int]) -> bool:
    """Whether `want` is `got`, which may tell its one unknown symbol."""
    if not isinstance(want, Dim):
        return want == got
    unknown = want.symbols() - symbols.keys()
    if len(unknown) == 1:
        name = unknown.pop()
        base = want.bind({**symbols, name: 0})
        slope = want.bind({**symbols, name: 1}) - base
        if slope and (got - base) % slope == 0 and (got - base) // slope >= 0:
            trial = {**symbols, name: (got - base) // slope}
            if want.bind(trial) == got:
                symbols.update(trial)
                return True
        return False
    return not unknown and want.bind(symbols) == got


def show(shape: Iterable[Any]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
