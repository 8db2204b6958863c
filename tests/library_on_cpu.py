"""In place of cuDNN and cublasLt: a library that computes what it is asked in NumPy, in memory of the host.

What patterns say of sizes, strides and addresses is all that it knows, as the libraries do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.cupy.libraries.patterns import (
    WORKSPACE_ALIGNMENT,
    Array,
    Convolution,
    Pattern,
    Product,
)
from minigraph.ops.conv import (
    conv_input_gradient_reference,
    conv_reference,
    conv_weight_gradient_reference,
)

WORKSPACE = 1000  # bytes: no multiple of anything


class OnCpu:
    """A library. refuses: what it does not compute. asked: all patterns, answered or not."""

    def __init__(self, refuses: Callable[[Pattern], bool] = lambda pattern: False):
        self.refuses = refuses
        self.asked: list[Pattern] = []
        self.called: list[Pattern] = []

    def routine(self, pattern: Pattern) -> OfPattern | None:
        self.asked.append(pattern)
        return None if self.refuses(pattern) else OfPattern(pattern, self.called)


@dataclass(frozen=True)
class OfPattern:
    pattern: Pattern
    called: list[Pattern]
    workspace: int = WORKSPACE

    @property
    def name(self) -> str:
        return f"on a CPU: {self.pattern}"

    def run(self, addresses: Sequence[int]) -> None:
        self.called.append(self.pattern)
        *lie, workspace = addresses
        assert workspace % WORKSPACE_ALIGNMENT == 0
        ctypes.memset(workspace, 0xA5, WORKSPACE)  # whatever is kept there is lost
        compute(self.pattern, lie)


def compute(pattern: Pattern, addresses: Sequence[int]) -> None:
    """Sums in float64, rounded once."""
    if isinstance(pattern, Product):
        names, arrays = ("a", "b", *(["bias"] if pattern.bias else []), "y"), _of_product(pattern)
    else:
        names, arrays = pattern.names, _of_convolution(pattern)
    given = {name: seen(arrays[name], address) for name, address in zip(names, addresses, strict=True)}
    result = given.pop(names[-1])
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    with np.errstate(all="ignore"):
        found = _product(wide) if isinstance(pattern, Product) else _convolution(pattern, wide)
        found = found.astype(np.float32)  # of float32 both add the bias to what the product was rounded to
        if pattern.bias:
            found = found + wide["bias" if isinstance(pattern, Product) else "b"].astype(np.float32)
        result[...] = (np.maximum(found, 0) if pattern.relu else found).astype(result.dtype)


def _of_product(pattern: Product) -> dict[str, Array]:
    columns = pattern.y.sizes[-1]
    bias = Array(pattern.y.dtype, (columns,), (1,), 16)
    return {"a": pattern.a, "b": pattern.b, "y": pattern.y, "bias": bias}


def _of_convolution(pattern: Convolution) -> dict[str, Array]:
    outputs, ones = pattern.y.sizes[1], [1] * (len(pattern.y.sizes) - 2)
    bias = Array(pattern.y.dtype, (1, outputs, *ones), (outputs, 1, *ones), 16)
    return {"x": pattern.x, "w": pattern.w, "y": pattern.y, "b": bias}


def seen(array: Array, address: int) -> np.ndarray:
    """The numbers at an address."""
    assert address % array.alignment == 0
    size = np.dtype(array.dtype).itemsize
    last = sum((n - 1) * step for n, step in zip(array.sizes, array.strides))
    flat = np.ctypeslib.as_array((ctypes.c_uint8 * ((last + 1) * size)).from_address(address)).view(array.dtype)
    return np.lib.stride_tricks.as_strided(flat, array.sizes, [step * size for step in array.strides])


def _product(given: dict[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray = given["a"] @ given["b"]
    return found


def _convolution(pattern: Convolution, given: dict[str, np.ndarray]) -> np.ndarray:
    how: dict[str, Any] = {
        "stride": pattern.stride,
        "padding": pattern.padding,
        "dilation": pattern.dilation,
        "groups": pattern.x.sizes[1] // pattern.w.sizes[1],
        "layout": "NC" + "DHW"[5 - len(pattern.x.sizes) :],
    }
    if pattern.op == "conv":
        return conv_reference(given["x"], given["w"], **how)
    if pattern.op == "conv_input_gradient":
        return conv_input_gradient_reference(given["y"], given["w"], extents=pattern.x.sizes[2:], **how)
    return conv_weight_gradient_reference(given["x"], given["y"], window=pattern.w.sizes[2:], **how)
