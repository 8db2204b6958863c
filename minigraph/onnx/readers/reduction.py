"""Reductions along axes, where the largest number lies, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import product
from minigraph.core.dtypes import FLOATS
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops import reduce
from minigraph.ops.broadcast import reduced
from minigraph.ops.broadcast import sum as total
from minigraph.ops.index import topk
from minigraph.ops.pointwise import cast, log, sqrt
from minigraph.ops.scan import cumsum
from minigraph.ops.shape import flip


def _in_floats(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of floats, of whole numbers through float64."""

    def computed(x: Tensor, axes: Any, keepdims: bool) -> Tensor:
        if x.dtype in FLOATS:
            return function(x, axes, keepdims)
        return cast(function(cast(x, "float64"), axes, keepdims), x.dtype)

    return computed


def _or_logic(function: Callable[..., Tensor], logic: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes, keepdims: (logic if x.dtype == "bool" else function)(x, axes, keepdims)


# what reductions are of no numbers, where minigraph has no answer
NOTHING: dict[str, Callable[[str], Any]] = {
    "ReduceMax": lambda dtype: -math.inf if dtype in FLOATS else np.iinfo(dtype).min,
    "ReduceMin": lambda dtype: math.inf if dtype in FLOATS else np.iinfo(dtype).max,
    "ReduceLogSumExp": lambda dtype: -math.inf,
}


# reader -> (function, opset since which axes are an input)
REDUCTIONS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "ReduceSum": (total, 13),
    "ReduceMean": (_in_floats(reduce.mean), 18),
    "ReduceMax": (_or_logic(reduce.max, reduce.any), 18),
    "ReduceMin": (_or_logic(reduce.min, reduce.all), 18),
    "ReduceProd": (reduce.prod, 18),
    "ReduceL1": (reduce.l1_norm, 18),
    "ReduceL2": (_in_floats(lambda x, axes, keep: sqrt(total(x * x, axes, keep))), 18),
    "ReduceSumSquare": (lambda x, axes, keep: total(x * x, axes, keep), 18),
    "ReduceLogSum": (_in_floats(lambda x, axes, keep: log(total(x, axes, keep))), 18),
    "ReduceLogSumExp": (_in_floats(reduce.logsumexp), 18),
}


def _reduction(function: Callable[..., Tensor], since: int) -> Callable[[Call], Tensor]:
    def read(call: Call) -> Tensor:
        """Without axes, over all; with noop_with_empty_axes, over none."""
        x = call.tensor(0)
        axes = call.axes(1, x.rank, since) or None
        if axes is None and call.flag("noop_with_empty_axes"):
            axes = ()
        keepdims = call.flag("keepdims", True)
        reduced_ = tuple(range(x.rank)) if axes is None else axes
        if call.op in NOTHING and x.dtype != "bool" and product(x.shape[axis] for axis in reduced_) == 0:
            return call.net.filled(NOTHING[call.op](x.dtype), reduced(x.value.type, reduced_, keepdims), x.dtype)
        return function(x, axes, keepdims)

    return read


for name, (function, since) in REDUCTIONS.items():
    reads(name)(_reduction(function, since))


def _position(function: Callable[..., Tensor], call: Call) -> Tensor:
    """The first of the best places, or the last: the first of x turned around, counted from the end."""
    x, axis = call.tensor(0), call.integer("axis", 0)
    keepdims = call.flag("keepdims", True)
    expect(-x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
    if not call.flag("select_last_index"):
        return function(x, axis, keepdims)
    size = x.shape[axis]
    expect(isinstance(size, int), "select_last_index needs a known size, not {}", size)
    return (size - 1) - function(flip(x, axis), axis, keepdims)


@reads("ArgMax")
def argmax(call: Call) -> Tensor:
    return _position(reduce.argmax, call)


@reads("ArgMin")
def argmin(call: Call) -> Tensor:
    return _position(reduce.argmin, call)


@reads("CumSum")
def read_cumsum(call: Call) -> Tensor:
    return cumsum(call.tensor(0), call.whole(1), exclusive=call.flag("exclusive"), reverse=call.flag("reverse"))


@reads("TopK")
def read_topk(call: Call) -> Any:
    """k is an attribute before opset 10. Sorted or not, the best comes first."""
    k = call.integer("k") if call.opset < 10 else call.whole(1)
    return topk(call.tensor(0), k, call.integer("axis", -1), largest=call.flag("largest", True))
