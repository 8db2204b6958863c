"""Pointwise ops: their expressions, written node by node in the operators of ONNX.

Operators know few integers: the others are computed as int32 or int64, which hold them, and cast back. So is bfloat16,
as float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigraph.core.dtypes import FLOATS
from minigraph.core.ir import Node
from minigraph.core.scalar import Scalar, var
from minigraph.onnx.draft import Draft, Unwritable

HELD = {
    **dict.fromkeys(("int8", "int16", "uint8", "uint16", "bool"), "int32"),
    "uint32": "int64",
    "bfloat16": "float32",
}


def by_expression(draft: Draft, node: Node, *inputs: str) -> str:
    """Write a pointwise node as what its op's expression says."""
    names = [str(i) for i in range(len(inputs))]
    expression = node.op.expression(*map(var, names), **node.attrs)  # type: ignore[misc]
    given = {name: (x, value.type.dtype) for name, x, value in zip(names, inputs, node.inputs)}
    if not isinstance(expression, Scalar):
        expression = Scalar("const", (expression,))
    return _written(draft, expression, given, node.outputs[0].type.dtype, {})


def _written(draft: Draft, e: Scalar, given: dict[str, tuple[str, str]], dtype: str, done: dict[Scalar, str]) -> str:
    """The name of what an expression is; a number in it is of this dtype."""
    if e.op == "var":
        return given[e.args[0]][0]
    if e.op == "const":
        return draft.array(e.args[0], dtype)
    if e not in done:
        if e.op == "cast":
            before = _dtype(e.args[1], given) or dtype
            done[e] = draft.cast(_written(draft, e.args[1], given, before, done), before, e.args[0])
        else:
            inner = _dtype_inside(e, given) or dtype
            inputs = [
                _written(draft, a, given, "bool" if e.op == "where" and i == 0 else inner, done)
                for i, a in enumerate(e.args)
            ]
            if e.op not in FUNCTIONS:
                raise Unwritable(f"ONNX has no function {e.op}")
            done[e] = FUNCTIONS[e.op](draft, inner, *inputs)
    return done[e]


ANSWERS = ("less", "less_equal", "equal", "and", "or", "xor", "not", "isnan", "isinf")


def _dtype(e: Scalar, given: dict[str, tuple[str, str]]) -> str | None:
    """The dtype of an expression; None of a number, which takes that of the others."""
    if e.op in ("var", "cast"):
        return given[e.args[0]][1] if e.op == "var" else e.args[0]
    return "bool" if e.op in ANSWERS else None if e.op == "const" else _dtype_inside(e, given)


def _dtype_inside(e: Scalar, given: dict[str, tuple[str, str]]) -> str | None:
    """The dtype that a function computes in: that of its arguments, a condition aside."""
    found = [_dtype(a, given) for a in (e.args[1:] if e.op == "where" else e.args)]
    return next((dtype for dtype in found if dtype is not None), None)


# functions: (draft, dtype of the arguments, *names) -> name


def _same(operator: str) -> Callable[..., str]:
    return lambda draft, dtype, *xs: draft.add(operator, *xs)


def held(operator: str, answer: str = "") -> Callable[..., str]:
    """An operator on numbers; `answer` is the dtype of what it gives, else that of the arguments."""

    def write(draft: Draft, dtype: str, *xs: str, **attrs: Any) -> str:
        inner = HELD.get(dtype, dtype)
        found = draft.add(operator, *(draft.cast(x, dtype, inner) for x in xs), **attrs)
        return found if answer else draft.cast(found, inner, dtype)

    return write


def _expm1(draft: Draft, dtype: str, x: str) -> str:
    """e^x - 1; near 0, where that cancels, 2t / (1 - t) with t = tanh(x / 2)."""
    t = draft.add("Tanh", draft.add("Mul", x, draft.array(0.5, dtype)))
    near = draft.add("Div", draft.add("Add", t, t), draft.add("Sub", draft.array(1, dtype), t))
    far = draft.add("Sub", draft.add("Exp", x), draft.array(1, dtype))
    return draft.add("Where", draft.add("Less", draft.add("Abs", x), draft.array(0.5, dtype)), near, far)


def _log1p(draft: Draft, dtype: str, x: str) -> str:
    """log(u) * x / (u - 1) with u = 1 + x as it was rounded, which puts right what rounding took; far away log(u)."""
    one = draft.array(1, dtype)
    u = draft.add("Add", x, one)
    log, off = draft.add("Log", u), draft.add("Sub", u, one)
    none = draft.add("Equal", off, draft.array(0, dtype))
    near = draft.add("Mul", log, draft.add("Div", x, draft.add("Where", none, one, off)))
    far = draft.add("Less", one, draft.add("Abs", x))
    return draft.add("Where", none, x, draft.add("Where", far, log, near))


def _trunc(draft: Draft, dtype: str, x: str) -> str:
    negative = draft.add("Less", x, draft.array(0, dtype))
    return draft.add("Where", negative, draft.add("Ceil", x), draft.add("Floor", x))


def _fmod(draft: Draft, dtype: str, x: str, y: str) -> str:
    """The remainder with the sign of x; of integers modulo 0 it is 0."""
    if dtype in FLOATS:
        return draft.add("Mod", x, y, fmod=1)
    return _unless_by_zero(draft, dtype, x, y, fmod=1)


def _mod(draft: Draft, dtype: str, x: str, y: str) -> str:
    """The remainder with the sign of y; ONNX has it of integers alone."""
    if dtype not in FLOATS:
        return _unless_by_zero(draft, dtype, x, y, fmod=0)
    zero = draft.array(0, dtype)
    rest = draft.add("Mod", x, y, fmod=1)
    other_sign = draft.add("Xor", draft.add("Less", rest, zero), draft.add("Less", y, zero))
    inexact = draft.add("Not", draft.add("Equal", rest, zero))
    return draft.add("Where", draft.add("And", other_sign, inexact), draft.add("Add", rest, y), rest)


def _unless_by_zero(draft: Draft, dtype: str, x: str, y: str, fmod: int) -> str:
    zero = draft.array(0, dtype)
    none = held("Equal", "bool")(draft, dtype, y, zero)
    rest = held("Mod")(draft, dtype, x, _where(draft, dtype, none, draft.array(1, dtype), y), fmod=fmod)
    return _where(draft, dtype, none, zero, rest)


def _where(draft: Draft, dtype: str, condition: str, x: str, y: str) -> str:
    inner = HELD.get(dtype, dtype)
    found = draft.add("Where", condition, draft.cast(x, dtype, inner), draft.cast(y, dtype, inner))
    return draft.cast(found, inner, dtype)


FUNCTIONS: dict[str, Callable[..., str]] = {
    "add": held("Add"),
    "sub": held("Sub"),
    "mul": held("Mul"),
    "div": _same("Div"),
    "neg": held("Neg"),
    "abs": held("Abs"),
    "sign": held("Sign"),
    "max": held("Max"),
    "min": held("Min"),
    "less": held("Less", "bool"),
    "less_equal": held("LessOrEqual", "bool"),
    "equal": held("Equal", "bool"),
    "where": _where,
    "and": _same("And"),
    "or": _same("Or"),
    "xor": _same("Xor"),
    "not": _same("Not"),
    "isnan": _same("IsNaN"),
    "isinf": _same("IsInf"),
    "pow": _same("Pow"),
    "exp": _same("Exp"),
    "log": _same("Log"),
    "sqrt": _same("Sqrt"),
    "rsqrt": lambda draft, dtype, x: draft.add("Reciprocal", draft.add("Sqrt", x)),
    "expm1": _expm1,
    "log1p": _log1p,
    "tanh": _same("Tanh"),
    "sigmoid": _same("Sigmoid"),
    "softplus": _same("Softplus"),
    "sin": _same("Sin"),
    "cos": _same("Cos"),
    "tan": _same("Tan"),
    "asin": _same("Asin"),
    "acos": _same("Acos"),
    "atan": _same("Atan"),
    "sinh": _same("Sinh"),
    "cosh": _same("Cosh"),
    "erf": _same("Erf"),
    "floor": _same("Floor"),
    "ceil": _same("Ceil"),
    "round": _same("Round"),
    "trunc": _trunc,
    "mod": _mod,
    "fmod": _fmod,
}
