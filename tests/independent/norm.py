"""Normalizations: layer and group norm by ONNX, and all of them by loops, one group of numbers at a time.

ONNX's evaluator of LRN takes the number of images for that of channels, and is not asked.
"""

from __future__ import annotations

from math import fsum, sqrt
from typing import Any

import numpy as np

from cases import NAN, Case, Random, These, real
from onnx_ops import Model, moved

EPS = 2.0**-17  # ONNX holds epsilon in float32, where 1e-5 is another number


def wide(*shape: int) -> Random:
    """A parameter: float32 where x is float16."""
    return Random(shape, wide=True)


# by ONNX


def _layer_norm(model: Model, x: str, gamma: str, beta: str, axis: int = -1, eps: float = 1e-5) -> str:
    return model.add("LayerNormalization", x, gamma, beta, axis=axis, epsilon=eps)


def _group_norm(model: Model, x: str, gamma: str, beta: str, groups: int, axis: int = 1, eps: float = 1e-5) -> str:
    """As ONNX defines GroupNormalization: instances of one channel for each group, then scaled."""
    rank, channels = model.given[x].ndim, model.given[gamma].size
    first = moved(model, x, rank, axis, 1)
    one, zero = (model.array(np.full(groups, n), np.float64) for n in (1, 0))
    split = model.add("Reshape", first, model.array([0, groups, -1]))
    standard = model.add("InstanceNormalization", split, one, zero, epsilon=eps)
    y = model.add("Reshape", standard, model.add("Shape", first))
    shape = model.array([1, channels, *(1 for _ in range(rank - 2))])
    y = model.add("Mul", y, model.add("Reshape", gamma, shape))
    return moved(model, model.add("Add", y, model.add("Reshape", beta, shape)), rank, 1, axis)


ONNX = {"layer_norm": _layer_norm, "group_norm": _group_norm}


# by loops


def standard(numbers: np.ndarray, eps: float) -> np.ndarray:
    """A group of numbers less their mean, over their deviation."""
    n = numbers.size
    average = fsum(numbers.flat) / n if np.isfinite(numbers).all() else NAN
    return (numbers - average) / sqrt(fsum((a - average) ** 2 for a in numbers.flat) / n + eps)


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, axis: int = -1, eps: float = 1e-5) -> np.ndarray:
    y = np.zeros(x.shape)
    for at in np.ndindex(*x.shape[: axis % x.ndim]):
        y[at] = standard(x[at], eps) * gamma + beta
    return y


def group_norm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, axis: int = 1, eps: float = 1e-5
) -> np.ndarray:
    first = np.moveaxis(x, axis, 1)
    y, each = np.zeros(first.shape), first.shape[1] // groups
    for n, g in np.ndindex(len(x), groups):
        part = slice(g * each, (g + 1) * each)
        y[n, part] = standard(first[n, part], eps)
        for c in range(part.start, part.stop):
            y[n, c] = y[n, c] * gamma[c] + beta[c]
    return np.moveaxis(y, 1, axis)


def rms_norm(x: np.ndarray, gamma: np.ndarray, axis: int = -1, eps: float = 1e-5) -> np.ndarray:
    y = np.zeros(x.shape)
    for at in np.ndindex(*x.shape[: axis % x.ndim]):
        y[at] = x[at] * gamma / sqrt(sum(float(a) * float(a) for a in x[at].flat) / x[at].size + eps)
    return y


def local_response_norm(
    x: np.ndarray, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, axis: int = 1
) -> np.ndarray:
    first = np.moveaxis(x, axis, 0)
    y = np.zeros(first.shape)
    for at in np.ndindex(*first.shape):
        c, rest = at[0], at[1:]
        neighbours = [first[(k, *rest)] for k in range(c - (size - 1) // 2, c + size // 2 + 1) if 0 <= k < len(first)]
        y[at] = first[at] / (bias + alpha / size * sum(n * n for n in neighbours)) ** beta
    return np.moveaxis(y, 0, axis)


LOOPS = {
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
    "local_response_norm": local_response_norm,
}
EXACT: set[str] = set()

LINES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((5, 3), {}),
    ((2, 3, 7), {"eps": 2.0**-10}),
    ((2, 3, 5, 1), {"axis": 2}),
    ((3, 1), {}),
    ((2, 3, 4), {"axis": 1}),
    ((1, 2, 2, 1, 3), {"axis": -2}),
    ((7,), {}),
    ((2, 17), {"axis": 0}),
]
GROUPS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 6, 5), {"groups": 3}),
    ((1, 4, 3, 5), {"groups": 2, "eps": 2.0**-10}),
    ((3, 3, 2, 1), {"groups": 1}),
    ((2, 5, 3, 4), {"groups": 4, "axis": -1}),
    ((2, 3, 1, 2, 2), {"groups": 3}),
    ((2, 6), {"groups": 2}),
    ((3, 5, 6), {"groups": 2, "axis": 2}),
    ((2, 3, 1), {"groups": 3}),  # one number in each group
]
RESPONSES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 5, 3, 4), {"size": 3, "alpha": 0.5}),
    ((1, 7, 2), {"size": 5, "alpha": 0.125, "beta": 0.5, "bias": 2.0}),
    ((2, 6, 1, 3), {"size": 4, "alpha": 0.25}),  # even: one more channel behind
    ((3, 2, 2, 5), {"size": 3, "alpha": 1.0, "axis": -1}),
    ((2, 3), {"size": 7, "alpha": 0.5}),  # more than there are
    ((1, 4, 2, 1, 3), {"size": 1, "alpha": 0.5}),
]

CASES = [
    *(
        Case("layer_norm", real(*shape), wide(*part), wide(*part), **{"eps": EPS, **attrs})
        for shape, attrs in LINES
        for part in [shape[attrs.get("axis", -1) :]]
    ),
    Case("layer_norm", real(0, 3), wide(3), wide(3), loops=True),
    Case("layer_norm", These([[NAN, 1.0, 2.0], [1.0, 2.0, 4.0]]), wide(3), wide(3), eps=EPS, loops=True),
    Case("layer_norm", These([[3.0, 3.0, 3.0]]), wide(3), wide(3), eps=EPS),
    *(
        Case("rms_norm", real(*shape), wide(*shape[attrs.get("axis", -1) :]), **attrs)
        for shape, attrs in [*LINES, ((0, 3), {})]
    ),
    Case("rms_norm", These([[NAN, 1.0], [0.0, 0.0], [3.0, 4.0]]), wide(2)),
    *(
        Case("group_norm", real(*shape), wide(c), wide(c), **{"eps": EPS, **attrs})
        for shape, attrs in GROUPS
        for c in [shape[attrs.get("axis", 1)]]
    ),
    Case("group_norm", real(0, 4, 3), wide(4), wide(4), groups=2, loops=True),
    *(Case("local_response_norm", real(*shape), **attrs) for shape, attrs in RESPONSES),
    Case("local_response_norm", real(0, 3, 2), size=3),
    Case("local_response_norm", These([[NAN, 1.0, 2.0, 3.0, -1.0]]), size=3, alpha=0.5),
]
