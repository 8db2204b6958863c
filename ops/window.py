"""The geometry of windows that slide over an image: convolution and pooling share it.

Along one axis, with x entries, padding (a, b), a window of k entries that are d apart, and steps of s, there are
(a + x + b - d*(k - 1) - 1) // s + 1 positions. Everything is for any number of spatial axes, and for channels first
("NCHW", "NCL", "NCDHW") or last ("NHWC", ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigraph.core.dim import Shape, Size, product
from minigraph.core.errors import expect
from minigraph.core.ir import Type
from minigraph.core.op import Channels, whole

Pairs = tuple[tuple[int, int], ...]
SPATIAL = {1: "L", 2: "HW", 3: "DHW"}


def layout_of(x: Type, layout: str | None) -> str:
    """The layout's full name; channels first by default."""
    expect(x.rank - 2 in SPATIAL, "needs (batch, channels, 1 to 3 spatial axes) in the order of the layout, got {}", x)
    spatial = SPATIAL[x.rank - 2]
    names = (f"NC{spatial}", f"N{spatial}C")
    expect(layout is None or layout in names, "layout of {} is {} or {}, not {!r}", x, *names, layout)
    return layout or names[0]


def channel_axis(layout: str) -> int:
    """Where the channels lie."""
    return layout.index("C")


def spatial_axes(layout: str) -> tuple[int, ...]:
    """The axes over which a window slides, in order."""
    return tuple(range(2, len(layout))) if layout[1] == "C" else tuple(range(1, len(layout) - 1))


def beside_windows(axis: int, layout: str, scale: str, shift: bool) -> Channels | None:
    """`channels` of an op that computes along the spatial axes, for each image and channel by itself."""
    return None if axis in spatial_axes(layout) else Channels(axis, scale, shift)


def extents_of(x: Type, layout: str) -> Shape:
    """The spatial sizes of x."""
    return tuple(x.shape[axis] for axis in spatial_axes(layout))


def arranged(layout: str, batch: Size, channels: Size, spatial: Shape) -> Shape:
    """A shape in the order of the layout."""
    return (batch, channels, *spatial) if layout[1] == "C" else (batch, *spatial, channels)


def per_axis(given: Any, rank: int, what: str, least: int) -> tuple[int, ...]:
    """One number for all spatial axes, or one for each."""
    numbers = (given,) * rank if not isinstance(given, (tuple, list)) else tuple(given)
    expect(len(numbers) == rank, "{} has {} numbers for {} spatial axes", what, len(numbers), rank)
    return tuple(whole(n, what, least) for n in numbers)


def padding_of(
    given: Any, extents: Shape, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Pairs:
    """(before, after) for each spatial axis, from one number, one for each, pairs, "valid" or "same".

    "same" gives ceil(x / stride) positions; what cannot be shared evenly comes after, as in TensorFlow and ONNX's
    SAME_UPPER.
    """
    rank = len(window)
    if given == "valid":
        return ((0, 0),) * rank
    if given == "same":
        pairs: list[tuple[int, int]] = []
        for x, k, s, d in zip(extents, window, stride, dilation):
            expect(s == 1 or isinstance(x, int), 'padding "same" with stride {} needs a known size, not {}', s, x)
            reach = d * (k - 1) + 1
            total: Any = reach - 1 if s == 1 else max((-(-x // s) - 1) * s + reach - x, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    expect(not isinstance(given, str), 'padding is a number, pairs, "valid" or "same", not {!r}', given)
    if not isinstance(given, (tuple, list)):
        given = (given,) * rank
    expect(len(given) == rank, "padding has {} entries for {} spatial axes", len(given), rank)
    entries = [tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in given]
    for p in entries:
        expect(len(p) == 2, "padding is a number or (before, after) for each spatial axis, not {}", given)
    return tuple((whole(a, "padding", 0), whole(b, "padding", 0)) for a, b in entries)


def ceiled(
    extents: Shape, window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs, dilation: tuple[int, ...]
) -> Pairs:
    """The padding with which the last, partial window of each axis fits: (x - reach) / stride is rounded up.

    A window that would start behind x and the padding before it is left out, as in PyTorch and ONNX.
    """
    result: list[tuple[int, int]] = []
    for x, k, s, (a, b), d in zip(extents, window, stride, padding, dilation):
        room, reach = a + x + b - (d * (k - 1) + 1), d * (k - 1) + 1
        rest: Any = room - room // s * s
        more = b + -rest % s
        result.append((a, more if more < reach else b))
    return tuple(result)


def positions(
    extents: Shape, window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs, dilation: tuple[int, ...]
) -> tuple[Any, ...]:
    """How many places the window takes along each spatial axis."""
    result: list[Size] = []
    for x, k, s, (a, b), d in zip(extents, window, stride, padding, dilation):
        room = a + x + b - d * (k - 1) - 1
        expect(
            not isinstance(room, int) or room >= 0,
            "a window of {} entries, {} apart, does not fit into {} + {} + {}",
            k,
            d,
            a,
            x,
            b,
        )
        result.append(room // s + 1)
    return tuple(result)


# in C, three spatial axes


def three(numbers: Any, missing: Any) -> tuple[Any, ...]:
    """One entry for each of three spatial axes: those that a kernel's image lacks come first."""
    return (*(missing,) * (3 - len(numbers)), *numbers)


def strides_of(name: str, shape: Shape, layout: str) -> dict[str, Any]:
    """How far apart neighbours of a dense tensor are, in numbers, along each of its axes; as fields for a kernel."""
    strides = [product(shape[axis + 1 :]) for axis in range(len(shape))]
    spatial = tuple(strides[axis] for axis in spatial_axes(layout))
    return {
        f"{name}_image": strides[0],
        f"{name}_channel": strides[channel_axis(layout)],
        f"{name}_axis": three(spatial, 1),
    }


def window_fields(
    x: Type, y: Type, window: Any, stride: Any, padding: Pairs, dilation: Any, layout: str
) -> dict[str, Any]:
    """What a kernel must know of windows that slide over x, at each of which there is one entry of y."""
    return {
        "window": three(window, 1),
        "stride": three(stride, 1),
        "dilation": three(dilation, 1),
        "before": three([before for before, _ in padding], 0),
        "extents": three(extents_of(x, layout), 1),
        "places": three(extents_of(y, layout), 1),
        **strides_of("x", x.shape, layout),
        **strides_of("y", y.shape, layout),
    }


# in NumPy, channels first


def channels_first(x: np.ndarray, layout: str) -> np.ndarray:
    """A view of x as (N, C, ...)."""
    return x if layout[1] == "C" else np.moveaxis(x, -1, 1)


def from_channels_first(x: np.ndarray, layout: str) -> np.ndarray:
    return x if layout[1] == "C" else np.ascontiguousarray(np.moveaxis(x, 1, -1))


def padded(x: np.ndarray, padding: Pairs, value: float = 0.0) -> np.ndarray:
    """x (N, C, ...) with its spatial axes padded."""
    if not any(map(any, padding)):
        return x
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=value)


def cropped(x: np.ndarray, padding: Pairs) -> np.ndarray:
    """The transpose of padding."""
    return x[(slice(None), slice(None), *(slice(a, n - b) for (a, b), n in zip(padding, x.shape[2:])))]


def windows(x: np.ndarray, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> np.ndarray:
    """A view of padded x (N, C, ...) as (N, C, *window, *positions)."""
    places = positions(x.shape[2:], window, stride, ((0, 0),) * len(window), dilation)
    inner = tuple(n * d for n, d in zip(x.strides[2:], dilation))
    outer = tuple(n * s for n, s in zip(x.strides[2:], stride))
    shape = (*x.shape[:2], *window, *places)
    return np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:2], *inner, *outer), writeable=False)


def offsets(
    window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], places: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """For each place in the window, in order: its index, and the slices of padded x (N, C, ...) that it visits."""
    for index in np.ndindex(*window):
        where = tuple(slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, n, s in zip(index, dilation, places, stride))
        yield index, (slice(None), slice(None), *where)
