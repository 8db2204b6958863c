"""Pooling over windows of 1 to 3 spatial axes: the largest number of each, or the mean.

Max pooling selects: the first largest number of a window, in the order of memory, or the first NaN, as NumPy's argmax
does. `max_pool_select` picks from another tensor what max pooling of x would pick, `max_pool_gradient` is its
transpose; both are linear in that tensor, so pooling can be differentiated again and again. Padding never wins and, by
default, does not count in a mean. So a partial window at the end (ceil_mode) is one that reaches into more padding, and
nodes say it in that form.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Size, known, product, shape_of, show
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Channels, Example, Half, Kernel, Op, float_dtype, integers, per_number, real, whole
from minigraph.ops.half import widened
from minigraph.ops.pointwise import cast, exp, log, sqrt, where
from minigraph.ops.reduce import max as largest
from minigraph.ops.reduce import mean
from minigraph.ops.shape import concat, slice_axis
from minigraph.ops.window import (
    Pairs,
    arranged,
    beside_windows,
    ceiled,
    channel_axis,
    channels_first,
    cropped,
    extents_of,
    from_channels_first,
    layout_of,
    offsets,
    padded,
    padding_of,
    per_axis,
    positions,
    spatial_axes,
    three,
    window_fields,
)


def _geometry(
    x: Type, window: Any, stride: Any, padding: Any, dilation: Any, layout: Any, ceil_mode: Any
) -> dict[str, Any]:
    layout = layout_of(x, layout)
    rank = len(layout) - 2
    window, dilation = per_axis(window, rank, "window", 1), per_axis(dilation, rank, "dilation", 1)
    stride = window if stride is None else per_axis(stride, rank, "stride", 1)
    padding = padding_of(padding, extents_of(x, layout), window, stride, dilation)
    if ceil_mode:
        padding = ceiled(extents_of(x, layout), window, stride, padding, dilation)
    for n, *geometry in zip(extents_of(x, layout), window, stride, padding, dilation):
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
    places = positions(extents_of(x, layout), window, stride, padding, dilation)
    return Type(arranged(layout, x.shape[0], x.shape[channel_axis(layout)], places), x.dtype)


def _fields(x: Type, y: Type, layout: str, count_include_pad: Any = False, **geometry: Any) -> dict[str, Any]:
    """What the kernels must know of y, which pooling x gives."""
    counting = count_include_pad
    if not isinstance(counting, tuple):
        counting = geometry["padding"] if counting else ((0, 0),) * (x.rank - 2)
    return {
        "channels": x.shape[channel_axis(layout)],
        **window_fields(x, y, layout=layout, **geometry),
        "counted_before": three([before for before, _ in counting], 0),
        "counted_after": three([after for _, after in counting], 0),
    }


CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (  # x, y, attributes
    ((2, 3, 5, 4), (2, 3, 2, 2), {"window": 2}),
    ((1, 2, 5, 6), (1, 2, 3, 3), {"window": 3, "stride": 2, "padding": ((1, 1), (0, 1))}),
    ((2, 7, 1), (2, 3, 1), {"window": 3, "stride": 2, "layout": "NLC"}),
    ((1, 2, 6, 5), (1, 2, 2, 1), {"window": (2, 3), "stride": 2, "dilation": (3, 2)}),
    ((1, 1, 3, 3, 4), (1, 1, 2, 2, 3), {"window": 2, "stride": 1}),
    ((1, 2, 6, 4), (1, 2, 3, 2), {"window": (3, 4), "stride": 2, "padding": ((1, 0), (1, 1)), "ceil_mode": True}),
    ((0, 2, 4, 4), (0, 2, 2, 2), {"window": 2}),
)


# max


def max_pool_types(
    x: Type,
    /,
    window: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    layout: str | None = None,
    ceil_mode: bool = False,
) -> Type:
    """The largest number of each window; NaN if there is one. Steps are as long as the window unless `stride` says
    otherwise.

    window, stride, dilation: a number, or one for each spatial axis. padding, layout: as in conv. ceil_mode=True keeps
    a last window that reaches beyond the end, if it starts before that, as PyTorch and ONNX do.
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
    small = math.prod(window) <= np.iinfo(np.int16).max  # as almost always: it is read once for each entry
    chosen = np.zeros(best.shape, np.int16 if small else np.int64)
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
    kernel=Kernel("pool.h", lambda xs, ys, **attrs: _fields(xs[0], ys[0], **attrs)),
    channels=lambda types, axis, layout, **attrs: beside_windows(axis, layout, "positive", True),
    images=(0, -1),
    half=Half(),
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
    ceil_mode: bool = False,
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
    kernel=Kernel("pool.h", lambda xs, ys, **attrs: _fields(xs[1], xs[0], **attrs)),
    images=(0, 1, -1),
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
    ceil_mode: bool = False,
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
    kernel=Kernel("pool.h", lambda xs, ys, **attrs: _fields(xs[1], ys[0], **attrs)),
    images=(0, 1, -1),
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
    count_include_pad: Any = False,
    layout: str | None = None,
    ceil_mode: bool = False,
) -> Type:
    """The mean of each window. Padding counts, as zeros, only with count_include_pad=True (PyTorch's default).

    What a partial last window (ceil_mode=True) has behind the padding never counts. A node that has such windows says
    as count_include_pad how much of its padding counts: (before, after) for each spatial axis.
    """
    float_dtype(x)
    return _pooled(x, window, stride, padding, dilation, layout)  # type: ignore[arg-type]


def avg_pool_canonical(x: Type, *, count_include_pad: Any, ceil_mode: Any, **attrs: Any) -> dict[str, Any]:
    geometry = _geometry(x, **attrs, ceil_mode=ceil_mode)
    padding, counting = geometry["padding"], count_include_pad
    if isinstance(counting, (tuple, list)):
        counting = tuple(tuple(pair) for pair in counting)
        pairs = zip(counting, padding, strict=True)
        expect(
            all(0 <= c <= p for some, all_ in pairs for c, p in zip(some, all_, strict=True)),
            "no more than the padding {} can count, not {}",
            padding,
            count_include_pad,
        )
    elif counting and ceil_mode:
        counting = _geometry(x, **attrs, ceil_mode=False)["padding"]
    if isinstance(counting, tuple):
        counting = True if counting == padding else counting if any(map(any, counting)) else False
    return {**geometry, "count_include_pad": counting if isinstance(counting, tuple) else bool(counting)}


def _counts(
    extents: tuple[int, ...],
    places: tuple[int, ...],
    window: Any,
    stride: Any,
    padding: Pairs,
    dilation: Any,
    include_pad: bool | Pairs,
) -> np.ndarray:
    """How many entries of each window count, as (1, 1, *positions)."""
    if include_pad is True:
        return np.full((1, 1, *places), math.prod(window))
    counting = include_pad or ((0, 0),) * len(padding)
    inside = np.ones((1, 1, *(a + n + b for n, (a, b) in zip(extents, counting))), np.int64)
    inside = padded(inside, tuple((p - a, q - b) for (p, q), (a, b) in zip(padding, counting)))
    total = np.zeros((1, 1, *places), np.int64)
    for _, visited in offsets(window, stride, dilation, places):
        total += inside[visited]
    return total


def avg_pool_reference(
    x: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, count_include_pad: Any, layout: str
) -> np.ndarray:
    x = channels_first(x, layout)
    places = positions(x.shape[2:], window, stride, padding, dilation)
    source, total = padded(x, padding), np.zeros((*x.shape[:2], *places), x.dtype)
    for _, visited in offsets(window, stride, dilation, places):
        total += source[visited]
    counts = _counts(x.shape[2:], places, window, stride, padding, dilation, count_include_pad)
    return from_channels_first(total / counts.astype(x.dtype), layout)


def avg_pool_channels(
    types: tuple[Type, ...], axis: int, padding: Pairs, count_include_pad: Any, layout: str, **attrs: Any
) -> Channels | None:
    """The weights of a window add up to 1, and so a summand passes, unless zeros of the padding count."""
    zeros_count = count_include_pad is not False and any(map(any, padding))
    return beside_windows(axis, layout, "any", not zeros_count)


avg_pool: Op = Op(
    "avg_pool",
    avg_pool_types,
    avg_pool_reference,
    canonical=avg_pool_canonical,
    gradient=lambda gs, xs, ys, **attrs: (
        avg_pool_gradient(gs[0], extents=extents_of(xs[0].value.type, attrs["layout"]), **attrs),
    ),
    flops=lambda inputs, outputs, attrs: outputs[0].size * product(attrs["window"]),
    kernel=Kernel("pool.h", lambda xs, ys, **attrs: _fields(xs[0], ys[0], **attrs)),
    channels=avg_pool_channels,
    images=(0, -1),
    half=Half(),
    examples=(
        *(Example(real(*x), **attrs) for x, _, attrs in CASES),
        Example(real(1, 2, 4, 3), window=3, stride=1, padding=1, count_include_pad=True),
        Example(real(1, 1, 4, 3), window=(3, 2), stride=2, padding=1, count_include_pad=True, ceil_mode=True),
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
    count_include_pad: Any = False,
    layout: str | None = None,
    ceil_mode: bool = False,
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


def avg_pool_gradient_reference(
    g: np.ndarray,
    window: Any,
    extents: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    count_include_pad: Any,
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
    kernel=Kernel("pool.h", lambda xs, ys, extents, **attrs: _fields(ys[0], xs[0], **attrs)),
    images=(0, -1),
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
        Example(real(1, 1, 2), extents=(4,), window=3, stride=2, count_include_pad=True, ceil_mode=True),
    ),
)


# to given sizes


def _adaptive_types(x: Type, sizes: tuple[int, ...], layout: str) -> Type:
    for n, m in zip(extents_of(x, layout), sizes):
        expect(m == 1 or known(n, "the size of what is pooled to several places") > 0, "there is nothing in {}", x)
    expect(0 not in extents_of(x, layout), "there is nothing in the windows of {}", x)
    return Type(arranged(layout, x.shape[0], x.shape[channel_axis(layout)], sizes), x.dtype)


def _adaptive_canonical(x: Type, sizes: Any, layout: Any) -> dict[str, Any]:
    layout = layout_of(x, layout)
    return {"sizes": per_axis(sizes, len(layout) - 2, "sizes", 1), "layout": layout}


def _parts(n: int, m: int) -> list[tuple[int, int]]:
    """Where the m windows along n entries begin and end."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _adaptive(x: np.ndarray, sizes: tuple[int, ...], layout: str, reduce: Any) -> np.ndarray:
    x = channels_first(x, layout)
    parts, axes = [_parts(n, m) for n, m in zip(x.shape[2:], sizes)], tuple(range(2, x.ndim))
    y = np.zeros((*x.shape[:2], *sizes), x.dtype)
    for place in np.ndindex(*sizes):
        window = tuple(slice(*along[i]) for along, i in zip(parts, place))
        y[(slice(None), slice(None), *place)] = reduce(x[(slice(None), slice(None), *window)], axes)
    return from_channels_first(y, layout)


def _axis_by_axis(x: Tensor, sizes: tuple[int, ...], layout: str, pooled: Any) -> Tensor:
    """A pool to given sizes, one axis after the other: `pooled` pools one axis of what it is given to size 1."""
    for axis, m in reversed(list(zip(spatial_axes(layout), sizes))):
        n = x.shape[axis]
        if m == 1:
            x = pooled(x, axis)
        elif n != m:
            x = concat([pooled(slice_axis(x, axis, *part), axis) for part in _parts(known(n, "a size"), m)], axis=axis)
    return x


def _evenly(x: Tensor, sizes: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """The window, if all windows are of one size and touch."""
    pairs: Any = list(zip(extents_of(x.value.type, layout), sizes))
    return tuple(n // m for n, m in pairs) if all(isinstance(n, int) and n % m == 0 for n, m in pairs) else None


def adaptive_avg_pool_types(x: Type, /, sizes: Any, *, layout: str | None = None) -> Type:
    """The means of windows that lead to given spatial sizes: place i of m takes floor(i*n/m) to ceil((i+1)*n/m) of n.

    sizes: a number, or one for each spatial axis. layout: as in conv.
    """
    float_dtype(x)
    return _adaptive_types(x, sizes, layout)  # type: ignore[arg-type]


def adaptive_avg_pool_reference(x: np.ndarray, sizes: tuple[int, ...], layout: str) -> np.ndarray:
    return _adaptive(x, sizes, layout, lambda part, axes: part.sum(axes) / math.prod(part.shape[2:]))


def adaptive_avg_pool_expand(x: Tensor, sizes: tuple[int, ...], layout: str) -> Tensor:
    if window := _evenly(x, sizes, layout):
        return avg_pool(x, window, layout=layout)
    wide = widened(x)
    return cast(_axis_by_axis(wide, sizes, layout, lambda part, axis: mean(part, axis, keepdims=True)), x.dtype)


ADAPTIVE = (
    ((2, 1, 5, 4), {"sizes": 3}),
    ((1, 2, 4, 6), {"sizes": (2, 3)}),
    ((1, 3, 2), {"sizes": 5, "layout": "NLC"}),
    ((1, 3, 1, 2), {"sizes": (1, 1), "layout": "NHWC"}),
    ((1, 1, 2, 3, 2), {"sizes": (1, 2, 2)}),
    ((0, 2, 3, 3), {"sizes": 2}),
)
ADAPTIVE_EXAMPLES = tuple(Example(real(*shape), **attrs) for shape, attrs in ADAPTIVE)

adaptive_avg_pool: Op = Op(
    "adaptive_avg_pool",
    adaptive_avg_pool_types,
    adaptive_avg_pool_reference,
    expand=adaptive_avg_pool_expand,
    canonical=_adaptive_canonical,
    flops=per_number(1),
    channels=lambda types, axis, sizes, layout: beside_windows(axis, layout, "any", True),
    half=Half(),
    examples=ADAPTIVE_EXAMPLES,
)


def adaptive_max_pool_types(x: Type, /, sizes: Any, *, layout: str | None = None) -> Type:
    """The largest numbers of windows that lead to given spatial sizes, as those of adaptive_avg_pool; NaN if there is
    one. The first largest takes the gradient, as in max_pool."""
    expect(x.dtype != "bool", "needs numbers, got {}", x)
    for n in extents_of(x, layout):  # type: ignore[arg-type]
        known(n, "the size of what is pooled")
    return _adaptive_types(x, sizes, layout)  # type: ignore[arg-type]


def adaptive_max_pool_expand(x: Tensor, sizes: tuple[int, ...], layout: str) -> Tensor:
    """The first of equals along each axis, from the last axis on: that is the first in the order of memory."""
    if window := _evenly(x, sizes, layout):
        return max_pool(x, window, layout=layout)

    def pooled(part: Tensor, axis: int) -> Tensor:
        window = tuple(part.shape[i] if i == axis else 1 for i in spatial_axes(layout))
        return max_pool(part, window, layout=layout)

    return _axis_by_axis(x, sizes, layout, pooled)


adaptive_max_pool: Op = Op(
    "adaptive_max_pool",
    adaptive_max_pool_types,
    lambda x, sizes, layout: _adaptive(x, sizes, layout, lambda part, axes: np.max(part, axes)),
    expand=adaptive_max_pool_expand,
    canonical=_adaptive_canonical,
    flops=per_number(1),
    channels=lambda types, axis, sizes, layout: beside_windows(axis, layout, "positive", True),
    half=Half(),
    examples=(*ADAPTIVE_EXAMPLES, Example(integers(1, 2, 5, below=9), sizes=2)),
)


# of other ops


def global_avg_pool(x: Any, *, layout: str | None = None, keepdims: bool = False) -> Any:
    """The mean of each channel of each image: (N, C, H, W) -> (N, C), or (N, C, 1, 1) with keepdims."""
    return mean(x, spatial_axes(layout_of(x.value.type, layout)), keepdims)


def global_max_pool(x: Any, *, layout: str | None = None, keepdims: bool = False) -> Any:
    """The largest number of each channel of each image: (N, C, H, W) -> (N, C), or (N, C, 1, 1) with keepdims."""
    return largest(x, spatial_axes(layout_of(x.value.type, layout)), keepdims)


def lp_pool(
    x: Any,
    window: Any,
    *,
    p: int = 2,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    layout: str | None = None,
    ceil_mode: bool = False,
) -> Any:
    """The p-norm of each window, (sum |x|^p)^(1/p), of a partial one too; p is a whole number. The rest as in max_pool.

    For p > 1 the root has no derivative at a window of zeros: gradients there are NaN.
    """
    p = whole(p, "p", 1)
    geometry = _geometry(x.value.type, window, stride, padding, dilation, layout, ceil_mode)
    wide = widened(x)
    size = wide if p % 2 == 0 else where(wide < 0.0, -wide, wide)
    power = size
    for _ in range(p - 1):
        power = power * size
    total = avg_pool(power, **geometry, count_include_pad=True) * float(math.prod(geometry["window"]))
    return cast(total if p == 1 else sqrt(total) if p == 2 else exp(log(total) * (1 / p)), x.dtype)
