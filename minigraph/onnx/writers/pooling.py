"""Pooling over windows, and its gradients. ONNX has the channels in front."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minigraph.core import dtypes
from minigraph.core.dim import Dim, product
from minigraph.core.ir import Node, Type
from minigraph.onnx.draft import Draft, Unwritable, writes
from minigraph.onnx.expression import held
from minigraph.onnx.writers.convolution import channels_first, from_channels_first, pads, sliding
from minigraph.onnx.writers.shape import padded, scattered
from minigraph.ops.pool import _counts, avg_pool, avg_pool_gradient, max_pool, max_pool_gradient, max_pool_select
from minigraph.ops.window import Pairs, channel_axis, extents_of

POOLED = ("float16", "float32", "float64", "int8", "uint8")  # what ONNX takes the largest of in windows


@writes(max_pool)
def write_max_pool(draft: Draft, node: Node, x: str) -> str:
    data, attrs = node.inputs[0].type, node.attrs
    x = channels_first(draft, x, attrs["layout"])
    if data.dtype in POOLED:
        maker = draft.maker(draft.turned(x, data.rank)[0])
        if maker is not None and maker.op_type == "Pad":  # of one: ONNX Runtime 1.31 would take zeros for padding
            x = draft.add("Max", x)
        x, geometry = _inside(draft, x, data, attrs)
        y = draft.add("MaxPool", x, kernel_shape=attrs["window"], **geometry)
    else:
        y = _largest(draft, x, node)
    return from_channels_first(draft, y, attrs["layout"])


def _inside(draft: Draft, x: str, data: Type, attrs: Any) -> tuple[str, dict[str, Any]]:
    """x (N, C, ...) and the geometry of its windows. ONNX Runtime takes no padding as wide as a window without its
    gaps: it is put around x as numbers that never win."""
    geometry = sliding(attrs)
    if _fits(attrs):
        return x, geometry
    return _padded(draft, x, attrs["padding"], _lowest(data.dtype), data.dtype), {**geometry, "pads": None}


def _fits(attrs: Any) -> bool:
    """Whether ONNX Runtime takes the padding as such."""
    return all(max(pair) < k for pair, k in zip(attrs["padding"], attrs["window"]))


def _counted(extents: Any, places: Any, attrs: Any) -> np.ndarray:
    """How many numbers each window of an average pool counts: (1, 1, *places)."""
    if any(isinstance(n, Dim) for n in (*extents, *places)):
        raise Unwritable("how many numbers its windows hold depends on sizes that are known only at run time")
    geometry = (attrs[name] for name in ("window", "stride", "padding", "dilation", "count_include_pad"))
    return _counts(extents, places, *geometry)


def _padded(draft: Draft, x: str, padding: Pairs, number: Any, dtype: str) -> str:
    if not any(map(any, padding)):
        return x
    return padded(draft, x, draft.array(pads(((0, 0), (0, 0), *padding))), number, dtype)


def _lowest(dtype: str) -> Any:
    return -np.inf if dtype in dtypes.FLOATS else 0 if dtype.startswith("u") else np.iinfo(dtype).min


def _largest(draft: Draft, x: str, node: Node) -> str:
    """The largest of what each place in the window visits."""
    dtype = node.inputs[0].type.dtype
    visited = _visited(draft, x, node, _lowest(dtype))
    return held("Max")(draft, dtype, *visited) if len(visited) > 1 else visited[0]


def _visited(draft: Draft, x: str, node: Node, number: Any) -> list[str]:
    """What each place in the window visits of x (N, C, ...), with this number around it."""
    attrs, data = node.attrs, node.inputs[0].type
    x = _padded(draft, x, attrs["padding"], number, data.dtype)
    places = extents_of(node.outputs[0].type, attrs["layout"])
    axes, step = draft.array(range(2, data.rank)), draft.array(attrs["stride"])
    visited = []
    for index in itertools.product(*map(range, attrs["window"])):
        start = [i * d for i, d in zip(index, attrs["dilation"])]
        stop = draft.shape([a + (n - 1) * s + 1 for a, n, s in zip(start, places, attrs["stride"])])
        visited.append(draft.add("Slice", x, draft.array(start), stop, axes, step))
    return visited


@writes(avg_pool)
def write_avg_pool(draft: Draft, node: Node, x: str) -> str:
    """Where a part of the padding counts, that part is put around x as zeros."""
    attrs, data = node.attrs, node.inputs[0].type
    x, counting, geometry = channels_first(draft, x, attrs["layout"]), attrs["count_include_pad"], sliding(attrs)
    if not _fits(attrs):
        counts = _counted(extents_of(data, attrs["layout"]), extents_of(node.outputs[0].type, attrs["layout"]), attrs)
        total = draft.add("Sum", *_visited(draft, x, node, 0))
        return from_channels_first(draft, draft.add("Div", total, draft.array(counts, data.dtype)), attrs["layout"])
    if isinstance(counting, tuple):
        x = _padded(draft, x, counting, 0, data.dtype)
        left = tuple((p - a, q - b) for (p, q), (a, b) in zip(attrs["padding"], counting))
        geometry, counting = {**geometry, "pads": pads(left)}, False
    y = draft.add("AveragePool", x, kernel_shape=attrs["window"], count_include_pad=int(counting), **geometry)
    return from_channels_first(draft, y, attrs["layout"])


@writes(avg_pool_gradient)
def write_avg_pool_gradient(draft: Draft, node: Node, g: str) -> str:
    """Each window's share goes to all of its numbers: ConvTranspose with a window of ones, each channel for itself."""
    attrs, data = node.attrs, node.inputs[0].type
    extents, window = attrs["extents"], attrs["window"]
    places: Any = extents_of(data, attrs["layout"])
    counts = _counted(extents, places, attrs)
    stride, padding, dilation = (attrs[name] for name in ("stride", "padding", "dilation"))
    share = draft.add("Div", channels_first(draft, g, attrs["layout"]), draft.array(counts, data.dtype))
    images, channels = data.shape[0], data.shape[channel_axis(attrs["layout"])]
    share = draft.reshape(share, (images, channels, *places), (images * channels, 1, *places))
    rest = [
        n - ((p - 1) * s + d * (k - 1) + 1 - a - b)
        for n, p, k, s, (a, b), d in zip(extents, places, window, stride, padding, dilation)
    ]
    ones = draft.array(np.ones((1, 1, *window)), data.dtype)
    x = draft.add("ConvTranspose", share, ones, kernel_shape=window, output_padding=rest, **sliding(attrs))
    x = draft.reshape(x, (images * channels, 1, *extents), (images, channels, *extents))
    return from_channels_first(draft, x, attrs["layout"])


@writes(max_pool_select)
def write_max_pool_select(draft: Draft, node: Node, h: str, x: str) -> str:
    layout = node.attrs["layout"]
    flat = draft.add("Reshape", channels_first(draft, h, layout), draft.array([-1]))
    return from_channels_first(draft, draft.add("Gather", flat, _chosen(draft, node, x)), layout)


@writes(max_pool_gradient)
def write_max_pool_gradient(draft: Draft, node: Node, g: str, x: str) -> str:
    layout, data = node.attrs["layout"], node.inputs[1].type
    chosen = draft.add("Reshape", _chosen(draft, node, x), draft.array([-1]))
    rows = draft.add("Reshape", channels_first(draft, g, layout), draft.array([-1]))
    total = scattered(draft, draft.shape([product(data.shape)]), data.dtype, chosen, rows)
    shape = (data.shape[0], data.shape[channel_axis(layout)], *extents_of(data, layout))
    return from_channels_first(draft, draft.reshape(total, (product(shape),), shape), layout)


def _chosen(draft: Draft, node: Node, x: str) -> str:
    """For each window the place of its largest number in x (N, C, ...), counted through all of it."""
    attrs = node.attrs
    if not _fits(attrs):
        raise Unwritable("its padding is as wide as its window, which ONNX Runtime does not take")
    first = channels_first(draft, x, attrs["layout"])
    _, chosen = draft.add("MaxPool", first, outputs=2, kernel_shape=attrs["window"], **sliding(attrs))
    return chosen
