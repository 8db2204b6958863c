"""Printed scalar expressions: a `Scalar` tree as one C expression that means what the tree means on NumPy arrays.

Each subexpression has a dtype by NumPy's promotion, and is printed in the C type that computes it. Python numbers are
weak: they take the dtype that they meet, unless it has no such numbers (floats meeting integers make float64), and are
rounded to it before they are printed. Where C's operators do not say what NumPy means, a function of
minigraph/backends/c/scalar.h does: `max_float`, `mod_int64_t`.

Narrow floats are float32 as soon as they are read. A narrow result is rounded by who stores it; within an expression
only casts round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.core.dtypes import DTYPES, FLOATS, NARROW, dtype_of, wide_dtype
from minigraph.core.errors import GraphError, expect
from minigraph.core.scalar import Scalar

# the C type that computes numbers of each dtype
COMPUTED = {dtype: f"{dtype}_t" for dtype in DTYPES}
COMPUTED.update({**dict.fromkeys(NARROW, "float"), "float32": "float", "float64": "double", "bool": "bool"})
STORED = {**COMPUTED, "float16": "half", "bfloat16": "bfloat16"}  # and the one in which they lie in memory

ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
COMPARISONS = {"less": "<", "less_equal": "<=", "equal": "=="}
LOGIC = {"and": "&", "or": "|", "xor": "^"}  # without the branches of && and ||
OF_NUMBERS = frozenset({"max", "min", "abs", "sign", "pow", "mod", "fmod"})  # of floats and integers
OF_FLOATS = frozenset(
    {"exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "softplus", "expm1", "log1p", "erf", "sin", "cos", "tan"}
    | {"asin", "acos", "atan", "sinh", "cosh", "floor", "ceil", "round", "trunc", "isnan", "isinf"}
    | {"tf32"}
)
POWERS = {2: "square", 3: "cube"}  # products instead of pow


def loaded(text: str, dtype: str) -> str:
    """A number that lies in memory, in the type that computes it."""
    return f"float_of_{STORED[dtype]}({text})" if dtype in NARROW else text


def stored(text: str, dtype: str) -> str:
    """A number of any type as it lies in memory: narrow floats are rounded."""
    return f"{STORED[dtype]}_of({text})" if dtype in NARROW else f"({STORED[dtype]}){text}"


def rounded(text: str, dtype: str) -> str:
    """A number of any type, rounded to a dtype, in the type that computes it."""
    return loaded(stored(text, dtype), dtype)


def print_c(scalar: Any, names: Mapping[str, str], dtypes: Mapping[str, str], result: str) -> str:
    """One C expression for a `Scalar` or a Python number, in the type that computes numbers of dtype `result`.

    names: the C text of each variable, such as `x` or `x[i]`. dtypes: its NumPy dtype; a narrow one is a C `float`.
    GraphError for what NumPy does not compute either: a number that its dtype has not, arithmetic of bools; and for
    functions of floats of integers.
    """
    printer = _Printer(names, {name: dtype_of(dtype) for name, dtype in dtypes.items()})
    return _as(printer.term(scalar), dtype_of(result))


def literal(number: bool | int | float, dtype: str) -> str:
    """A Python number in C, rounded to a dtype; floats in integers lose their fraction. Negative ones in brackets."""
    if dtype == "bool":
        return "true" if number else "false"
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            rounded = np.dtype(dtype).type(number)
        if not np.isfinite(rounded):
            return "NAN" if math.isnan(rounded) else "INFINITY" if rounded > 0 else "(-INFINITY)"
        text = repr(float(rounded)) if dtype == "float64" else str(np.float32(rounded)) + "f"
    else:
        expect(math.isfinite(number), "{} is no number of dtype {}", number, dtype)
        whole, limits = int(number), np.iinfo(dtype)
        expect(limits.min <= whole <= limits.max, "{} is no number of dtype {}", number, dtype)
        text = "INT64_MIN" if whole == -(2**63) else f"{whole}u" if whole >= 2**63 else str(whole)
    return f"({text})" if text.startswith("-") else text


@dataclass(frozen=True)
class _Term:
    """An expression in C that may stand beside any operator, and its dtype; or a Python number, which has none yet."""

    text: str = ""
    dtype: str = ""
    number: bool | int | float | None = None


def _as(term: _Term, dtype: str) -> str:
    """A term in the type that computes numbers of a dtype, as NumPy's astype."""
    if term.number is not None:
        return literal(term.number, dtype)
    there, here = COMPUTED[dtype], COMPUTED[term.dtype]
    if (term.dtype, dtype) == ("float64", "float16"):
        return f"float_for_half({term.text})"  # will be rounded again
    if here == there:
        return term.text
    if dtype == "bool":
        return f"({term.text} != 0)"
    if term.dtype in FLOATS and dtype not in FLOATS:
        return f"{there}_of_{here}({term.text})"
    return f"({there}){term.text}"


def _common(terms: Sequence[_Term]) -> str:
    """The dtype in which NumPy computes with these terms."""
    return np.result_type(*(np.dtype(t.dtype) if t.number is None else t.number for t in terms)).name


@dataclass(frozen=True)
class _Printer:
    names: Mapping[str, str]
    dtypes: Mapping[str, str]

    def term(self, scalar: Any) -> _Term:
        if not isinstance(scalar, Scalar):
            expect(isinstance(scalar, (bool, int, float)), "{!r} is no Python number", scalar)
            return _Term(number=scalar)
        op, args = scalar.op, scalar.args
        if op == "const":
            return self.term(args[0])
        if op == "var":
            expect(args[0] in self.names and args[0] in self.dtypes, "there is no variable {!r}", args[0])
            return _Term(self.names[args[0]], wide_dtype(self.dtypes[args[0]]))
        if op == "cast":
            return _cast(self.term(args[1]), dtype_of(args[0]))
        return _applied(op, [self.term(a) for a in args])


def _cast(term: _Term, dtype: str) -> _Term:
    text = _as(term, dtype)
    rounds = dtype in NARROW and term.dtype != "bool" and term.number is None
    return _Term(rounded(text, dtype) if rounds else text, wide_dtype(dtype))


def _applied(op: str, terms: Sequence[_Term]) -> _Term:
    if op in LOGIC:
        x, y = (_as(t, "bool") for t in terms)
        return _Term(f"({x} {LOGIC[op]} {y})", "bool")
    if op == "not":
        return _Term(f"(!{_as(terms[0], 'bool')})", "bool")
    if op == "where":
        dtype = _common(terms[1:])
        texts = [_as(terms[0], "bool"), *(_as(t, dtype) for t in terms[1:])]
        return _Term(f"where_{COMPUTED[dtype]}({', '.join(texts)})", dtype)
    dtype = _common(terms)
    if op == "tf32" and dtype != "float32":
        return terms[0]  # it rounds float32 alone
    if op in COMPARISONS:
        x, y = (_as(t, dtype) for t in terms)
        return _Term(f"({x} {COMPARISONS[op]} {y})", "bool")
    return _computed(op, terms, "float64" if op == "div" and dtype not in FLOATS else dtype)


def _computed(op: str, terms: Sequence[_Term], dtype: str) -> _Term:
    """Arithmetic and functions of numbers, all of one dtype."""
    expect(dtype != "bool", "{} needs numbers, not bools", op)
    expect(dtype in FLOATS or op not in OF_FLOATS, "{} needs floats, not {}", op, dtype)
    texts, kind = [_as(t, dtype) for t in terms], COMPUTED[dtype]
    if op == "pow" and dtype in FLOATS and terms[1].number in POWERS:
        return _Term(f"{POWERS[int(terms[1].number or 0)]}_{kind}({texts[0]})", dtype)
    if op in OF_NUMBERS or op in OF_FLOATS:
        return _Term(f"{op}_{kind}({', '.join(texts)})", "bool" if op in ("isnan", "isinf") else dtype)
    if op in ARITHMETIC:
        text = f"({texts[0]} {ARITHMETIC[op]} {texts[1]})"
    elif op == "neg":
        text = f"(-{texts[0]})"
    else:
        raise GraphError(f"there is no C for the function {op!r}")
    return _Term(text if dtype in FLOATS or dtype.endswith("64") else f"({kind}){text}", dtype)  # C widens to int
