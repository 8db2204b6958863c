"""Narrow floats in expansions: what adds up many numbers does so in float32 and rounds once, at the end.

References need none of this: see `Op.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.dtypes import wide_dtype
from minigraph.core.op import OPS


def widened(x: Tensor) -> Tensor:
    """The tensor, in float32 where its floats are narrow."""
    # by its name: the module of cast builds on modules that import this one
    return x if wide_dtype(x.dtype) == x.dtype else OPS["cast"](x, wide_dtype(x.dtype))


def expand_in_float32(expand: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The expansion, of float32 where it is given narrow floats; its result is narrow again."""

    @wraps(expand)
    def expanded(*tensors: Tensor, **attrs: Any) -> Tensor:
        return OPS["cast"](expand(*map(widened, tensors), **attrs), tensors[0].dtype)

    return expanded
