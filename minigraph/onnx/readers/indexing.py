"""Entries at indices."""

from __future__ import annotations

from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops import index
from minigraph.ops.pointwise import cast, equal, where
from minigraph.ops.shape import expand_dims, reshape, slice_, slice_axis, squeeze


@reads("Gather")
def gather(call: Call) -> Tensor:
    """Entries along an axis; one whose place is known is a slice."""
    x, places, axis = call.weight(0), call.maybe(1), call.integer("axis", 0)
    expect(-x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
    if places is not None and places.ndim == 0:
        at, n = int(places), x.shape[axis]
        expect(not isinstance(n, int) or -n <= at < n, "index {} is outside of an axis of {}", at, n)
        return squeeze(slice_axis(x, axis, at, None if at == -1 else at + 1), axis)
    return index.gather(x, call.tensor(1), axis)


@reads("GatherElements")
def gather_elements(call: Call) -> Tensor:
    """Indices may be of fewer places than x along the other axes; what lies beyond is not read."""
    x, places, axis = call.tensor(0), call.tensor(1), call.integer("axis", 0)
    expect(x.rank == places.rank, "{} and indices {} differ in rank", x.value, places.value)
    expect(-x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
    stop: list[Any] = [
        None if a == b or i == axis % x.rank else b for i, (a, b) in enumerate(zip(x.shape, places.shape))
    ]
    if any(n is not None for n in stop):
        x = slice_(x, (None,) * x.rank, stop)
    return index.take_along_axis(x, places, axis)


@reads("OneHot")
def one_hot(call: Call) -> Tensor:
    """The second of `values` where the index is, else the first. Indices outside of -depth to depth - 1 have none."""
    depth, values = int(call.number(1)), call.tensor(2)
    expect(0 < depth < 1 << 31, "the depth is 1 or more, not {}", depth)
    expect(values.shape == (2,), "values are two, off and on, not {}", values.value)
    labels = cast(call.tensor(0), "int64")
    axis = call.integer("axis", -1)
    labels = where(labels < 0, labels + depth, labels)
    labels = expand_dims(labels, axis)
    axis = axis % labels.rank
    places = reshape(index.arange(labels, depth), tuple(-1 if i == axis else 1 for i in range(labels.rank)))
    off, on = (reshape(slice_axis(values, 0, i, i + 1), ()) for i in range(2))
    return where(equal(labels, places), on, off)
