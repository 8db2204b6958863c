"""Reductions and running sums: ONNX's evaluator, and loops over lines of numbers in float64."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, fsum, inf, isfinite, log, nan, prod, sqrt
from typing import Any

import numpy as np

from cases import INF, NAN, Case, These, positive, real, truth, whole
from minigraph.core.dtypes import FLOATS

EDGES = These([NAN, -INF, INF, 0.0, -0.0, 1.0, -1.0, 3.5])
INFINITE_ROWS = These([[-INF, -INF, -INF], [-INF, 1.0, 2.0], [INF, 1.0, -INF], [NAN, INF, 0.0]])
AXES: list[tuple[Any, dict[str, Any]]] = [
    (real(3, 5), {}),
    (real(3, 4, 5), {"axes": (0, -1)}),
    (real(3, 1, 5), {"axes": 1, "keepdims": True}),
    (real(3, 5), {"axes": ()}),
    (real(7), {"axes": 0}),
    (real(1, 1), {}),
    (real(0, 3), {"axes": 1}),
    (real(2, 3, 4, 5), {"axes": (-1, 1), "keepdims": True}),
]

CASES = [
    *(Case(op, x, **attrs) for op in ("min", "prod", "logsumexp") for x, attrs in AXES),
    *(Case(op, x, **attrs, correction=c) for op in ("var", "std") for x, attrs in AXES for c in (0, 1)),
    Case("min", EDGES),
    Case("min", These([[-INF, 1.0], [INF, INF]]), axes=1),
    Case("min", whole(3, 7), axes=1),
    Case("min", whole(9, low=0, below=256, dtype="uint8")),
    Case("prod", real()),
    Case("prod", real(0, 3), axes=0),
    Case("prod", These([[2.0, 0.0, -3.0], [INF, 0.0, 1.0], [NAN, 0.0, 1.0], [-INF, 2.0, -1.0]]), axes=1),
    Case("prod", whole(3, 7), axes=0),
    Case("prod", whole(2, 9, dtype="int32"), axes=1),
    Case("prod", These([[300.0, 300.0, 1e-3, 0.5]]), axes=1),  # between, it exceeds float16
    Case("logsumexp", INFINITE_ROWS, axes=1, loops=True),
    Case("logsumexp", These([[1000.0, 1000.0], [-1000.0, -1001.0], [60000.0, -60000.0]]), axes=1, loops=True),
    Case("logsumexp", real(), loops=True),
    *(
        Case(op, x, **attrs)
        for op in ("var", "std")
        for x, attrs in (
            (real(0, 3), {"axes": 0}),
            (real(0, 3), {"axes": 0, "correction": 1}),
            (real(3, 1), {"axes": 1, "correction": 1}),
            (These([2.0, 2.0, 2.0]), {}),
            (These([[INF, 1.0], [NAN, 1.0]]), {"axes": 1}),
            (These([1000.0, 1001.0, 999.0, 1000.5]), {}),
        )
    ),
    # the mean is a million times the deviation: the difference of mean squares would have no digit left in float32
    Case("var", These([1e6 + n % 3 for n in range(50)]), dtypes=("float32", "float64")),
    *(
        Case("argmin", x, **attrs)
        for x, attrs in (
            (real(3, 5), {}),
            (real(3, 4, 1), {"axis": 1, "keepdims": True}),
            (real(3, 4, 1), {"axis": 2}),
            (real(0, 3), {}),
            (whole(5, 9, low=0, below=3), {}),
            (whole(5, 9, low=0, below=3), {"axis": 0}),
            (EDGES, {"axis": 0}),
            (These([[1.0, NAN, -INF, NAN], [2.0, -INF, -INF, 0.0]]), {"axis": 1}),
        )
    ),
    *(
        Case(op, x, **attrs)
        for op in ("all", "any")
        for x, attrs in (
            (truth(3, 2), {}),
            (truth(5, 2), {"axes": 1}),
            (truth(3, 1, 2), {"axes": (0, -1), "keepdims": True}),
            (truth(0, 3), {"axes": 0}),
            (truth(0, 3), {"axes": 1}),
            (truth(2, 3), {"axes": ()}),
            (truth(), {}),
        )
    ),
    *(
        Case("cumsum", x, axis=axis, exclusive=exclusive, reverse=reverse)
        for x, axis in (
            (real(5), 0),
            (real(3, 4), -1),
            (real(2, 5, 3), 1),
            (real(4, 1), 1),
            (real(0, 3), 0),
            (real(3, 0), 0),
            (whole(3, 4), 0),
            (whole(6, dtype="int32"), 0),
            (These([1.0, INF, 2.0, NAN, -INF, 1.0]), 0),
        )
        for exclusive in (False, True)
        for reverse in (False, True)
    ),
    Case("cumsum", positive(3000), dtypes=FLOATS),  # half precision adds up in float32
]


def _lines(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A function of one line of numbers, over the numbers that `axes` leave together."""

    def reduce(x: np.ndarray, axes: Any = None, keepdims: bool = False, **attrs: Any) -> np.ndarray:
        given = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
        over = sorted(axis % x.ndim for axis in given)
        rest = [axis for axis in range(x.ndim) if axis not in over]
        y = np.zeros([x.shape[axis] for axis in rest])
        for at in np.ndindex(*y.shape):
            key: list[Any] = [slice(None)] * x.ndim
            for axis, i in zip(rest, at):
                key[axis] = i
            y[at] = function(np.ravel(x[tuple(key)]).tolist(), **attrs)
        return y.reshape([1 if axis in over else x.shape[axis] for axis in range(x.ndim)]) if keepdims else y

    return reduce


def variance(line: list[float], correction: int = 0) -> float:
    n = len(line)
    if n <= correction or not all(map(isfinite, line)):
        return nan
    mean = fsum(line) / n
    return fsum((x - mean) ** 2 for x in line) / (n - correction)


def logsumexp(line: list[float]) -> float:
    if any(x != x for x in line):
        return nan
    most = max(line)
    return most if most in (inf, -inf) else most + log(fsum(exp(x - most) for x in line))


def _reduce(onnx_name: str) -> Callable[..., str]:
    def write(model: Any, x: str, axes: Any = None, keepdims: bool = False) -> str:
        axes = range(model.given[x].ndim) if axes is None else [axes] if isinstance(axes, int) else axes
        return model.add(onnx_name, x, model.array(list(axes)), keepdims=int(keepdims), noop_with_empty_axes=1)

    return write


ONNX: dict[str, Callable[..., Any]] = {
    "min": _reduce("ReduceMin"),
    "prod": _reduce("ReduceProd"),
    "logsumexp": _reduce("ReduceLogSumExp"),
    "argmin": lambda model, x, axis=-1, keepdims=False: model.add("ArgMin", x, axis=axis, keepdims=int(keepdims)),
    "cumsum": lambda model, x, axis=-1, exclusive=False, reverse=False: model.add(
        "CumSum", x, model.array(axis), exclusive=int(exclusive), reverse=int(reverse)
    ),
}

LOOPS: dict[str, Callable[..., Any]] = {
    "prod": _lines(prod),
    "logsumexp": _lines(logsumexp),
    "var": _lines(variance),
    "std": _lines(lambda line, correction=0: sqrt(variance(line, correction))),
    "all": _lines(all),
    "any": _lines(any),
}

EXACT = {"min"}
