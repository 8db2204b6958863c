"""Convolutions, and the geometry of windows that pooling shares: attributes of ONNX as those of minigraph."""

from __future__ import annotations

from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.dim import Size
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops.conv import conv, conv_transpose
from minigraph.ops.shape import pad, reshape, slice_

Pairs = tuple[tuple[int, int], ...]


def numbers(call: Call, name: str, rank: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one number for each spatial axis."""
    found = call.ints(name, (default,) * rank)
    expect(len(found) == rank, "{} has {} numbers for {} spatial axes", name, len(found), rank)
    return found


def spatial_rank(x: Tensor) -> int:
    expect(x.rank >= 3, "needs images, (N, C, ...), got {}", x.value)
    return x.rank - 2


def padding(
    call: Call, extents: tuple[Size, ...], window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Any:
    """The padding of a window over an image, from auto_pad and pads."""
    rank, auto = len(window), call.string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return "same" if auto == "SAME_UPPER" else same_lower(extents, window, stride, dilation)
    expect(auto in ("NOTSET", "VALID"), "auto_pad is NOTSET, SAME_UPPER, SAME_LOWER or VALID, not {!r}", auto)
    return pairs(call, rank) if auto == "NOTSET" else 0


def pairs(call: Call, rank: int) -> Pairs:
    """pads, which has all that is before the axes first, as (before, after) for each."""
    pads = call.ints("pads", (0,) * (2 * rank))
    expect(len(pads) == 2 * rank, "pads has {} numbers for {} spatial axes", len(pads), rank)
    return tuple(zip(pads[:rank], pads[rank:]))


def same_lower(
    extents: tuple[Size, ...], window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Pairs:
    """ceil(x / stride) positions; what cannot be shared evenly comes before."""
    found = []
    for x, k, s, d in zip(extents, window, stride, dilation):
        reach = d * (k - 1) + 1
        expect(s == 1 or isinstance(x, int), "auto_pad with stride {} needs a known size, not {}", s, x)
        total: Any = reach - 1 if s == 1 else max((-(-x // s) - 1) * s + reach - x, 0)
        found.append((total - total // 2, total // 2))
    return tuple(found)


def with_bias(call: Call, y: Tensor) -> Tensor:
    """y plus input 2, one number for each channel."""
    if not call.has(2):
        return y
    bias = call.weight(2)
    expect(bias.shape == (y.shape[1],), "the bias of {} is one number for each channel, not {}", y.value, bias.value)
    return y + reshape(bias, (-1, *(1,) * (y.rank - 2)))


@reads("Conv")
def read_conv(call: Call) -> Tensor:
    x, w = call.tensor(0), call.weight(1)
    rank = spatial_rank(x)
    expect(w.rank == x.rank, "the weight of {} needs {} axes, not {}", x.value, x.rank, w.value)
    expect(call.ints("kernel_shape", w.shape[2:]) == w.shape[2:], "kernel_shape is not that of {}", w.value)
    stride, dilation = numbers(call, "strides", rank), numbers(call, "dilations", rank)
    widths = padding(call, x.shape[2:], w.shape[2:], stride, dilation)  # type: ignore[arg-type]
    y = conv(x, w, stride=stride, padding=widths, dilation=dilation, groups=call.integer("group", 1))
    return with_bias(call, y)


@reads("ConvTranspose")
def read_conv_transpose(call: Call) -> Tensor:
    """The whole result first, then pads cut off: they may leave more behind than they take away (output_padding)."""
    x, w = call.tensor(0), call.weight(1)
    rank = spatial_rank(x)
    expect(w.rank == x.rank, "the weight of {} needs {} axes, not {}", x.value, x.rank, w.value)
    window: Any = w.shape[2:]
    expect(call.ints("kernel_shape", window) == window, "kernel_shape is not that of {}", w.value)
    stride, dilation = numbers(call, "strides", rank), numbers(call, "dilations", rank)
    more = numbers(call, "output_padding", rank, 0)
    widths = _transposed_padding(call, x.shape[2:], window, stride, dilation, more)
    attrs: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": call.integer("group", 1)}
    if all(a >= 0 and b >= 0 for a, b in widths) and all(m < s for m, s in zip(more, stride)):
        return with_bias(call, conv_transpose(x, w, padding=widths, output_padding=more, **attrs))
    return with_bias(call, _cut(conv_transpose(x, w, **attrs), widths, more))


def _transposed_padding(
    call: Call, extents: Any, window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], more: Any
) -> Pairs:
    """What is cut off: pads, or what makes output_shape, or what auto_pad wants, n * stride."""
    rank, auto = len(window), call.string("auto_pad", "NOTSET")
    wanted = call.ints("output_shape", None)
    if wanted is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return pairs(call, rank) if auto == "NOTSET" else ((0, 0),) * rank
    wanted = wanted[-rank:] if wanted is not None else tuple(n * s for n, s in zip(extents, stride))
    expect(len(wanted) == rank, "output_shape has {} numbers for {} spatial axes", len(wanted), rank)
    found = []
    for n, k, s, d, m, size in zip(extents, window, stride, dilation, more, wanted):
        total: Any = (n - 1) * s + m + d * (k - 1) + 1 - size
        expect(isinstance(total, int), "output_shape {} needs a known size, not {}", wanted, n)
        cut = max(total, 0)
        before = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
        found.append((before, total - before))
    return tuple(found)


def _cut(y: Tensor, widths: Pairs, more: tuple[int, ...]) -> Tensor:
    """y without `widths` at its ends, where a negative one, and `more` behind, put zeros on."""
    from_ = [max(0, a) for a, _ in widths]
    ends = [n - max(0, b - m) for n, (_, b), m in zip(y.shape[2:], widths, more)]
    y = slice_(y, (None, None, *from_), (None, None, *ends))
    zeros = [(max(0, -a), max(0, m - b)) for (a, b), m in zip(widths, more)]
    return _padded(y, zeros)


def _padded(y: Tensor, zeros: list[tuple[int, int]]) -> Tensor:
    return pad(y, ((0, 0), (0, 0), *zeros)) if any(map(any, zeros)) else y
