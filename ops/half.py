"""Half precision: what adds up many numbers does so in float32 and rounds once, at the end.

`wide` and `in_float32` are for references, on arrays; `widened` and `expand_in_float32` for expansions, on tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.op import OPS


def wide_dtype(dtype: str) -> str:
    """The dtype to compute in: float32 for float16, else the dtype itself."""
    return "float32" if dtype == "float16" else dtype


def wide(x: np.ndarray) -> np.ndarray:
    """The array, in float32 where it is float16."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def widened(x: Tensor) -> Tensor:
    """The tensor, in float32 where it is float16."""
    # by its name: the module of cast builds on modules that import this one
    return OPS["cast"](x, "float32") if x.dtype == "float16" else x


def in_float32(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference, computing in float32 where it is given float16; its one result is float16 again."""

    @wraps(reference)
    def computed(*arrays: np.ndarray, **attrs: Any) -> Any:
        if not any(array.dtype == np.float16 for array in arrays):
            return reference(*arrays, **attrs)
        return np.asarray(reference(*map(wide, arrays), **attrs)).astype(np.float16)

    return computed


def expand_in_float32(expand: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The expansion, of float32 where it is given float16; its result is float16 again."""

    @wraps(expand)
    def expanded(*tensors: Tensor, **attrs: Any) -> Tensor:
        return OPS["cast"](expand(*map(widened, tensors), **attrs), tensors[0].dtype)

    return expanded
