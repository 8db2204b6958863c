"""Printed expressions: each pointwise op, compiled for each dtype that it takes, against its reference.

Where there is no C compiler only the texts are tested.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import minigraph as mg
from minigraph.backends import c
from minigraph.backends.c.compiler import compiled
from minigraph.backends.expressions import OF_FLOATS, STORED, loaded, print_c, stored
from minigraph.core import scalar
from minigraph.core.dtypes import DTYPES, FLOATS, INTEGERS, epsilon, is_float
from minigraph.core.op import OPS, Op
from minigraph.core.scalar import Scalar, var

HEADERS = tuple(Path(c.__file__).parent / name for name in ("prelude.h", "scalar.h"))
EXACT = {"floor", "ceil", "round", "trunc", "isnan", "isinf", "sqrt"}  # of OF_FLOATS
X86 = platform.machine() in ("x86_64", "AMD64")


# numbers to try


@functools.cache
def numbers(dtype: str) -> np.ndarray:
    """Random numbers and those at which something changes."""
    rng = np.random.default_rng(1)
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATS:
        limits = ml_dtypes.finfo(dtype)
        special = [
            0.0,
            0.25,
            0.5,
            0.75,
            1.0,
            1.5,
            2.0,
            2.5,
            3.0,
            6.0,
            7.5,
            30.0,
            100.0,
            1e3,
            2.0**24,
            2.0**31 - 64,
            1e12,
        ]
        special += [float(limits.max), float(limits.tiny), float(limits.smallest_subnormal), float(limits.eps), np.inf]
        with np.errstate(over="ignore"):
            both = np.array([*special, *(-x for x in special), np.nan], dtype)
        return np.concatenate([both, rng.normal(0, 2, 40).astype(dtype), rng.uniform(-40, 40, 20).astype(dtype)])
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    special_ints = [x for x in (low, low + 1, -100, -7, -2, -1, 0, 1, 2, 3, 5, 7, 100, high - 1, high) if low <= x]
    return np.concatenate([np.array(special_ints, dtype), rng.integers(low, high, 20, dtype, endpoint=True)])


def inputs(dtypes: tuple[str, ...]) -> list[np.ndarray]:
    """Every combination of the numbers of each dtype."""
    grids = np.meshgrid(*map(numbers, dtypes), indexing="ij")
    return [np.ascontiguousarray(g.ravel()) for g in grids]


# functions to try


@dataclass(frozen=True)
class Trial:
    """One expression on arrays of these dtypes."""

    name: str
    expression: Callable[..., Any]
    reference: Callable[..., Any]
    dtypes: tuple[str, ...]
    result: str

    @property
    def tree(self) -> Any:
        return self.expression(*(var(str(i)) for i in range(len(self.dtypes))))

    def source(self, name: str) -> str:
        parameters = [f"const {STORED[d]} *restrict x{i}" for i, d in enumerate(self.dtypes)]
        kinds = {str(i): d for i, d in enumerate(self.dtypes)}
        names = {str(i): loaded(f"x{i}[i]", d) for i, d in enumerate(self.dtypes)}
        text = print_c(self.tree, names, kinds, self.result)
        signature = ", ".join([*parameters, f"{STORED[self.result]} *restrict y", "idx n"])
        number = stored(f"({text})", self.result)
        return f"void {name}({signature}) {{\n  for (idx i = 0; i < n; i++) y[i] = {number};\n}}\n"


def trials_of(op: Op) -> Iterator[Trial]:
    seen = set()
    for example in op.examples:
        for dtype in sorted(DTYPES):
            dtypes = tuple("bool" if s.dtype == "bool" and op.name == "where" else dtype for s in example.inputs)
            try:
                attrs, (result,) = op.infer(tuple(mg.Type((9,), d) for d in dtypes), example.attrs)
            except mg.GraphError:
                continue
            key = (dtypes, tuple(attrs.items()))
            if op.expression is not None and key not in seen:
                seen.add(key)
                bind = functools.partial
                reference = lambda *xs, op=op, attrs=attrs: op.run(xs, attrs)[0]
                yield Trial(op.name, bind(op.expression, **attrs), reference, dtypes, result.dtype)


def run(trials: list[Trial], arrays: list[list[np.ndarray]]) -> list[np.ndarray]:
    """What the trials give on their arrays, all compiled as one file."""
    functions = [t.source(f"f{i}") for i, t in enumerate(trials)]
    library = compiled("\n".join(['#include "prelude.h"\n#include "scalar.h"\n', *functions]), HEADERS)
    results = []
    for i, (trial, xs) in enumerate(zip(trials, arrays)):
        y = np.empty(xs[0].shape, trial.result)
        getattr(library, f"f{i}")(*(ctypes.c_void_p(a.ctypes.data) for a in (*xs, y)), ctypes.c_int64(y.size))
        results.append(y)
    return results


def in_float64(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if is_float(x.dtype) else x


def check(trial: Trial, xs: list[np.ndarray], found: np.ndarray) -> None:
    """The same number, or one that is as near as the op's rounding allows.

    A single function is off by at most 8 units in the last place, NumPy's and ours together. Several operations in a
    row may cancel digits, as 1 + erf(x) does: off by a few roundings of what goes into them.
    """
    with np.errstate(all="ignore"):
        expected = np.asarray(trial.reference(*xs))
    label = f"{trial.name} {trial.dtypes} -> {trial.result}"
    assert expected.dtype == trial.result, label
    tree = trial.tree
    several = isinstance(tree, Scalar) and tree.operations() > 1
    rounded = tree.op == "pow" or tree.op in OF_FLOATS - EXACT or several
    if trial.result not in FLOATS or not rounded:
        np.testing.assert_array_equal(in_float64(found), in_float64(expected), label)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(in_float64(found[~finite]), in_float64(expected[~finite]), label)
    with np.errstate(all="ignore"):
        allowed = 8 * np.spacing(np.abs(expected[finite])).astype(float)
        if several:
            sizes = [np.abs(x[finite].astype(float)) for x in xs]
            largest = np.max([np.where(np.isfinite(s), s, 0) for s in sizes], axis=0)
            allowed += 8 * epsilon(trial.result) * largest
        difference = np.abs(found[finite].astype(float) - expected[finite].astype(float))
    worst = int(np.argmax(difference - allowed))
    given = [x[finite][worst] for x in xs]
    assert difference[worst] <= allowed[worst], f"{label} of {given}: {found[finite][worst]}"


# against the references


@pytest.mark.compiler
def test_every_pointwise_op_means_what_its_reference_means() -> None:
    trials = [t for op in list(OPS.values()) if op.expression and op.name != "cast" for t in trials_of(op)]
    assert {t.name for t in trials} >= {"add", "softplus", "where", "gelu", "logical_xor"}
    arrays = [inputs(t.dtypes) for t in trials]
    for trial, xs, found in zip(trials, arrays, run(trials, arrays)):
        check(trial, xs, found)


def in_range(x: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers whose cast to a dtype C and NumPy define; on x86 all of which NumPy gives one answer."""
    if not is_float(x.dtype) or dtype not in INTEGERS:
        return x
    limits = np.iinfo(dtype)
    if X86 and dtype != "uint32":
        return x
    wide = x.astype("float64")
    return x[(wide > float(limits.min) - 1) & (wide < float(limits.max) * (1 - 2.0**-20))]


@pytest.mark.compiler
def test_casts_are_those_of_astype() -> None:
    trials, arrays = [], []
    for a in sorted(DTYPES):
        for b in sorted(DTYPES):
            cast = functools.partial(scalar.cast, dtype=b)
            trials.append(Trial("cast", cast, cast, (a,), b))
            arrays.append([in_range(numbers(a), b)])
    for trial, xs, found in zip(trials, arrays, run(trials, arrays)):
        check(trial, xs, found)


@pytest.mark.compiler
def test_a_double_is_rounded_to_half_once() -> None:
    """In the middle of two halves but for less than a float can tell."""
    x = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, 65519.999999, 2.0**-25 * (1 + 2.0**-40)])
    trial = Trial("cast", lambda x: scalar.cast(x, "float16"), lambda x: x.astype("float16"), ("float64",), "float16")
    check(trial, [x], run([trial], [[x]])[0])


MIXED: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "integers and a float": (lambda x: x * 0.5 + 1, ("int8",)),
    "true division of integers": (lambda x, y: x / y, ("int16", "int16")),
    "widths": (lambda x, y: x + y, ("int8", "int32")),
    "signs": (lambda x, y: x * y, ("uint8", "int8")),
    "floats and integers": (lambda x, y: scalar.maximum(x, y), ("float32", "int32")),
    "a bool and a whole number": (lambda c, x: scalar.where(c, x, 3), ("bool", "int16")),
    "a choice of numbers": (lambda c: scalar.where(c, 0.1, 2), ("bool",)),
    "a rounded half inside": (lambda x: scalar.cast(scalar.cast(x, "float16"), "float32") - x, ("float32",)),
    "a rounded bfloat16 inside": (lambda x: scalar.cast(scalar.cast(x, "bfloat16"), "float32") - x, ("float32",)),
    "truth of numbers": (lambda x, y: scalar.logical_xor(x, y), ("float32", "int8")),
    "small integers wrap around": (lambda x: (x * x + x) < 5, ("int8",)),
    "an unsigned number below 0": (lambda x, y: scalar.absolute(x - y), ("uint8", "uint8")),
    "remainders": (lambda x, y: scalar.mod(-x, y) + scalar.fmod(x, y), ("int8", "int8")),
    "powers of integers": (lambda x, y: scalar.pow(x, scalar.cast(y, "int32")), ("int32", "uint8")),
}


@pytest.mark.compiler
def test_dtypes_meet_as_in_numpy() -> None:
    def reference(name: str) -> Callable[..., Any]:
        return lambda *xs: MIXED[name][0](*xs)

    trials, arrays = [], []
    for name, (expression, dtypes) in MIXED.items():
        xs = inputs(dtypes)
        if name.startswith("a rounded"):
            xs = [x[np.abs(x) < 60000] for x in xs]
        with np.errstate(all="ignore"):
            result = np.asarray(expression(*xs)).dtype.name
        trials.append(Trial(name, expression, reference(name), dtypes, result))
        arrays.append(xs)
    for trial, xs, found in zip(trials, arrays, run(trials, arrays)):
        check(trial, xs, found)


# texts


@pytest.mark.parametrize(
    ("expression", "dtype", "result", "text"),
    [
        (lambda x: scalar.maximum(x, 0), "float32", "float32", "max_float(x, 0.0f)"),
        (lambda x: 0.1 * x, "float32", "float32", "(0.1f * x)"),
        (lambda x: 0.1 * x, "float16", "float16", "(0.1f * x)"),
        (lambda x: 0.1, "float16", "float16", "0.099975586f"),
        (lambda x: 0.1, "bfloat16", "bfloat16", "0.100097656f"),
        (lambda x: 0.1 * x, "float64", "float64", "(0.1 * x)"),
        (lambda x: 0.1 * x, "int8", "float64", "(0.1 * (double)x)"),
        (lambda x: x + 1, "int8", "int8", "(int8_t)(x + 1)"),
        (lambda x: x + 1, "int64", "int64", "(x + 1)"),
        (lambda x: scalar.minimum(x, -np.inf), "float16", "float16", "min_float(x, (-INFINITY))"),
        (lambda x: scalar.minimum(x, 1e5), "float16", "float16", "min_float(x, 100000.0f)"),
        (lambda x: scalar.maximum(x, -(2**63)), "int64", "int64", "max_int64_t(x, INT64_MIN)"),
        (lambda x: scalar.maximum(x, 2**63), "uint64", "uint64", "max_uint64_t(x, 9223372036854775808u)"),
        (lambda x: scalar.pow(x, 2.0), "float32", "float32", "square_float(x)"),
        (lambda x: scalar.pow(x, 0.5), "float32", "float32", "pow_float(x, 0.5f)"),
        (lambda x: x, "float32", "float64", "(double)x"),
        (lambda x: x > 0, "float32", "bool", "(0.0f < x)"),
        (lambda x: 2, "float32", "float32", "2.0f"),
        (lambda x: float("nan"), "float32", "float64", "NAN"),
        (lambda x: True, "float32", "bool", "true"),
        (lambda x: -1, "float32", "int32", "(-1)"),
    ],
)
def test_texts(expression: Any, dtype: str, result: str, text: str) -> None:
    found = print_c(expression(var("0")), {"0": "x"}, {"0": dtype}, result)
    assert found == text


@pytest.mark.parametrize(
    ("expression", "dtype", "says"),
    [
        (lambda x: x + 300, "uint8", "300 is no number of dtype uint8"),
        (lambda x: x + x, "bool", "add needs numbers, not bools"),
        (lambda x: scalar.exp(x), "int64", "exp needs floats, not int64"),
        (lambda x: x + var("1"), "float32", "there is no variable '1'"),
        (lambda x: Scalar("gamma", (x,)), "float32", "no C for the function 'gamma'"),
        (lambda x: x + "1", "float32", "'1' is no Python number"),
    ],
)
def test_what_cannot_be_printed_is_said(expression: Any, dtype: str, says: str) -> None:
    with pytest.raises(mg.GraphError, match=says):
        print_c(expression(var("0")), {"0": "x"}, {"0": dtype}, dtype)
