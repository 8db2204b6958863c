"""Convolution, its transpose, and its gradients. ONNX has the channels in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minigraph.core.dim import known
from minigraph.core.ir import Node
from minigraph.onnx.draft import Draft, Unwritable, writes
from minigraph.ops.conv import conv, conv_input_gradient, conv_transpose, conv_weight_gradient
from minigraph.ops.window import Pairs, channel_axis, extents_of


def channels_first(draft: Draft, x: str, layout: str) -> str:
    """x of a layout as (N, C, ...)."""
    return draft.move(x, len(layout), channel_axis(layout), 1)


def from_channels_first(draft: Draft, x: str, layout: str) -> str:
    return draft.move(x, len(layout), 1, channel_axis(layout))


def sliding(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The geometry of windows as ONNX has it."""
    return {"strides": attrs["stride"], "dilations": attrs["dilation"], "pads": pads(attrs["padding"])}


def pads(padding: Pairs) -> list[int]:
    return [before for before, _ in padding] + [after for _, after in padding]


@writes(conv)
def write_conv(draft: Draft, node: Node, x: str, w: str) -> str:
    layout, window = node.attrs["layout"], node.inputs[1].type.shape[2:]
    first = channels_first(draft, x, layout)
    y = draft.add("Conv", first, w, kernel_shape=window, group=node.attrs["groups"], **sliding(node.attrs))
    return from_channels_first(draft, y, layout)


@writes(conv_transpose)
def write_conv_transpose(draft: Draft, node: Node, x: str, w: str) -> str:
    return _transposed(draft, node, x, w, node.attrs["output_padding"])


@writes(conv_input_gradient)
def write_conv_input_gradient(draft: Draft, node: Node, g: str, w: str) -> str:
    """ConvTranspose, with what the stride left unread as padding of its result."""
    attrs = node.attrs
    places = extents_of(node.inputs[0].type, attrs["layout"])
    window = node.inputs[1].type.shape[2:]
    rest: list[int] = []
    for n, p, k, s, d, (a, b) in zip(
        attrs["extents"], places, window, attrs["stride"], attrs["dilation"], attrs["padding"]
    ):
        left = n - ((p - 1) * s + d * (k - 1) + 1 - a - b)
        if not isinstance(left, int):
            raise Unwritable("what its stride leaves unread depends on a size that is known only at run time")
        rest.append(left)
    return _transposed(draft, node, g, w, rest)


def _transposed(draft: Draft, node: Node, x: str, w: str, output_padding: Sequence[int]) -> str:
    layout, window = node.attrs["layout"], node.inputs[1].type.shape[2:]
    attrs = {"group": node.attrs["groups"], "output_padding": list(output_padding), **sliding(node.attrs)}
    y = draft.add("ConvTranspose", channels_first(draft, x, layout), w, kernel_shape=window, **attrs)
    return from_channels_first(draft, y, layout)


@writes(conv_weight_gradient)
def write_conv_weight_gradient(draft: Draft, node: Node, x: str, g: str) -> str:
    """x^T (C, N, ...) is convolved with g^T (O, N, ...), group by group, where stride and dilation change places."""
    attrs, types = node.attrs, [value.type for value in node.inputs]
    layout, groups, rank = attrs["layout"], attrs["groups"], len(attrs["layout"])
    axis = channel_axis(layout)
    turned = [draft.move(channels_first(draft, name, layout), rank, 1, 0) for name in (x, g)]
    sizes = [known(t.shape[axis], "the number of channels") // groups for t in types]
    geometry = {"strides": attrs["dilation"], "dilations": attrs["stride"], "pads": pads(attrs["padding"])}
    found = []
    for group in range(groups):
        data, weight = (_rows(draft, t, n, group, groups) for t, n in zip(turned, sizes))
        found.append(draft.add("Conv", data, weight, **geometry))
    axes = range(2, rank)
    whole = found[0] if groups == 1 else draft.add("Concat", *found, axis=1)  # (C / groups, O, ...)
    whole = draft.move(whole, rank, 0, 1)
    window = draft.array(attrs["window"])
    return draft.add("Slice", whole, draft.array([0] * len(axes)), window, draft.array(list(axes)))


def _rows(draft: Draft, x: str, size: int, group: int, groups: int) -> str:
    """The rows of x that belong to a group."""
    if groups == 1:
        return x
    return draft.add("Slice", x, draft.array([group * size]), draft.array([(group + 1) * size]), draft.array([0]))
