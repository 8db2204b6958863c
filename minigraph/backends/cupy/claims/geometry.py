"""Sizes and distances of a convolution, as conv.cuh takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigraph.backends.calls import Operand
from minigraph.backends.cupy.claims.factors import Factors
from minigraph.backends.cupy.claims.launched import in_fours, numbers, strides
from minigraph.backends.groups import weight_of
from minigraph.core.dim import known
from minigraph.core.ir import Node, Value
from minigraph.ops.window import extents_of, three

FEW = 8  # channels that are read where they lie, though not side by side


@dataclass(frozen=True)
class Geometry:
    """A convolution that gives y from x, or one of its gradients. channels, outputs: of each group."""

    batch: int
    groups: int
    channels: int
    outputs: int
    extents: tuple[int, ...]
    places: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def taps(self) -> int:
        return numbers(self.window)

    @property
    def pixels(self) -> int:
        """Of all y."""
        return self.batch * numbers(self.places)

    def fields(self, first: Operand, rank: int, weight: Mapping[str, int], per_chunk: int) -> dict[str, Any]:
        """Of a conv_sizes. first: x, or g in a gradient to x."""
        image, *spatial, channel = strides(first, rank)
        return {
            "batch": self.batch, "groups": self.groups, "channels": self.channels, "outputs": self.outputs,
            "extents": self.extents, "places": self.places, "window": self.window, "stride": self.stride,
            "dilation": self.dilation, "before": self.before, "image": image, "channel": channel,
            "axis": three(spatial, 0), **weight, "per_chunk": per_chunk,
        }  # fmt: skip


def geometry(x: Value, y: Value, node: Node) -> Geometry | None:
    """Of the convolution that gives y from x; None where the kernels do not serve it."""
    attrs, layout, weight = node.attrs, node.attrs["layout"], weight_of(node)
    if layout[-1] != "C":
        return None
    batch, *_ = (known(n, "a size") for n in x.type.shape)
    extents, places = ([known(n, "a size") for n in extents_of(v.type, layout)] for v in (x, y))
    outputs, channels, *window = (known(n, "a size") for n in weight.type.shape)
    if 0 in (outputs, channels, *window, *extents, *places):
        return None
    return Geometry(
        batch,
        attrs["groups"],
        channels,
        outputs // attrs["groups"],
        three(extents, 1),
        three(places, 1),
        three(window, 1),
        three(attrs["stride"], 1),
        three(attrs["dilation"], 1),
        three([before for before, _ in attrs["padding"]], 0),
    )


def images(of: Factors, value: Value) -> Operand:
    """Images where they lie, unless their many channels lie apart there."""
    found = of.operand(value)
    many = known(value.type.shape[-1], "a number of channels") > FEW
    return of.dense(value) if many and strides(found, value.type.rank)[-1] != 1 else found


def weights(of: Factors, value: Value) -> Operand:
    """A weight where it lies, if its taps do so at equal distances."""
    found = of.operand(value)
    return of.dense(value) if _tap(found, value) is None else found


def weight_distances(found: Operand, value: Value) -> dict[str, int]:
    """How far apart outputs, channels and taps of a weight lie."""
    output, channel, *_ = strides(found, value.type.rank)
    return {"output": output, "channel": channel, "tap": _tap(found, value) or 0}


def _tap(found: Operand, value: Value) -> int | None:
    """How far apart the taps of a weight lie; 0 if it has one, None if they do not lie at equal distances."""
    sizes = [(known(n, "a size"), step) for n, step in zip(value.type.shape, strides(found, value.type.rank))][2:]
    apart, taps = 0, 1
    for size, step in reversed(sizes):
        if size == 1:
            continue
        if taps == 1:
            apart = step
        elif step != apart * taps:
            return None
        taps *= size
    return apart


def fours(found: Operand, rank: int, channels: int) -> bool:
    """Whether the channels of a group are read four at a time."""
    image, *spatial, channel = strides(found, rank)
    return channel == 1 and in_fours(found, channels, (image, *spatial))


def deep(found: Operand, rank: int) -> bool:
    """Whether the channels of images lie side by side."""
    return strides(found, rank)[-1] == 1
