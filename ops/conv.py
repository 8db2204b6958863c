"""Convolution (as the field says; cross-correlation) over 1 to 3 spatial axes, and its two gradients.

    y[n, o, p] = sum over c, k of  x[n, c, p*stride + k*dilation - padding] * w[o, c, k]

The weight is (O, C/groups, *window) in every layout. Convolution is linear in x and in w; `conv_input_gradient` and
`conv_weight_gradient` are its transposes in each, so the three differentiate into one another. `conv_transpose` is the
first of these as a layer of its own. A bias is an `add`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigraph.core.dim import known, product, shape_of, show
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Example, Half, Kernel, Op, Weight, float_dtype, real, whole
from minigraph.ops.broadcast import broadcast_to, sum
from minigraph.ops.shape import reshape
from minigraph.ops.window import (
    arranged,
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
    window_fields,
    windows,
)

COLUMN_BYTES = 4 << 20  # how much of the unfolded image is made at a time: what stays in the cache is read once


def _geometry(
    x: Type, window: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, extents: Any = None
) -> dict[str, Any]:
    layout = layout_of(x, layout)
    rank = len(layout) - 2
    stride, dilation = per_axis(stride, rank, "stride", 1), per_axis(dilation, rank, "dilation", 1)
    padding = padding_of(padding, extents_of(x, layout) if extents is None else extents, window, stride, dilation)
    groups = whole(groups, "groups", 1)
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "layout": layout}


# forward


def conv_types(
    x: Type,
    w: Type,
    /,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> Type:
    """Convolve x (N, C, H, W) with w (O, C/groups, kh, kw): (N, O, H', W'). Also 1-D and 3-D.

    stride, dilation: a number, or one for each spatial axis. padding: a number, one for each axis, (before, after) for
    each, "valid", or "same" (H' = ceil(H / stride)). groups: each group of C/groups channels makes O/groups of the
    outputs (groups = C is depthwise). layout: "NCHW" (default) or "NHWC"; "NCL", "NLC", "NCDHW", "NDHWC". Sizes may be
    symbols where the stride divides them.
    """
    dtype, channels = float_dtype(x, w), x.shape[channel_axis(layout)]  # type: ignore[arg-type]
    expect(all(isinstance(n, int) for n in w.shape), "the sizes of a weight are numbers, not {}", w)
    outputs, inputs = known(w.shape[0], "the number of outputs"), w.shape[1]
    expect(
        channels == inputs * groups,
        "x has {} channels; the weight {} takes {} x {} groups",
        channels,
        w,
        inputs,
        groups,
    )
    expect(outputs % groups == 0, "{} output channels do not divide into {} groups", outputs, groups)
    places = positions(extents_of(x, layout), w.shape[2:], stride, padding, dilation)  # type: ignore[arg-type]
    return Type(arranged(layout, x.shape[0], outputs, places), dtype)  # type: ignore[arg-type]


def conv_canonical(x: Type, w: Type, **attrs: Any) -> dict[str, Any]:
    expect(w.rank == x.rank, "x is {}; its weight needs {} axes (O, C/groups, window), not {}", x, x.rank, w)
    expect(0 not in w.shape[2:], "the window of the weight {} holds nothing", w)
    return _geometry(x, w.shape[2:], **attrs)


def _columns(
    x: np.ndarray, window: Any, groups: int, stride: Any, padding: Any, dilation: Any
) -> Iterator[tuple[slice, np.ndarray]]:
    """x (N, C, ...) unfolded, some images at a time: (images, groups, C/groups * window, positions)."""
    view = windows(padded(x, padding), window, stride, dilation)
    places = math.prod(view.shape[2 + len(window) :])
    rows = x.shape[1] // groups * math.prod(window)
    step = max(1, COLUMN_BYTES // max(1, rows * groups * places * x.itemsize))
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, np.ascontiguousarray(view[part]).reshape(part.stop - start, groups, rows, places)


def conv_reference(
    x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int, layout: str
) -> np.ndarray:
    x = channels_first(x, layout)
    places = positions(x.shape[2:], w.shape[2:], stride, padding, dilation)
    matrices = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    y = np.zeros((len(x), groups, w.shape[0] // groups, math.prod(places)), x.dtype)
    for part, columns in _columns(x, w.shape[2:], groups, stride, padding, dilation):
        np.matmul(matrices, columns, out=y[part])
    return from_channels_first(y.reshape(len(x), w.shape[0], *places), layout)


def conv_gradient(gs: Any, xs: Any, ys: Any, **attrs: Any) -> tuple[Any, Any]:
    x, w = xs
    return (
        conv_input_gradient(gs[0], w, extents=extents_of(x.value.type, attrs["layout"]), **attrs),
        conv_weight_gradient(x, gs[0], window=w.shape[2:], **attrs),
    )


def _flops(images: Type, w: Type, layout: str) -> Any:
    """A multiplication and an addition for each weight that meets each position."""
    return 2 * images.shape[0] * product(extents_of(images, layout)) * w.size


def _fields(x: Type, w: Type, y: Type, groups: int, layout: str, **geometry: Any) -> dict[str, Any]:
    """What the kernels must know of y, the convolution of x with w."""
    return {
        "batch": x.shape[0],
        "groups": groups,
        "inputs": w.shape[1],
        "outputs": known(w.shape[0], "the number of outputs") // groups,
        **window_fields(x, y, w.shape[2:], layout=layout, **geometry),
    }


def grouped(s: Any, groups: int, rows: Any, columns: Any, rank: int) -> Any:
    """One number for each of groups * columns channels as a factor (groups * rows, columns, 1, ...) of a weight.

    Of each group's rows, column j gets the number of the group's j-th channel.
    """
    apart = broadcast_to(reshape(s, (groups, 1, columns)), (groups, rows, columns))
    return reshape(apart, (groups * rows, columns, *(1,) * (rank - 2)))


def conv_weights(types: Sequence[Type], padding: Any, groups: int, layout: str, **_: Any) -> tuple[Weight]:
    w, axis = types[1], channel_axis(layout)
    rows = known(w.shape[0], "the number of outputs") // groups
    inputs = lambda s: grouped(s, groups, rows, w.shape[1], w.rank)
    return (
        Weight(
            index=1,
            data=0,
            axis=axis,
            data_axis=axis,
            outputs=lambda s: reshape(s, (-1, *(1,) * (w.rank - 1))),
            inputs=inputs,
            shifts=lambda weight, t: sum(weight * inputs(t), tuple(range(1, w.rank))),
            even=not any(n for pair in padding for n in pair),
        ),
    )


CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 5, 4), (2, 3, 3, 3), {"padding": 1}),
    ((1, 4, 6, 5), (6, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "groups": 2}),
    ((2, 3, 7), (3, 1, 3), {"stride": 2, "dilation": 2, "padding": "same", "groups": 3}),
    ((1, 5, 5, 2), (3, 2, 2, 3), {"stride": 2, "dilation": (2, 1), "layout": "NHWC"}),
    ((1, 2, 3, 3, 2), (2, 2, 2, 1, 2), {"padding": (1, 0, 1)}),
    ((0, 2, 4, 4), (3, 2, 1, 1), {"stride": 2}),
)

conv: Op = Op(
    "conv",
    conv_types,
    conv_reference,
    conv_gradient,
    canonical=conv_canonical,
    weights=conv_weights,
    flops=lambda inputs, outputs, attrs: _flops(outputs[0], inputs[1], attrs["layout"]),
    kernel=Kernel("conv.h", lambda xs, ys, **attrs: _fields(*xs, *ys, **attrs)),
    images=(0, -1),
    layer="layers.conv2d",
    half=Half(seeks=True),
    examples=tuple(Example(real(*x), real(*w), **attrs) for x, w, attrs in CASES),
)


# the transpose in x


def conv_input_gradient_types(
    g: Type,
    w: Type,
    /,
    *,
    extents: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> Type:
    """The gradient of a convolution with respect to its input, whose spatial sizes are `extents`: linear in g and w."""
    x = Type(arranged(layout, g.shape[0], w.shape[1] * groups, extents), float_dtype(g, w))  # type: ignore[arg-type]
    y = conv_types(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout)
    expect(y == g, "the convolution of {} with {} gives {}, so its gradient cannot be {}", x, w, y, g)
    return x


def conv_input_gradient_canonical(g: Type, w: Type, extents: Any, **attrs: Any) -> dict[str, Any]:
    extents = shape_of(extents)
    expect(len(extents) == g.rank - 2, "needs {} spatial sizes, got {}", g.rank - 2, show(extents))
    return {"extents": extents, **_geometry(g, w.shape[2:], extents=extents, **attrs)}


def conv_input_gradient_reference(
    g: np.ndarray, w: np.ndarray, extents: Any, stride: Any, padding: Any, dilation: Any, groups: int, layout: str
) -> np.ndarray:
    g, window = channels_first(g, layout), w.shape[2:]
    channels, places = w.shape[1] * groups, g.shape[2:]
    matrices = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:])).swapaxes(1, 2)
    x = np.zeros((len(g), channels, *(a + n + b for n, (a, b) in zip(extents, padding))), g.dtype)
    step = max(1, COLUMN_BYTES // max(1, channels * math.prod(window) * math.prod(places) * g.itemsize))
    for start in range(0, len(g), step):
        part = g[start : start + step]
        columns = np.matmul(matrices, part.reshape(len(part), groups, w.shape[0] // groups, math.prod(places)))
        columns = columns.reshape(len(part), channels, *window, *places)
        for index, visited in offsets(window, stride, dilation, places):
            x[start : start + step][visited] += columns[(slice(None), slice(None), *index)]
    return from_channels_first(np.ascontiguousarray(cropped(x, padding)), layout)


conv_input_gradient: Op = Op(
    "conv_input_gradient",
    conv_input_gradient_types,
    conv_input_gradient_reference,
    canonical=conv_input_gradient_canonical,
    gradient=lambda gs, xs, ys, extents, **attrs: (
        conv(gs[0], xs[1], **attrs),
        conv_weight_gradient(gs[0], xs[0], window=xs[1].shape[2:], **attrs),
    ),
    flops=lambda inputs, outputs, attrs: _flops(inputs[0], inputs[1], attrs["layout"]),
    kernel=Kernel("conv.h", lambda xs, ys, extents, **attrs: _fields(ys[0], xs[1], xs[0], **attrs)),
    images=(0, -1),
    half=Half(seeks=True),
    examples=(
        Example(real(2, 2, 5, 4), real(2, 3, 3, 3), extents=(5, 4), padding=1),
        Example(real(1, 6, 3, 6), real(6, 2, 3, 2), extents=(6, 5), stride=(2, 1), padding=((1, 0), (0, 2)), groups=2),
        Example(real(2, 3, 4), real(3, 1, 3), extents=(7,), stride=2, dilation=2, padding="same", groups=3),
        Example(real(1, 2, 2, 3), real(3, 2, 2, 3), extents=(5, 5), stride=2, dilation=(2, 1), layout="NHWC"),
        Example(real(0, 3, 2, 2), real(3, 2, 1, 1), extents=(4, 4), stride=2),
    ),
)


# the transpose in w


def conv_weight_gradient_types(
    x: Type,
    g: Type,
    /,
    *,
    window: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> Type:
    """The gradient of a convolution with respect to its weight, whose spatial sizes are `window`: linear in x and g."""
    axis = channel_axis(layout)  # type: ignore[arg-type]
    channels = known(x.shape[axis], "the number of channels")
    expect(channels % groups == 0, "{} channels do not divide into {} groups", channels, groups)
    w = Type((g.shape[axis], x.shape[axis] // groups, *window), float_dtype(x, g))
    y = conv_types(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout)
    expect(y == g, "the convolution of {} with {} gives {}, so its gradient cannot be {}", x, w, y, g)
    return w


def conv_weight_gradient_canonical(x: Type, g: Type, window: Any, **attrs: Any) -> dict[str, Any]:
    window = per_axis(window, x.rank - 2, "window", 1)
    return {"window": window, **_geometry(x, window, **attrs)}


def conv_weight_gradient_reference(
    x: np.ndarray, g: np.ndarray, window: Any, stride: Any, padding: Any, dilation: Any, groups: int, layout: str
) -> np.ndarray:
    x, g = channels_first(x, layout), np.ascontiguousarray(channels_first(g, layout))
    outputs, inputs = g.shape[1], x.shape[1] // groups
    w = np.zeros((groups, outputs // groups, inputs * math.prod(window)), x.dtype)
    for part, columns in _columns(x, window, groups, stride, padding, dilation):
        rows = g[part].reshape(len(columns), groups, outputs // groups, math.prod(g.shape[2:]))
        w += np.matmul(rows, columns.swapaxes(2, 3)).sum(0)
    return w.reshape(outputs, inputs, *window)


conv_weight_gradient: Op = Op(
    "conv_weight_gradient",
    conv_weight_gradient_types,
    conv_weight_gradient_reference,
    canonical=conv_weight_gradient_canonical,
    gradient=lambda gs, xs, ys, window, **attrs: (
        conv_input_gradient(xs[1], gs[0], extents=extents_of(xs[0].value.type, attrs["layout"]), **attrs),
        conv(xs[0], gs[0], **attrs),
    ),
    flops=lambda inputs, outputs, attrs: _flops(inputs[1], outputs[0], attrs["layout"]),
    kernel=Kernel("conv.h", lambda xs, ys, window, **attrs: _fields(xs[0], ys[0], xs[1], **attrs)),
    images=(0, 1),
    half=Half(seeks=True),
    examples=(
        Example(real(2, 3, 5, 4), real(2, 2, 5, 4), window=3, padding=1),
        Example(real(1, 4, 6, 5), real(1, 6, 3, 6), window=(3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), groups=2),
        Example(real(2, 3, 7), real(2, 3, 4), window=3, stride=2, dilation=2, padding="same", groups=3),
        Example(real(1, 5, 5, 2), real(1, 2, 2, 3), window=(2, 3), stride=2, dilation=(2, 1), layout="NHWC"),
        Example(real(0, 2, 4, 4), real(0, 3, 2, 2), window=1, stride=2),
        Example(real(2, 2, 3, 3), real(2, 0, 2, 2), window=2),
    ),
)


# the transpose in x, as a layer


def conv_transpose_types(
    x: Type,
    w: Type,
    /,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str | None = None,
) -> Type:
    """Transposed convolution of x (N, I, H, W) with w (I, O/groups, kh, kw): (N, O, H', W'). Also 1-D and 3-D.

    Each number of x adds its multiple of w to the result, `stride` further for each step; `padding` is cut off from its
    ends and `output_padding`, less than the stride, put on behind:

        H' = (H - 1) * stride + dilation * (kh - 1) + 1 - padding before - padding behind + output_padding

    padding "same" gives H' = H * stride. The rest, and the layouts, as in conv, of which this is the transpose.
    """
    dtype, channels = float_dtype(x, w), x.shape[channel_axis(layout)]  # type: ignore[arg-type]
    expect(all(isinstance(n, int) for n in w.shape), "the sizes of a weight are numbers, not {}", w)
    expect(channels == w.shape[0], "x has {} channels; the weight {} takes {}", channels, w, w.shape[0])
    inputs = known(w.shape[0], "the number of channels")
    expect(inputs % groups == 0, "{} channels do not divide into {} groups", inputs, groups)
    expect(0 not in extents_of(x, layout), "x is {}: there is nothing to spread", x)  # type: ignore[arg-type]
    extents = _spread(extents_of(x, layout), w.shape[2:], stride, padding, output_padding, dilation)  # type: ignore[arg-type]
    for n in extents:
        expect(not isinstance(n, int) or n >= 0, "padding {} cuts off more than there is of {}", padding, x)
    return Type(arranged(layout, x.shape[0], w.shape[1] * groups, extents), dtype)  # type: ignore[arg-type]


def _spread(places: Any, window: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any) -> tuple[Any, ...]:
    """The extents of an image of whose windows there are so many."""
    return tuple(
        (n - 1) * s + d * (k - 1) + 1 - a - b + more
        for n, k, s, (a, b), more, d in zip(places, window, stride, padding, output_padding, dilation)
    )


def conv_transpose_canonical(x: Type, w: Type, padding: Any, output_padding: Any, **attrs: Any) -> dict[str, Any]:
    expect(w.rank == x.rank, "x is {}; its weight needs {} axes (I, O/groups, window), not {}", x, x.rank, w)
    expect(0 not in w.shape[2:], "the window of the weight {} holds nothing", w)
    geometry, rank = _geometry(x, w.shape[2:], padding=0 if padding == "same" else padding, **attrs), x.rank - 2
    more = per_axis(output_padding, rank, "output_padding", 0)
    stride, dilation = geometry["stride"], geometry["dilation"]
    expect(all(m < s for m, s in zip(more, stride)), "output_padding {} is less than the stride {}", more, stride)
    if padding == "same":
        expect(not any(more), 'padding "same" leaves nothing to output_padding {}', more)
        cut: list[Any] = [d * (k - 1) + 1 - s for k, s, d in zip(w.shape[2:], stride, dilation)]
        more = tuple(max(0, -n) for n in cut)
        geometry["padding"] = tuple((max(0, n) // 2, max(0, n) - max(0, n) // 2) for n in cut)
    return {**geometry, "output_padding": more}


def conv_transpose_reference(x: np.ndarray, w: np.ndarray, output_padding: Any, **attrs: Any) -> np.ndarray:
    extents = _spread(
        [x.shape[axis] for axis in spatial_axes(attrs["layout"])],
        w.shape[2:],
        attrs["stride"],
        attrs["padding"],
        output_padding,
        attrs["dilation"],
    )
    return conv_input_gradient_reference(x, w, extents=extents, **attrs)


def conv_transpose_expand(x: Any, w: Any, output_padding: Any, **attrs: Any) -> Any:
    places = extents_of(x.value.type, attrs["layout"])
    extents = _spread(places, w.shape[2:], attrs["stride"], attrs["padding"], output_padding, attrs["dilation"])
    return conv_input_gradient(x, w, extents=extents, **attrs)


def conv_transpose_weights(types: Sequence[Type], groups: int, layout: str, **_: Any) -> tuple[Weight]:
    w, axis = types[1], channel_axis(layout)
    rows = known(w.shape[0], "the number of channels") // groups
    inputs = lambda s: reshape(s, (-1, *(1,) * (w.rank - 1)))

    def shifts(weight: Any, t: Any) -> Any:
        apart = reshape(weight * inputs(t), (groups, rows, *w.shape[1:]))
        return reshape(sum(apart, (1, *range(3, w.rank + 1))), (-1,))

    return (
        Weight(
            index=1,
            data=0,
            axis=axis,
            data_axis=axis,
            outputs=lambda s: grouped(s, groups, rows, w.shape[1], w.rank),
            inputs=inputs,
            shifts=shifts,
            even=False,  # at its ends fewer numbers of x meet
        ),
    )


conv_transpose: Op = Op(
    "conv_transpose",
    conv_transpose_types,
    conv_transpose_reference,
    expand=conv_transpose_expand,
    canonical=conv_transpose_canonical,
    weights=conv_transpose_weights,
    flops=lambda inputs, outputs, attrs: _flops(inputs[0], inputs[1], attrs["layout"]),
    layer="layers.conv_transpose2d",
    half=Half(seeks=True),
    examples=(
        Example(real(2, 2, 3, 2), real(2, 3, 3, 3), padding=1),
        Example(real(1, 4, 2, 3), real(4, 3, 3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), groups=2),
        Example(real(2, 3, 3), real(3, 1, 3), stride=3, dilation=2, output_padding=2, groups=3),
        Example(real(1, 2, 2, 2), real(2, 3, 2, 3), stride=(3, 2), padding="same", layout="NHWC"),
        Example(real(1, 2, 2, 1, 2), real(2, 1, 2, 1, 2), padding=(1, 0, 0)),
        Example(real(0, 2, 2, 2), real(2, 3, 1, 1), stride=2, output_padding=(0, 1)),
        Example(real(2, 0, 2, 2), real(0, 3, 2, 2)),
    ),
)
