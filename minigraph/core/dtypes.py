"""The dtypes of tensors, and what a float of each can be.

bfloat16 is float32 without its last 16 bits: its range, and 8 binary digits. NumPy knows it through ml_dtypes, as a
dtype of kind "V", of which np.finfo knows nothing. So who wants to know something of a dtype asks here.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes  # with it NumPy knows the name "bfloat16"
import numpy as np

from minigraph.core.errors import expect

NARROW = ("float16", "bfloat16")  # what is computed of these is computed in float32, and rounded once
FLOATS = (*NARROW, "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = frozenset((*FLOATS, *INTEGERS, "bool"))


def dtype_of(given: Any) -> str:
    """The name of a dtype, from a name, a NumPy dtype or a NumPy scalar type."""
    try:
        name = given if isinstance(given, str) else np.dtype(given).name
    except TypeError:
        name = ""
    expect(name in DTYPES, "dtype {!r} is not one of {}", given, ", ".join(sorted(DTYPES)))
    return name


def wide_dtype(dtype: str) -> str:
    """The dtype to compute in: float32 for narrow floats, else the dtype itself."""
    return "float32" if dtype in NARROW else dtype


# of arrays, which may come from outside

_NARROW = frozenset(map(np.dtype, NARROW))


def is_narrow(dtype: np.dtype) -> bool:
    return dtype in _NARROW


def is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name in FLOATS


def is_number(dtype: np.dtype) -> bool:
    """Whether it is of bools, whole numbers or floats."""
    return dtype.kind in "biu" or is_float(dtype)


def holds(array: np.dtype, dtype: str) -> bool:
    """Whether an array of the one dtype has numbers of the other, in the order of bytes of this machine.

    bfloat16 has no name in the protocols by which arrays are handed over, nor in NumPy's files: it comes as two bytes.
    """
    return array == np.dtype(dtype) or (dtype == "bfloat16" and array == np.dtype("V2"))


def becomes(old: np.dtype, new: np.dtype) -> bool:
    """Whether numbers of one may be taken for the other, rounded perhaps: floats for floats, whole numbers for both."""
    return np.can_cast(old, new, "same_kind") or (is_float(old) and is_float(new))


# of floats


def epsilon(dtype: str | np.dtype) -> float:
    """From 1 to the next larger number; rounding is off by half of it, of a number."""
    return float(ml_dtypes.finfo(dtype).eps)


def largest(dtype: str | np.dtype) -> float:
    """The largest finite number."""
    return float(ml_dtypes.finfo(dtype).max)


def least_normal(dtype: str | np.dtype) -> float:
    """The smallest number above 0 that has all digits."""
    return float(ml_dtypes.finfo(dtype).tiny)


def digits(dtype: str | np.dtype) -> int:
    """How many binary digits a number has."""
    return int(ml_dtypes.finfo(dtype).nmant) + 1
