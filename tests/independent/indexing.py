"""Indexing: ONNX's evaluator where it has the op, and loops that place one number after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

import numpy as np

from cases import INF, NAN, Case, These, real, truth, whole


def places(*shape: int, of: int, dtype: str = "int64") -> Any:
    """Indices of an axis of `of` places, from both of its ends."""
    return whole(*shape, low=-of, below=of, dtype=dtype)


GATHERS: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [  # shape of x, indices, attributes
    ((4, 3), places(5, of=4), {}),
    ((4, 3), places(of=4), {}),
    ((4,), places(2, 1, 3, of=4), {}),
    ((2, 5, 3), places(2, 2, of=5, dtype="int32"), {"axis": 1}),
    ((2, 3), places(7, of=3), {"axis": -1}),
    ((3, 1), places(2, of=1), {"axis": 1}),
    ((3, 2), places(0, of=3), {}),
    ((3, 2), places(2, 0, of=2), {"axis": 1}),
    ((0, 3), places(2, of=3), {"axis": 1}),
    ((3, 0), places(2, of=3), {}),
    ((0, 2), places(0, of=1), {}),
    ((3, 4), places(3, 2, of=4), {"axis": 1, "batch": 1}),
    ((3, 4), places(3, of=4), {"axis": 1, "batch": 1}),
    ((2, 3, 4, 2), places(2, 3, of=4), {"axis": 2, "batch": 1}),
    ((2, 3, 4, 2), places(2, 3, 1, of=4, dtype="int32"), {"axis": -2, "batch": 2}),
    ((0, 4), places(0, 2, of=4), {"axis": 1, "batch": 1}),
]


def _gathered(shape: tuple[int, ...], indices: Any, axis: int = 0, batch: int = 0) -> tuple[int, ...]:
    axis %= len(shape)
    return (*shape[:axis], *indices.shape[batch:], *shape[axis + 1 :])


LINES = These([[2.0, NAN, 2.0, -INF, NAN, INF, -0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 3.0, -1.0]])

CASES = [
    *(Case("gather", real(*shape), i, **attrs, loops="batch" in attrs) for shape, i, attrs in GATHERS),
    Case("gather", whole(4, 3), places(5, of=4)),
    Case("gather", whole(4, dtype="uint8"), places(5, of=4)),
    Case("gather", truth(4), places(2, 2, of=4)),
    Case("gather", These([NAN, INF, -0.0, 1.0]), places(6, of=4)),
    *(
        Case("scatter_add", real(*_gathered(shape, i, **attrs)), i, size=shape[attrs.get("axis", 0)], **attrs)
        for shape, i, attrs in GATHERS
    ),
    Case("scatter_add", whole(9), places(9, of=3), size=3),
    Case("scatter_add", whole(9, dtype="int8"), places(9, of=3), size=3),
    Case("scatter_add", real(2, 500), whole(500, low=0, below=2), size=3, axis=1),
    Case("scatter_add", These([NAN, INF, -INF, 1.0]), whole(4, low=0, below=2), size=2),
    *(
        Case("topk", x, largest=largest, **attrs)
        for x, attrs in (
            (real(3, 7), {"k": 3}),
            (real(5), {"k": 5}),
            (real(4, 3), {"k": 2, "axis": 0}),
            (real(2, 5, 3), {"k": 1, "axis": 1}),
            (real(3, 1), {"k": 1}),
            (real(0, 4), {"k": 2}),
            (whole(3, 30, low=0, below=4), {"k": 20}),
            (whole(30, low=0, below=256, dtype="uint8"), {"k": 30}),
        )
        for largest in (True, False)
    ),
    *(Case("topk", LINES, k=k, largest=largest, loops=True) for k in (1, 4, 9) for largest in (True, False)),
    *(Case("iota", size=n, dtype=dtype) for n in (0, 1, 7) for dtype in ("int32", "int64")),
]


def _pairs(indices: np.ndarray, size: int, shape: tuple[int, ...], axis: int, batch: int) -> Any:
    """Where each number of the gathered shape stands in x."""
    for at in np.ndindex(*shape):
        lead, middle, rest = at[:batch], at[axis : axis + indices.ndim - batch], at[axis + indices.ndim - batch :]
        place = int(indices[(*lead, *middle)])
        yield at, (*at[:axis], place + size if place < 0 else place, *rest)


def gather(x: np.ndarray, indices: np.ndarray, axis: int = 0, batch: int = 0) -> np.ndarray:
    axis %= x.ndim
    y = np.zeros(_gathered(x.shape, indices, axis, batch), x.dtype)
    for at, place in _pairs(indices, x.shape[axis], y.shape, axis, batch):
        y[at] = x[place]
    return y


def scatter_add(updates: np.ndarray, indices: np.ndarray, size: int, axis: int = 0, batch: int = 0) -> np.ndarray:
    rank = indices.ndim - batch
    axis %= updates.ndim - rank + 1
    x = np.zeros((*updates.shape[:axis], size, *updates.shape[axis + rank :]), updates.dtype)
    for at, place in _pairs(indices, size, updates.shape, axis, batch):
        x[place] += updates[at]
    return x


def topk(x: np.ndarray, k: int, axis: int = -1, largest: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Each line sorted by comparisons: NaN first, then by size; Python's sort keeps the order of equal ones."""

    def before(a: Any, b: Any) -> bool:
        return bool((a != a and b == b) or (a > b if largest else a < b))

    def compare(p: tuple[int, Any], q: tuple[int, Any]) -> int:
        return before(q[1], p[1]) - before(p[1], q[1])

    lines = np.moveaxis(x, axis, -1)
    order = np.zeros((*lines.shape[:-1], k), np.int64)
    for at in np.ndindex(*lines.shape[:-1]):
        line = lines[at].tolist()
        order[at] = [i for i, _ in sorted(enumerate(line), key=cmp_to_key(compare))[:k]]
    values = np.zeros(order.shape, x.dtype)
    for at in np.ndindex(*order.shape):
        values[at] = lines[(*at[:-1], order[at])]
    return np.moveaxis(values, -1, axis), np.moveaxis(order, -1, axis)


def _topk(model: Any, x: str, k: int, axis: int = -1, largest: bool = True) -> Any:
    return model.add("TopK", x, model.array([k]), axis=axis, largest=int(largest), outputs=2)


ONNX: dict[str, Callable[..., Any]] = {
    "gather": lambda model, x, indices, axis=0: model.add("Gather", x, indices, axis=axis),
    "topk": _topk,
    "iota": lambda model, size, dtype="int64": model.add(
        "Range", model.array(0, dtype), model.array(size, dtype), model.array(1, dtype)
    ),
}

LOOPS: dict[str, Callable[..., Any]] = {"gather": gather, "scatter_add": scatter_add, "topk": topk}

EXACT = {"gather", "topk"}
