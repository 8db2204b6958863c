"""Images in another size: by interpolation (resize), and by moving channels into space and back (depth_to_space).

Along one axis of n entries, resized by a scale s, entry i of the result looks at the coordinate c of x:

    half_pixel            (i + 1/2) / s - 1/2       entries are areas of width 1; the borders of both images meet
    pytorch_half_pixel    the same, but 0 where the result has one entry
    asymmetric            i / s
    align_corners         i * (n - 1) / (m - 1)     the first and the last of m entries meet those of x; 0 where m is 1

These are ONNX's rules (Resize) for the modes that it shares with PyTorch and TensorFlow; m is the size of the result,
also where a scale would give a fraction more. Coordinates are computed in fractions, so that rounding never decides
which neighbour is the nearest. What lies outside of x reads the outermost entry. Axes are independent, so each is
resized by itself, and the transpose does the same in reverse.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np

from minigraph.core.dim import Shape, Size, divide, shape_of, show
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Kernel, Op, integers, real, whole
from minigraph.ops.shape import reshape, transpose
from minigraph.ops.window import arranged, beside_windows, channel_axis, layout_of, spatial_axes, strides_of, three

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
ROUNDINGS = {
    "round_prefer_floor": lambda c: ceil(c - Fraction(1, 2)),
    "round_prefer_ceil": lambda c: floor(c + Fraction(1, 2)),
    "floor": floor,
    "ceil": ceil,
}


# resize


def resize_types(
    x: Type,
    /,
    sizes: Any = None,
    *,
    scales: Any = None,
    mode: str = "nearest",
    coordinate_transformation: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    layout: str | None = None,
) -> Type:
    """Images (N, C, 1 to 3 spatial axes, or channels last) with other spatial sizes.

    sizes: the new sizes, or one for all axes. scales: instead of them, the factors by which sizes grow, or one for all;
        the new size is rounded down. A factor is read as the decimal that is written: 0.7 of 10 entries are 7.
    mode: "nearest" takes the entry next to a coordinate (any dtype), "linear" weighs the two around it, along each axis
        (floats: bilinear for images). An entry of weight 0 is not read, be it infinite or NaN. Nothing is smoothed
        before it is made smaller.
    coordinate_transformation: how places in the result become coordinates of x; see this module.
    nearest_mode: which entry is next to c: "round_prefer_floor" and "round_prefer_ceil" differ where c is in the
        middle; "floor" and "ceil" never look to the other side. Without effect on "linear".

    A size known only at run time grows by whole factors, or by fractions that divide it: 1/2 of 2*H.
    Source: the operator Resize of the ONNX specification.
    """
    if mode == "linear":
        expect(x.is_float, "interpolates floats, got {}; use mode='nearest'", x)
    spatial = _extents(x, layout)
    expect(0 not in spatial, "{} has an empty axis, with nothing to look at", x)
    return Type(_replaced(x, layout, _resized(spatial, sizes, scales)), x.dtype)


def _extents(x: Type, layout: str | None) -> Shape:
    return tuple(x.shape[axis] for axis in spatial_axes(layout_of(x, layout)))


def _replaced(x: Type, layout: str | None, spatial: Shape) -> Shape:
    """The shape of x with other spatial sizes."""
    layout = layout_of(x, layout)
    return arranged(layout, x.shape[0], x.shape[channel_axis(layout)], spatial)


def _resized(spatial: Shape, sizes: Any, scales: Any) -> Shape:
    if sizes is not None:
        return sizes
    factors = [Fraction(str(scale)) for scale in scales]
    new: Shape = tuple(n * f.numerator // f.denominator for n, f in zip(spatial, factors))
    expect(all(not isinstance(n, int) or n > 0 for n in new), "scales {} of {} leave nothing", scales, show(spatial))
    return new


def _resize_canonical(
    rank: int, sizes: Any, scales: Any, mode: Any, coordinate_transformation: Any, nearest_mode: Any
) -> dict[str, Any]:
    expect((sizes is None) != (scales is None), "needs the new sizes, or scales, and not both")
    expect(mode in ("nearest", "linear"), 'the mode is "nearest" or "linear", not {!r}', mode)
    known = coordinate_transformation in COORDINATES
    expect(known, "the coordinate transformation is {}, not {!r}", ", ".join(COORDINATES), coordinate_transformation)
    expect(nearest_mode in ROUNDINGS, "the nearest mode is {}, not {!r}", ", ".join(ROUNDINGS), nearest_mode)
    each = lambda given: tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank
    if sizes is not None:
        sizes = shape_of(each(sizes))
        expect(all(not isinstance(n, int) or n > 0 for n in sizes), "sizes are 1 or more, not {}", show(sizes))
    else:
        numbers = (int, float, np.integer, np.floating)
        fits = all(isinstance(s, numbers) and not isinstance(s, bool) and 0 < s < np.inf for s in each(scales))
        expect(fits, "scales are numbers above 0, not {!r}", scales)
        scales = tuple(int(s) if s == int(s) else float(s) for s in each(scales))
    given = sizes if scales is None else scales
    expect(len(given) == rank, "{} are {} numbers for {} spatial axes", show(given), len(given), rank)
    return {
        "sizes": sizes,
        "scales": scales,
        "mode": mode,
        "coordinate_transformation": coordinate_transformation,
        "nearest_mode": nearest_mode if mode == "nearest" else "round_prefer_floor",
    }


def resize_canonical(x: Type, *, layout: Any, **attrs: Any) -> dict[str, Any]:
    layout = layout_of(x, layout)
    return {**_resize_canonical(x.rank - 2, **attrs), "layout": layout}


@lru_cache(1000)
def _line(
    n: int, m: int, scale: float | None, mode: str, transformation: str, nearest_mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """For each of the m new entries the entry of x at or before its coordinate, and the weight of the one behind it."""
    s = Fraction(m, n) if scale is None else Fraction(str(scale))
    if transformation == "align_corners":
        coordinates = [Fraction(i * (n - 1), max(m - 1, 1)) for i in range(m)]
    elif transformation == "asymmetric":
        coordinates = [i / s for i in range(m)]
    elif transformation == "pytorch_half_pixel" and m == 1:
        coordinates = [Fraction(0)]
    else:
        coordinates = [(i + Fraction(1, 2)) / s - Fraction(1, 2) for i in range(m)]
    if mode == "nearest":
        coordinates = [Fraction(ROUNDINGS[nearest_mode](c)) for c in coordinates]
    inside = [min(max(c, Fraction(0)), Fraction(n - 1)) for c in coordinates]
    return np.array([floor(c) for c in inside], np.intp), np.array([c - floor(c) for c in inside], object)


def _lines(extents: Any, places: Any, attrs: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    scales = attrs["scales"] or (None,) * len(extents)
    rest = attrs["mode"], attrs["coordinate_transformation"], attrs["nearest_mode"]
    return [_line(n, m, s, *rest) for n, m, s in zip(extents, places, scales)]


def resize_reference(x: np.ndarray, layout: str, **attrs: Any) -> np.ndarray:
    axes = spatial_axes(layout)
    extents = tuple(x.shape[axis] for axis in axes)
    lines = _lines(extents, _resized(extents, attrs["sizes"], attrs["scales"]), attrs)
    for axis, (source, weight) in zip(axes, lines):
        between = np.flatnonzero(weight)
        rows = np.moveaxis(x, axis, 0)
        new = rows[source]
        if between.size:
            w = weight[between].astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
            new[between] = new[between] * (1 - w) + rows[source[between] + 1] * w
        x = np.moveaxis(new, 0, axis)
    return x


def _flops(small: Any, attrs: Any) -> Size:
    return small.size * 3 * (len(small.shape) - 2) if attrs["mode"] == "linear" else 0


def _coordinates(
    n: Size, m: Size, scale: float | None, mode: str, transformation: str, nearest_mode: str
) -> tuple[Any, Any, Any]:
    """(step, offset, unit), whole numbers: entry i of m looks at (i * step + offset) / unit of n, as in `_line`.

    In mode "nearest" at that rounded down. Where m is 1, what is pinned looks at 0 instead.
    """
    s: Any = (m, n) if scale is None else _bounded(Fraction(str(scale)), n, m).as_integer_ratio()
    step, offset, unit = s[1], 0, s[0]
    if transformation == "align_corners":
        step, unit = n - 1, m - 1
    elif transformation != "asymmetric":
        step, offset, unit = 2 * s[1], s[1] - s[0], 2 * s[0]
    if mode == "linear":
        return step, offset, unit
    to_floor = {  # c rounded is floor(c + this), for each c = a / unit with a whole; in halves of the unit
        "round_prefer_floor": unit - 1,
        "round_prefer_ceil": unit,
        "floor": 0,
        "ceil": 2 * (unit - 1),
    }
    return 2 * step, 2 * offset + to_floor[nearest_mode], 2 * unit


def _bounded(s: Fraction, n: Size, m: Size) -> Fraction:
    """The scale with which n entries become m, or one next to it that C can compute with in 64 bits.

    A coordinate can meet an entry, or the middle of two, only where the scale is a fraction of small numbers. There is
    none between s and the result, and so each coordinate stays between the same two entries.
    """
    most = 2**58 // (max(n, m) + 1) if isinstance(n, int) and isinstance(m, int) else 2**58
    if max(s.numerator, s.denominator) <= most:
        return s
    if s > 1:
        return 1 / _bounded(1 / s, n, m)
    close = s.limit_denominator(most)
    p, q = close.numerator, close.denominator
    if 2 * q > most:  # not of small numbers itself
        return close
    side = 1 if s > close else -1  # its neighbour there, a / b with a*q - p*b = side, whose b is the largest
    b = most - (most + side * pow(p, -1, q)) % q
    return Fraction(p * b + side, q * b)


def _fields(x: Type, y: Type, layout: str, **attrs: Any) -> dict[str, Any]:
    """What the kernels must know of y, to which x is resized."""
    extents, places = _extents(x, layout), _extents(y, layout)
    scales = attrs["scales"] or (None,) * len(extents)
    mode, transformation, nearest_mode = (attrs[k] for k in ("mode", "coordinate_transformation", "nearest_mode"))
    found = [
        _coordinates(n, m, scale, mode, transformation, nearest_mode) for n, m, scale in zip(extents, places, scales)
    ]
    return {
        "channels": x.shape[channel_axis(layout)],
        "extents": three(extents, 1),
        "places": three(places, 1),
        "step": three([step for step, _, _ in found], 0),
        "offset": three([offset for _, offset, _ in found], 0),
        "unit": three([unit for _, _, unit in found], 1),
        "linear": mode == "linear",
        "pinned": transformation in ("align_corners", "pytorch_half_pixel"),
        **strides_of("x", x.shape, layout),
        **strides_of("y", y.shape, layout),
    }


CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    # x, y, attributes
    ((2, 1, 3, 2), (2, 1, 5, 4), {"sizes": (5, 4)}),
    ((1, 2, 3), (1, 2, 7), {"scales": 2.5, "coordinate_transformation": "asymmetric", "nearest_mode": "floor"}),
    ((1, 4, 5, 2), (1, 2, 3, 2), {"sizes": (2, 3), "nearest_mode": "ceil", "layout": "NHWC"}),
    ((1, 1, 3, 2), (1, 1, 4, 5), {"sizes": (4, 5), "mode": "linear"}),
    (
        (2, 5, 3),
        (2, 3, 3),
        {"scales": 0.6, "mode": "linear", "coordinate_transformation": "pytorch_half_pixel", "layout": "NLC"},
    ),
    (
        (1, 1, 2, 3, 2),
        (1, 1, 3, 1, 2),
        {"sizes": (3, 1, 2), "mode": "linear", "coordinate_transformation": "align_corners"},
    ),
    ((1, 1, 1, 3), (1, 1, 2, 6), {"scales": 2, "mode": "linear", "coordinate_transformation": "asymmetric"}),
    ((0, 2, 3), (0, 2, 4), {"sizes": 4, "mode": "linear"}),
    (
        (1, 1, 4),
        (1, 1, 6),
        {"sizes": (6,), "coordinate_transformation": "align_corners", "nearest_mode": "round_prefer_ceil"},
    ),
)

resize: Op = Op(
    "resize",
    resize_types,
    resize_reference,
    lambda gs, xs, ys, layout, **attrs: (
        resize_gradient(gs[0], extents=_extents(xs[0].value.type, layout), layout=layout, **attrs),
    ),
    canonical=resize_canonical,
    flops=lambda inputs, outputs, attrs: _flops(outputs[0], attrs),
    kernel=Kernel("resize.h", lambda xs, ys, **attrs: _fields(xs[0], ys[0], **attrs)),
    channels=lambda types, axis, layout, **attrs: beside_windows(axis, layout, "any", True),
    images=(0, -1),
    half=Half(),
    examples=(
        *(Example(real(*x), **attrs) for x, _, attrs in CASES),
        Example(integers(1, 1, 3, below=9), scales=2),
    ),
)


def resize_gradient_types(
    g: Type,
    /,
    sizes: Any = None,
    *,
    extents: Any,
    scales: Any = None,
    mode: str = "nearest",
    coordinate_transformation: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    layout: str | None = None,
) -> Type:
    """The transpose of resize, whose input has spatial sizes `extents`: each number goes back to where it was read."""
    expect(g.is_float, "needs floats, got {}", g)
    x = Type(_replaced(g, layout, extents), g.dtype)
    y = resize_types(x, sizes, scales=scales, mode=mode, layout=layout)
    expect(y == g, "resizing {} gives {}, so its gradient cannot be {}", x, y, g)
    return x


def resize_gradient_canonical(g: Type, *, extents: Any, **attrs: Any) -> dict[str, Any]:
    extents = shape_of(extents)
    expect(len(extents) == g.rank - 2, "needs {} spatial sizes, got {}", g.rank - 2, show(extents))
    return {"extents": extents, **resize_canonical(g, **attrs)}


def resize_gradient_reference(g: np.ndarray, extents: Any, layout: str, **attrs: Any) -> np.ndarray:
    axes = spatial_axes(layout)
    lines = _lines(extents, tuple(g.shape[axis] for axis in axes), attrs)
    for axis, n, (source, weight) in zip(axes, extents, lines):
        between = np.flatnonzero(weight)
        rows = np.moveaxis(g, axis, 0)
        total = np.zeros((n, *rows.shape[1:]), g.dtype)
        if between.size:
            w = weight[between].astype(g.dtype).reshape(-1, *(1,) * (g.ndim - 1))
            np.add.at(total, source[between] + 1, rows[between] * w)
            rows = rows.copy()
            rows[between] = rows[between] * (1 - w)
        np.add.at(total, source, rows)
        g = np.moveaxis(total, 0, axis)
    return g


resize_gradient: Op = Op(
    "resize_gradient",
    resize_gradient_types,
    resize_gradient_reference,
    lambda gs, xs, ys, extents, **attrs: (resize(gs[0], **attrs),),
    canonical=resize_gradient_canonical,
    flops=lambda inputs, outputs, attrs: inputs[0].size + _flops(inputs[0], attrs),
    kernel=Kernel("resize.h", lambda xs, ys, extents, **attrs: _fields(ys[0], xs[0], **attrs)),
    images=(0, -1),
    examples=tuple(
        Example(real(*y), extents=x[1:-1] if attrs.get("layout", "").endswith("C") else x[2:], **attrs)
        for x, y, attrs in CASES
    ),
)


# channels into space and back


def depth_to_space(x: Any, block: int, mode: str = "DCR", layout: str | None = None) -> Any:
    """Each pixel's C channels as a block of pixels with C / block^2 channels: (N, C, H, W) -> (N, C/b^2, H*b, W*b).

    mode "DCR" (depth, column, row) reads the channel number as (place in the block, channel), "CRD" as (channel,
    place), as PyTorch's pixel_shuffle does. For 1 to 3 spatial axes. Source: the operator DepthToSpace of the ONNX
    specification.
    """
    layout, packed, spread = _blocks(x, block, mode, layout)
    spatial = tuple(x.shape[axis] for axis in spatial_axes(layout))
    channels = _parted(x, channel_axis(layout), block ** len(spatial))
    parts = reshape(x, _sizes(packed, x.shape[0], channels, spatial, block))
    moved = transpose(parts, tuple(map(packed.index, spread)))
    return reshape(moved, arranged(layout, x.shape[0], channels, tuple(n * block for n in spatial)))


def space_to_depth(x: Any, block: int, mode: str = "DCR", layout: str | None = None) -> Any:
    """Each block of pixels as one pixel with block^2 * C channels: (N, C, H, W) -> (N, C*b^2, H/b, W/b).

    The inverse of depth_to_space in the same mode; "DCR" is ONNX's SpaceToDepth.
    """
    layout, packed, spread = _blocks(x, block, mode, layout)
    spatial = tuple(_parted(x, axis, block) for axis in spatial_axes(layout))
    channels = x.shape[channel_axis(layout)]
    parts = reshape(x, _sizes(spread, x.shape[0], channels, spatial, block))
    moved = transpose(parts, tuple(map(spread.index, packed)))
    return reshape(moved, arranged(layout, x.shape[0], channels * block ** len(spatial), spatial))


def _blocks(x: Any, block: Any, mode: Any, layout: str | None) -> tuple[str, list[str], list[str]]:
    """The layout, and the names of the axes when all is split up: with the blocks in the channels, and in space.

    n and c are images and channels, s0 a spatial axis, b0 the place in the block along it.
    """
    block = whole(block, "the block", 1)
    expect(mode in ("DCR", "CRD"), 'the mode is "DCR" or "CRD", not {!r}', mode)
    layout = layout_of(x.value.type, layout)
    rank = range(len(layout) - 2)
    spatial, places = [f"s{i}" for i in rank], [f"b{i}" for i in rank]
    channel = [*places, "c"] if mode == "DCR" else ["c", *places]
    pixels = [name for pair in zip(spatial, places) for name in pair]
    if layout[1] == "C":
        return layout, ["n", *channel, *spatial], ["n", "c", *pixels]
    return layout, ["n", *spatial, *channel], ["n", *pixels, "c"]


def _sizes(names: list[str], images: Size, channels: Size, spatial: Shape, block: int) -> Shape:
    sizes = {"n": images, "c": channels, **{f"s{i}": n for i, n in enumerate(spatial)}}
    return tuple(sizes.get(name, block) for name in names)


def _parted(x: Any, axis: int, parts: int) -> Size:
    try:
        return divide(x.shape[axis], parts)
    except GraphError:
        raise GraphError(f"axis {axis} of {x.value} is not a multiple of {parts}") from None
