"""Pooling over windows of 1 to 3 spatial axes: the largest number of each, or the mean.

Max pooling selects: the first largest number of a window, in the order of memory, or the first NaN, as NumPy's argmax
does. `max_pool_select` picks from another tensor what max pooling of x would pick, `max_pool_gradient` is its
transpose; both are linear in that tensor, so pooling can be differentiated again and again. Padding never wins and, by
default, does not count in a mean.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.dim import Shape, Size, product, shape_of, show
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Op, float_dtype, integers, real
from minigraph.ops.half import in_float32
from minigraph.ops.reduce import mean
from minigraph.ops.window import (
    Pairs,
    arranged,
    channel_axis,
    channels_first,
    cropped,
    from_channels_first,
    layout_of,
    offsets,
    padded,
    padding_of,
    per_axis,
    positions,
    spatial_axes,
)


def _extents(x: Type, layout: str) -> Shape:
    return tuple(x.shape[axis] for axis in spatial_axes(layout))


def _geometry(x: Type, window: Any, stride: Any, padding: Any, dilation: Any, layout: Any) -> dict[str, Any]:
    layout = layout_of(x, layout)
    rank = len(layout) - 2
    window, dilation = per_axis(window, rank, "window", 1), per_axis(dilation, rank, "dilation", 1)
    stride = window if stride is None else per_axis(stride, rank, "stride", 1)
    padding = padding_of(padding, _extents(x, layout), window, stride, dilation)
    for n, *geometry in zip(_extents(x, layout), window, stride, padding, dilation):
        _check_windows(n, *geometry)
    return {"window": window, "stride": stride, "padding": padding, "dilation": dilation, "layout": layout}


def _check_windows(n: Size, k: int, s: int, pair: tuple[int, int], d: int) -> None:
    """Raise GraphError where a window would hold nothing but padding: there is no largest number in it, and no mean."""
    reach = d * (k - 1) + 1
    expect(max(pair) < reach, "padding {} is as large as the window: some windows would hold nothing else", pair)
    if isinstance(n, int) and any(pair) and (d > 1 or n == 0):
        for start in range(-pair[0], n + pair[1] - reach + 1, s):
            some = any(0 <= start + j * d < n for j in range(k))
            expect(some, "the window at {} of an axis of {} would hold nothing but padding {}", start, n, pair)


def _pooled(x: Type, window: Any, stride: Any, padding: Any, dilation: Any, layout: str) -> Type:
    places = positions(_extents(x, layout), window, stride, padding, dilation)
    return Type(arranged(layout, x.shape[0], x.shape[channel_axis(layout)], places), x.dtype)


CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (  # x, y, attributes
    ((2, 3, 5, 4), (2, 3, 2, 2), {"window": 2}),
    ((1, 2, 5, 6), (1, 2, 3, 3), {"window": 3, "stride": 2, "padding": ((1, 1), (0, 1))}),
    ((2, 7, 1), (2, 3, 1), {"window": 3, "stride": 2, "layout": "NLC"}),
    ((1, 2, 6, 5), (1, 2, 2, 1), {"window": (2, 3), "stride": 2, "dilation": (3, 2)}),
    ((1, 1, 3, 3, 4), (1, 1, 2, 2, 3), {"window": 2, "stride": 1}),
    ((0, 2, 4, 4), (0, 2, 2, 2), {"window": 2}),
)


# max


def max_pool_types(
    x: Type, /, window: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, layout: str | None = None
) -> Type:
    """The largest number of each window; NaN if there is one. Steps are as long as the window unless `stride` says
    otherwise.

    window, stride, dilation: a number, or one for each spatial axis. padding, layout: as in conv.
    """
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    return _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]


def _largest(x: np.ndarray, window: Any, stride: Any, padding: Pairs, dilation: Any) -> np.ndarray:
    """x (N, C, ...) -> the largest number of each window. Each has a number, so what stands for padding never wins."""
    lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    places = positions(x.shape[2:], window, stride, padding, dilation)
    filled, best = padded(x, padding, lowest), np.full((*x.shape[:2], *places), lowest, x.dtype)
    for _, visited in offsets(window, stride, dilation, places):
        np.maximum(best, filled[visited], out=best)
    return best


def _chosen(x: np.ndarray, window: Any, stride: Any, padding: Pairs, dilation: Any) -> np.ndarray:
    """For each window the index, among its entries, of the first largest number or the first NaN; never of padding."""
    best, filled = _largest(x, window, stride, padding, dilation), padded(x, padding)
    inside = padded(np.ones((1, 1, *x.shape[2:]), bool), padding)
    chosen = np.zeros(best.shape, np.int16)
    for number, (_, visited) in reversed(list(enumerate(offsets(window, stride, dilation, best.shape[2:])))):
        entry = filled[visited]
        # the first is written last
        np.copyto(chosen, number, where=((entry == best) | (entry != entry)) & inside[visited])
    return chosen


def max_pool_reference(x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, layout: str) -> np.ndarray:
    return from_channels_first(_largest(channels_first(x, layout), window, stride, padding, dilation), layout)


def max_pool_gradient_rule(gs: Any, xs: Any, ys: Any, **attrs: Any) -> tuple[Any]:
    return (max_pool_gradient(gs[0], xs[0], **attrs),)


max_pool = Op(
    "max_pool",
    max_pool_types,
    max_pool_reference,
    max_pool_gradient_rule,
    canonical=_geometry,
    flops=lambda inputs, outputs, attrs: outputs[0].size * product(attrs["window"]),
    examples=(*(Example(real(*x), **attrs) for x, _, attrs in CASES), Example(integers(1, 2, 4, below=9), window=2)),
)


def max_pool_gradient_types(
    g: Type,
    x: Type,
    /,
    window: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    layout: str | None = None,
) -> Type:
    """g, of the shape that max pooling x gives, brought to where x's windows have their largest number.

    Added up where they meet.
    """
    float_dtype(g, x)
    y = _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]
    expect(y == g, "pooling {} gives {}, so its gradient cannot be {}", x, y, g)
    return x


def max_pool_gradient_reference(
    g: np.ndarray, x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, layout: str
) -> np.ndarray:
    g, x = channels_first(g, layout), channels_first(x, layout)
    chosen = _chosen(x, window, stride, padding, dilation)
    total = padded(np.zeros(x.shape, x.dtype), padding)
    for number, (_, visited) in enumerate(offsets(window, stride, dilation, g.shape[2:])):
        total[visited] += np.where(chosen == number, g, 0)
    return from_channels_first(np.ascontiguousarray(cropped(total, padding)), layout)


max_pool_gradient: Op = Op(
    "max_pool_gradient",
    max_pool_gradient_types,
    max_pool_gradient_reference,
    canonical=lambda g, x, **attrs: _geometry(x, **attrs),
    gradient=lambda gs, xs, ys, **attrs: (max_pool_select(gs[0], xs[1], **attrs), None),
    flops=lambda inputs, outputs, attrs: inputs[0].size * product(attrs["window"]),
    examples=tuple(Example(real(*y), real(*x), **attrs) for x, y, attrs in CASES),
)


def max_pool_select_types(
    h: Type,
    x: Type,
    /,
    window: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    layout: str | None = None,
) -> Type:
    """From each window of h, the entry at the place where x has its largest number."""
    float_dtype(h, x)
    expect(h == x, "both have one shape; got {} and {}", h, x)
    return _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]


def max_pool_select_reference(
    h: np.ndarray, x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, layout: str
) -> np.ndarray:
    h, x = channels_first(h, layout), channels_first(x, layout)
    chosen = _chosen(x, window, stride, padding, dilation)
    source, picked = padded(h, padding), np.zeros(chosen.shape, h.dtype)
    for number, (_, visited) in enumerate(offsets(window, stride, dilation, chosen.shape[2:])):
        picked = np.where(chosen == number, source[visited], picked)
    return from_channels_first(picked, layout)


max_pool_select: Op = Op(
    "max_pool_select",
    max_pool_select_types,
    max_pool_select_reference,
    canonical=lambda h, x, **attrs: _geometry(x, **attrs),
    gradient=lambda gs, xs, ys, **attrs: (max_pool_gradient(gs[0], xs[1], **attrs), None),
    flops=lambda inputs, outputs, attrs: outputs[0].size * product(attrs["window"]),
    examples=tuple(Example(real(*x), real(*x), **attrs) for x, _, attrs in CASES),
)


# average


def avg_pool_types(
    x: Type,
    /,
    window: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    count_include_pad: bool = False,
    layout: str | None = None,
) -> Type:
    """The mean of each window. Padding counts, as zeros, only with count_include_pad=True (PyTorch's default)."""
    float_dtype(x)
    return _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]


def avg_pool_canonical(x: Type, *, count_include_pad: Any, **attrs: Any) -> dict[str, Any]:
    return {**_geometry(x, **attrs), "count_include_pad": bool(count_include_pad)}


def _counts(
    extents: tuple[int, ...],
    places: tuple[int, ...],
    window: Any,
    stride: Any,
    padding: Pairs,
    dilation: Any,
    include_pad: bool,
) -> np.ndarray:
    """How many entries of each window count, as (1, 1, *positions)."""
    if include_pad:
        return np.full((1, 1, *places), math.prod(window))
    inside = padded(np.ones((1, 1, *extents), np.int64), padding)
    total = np.zeros((1, 1, *places), np.int64)
    for _, visited in offsets(window, stride, dilation, places):
        total += inside[visited]
    return total


@in_float32
def avg_pool_reference(
    x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, count_include_pad: bool, layout: str
) -> np.ndarray:
    x = channels_first(x, layout)
    places = positions(x.shape[2:], window, stride, padding, dilation)
    source, total = padded(x, padding), np.zeros((*x.shape[:2], *places), x.dtype)
    for _, visited in offsets(window, stride, dilation, places):
        total += source[visited]
    counts = _counts(x.shape[2:], places, window, stride, padding, dilation, count_include_pad)
    return from_channels_first(total / counts.astype(x.dtype), layout)


avg_pool: Op = Op(
    "avg_pool",
    avg_pool_types,
    avg_pool_reference,
    canonical=avg_pool_canonical,
    gradient=lambda gs, xs, ys, **attrs: (
        avg_pool_gradient(gs[0], extents=_extents(xs[0].value.type, attrs["layout"]), **attrs),
    ),
    flops=lambda inputs, outputs, attrs: outputs[0].size * product(attrs["window"]),
    examples=(
        *(Example(real(*x), **attrs) for x, _, attrs in CASES),
        Example(real(1, 2, 4, 3), window=3, stride=1, padding=1, count_include_pad=True),
    ),
)


def avg_pool_gradient_types(
    g: Type,
    /,
    window: Any,
    *,
    extents: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    count_include_pad: bool = False,
    layout: str | None = None,
) -> Type:
    """The gradient of average pooling with respect to its input, whose spatial sizes are `extents`: linear in g."""
    x = Type(arranged(layout, g.shape[0], g.shape[channel_axis(layout)], extents), float_dtype(g))  # type: ignore[arg-type]
    y = _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]
    expect(y == g, "pooling {} gives {}, so its gradient cannot be {}", x, y, g)
    return x


def avg_pool_gradient_canonical(g: Type, *, extents: Any, **attrs: Any) -> dict[str, Any]:
    extents, layout = shape_of(extents), layout_of(g, attrs["layout"])
    expect(len(extents) == g.rank - 2, "needs {} spatial sizes, got {}", g.rank - 2, show(extents))
    x = Type(arranged(layout, g.shape[0], g.shape[channel_axis(layout)], extents), g.dtype)
    return {"extents": extents, **avg_pool_canonical(x, **attrs)}


@in_float32
def avg_pool_gradient_reference(
    g: np.ndarray,
    window: Any,
    extents: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    count_include_pad: bool,
    layout: str,
) -> np.ndarray:
    g = channels_first(g, layout)
    places = g.shape[2:]
    share = g / _counts(extents, places, window, stride, padding, dilation, count_include_pad).astype(g.dtype)
    total = padded(np.zeros((*g.shape[:2], *extents), g.dtype), padding)
    for _, visited in offsets(window, stride, dilation, places):
        total[visited] += share
    return from_channels_first(np.ascontiguousarray(cropped(total, padding)), layout)


avg_pool_gradient: Op = Op(
    "avg_pool_gradient",
    avg_pool_gradient_types,
    avg_pool_gradient_reference,
    canonical=avg_pool_gradient_canonical,
    gradient=lambda gs, xs, ys, extents, **attrs: (avg_pool(gs[0], **attrs),),
    flops=lambda inputs, outputs, attrs: inputs[0].size * product(attrs["window"]),
    examples=(
        *(
            Example(
                real(*y),
                extents=[
                    n for i, n in enumerate(x) if i in spatial_axes(attrs.get("layout", "NC" + "x" * (len(x) - 2)))
                ],
                **attrs,
            )
            for x, y, attrs in CASES
        ),
        Example(real(1, 2, 4, 3), extents=(4, 3), window=3, stride=1, padding=1, count_include_pad=True),
    ),
)


def global_avg_pool(x: Any, *, layout: str | None = None, keepdims: bool = False) -> Any:
    """The mean of each channel of each image: (N, C, H, W) -> (N, C), or (N, C, 1, 1) with keepdims."""
    return mean(x, spatial_axes(layout_of(x.value.type, layout)), keepdims)
