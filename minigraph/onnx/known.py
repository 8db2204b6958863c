"""What is known while a model is read: arrays, and sizes in arithmetic on whole numbers.

Models compute shapes with nodes: Shape, Gather, Concat, Reshape. A size that is known only at run time is a polynomial
in symbols (core/dim.py), so such nodes are computed here on arrays of objects, each an int or a `Dim`: none is left in
the graph, and a batch whose size is open stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.core.dim import Dim, Size, product
from minigraph.core.errors import GraphError, expect

MOST = 1 << 20  # numbers that are computed while a model is read; more are computed when it runs


@dataclass(frozen=True, eq=False)
class Known:
    """A value of the model that is known: an array, of objects where it has sizes that are open.

    learned: whether it is one of the numbers of the file that training moves, and not made by arithmetic.
    """

    array: np.ndarray
    dtype: str
    name: str = ""
    learned: bool = False

    @property
    def open(self) -> bool:
        """Whether some of its sizes are known only at run time."""
        return self.array.dtype == object

    @staticmethod
    def sizes(given: Sequence[Size] | Size, name: str = "") -> Known:
        """Whole numbers and sizes, as an axis or as one number."""
        return Known(settled(objects(given), "int64"), "int64", name)


def objects(given: Any) -> np.ndarray:
    """An array of objects of sizes in a list, or of one."""
    if isinstance(given, (list, tuple)):
        array = np.empty(len(given), object)
        array[:] = list(given)
        return array
    array = np.empty((), object)
    array[()] = given
    return array


def settled(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in its dtype, if no size in it is open."""
    if array.dtype != object or any(isinstance(n, Dim) for n in array.flat):
        return array
    return array.astype(dtype)


class Unknown(Exception):
    """That arithmetic on open sizes has no answer here. The reader then builds nodes, which compute it at run time."""


Arithmetic = Callable[..., Any]


def of_sizes(op: str, operands: Sequence[Known], attrs: Mapping[str, Any], opset: int) -> np.ndarray | None:
    """The result of an operator on known operands, some of which are open sizes; None if there is no rule for it."""
    if op not in RULES:
        return None
    try:
        result = np.asarray(RULES[op]([o.array for o in operands], attrs, opset), object)
        return result if result.size <= MOST else None
    except (Unknown, GraphError, ValueError, IndexError, TypeError, ZeroDivisionError):
        return None  # the reader of the operator says what is wrong


def each(function: Callable[..., Any]) -> Arithmetic:
    """The rule of a function that is applied number by number, with broadcasting."""

    def rule(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
        if product(np.broadcast_shapes(*(array.shape for array in arrays))) > MOST:
            raise Unknown
        result = np.frompyfunc(function, len(arrays), 1)(*(array.astype(object) for array in arrays))
        return objects(result) if not isinstance(result, np.ndarray) else result

    return rule


def _times(a: Any, b: Any) -> Any:
    return _whole(a) * _whole(b)


def _whole(n: Any) -> Any:
    """A size, or a number that is whole, be it written as a float."""
    if isinstance(n, Dim):
        return n
    if n != int(n):
        raise Unknown
    return int(n)


def _divided(a: Any, b: Any) -> Any:
    a, b = _whole(a), _whole(b)
    if isinstance(b, Dim):
        raise Unknown
    if isinstance(a, Dim):
        return a // b  # GraphError where that is no polynomial
    return int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Dim) or isinstance(b, Dim):
        difference: Any = a - b
        if isinstance(difference, int):
            return difference == 0
        terms = [factor for _, factor in difference.terms]
        constant = dict(difference.terms).get((), 0)
        if (constant > 0 and min(terms) >= 0) or (constant < 0 and max(terms) <= 0):
            return False  # symbols are 0 or more
        raise Unknown
    return bool(a == b)


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _axes(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any]) -> tuple[int, ...] | None:
    given = arrays[1].tolist() if len(arrays) > 1 else attrs.get("axes")
    return None if given is None else tuple(given)


def _gather(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    if arrays[0].size * arrays[1].size > MOST:
        raise Unknown
    return np.take(arrays[0], arrays[1].astype(np.int64), attrs.get("axis", 0))


def _concat(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    if sum(array.size for array in arrays) > MOST:
        raise Unknown
    return np.concatenate(arrays, attrs["axis"])


def backwards(start: int, stop: int, n: int) -> tuple[int, int | None]:
    """Where a slice with a negative step of an axis of n entries begins and ends, by Python's rules.

    In ONNX a start before the first entry is the first entry; in Python nothing would be left.
    """
    start, stop = (place + n if place < 0 else place for place in (start, stop))
    return max(0, min(start, n - 1)), None if stop < 0 else min(stop, n - 1)


def _slice(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    x, *rest = arrays
    if opset < 10:
        rest = [np.asarray(attrs[name]) for name in ("starts", "ends", "axes") if name in attrs]
    starts, stops, *more = (list(map(int, part)) for part in rest)
    axes = more[0] if more else range(len(starts))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    places = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps):
        places[axis] = slice(*(backwards(start, stop, x.shape[axis]) if step < 0 else (start, stop)), step)
    return x[tuple(places)]


def _squeeze(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return np.squeeze(arrays[0], _axes(arrays, attrs))


def _unsqueeze(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return np.expand_dims(arrays[0], _axes(arrays, attrs) or ())


def _reshape(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return arrays[0].reshape([int(n) for n in arrays[1]])


def _product(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return np.prod(arrays[0], _axes(arrays, attrs), keepdims=bool(attrs.get("keepdims", 1)))


def _total(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return np.sum(arrays[0], _axes(arrays, attrs), keepdims=bool(attrs.get("keepdims", 1)))


def _cast(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    expect(attrs.get("to") in (1, 6, 7, 11), "sizes become whole numbers or floats")
    return arrays[0]


def _expand(arrays: Sequence[np.ndarray], attrs: Mapping[str, Any], opset: int) -> np.ndarray:
    return np.broadcast_to(arrays[0], [int(n) for n in arrays[1]])


RULES: Mapping[str, Arithmetic] = {
    "Add": each(lambda a, b: _whole(a) + _whole(b)),
    "Sub": each(lambda a, b: _whole(a) - _whole(b)),
    "Mul": each(_times),
    "Div": each(_divided),
    "Neg": each(lambda a: -_whole(a)),
    "Equal": each(_equal),
    "Where": each(_chosen),
    "Floor": each(_whole),
    "Ceil": each(_whole),
    "Identity": each(lambda a: a),
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "ReduceProd": _product,
    "ReduceSum": _total,
    "Cast": _cast,
    "Expand": _expand,
}
