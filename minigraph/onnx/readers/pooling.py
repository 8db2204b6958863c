"""Pooling over windows, and over whole images."""

from __future__ import annotations

from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.dim import product
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.onnx.readers.convolution import numbers, padding, spatial_rank
from minigraph.ops import broadcast
from minigraph.ops.index import arange
from minigraph.ops.pointwise import absolute, cast, pow
from minigraph.ops.pool import avg_pool, lp_pool, max_pool, max_pool_select
from minigraph.ops.reduce import max as largest
from minigraph.ops.reduce import mean
from minigraph.ops.shape import reshape, transpose

LARGEST = 1 << 20  # of an axis along which each window is looked at


def _geometry(call: Call, x: Tensor) -> dict[str, Any]:
    rank = spatial_rank(x)
    window = numbers(call, "kernel_shape", rank)
    expect("kernel_shape" in call.attrs, "needs the attribute kernel_shape")
    stride, dilation = numbers(call, "strides", rank), numbers(call, "dilations", rank)
    for n, d in zip(x.shape[2:], dilation):
        expect(d == 1 or not isinstance(n, int) or n < LARGEST, "an axis of {} is too long for a dilation", n)
    return {
        "window": window,
        "stride": stride,
        "padding": padding(call, x.shape[2:], window, stride, dilation),
        "dilation": dilation,
        "ceil_mode": call.flag("ceil_mode"),
    }


@reads("MaxPool")
def read_max_pool(call: Call) -> Any:
    """The second output is where the largest numbers lie in the whole of x, counted along its last axis first.

    With storage_order=1 the spatial axes are counted the other way round.
    """
    x = call.tensor(0)
    geometry = _geometry(call, x)
    y = max_pool(x, **geometry)
    if not call.wants(1):
        return y
    geometry = {**y.builder.nodes[-1].attrs}  # with the padding as pairs
    count = product(x.shape)
    places = reshape(arange(x, count), x.shape)
    if call.flag("storage_order"):
        turned = (*x.shape[:2], *reversed(x.shape[2:]))
        places = transpose(reshape(arange(x, count), turned), (0, 1, *reversed(range(2, x.rank))))
    return y, cast(max_pool_select(cast(places, "float64"), cast(x, "float64"), **geometry), "int64")


@reads("AveragePool")
def read_avg_pool(call: Call) -> Tensor:
    x = call.tensor(0)
    return avg_pool(x, **_geometry(call, x), count_include_pad=call.flag("count_include_pad"))


@reads("LpPool")
def read_lp_pool(call: Call) -> Tensor:
    x, p = call.tensor(0), call.integer("p", 2)
    expect(1 <= p <= 16, "p is from 1 to 16, not {}", p)
    return lp_pool(x, p=p, **_geometry(call, x))


def _spatial(x: Tensor) -> tuple[int, ...]:
    expect(x.rank >= 2, "needs images, (N, C, ...), got {}", x.value)
    return tuple(range(2, x.rank))


@reads("GlobalAveragePool")
def global_average(call: Call) -> Tensor:
    x = call.tensor(0)
    return mean(x, _spatial(x), keepdims=True)


@reads("GlobalMaxPool")
def global_max(call: Call) -> Tensor:
    x = call.tensor(0)
    return largest(x, _spatial(x), keepdims=True)


@reads("GlobalLpPool")
def global_lp(call: Call) -> Tensor:
    x, p = call.tensor(0), call.integer("p", 2)
    return pow(broadcast.sum(pow(absolute(x), p), _spatial(x), keepdims=True), 1 / p)
