"""Numbers that do not depend on any input: fills, literal arrays, and counts of elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import product, shape_of
from minigraph.core.dtypes import FLOATS, dtype_of, largest
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Kernel, Literal, Op, axis_of, no_flops, real


def number_of(value: Any, dtype: str) -> bool | int | float:
    """The value as a number of a dtype: the one that was given. A float may be rounded, but not to 0 or inf."""
    kind = bool if dtype == "bool" else float if dtype in FLOATS else int
    try:
        number = kind(value)
        same = kind is float or bool(number == value)
    except (TypeError, ValueError, OverflowError):
        raise GraphError(f"{value!r} is not a number of dtype {dtype}") from None
    expect(same, "{!r} is not a number of dtype {}", value, dtype)
    if kind is int:
        limits = np.iinfo(dtype)
        expect(limits.min <= number <= limits.max, "{!r} is not a number of dtype {}", value, dtype)
    elif kind is float and math.isfinite(number):
        expect(abs(number) <= largest(dtype), "{!r} is too large for {}", value, dtype)
        expect(number == 0 or np.dtype(dtype).type(number) != 0, "{!r} is too small for {}", value, dtype)
    return number


def in_c(value: bool | int | float, dtype: str) -> dict[str, bool | int | float]:
    """A number of a dtype as fields of the shape of a kernel: is_float, and real (a double) or whole (an int64).

    Whole numbers of uint64 are taken modulo 2^64.
    """
    if dtype in FLOATS:
        return {"is_float": True, "real": float(value), "whole": 0}
    whole = int(value)
    return {"is_float": False, "real": 0.0, "whole": whole - 2**64 if whole >= 2**63 else whole}


def fill_types(*, value: Any, shape: Any = (), dtype: str = "float32") -> Type:
    """One number in every place of `shape`."""
    return Type(shape, dtype)


def fill_canonical(*, value: Any, shape: Any, dtype: Any) -> dict[str, Any]:
    dtype = dtype_of(dtype)
    return {"value": number_of(value, dtype), "shape": shape_of(shape), "dtype": dtype}


fill = Op(
    "fill",
    fill_types,
    lambda value, shape, dtype: np.full(shape, value, dtype),
    canonical=fill_canonical,
    kernel=Kernel("constant.h", lambda ins, outs, value, shape, dtype: in_c(value, dtype), light=True),
    gradient=lambda gs, xs, ys, **_: (),
    flops=no_flops,
    examples=(
        Example(value=0.5),
        Example(value=2, shape=(0, 3), dtype="int64"),
        Example(value=True, shape=(2,), dtype="bool"),
        Example(value=float("inf"), shape=(2, 1), dtype="float64"),
        Example(value=2**64 - 1, shape=(2,), dtype="uint64"),
        Example(value=-(2**63), dtype="int64"),
    ),
)


def constant_types(*, value: Any) -> Type:
    """An array that is part of the graph, with its shape and dtype."""
    return Type(value.array.shape, value.array.dtype.name)


def constant_canonical(*, value: Any) -> dict[str, Any]:
    array = value.array if isinstance(value, Literal) else np.asarray(value)
    dtype_of(array.dtype)
    return {"value": value if isinstance(value, Literal) else Literal(array)}


constant = Op(
    "constant",
    constant_types,
    lambda value: value.array,
    canonical=constant_canonical,
    gradient=lambda gs, xs, ys, **_: (),
    flops=no_flops,
    examples=(
        Example(value=np.arange(6.0).reshape(2, 3)),
        Example(value=np.zeros((0, 2), np.float32)),
        Example(value=[1, 2, 3]),
    ),
)


def count_types(x: Type, /, axes: Any, dtype: str = "float32") -> Type:
    """How many numbers x has along `axes`, as a scalar.

    What a mean divides by where a size is known only at run time.
    """
    return Type((), dtype)


def count_canonical(x: Type, axes: Any, dtype: Any) -> dict[str, Any]:
    return {"axes": tuple(axis_of(axis, x.rank) for axis in axes), "dtype": dtype_of(dtype)}


count = Op(
    "count",
    count_types,
    lambda x, axes, dtype: np.asarray(product(x.shape[axis] for axis in axes)).astype(dtype),
    canonical=count_canonical,
    kernel=Kernel(
        "constant.h",
        lambda ins, outs, axes, dtype: {"size": product(ins[0].shape[axis] for axis in axes)},
        light=True,
    ),
    gradient=lambda gs, xs, ys, **_: (None,),
    flops=no_flops,
    examples=(
        Example(real(2, 3, 4), axes=(0, 2)),
        Example(real(0, 3), axes=(0,)),
        Example(real(3), axes=(), dtype="int64"),
    ),
)


def count_along(x: Tensor, axes: tuple[int, ...], dtype: str) -> Tensor:
    """The count as a constant where it is known, else as a node."""
    number = product(x.shape[axis] for axis in axes)
    return x.builder.constant(number, dtype) if isinstance(number, int) else count(x, axes, dtype)
