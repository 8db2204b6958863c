"""Transposed convolution, pools whose last window is partial, and pools to given sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

import onnx_ops
from cases import INF, NAN, Case, These, real, whole
from onnx_ops import Model, back, each, explicit, first, is_last, moved, pairs

# transposed convolution


def _conv_transpose(
    model: Model,
    x: str,
    w: str,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> str:
    """ConvTranspose, group by group: the evaluator's own groups are right only for one channel in each."""
    rank, last = model.given[x].ndim, is_last(layout)
    widths = pairs(padding, rank - 2)
    first_ = moved(model, x, rank, -1, 1) if last else x
    part, axis, results = model.given[w].shape[0] // groups, model.array([1]), []
    for group in range(groups):
        start, stop = model.array([group * part]), model.array([(group + 1) * part])
        results.append(
            model.add(
                "ConvTranspose",
                model.add("Slice", first_, start, stop, axis),
                model.add("Slice", w, start, stop, model.array([0])),
                strides=each(stride, rank - 2),
                dilations=each(dilation, rank - 2),
                output_padding=each(output_padding, rank - 2),
                pads=[a for a, _ in widths] + [b for _, b in widths],
            )
        )
    y = model.add("Concat", *results, axis=1)
    return moved(model, y, rank, 1, -1) if last else y


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> np.ndarray:
    """Each number of x puts its multiple of w into the whole result, from which the ends are then cut off."""
    x = first(x, layout)
    rank, window = x.ndim - 2, w.shape[2:]
    stride, dilation, more = each(stride, rank), each(dilation, rank), each(output_padding, rank)
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation)]
    if padding == "same":  # H * stride: what is too much is cut off, a half of it in front
        extents = [n * s for n, s in zip(x.shape[2:], stride)]
        before = [max(r - s, 0) // 2 for r, s in zip(reach, stride)]
    else:
        widths = pairs(0 if padding == "valid" else padding, rank)
        before = [a for a, _ in widths]
        extents = [(n - 1) * s + r - a - b + m for n, s, r, (a, b), m in zip(x.shape[2:], stride, reach, widths, more)]
    inputs, outputs = x.shape[1] // groups, w.shape[1]
    y = np.zeros((len(x), outputs * groups, *extents))
    for n, i, o in product(range(len(x)), range(x.shape[1]), range(outputs)):
        for place in np.ndindex(*x.shape[2:]):
            for inner in np.ndindex(*window):
                at = tuple(p * s + k * d - a for p, s, k, d, a in zip(place, stride, inner, dilation, before))
                if all(0 <= c < e for c, e in zip(at, extents)):
                    y[(n, i // inputs * outputs + o, *at)] += float(x[(n, i, *place)]) * float(w[(i, o, *inner)])
    return back(y, layout)


# pools


def rounded_up(extents: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> list[tuple[int, int]]:
    """The padding that makes room for the windows of ceil mode.

    Their number is PyTorch's: ceil((x + a + b - reach) / s) + 1, less 1 if the last one would start at x + a or behind.
    """
    rank = len(extents)
    window, dilation = each(window, rank), each(dilation, rank)
    stride = window if stride is None else each(stride, rank)
    result = []
    for n, k, s, (a, b), d in zip(
        extents, window, stride, explicit(padding, extents, window, stride, dilation), dilation
    ):
        reach = d * (k - 1) + 1
        places = -(-(n + a + b - reach) // s) + 1
        if (places - 1) * s >= n + a:
            places -= 1
        result.append((a, (places - 1) * s + reach - a - n))
    return result


def with_ceil(pool: Callable[..., np.ndarray], image: int) -> Callable[..., np.ndarray]:
    """A loop of onnx_ops, given the padding that makes room; input number `image` tells the extents, or `extents`."""

    def pooled(*arrays: np.ndarray, ceil_mode: bool = False, **attrs: Any) -> np.ndarray:
        if ceil_mode:
            extents = attrs.get("extents", first(arrays[image], attrs.get("layout")).shape[2:])
            geometry = (attrs["window"], attrs.get("stride"), attrs.get("padding", 0), attrs.get("dilation", 1))
            attrs["padding"] = rounded_up(extents, *geometry)
        return pool(*arrays, **attrs)

    return pooled


def means(extents: Any, count_include_pad: bool, attrs: dict[str, Any]) -> list[tuple[Any, list[Any], int]]:
    """Each window of ceil mode: its place, the entries in x, and by how many numbers its sum is divided."""
    rank = len(extents)
    window, dilation = each(attrs["window"], rank), each(attrs.get("dilation", 1), rank)
    stride = window if attrs.get("stride") is None else each(attrs["stride"], rank)
    widths = explicit(attrs.get("padding", 0), extents, window, stride, dilation)
    room = rounded_up(extents, window, stride, attrs.get("padding", 0), dilation)
    result = []
    for place, entries in onnx_ops.visits(extents, window, stride, room, dilation):
        counted = 0
        for inner in product(*map(range, window)):
            at = [p * s + i * d - a for p, s, i, d, (a, _) in zip(place, stride, inner, dilation, widths)]
            counted += all(-a <= c < n + b for c, n, (a, b) in zip(at, extents, widths))
        result.append((place, [at for _, at in entries], counted if count_include_pad else len(entries)))
    return result


def avg_pool(x: np.ndarray, count_include_pad: bool = False, ceil_mode: bool = False, **attrs: Any) -> np.ndarray:
    if not ceil_mode:
        return onnx_ops.avg_pool(x, count_include_pad=count_include_pad, **attrs)
    layout = attrs.pop("layout", None)
    x = first(x, layout)
    places = means(x.shape[2:], count_include_pad, attrs)
    y = np.zeros((*x.shape[:2], *(n + 1 for n in places[-1][0])))
    for n, c in np.ndindex(*x.shape[:2]):
        for place, entries, counted in places:
            y[(n, c, *place)] = sum(x[(n, c, *at)] for at in entries) / counted
    return back(y, layout)


def avg_pool_gradient(
    g: np.ndarray, extents: Any, count_include_pad: bool = False, ceil_mode: bool = False, **attrs: Any
) -> np.ndarray:
    if not ceil_mode:
        return onnx_ops.avg_pool_gradient(g, extents, count_include_pad=count_include_pad, **attrs)
    layout = attrs.pop("layout", None)
    g = first(g, layout)
    dx = np.zeros((*g.shape[:2], *extents))
    for n, c in np.ndindex(*g.shape[:2]):
        for place, entries, counted in means(extents, count_include_pad, attrs):
            for at in entries:
                dx[(n, c, *at)] += g[(n, c, *place)] / counted
    return back(dx, layout)


def adaptive(reduce: Callable[[Any], float]) -> Callable[..., np.ndarray]:
    def pooled(x: np.ndarray, sizes: Any, layout: str | None = None) -> np.ndarray:
        x = first(x, layout)
        sizes = each(sizes, x.ndim - 2)
        y = np.zeros((*x.shape[:2], *sizes))
        for n, c in np.ndindex(*x.shape[:2]):
            for place in np.ndindex(*sizes):
                # of entry j of n, and place i of m: it is inside if j + 1 > i n / m and j < (i + 1) n / m
                inside = [
                    [j for j in range(e) if (j + 1) * m > i * e and j * m < (i + 1) * e]
                    for i, e, m in zip(place, x.shape[2:], sizes)
                ]
                y[(n, c, *place)] = reduce([x[(n, c, *at)] for at in product(*inside)])
        return back(y, layout)

    return pooled


ONNX = {"conv_transpose": _conv_transpose}
LOOPS = {
    "conv_transpose": conv_transpose,
    "max_pool": with_ceil(onnx_ops.max_pool, 0),
    "max_pool_gradient": with_ceil(onnx_ops.max_pool_gradient, 1),
    "max_pool_select": with_ceil(onnx_ops.max_pool_select, 1),
    "avg_pool": avg_pool,
    "avg_pool_gradient": avg_pool_gradient,
    "adaptive_avg_pool": adaptive(lambda numbers: sum(numbers) / len(numbers)),
    "adaptive_max_pool": adaptive(lambda numbers: next((n for n in numbers if n != n), max(numbers))),
}
EXACT = {"adaptive_max_pool"}

TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 4, 5), (3, 4, 3, 3), {"padding": 1}),
    ((1, 4, 3, 4), (4, 3, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}),
    ((2, 6, 3, 2), (6, 2, 2, 3), {"stride": 2, "output_padding": 1, "groups": 6}),  # depthwise, two outputs from each
    ((2, 3, 4), (3, 2, 3), {"stride": 3, "dilation": 2, "output_padding": 2, "padding": 1}),
    ((1, 3, 4, 2), (2, 5, 2, 3), {"stride": (2, 3), "layout": "NHWC"}),
    ((1, 2, 2, 3, 2), (2, 1, 2, 1, 2), {"padding": (1, 0, 0), "stride": (1, 2, 2), "output_padding": (0, 1, 0)}),
    ((2, 1, 1), (1, 1, 5), {"padding": 2}),
    ((2, 3, 2, 2), (3, 2, 1, 1), {"stride": 3}),  # most of the result is 0
    ((1, 5, 4), (4, 3, 3), {"stride": 2, "padding": ((0, 1),), "layout": "NLC", "groups": 2}),
]
ALIKE: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 2, 3, 4), (2, 3, 4, 3), {"padding": "same", "stride": 2}),
    ((2, 3, 2), (3, 1, 2), {"padding": "same", "stride": 3, "groups": 3}),  # the window does not fill the stride
    ((1, 2, 3), (2, 2, 2), {"padding": "same", "dilation": 3}),
    ((0, 2, 3), (2, 2, 2), {"stride": 2, "padding": 1}),
    ((1, 2, 3), (2, 2, 2), {"padding": "valid"}),
]

# x, y, attributes
CEILED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 6, 5), (2, 3, 3, 2), {"window": 3, "stride": 2}),
    ((1, 2, 7), (1, 2, 4), {"window": 2}),
    ((1, 1, 4), (1, 1, 2), {"window": 2, "stride": 3, "padding": 1}),  # a third would start behind
    ((1, 2, 5, 6), (1, 2, 3, 2), {"window": 2, "stride": (2, 3), "padding": ((1, 0), (0, 1))}),  # the same
    ((1, 1, 2, 2), (1, 1, 1, 1), {"window": 3, "stride": 2}),  # more window than image
    ((1, 6, 4, 2), (1, 3, 2, 2), {"window": (3, 2), "stride": (2, 3), "layout": "NHWC"}),
    ((1, 1, 7), (1, 1, 3), {"window": 2, "stride": 3, "dilation": 2}),
    ((1, 1, 3, 4, 2), (1, 1, 2, 2, 1), {"window": 2}),
    ((2, 1, 4), (2, 1, 2), {"window": 2}),  # nothing to round
]


def ceil_cases() -> list[Case]:
    cases = []
    for x, y, attrs in CEILED:
        extents = x[1:-1] if is_last(attrs.get("layout")) else x[2:]
        attrs = {**attrs, "ceil_mode": True}
        cases += [
            Case("max_pool", real(*x), **attrs),
            Case("max_pool_gradient", real(*y), real(*x), **attrs),
            Case("max_pool_select", real(*x), real(*x), **attrs),
            *(
                Case(
                    op, real(*shape), **given, **attrs, loops="dilation" in attrs
                )  # ONNX's evaluator does not round up there
                for include in (False, True)
                for op, shape, given in (
                    ("avg_pool", x, {"count_include_pad": include}),
                    ("avg_pool_gradient", y, {"count_include_pad": include, "extents": extents}),
                )
            ),
        ]
    return cases


ADAPTED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 5), {"sizes": 3}),
    ((1, 2, 6, 4), {"sizes": (3, 2)}),
    ((1, 2, 6, 5), {"sizes": (3, 2)}),
    ((2, 4, 3), {"sizes": 7, "layout": "NLC"}),  # more places than entries
    ((1, 5, 1, 2), {"sizes": (2, 1), "layout": "NHWC"}),
    ((1, 2, 3, 4, 5), {"sizes": (2, 4, 1)}),
    ((2, 3, 4, 4), {"sizes": 1}),
    ((0, 3, 4, 4), {"sizes": 3}),
]

CASES = [
    *(Case("conv_transpose", real(*x), real(*w), **attrs) for x, w, attrs in TRANSPOSED),
    *(Case("conv_transpose", real(*x), real(*w), **attrs, loops=True) for x, w, attrs in ALIKE),
    *ceil_cases(),
    Case("max_pool", whole(1, 2, 5, low=-9, below=0), window=3, stride=2, padding=1, ceil_mode=True, loops=True),
    Case("max_pool", These([[[-INF, -INF, NAN, 1.0, -INF]]]), window=2, ceil_mode=True, loops=True),
    *(Case(op, real(*shape), **attrs) for op in ("adaptive_avg_pool", "adaptive_max_pool") for shape, attrs in ADAPTED),
    Case("adaptive_max_pool", whole(1, 2, 5, low=-9, below=0), sizes=3),
    *(Case(op, These([[[NAN, 1.0, -INF, -INF, 0.5]]]), sizes=3) for op in ("adaptive_avg_pool", "adaptive_max_pool")),
]
