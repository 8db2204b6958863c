"""The rules that take scales and shifts down into weights."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number
from rules.fold_before import channels, conv, data

Outputs = Mapping[str, Tensor]
POSITIVE = {"s": (0.5, 2.0)}
NEGATIVE = {"s": (-2.0, -0.5)}
ZERO = {"t": (0.0, 0.0)}

ITS_CHANNELS = "it is one number for each input channel of the weight"
ALL_SCALES = "all that reads the scaled value takes the scale up"
ALL_SHIFTS = "all that reads the shifted value takes the shift up"


def padded(net: Builder, x: Tensor, name: str = "w") -> Tensor:
    """(N, 2, L) to (N, 3, L + 1), in windows of two."""
    return mg.conv(x, number(net, name, 3, 2, 2), padding=1)


def scaled_conv(net: Builder) -> Outputs:
    return {"y": conv(net, data(net) * channels(net, "s", 2))}


def scaled_along_places(net: Builder) -> Outputs:
    """Two channels and two places: the sizes agree by accident."""
    return {"y": conv(net, net.input("x", (2, 2, 2)) * number(net, "s", 2))}


def scaled_for_two(net: Builder) -> Outputs:
    """The second reader takes nothing up."""
    y = data(net) * channels(net, "s", 2)
    return {"y": conv(net, y), "z": mg.tanh(y)}


def shifted_rows(net: Builder) -> Outputs:
    """Behind a weight on the left, whose input channels are rows, as many as there are columns."""
    return {"y": mg.matmul(number(net, "w", 2, 3), net.input("x", (2, 3, 3)) + number(net, "t", 3))}


def shifted_groups(net: Builder) -> Outputs:
    """Four channels in two groups, which make six."""
    x = net.input("x", (2, 4, 3)) + channels(net, "t", 4)
    return {"y": mg.conv(x, number(net, "w", 6, 2, 2), groups=2)}


def shifted_padded(net: Builder) -> Outputs:
    return {"y": padded(net, data(net) + channels(net, "t", 2))}


def shifted_by_nothing(net: Builder) -> Outputs:
    """A shift that is not trained: with it goes its gradient."""
    return {"y": padded(net, data(net) + mg.stop_gradient(channels(net, "t", 2)))}


def shifted_for_two(net: Builder) -> Outputs:
    y = data(net) + channels(net, "t", 2)
    return {"y": conv(net, y), "z": y}


def padded_for_two(net: Builder) -> Outputs:
    y = data(net) + channels(net, "t", 2)
    return {"y": padded(net, y), "z": mg.tanh(y)}


def scaled_and_shifted(net: Builder) -> Outputs:
    return {"y": padded(net, data(net) * channels(net, "s", 2) + channels(net, "t", 2))}


def scaled_places_and_shifted(net: Builder) -> Outputs:
    """Two channels and two places: the sizes agree by accident."""
    return {"y": padded(net, net.input("x", (2, 2, 2)) * number(net, "s", 2) + channels(net, "t", 2))}


def scaled_and_shifted_for_two(net: Builder) -> Outputs:
    y = data(net) * channels(net, "s", 2) + channels(net, "t", 2)
    return {"y": padded(net, y), "z": mg.tanh(y)}


def flattened(net: Builder) -> Outputs:
    """Each channel becomes three features."""
    return {"y": mg.flatten(data(net) * channels(net, "s", 2)) @ number(net, "w", 6, 2)}


def cumulated(net: Builder) -> Outputs:
    """Sums over the channels that the scale tells apart."""
    return {"y": mg.cumsum(net.input("x", (2, 3)) * number(net, "s", 3), 1) @ number(net, "w", 3, 2)}


def through_relu(net: Builder) -> Outputs:
    return {"y": conv(net, mg.relu(data(net) * channels(net, "s", 2)))}


def relu_for_two(net: Builder) -> Outputs:
    """ReLU passes a positive scale on, of its two readers one takes it up."""
    y = mg.relu(data(net) * channels(net, "s", 2))
    return {"y": conv(net, y), "z": mg.tanh(y)}


def pooled(net: Builder) -> Outputs:
    return {"y": conv(net, mg.max_pool(net.input("x", (2, 2, 4)) + channels(net, "t", 2), 2))}


def shifted_relu(net: Builder) -> Outputs:
    return {"y": conv(net, mg.relu(data(net) + channels(net, "t", 2)))}


def pooled_for_two(net: Builder) -> Outputs:
    y = mg.max_pool(net.input("x", (2, 2, 4)) + channels(net, "t", 2), 2)
    return {"y": conv(net, y), "z": mg.tanh(y)}


CASES = {
    "scale-into-next-weight": Case(
        build=scaled_conv,
        golden="""
            reshape: float32[2, 1] = reshape(s, shape=(2, 1))
            conv.reshape: float32[2] = reshape(reshape, shape=(2,))
            conv.reshape2: float32[1, 1, 2] = reshape(conv.reshape, shape=(1, 1, 2))
            conv.broadcast_to: float32[1, 3, 2] = broadcast_to(conv.reshape2, shape=(1, 3, 2))
            conv.reshape3: float32[3, 2, 1] = reshape(conv.broadcast_to, shape=(3, 2, 1))
            conv.mul: float32[3, 2, 2] = mul(w, conv.reshape3)
            conv: float32[2, 3, 2] = conv(x, conv.mul)
            output y = conv
            """,
        near={ITS_CHANNELS: Near(scaled_along_places), ALL_SCALES: Near(scaled_for_two)},
    ),
    "shift-past-weight": Case(
        build=shifted_groups,
        golden="""
            reshape: float32[4, 1] = reshape(t, shape=(4, 1))
            conv.reshape: float32[4] = reshape(reshape, shape=(4,))
            conv.reshape2: float32[2, 1, 2] = reshape(conv.reshape, shape=(2, 1, 2))
            conv.broadcast_to: float32[2, 3, 2] = broadcast_to(conv.reshape2, shape=(2, 3, 2))
            conv.reshape3: float32[6, 2, 1] = reshape(conv.broadcast_to, shape=(6, 2, 1))
            conv.mul: float32[6, 2, 2] = mul(w, conv.reshape3)
            conv.sum: float32[6] = sum(conv.mul, axes=(1, 2))
            conv.conv: float32[2, 6, 2] = conv(x, w, stride=(1,), padding=((0, 0),), dilation=(1,), groups=2, layout="NCL")
            conv.reshape4: float32[1, 6, 1] = reshape(conv.sum, shape=(1, 6, 1))
            conv: float32[2, 6, 2] = add(conv.conv, conv.reshape4)
            output y = conv
            """,  # noqa: E501
        near={
            ITS_CHANNELS: Near(shifted_rows),
            "no window reaches into padding": Near(shifted_padded),
            ALL_SHIFTS: Near(shifted_for_two),
        },
    ),
    "drop-shift-of-zero": Case(
        build=shifted_by_nothing,
        golden="""
            conv: float32[2, 3, 4] = conv(x, w, padding=((1, 1),))
            output y = conv
            """,
        near={"the shift is zero": Near(shifted_padded)},
        ranges=ZERO,
    ),
    "shift-past-padding": Case(
        build=shifted_padded,
        golden="""
            reshape: float32[2, 1] = reshape(t, shape=(2, 1))
            conv.broadcast_to: float32[1, 2, 3] = broadcast_to(reshape, shape=(1, 2, 3))
            conv.conv: float32[2, 3, 4] = conv(x, w, padding=((1, 1),))
            conv.conv2: float32[1, 3, 4] = conv(conv.broadcast_to, w, padding=((1, 1),))
            conv: float32[2, 3, 4] = add(conv.conv, conv.conv2)
            output y = conv
            """,
        near={ALL_SHIFTS: Near(padded_for_two)},
    ),
    "scale-past-shift": Case(
        build=scaled_and_shifted,
        golden="""
            reshape: float32[2, 1] = reshape(s, shape=(2, 1))
            reshape2: float32[2, 1] = reshape(t, shape=(2, 1))
            conv.div: float32[2, 1] = div(reshape2, reshape)
            conv.add: float32[2, 2, 3] = add(x, conv.div)
            conv.reshape: float32[2] = reshape(reshape, shape=(2,))
            conv.reshape2: float32[1, 1, 2] = reshape(conv.reshape, shape=(1, 1, 2))
            conv.broadcast_to: float32[1, 3, 2] = broadcast_to(conv.reshape2, shape=(1, 3, 2))
            conv.reshape3: float32[3, 2, 1] = reshape(conv.broadcast_to, shape=(3, 2, 1))
            conv.mul: float32[3, 2, 2] = mul(w, conv.reshape3)
            conv: float32[2, 3, 4] = conv(conv.add, conv.mul, padding=((1, 1),))
            output y = conv
            """,
        near={
            "the scale is one number for each input channel of the weight": Near(scaled_places_and_shifted),
            "no scale is zero, or near it": Near(scaled_and_shifted, {"s": (0.0, 0.0)}, undefined=True),
            "nothing else reads the scaled or the shifted value": Near(scaled_and_shifted_for_two),
        },
    ),
    "scale-down": Case(
        build=flattened,
        golden="""
            reshape: float32[2, 1] = reshape(s, shape=(2, 1))
            reshape2.broadcast_to: float32[1, 2, 3] = broadcast_to(reshape, shape=(1, 2, 3))
            reshape2.reshape: float32[1, 6] = reshape(reshape2.broadcast_to, shape=(1, 6))
            reshape2.reshape2: float32[2, 6] = reshape(x, shape=(2, 6))
            reshape2: float32[2, 6] = mul(reshape2.reshape2, reshape2.reshape)
            matmul: float32[2, 2] = matmul(reshape2, w)
            output y = matmul
            """,
        near={
            "the op passes a scale of these channels": Near(cumulated),
            "where it passes positive scales only, all are positive": Near(through_relu, NEGATIVE),
            ALL_SCALES: Near(relu_for_two, POSITIVE),
        },
    ),
    "shift-down": Case(
        build=pooled,
        golden="""
            reshape: float32[2, 1] = reshape(t, shape=(2, 1))
            max_pool.reshape: float32[2] = reshape(reshape, shape=(2,))
            max_pool.reshape2: float32[1, 2, 1] = reshape(max_pool.reshape, shape=(1, 2, 1))
            max_pool.max_pool: float32[2, 2, 2] = max_pool(x, window=(2,))
            max_pool: float32[2, 2, 2] = add(max_pool.max_pool, max_pool.reshape2)
            conv: float32[2, 3, 1] = conv(max_pool, w)
            output y = conv
            """,
        near={
            "the op passes a shift of these channels": Near(shifted_relu),
            ALL_SHIFTS: Near(pooled_for_two),
        },
    ),
}
