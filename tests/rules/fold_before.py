"""The rules that take scales and shifts up into weights."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number

Outputs = Mapping[str, Tensor]
POSITIVE = {"s": (0.5, 2.0)}
NEGATIVE = {"s": (-2.0, -0.5)}

GETS_THERE = "all ways of the scale end in frozen weights, past values that nothing else reads"
MEETS = "the shift meets another one, or a weight, past values that nothing else reads"


def data(net: Builder, name: str = "x") -> Tensor:
    return net.input(name, (2, 2, 3))


def channels(net: Builder, name: str, count: int = 3) -> Tensor:
    """A number for each channel of (N, C, L)."""
    return mg.reshape(number(net, name, count), (count, 1))


def conv(net: Builder, x: Tensor, name: str = "w", outputs: int = 3) -> Tensor:
    """(N, 2, L) to (N, outputs, L - 1)."""
    return mg.conv(x, number(net, name, outputs, x.shape[1], 2))


def residual(net: Builder) -> Outputs:
    x = data(net)
    return {"y": (conv(net, x) + conv(net, x, "v")) * channels(net, "s")}


def residual_of_an_input(net: Builder) -> Outputs:
    return {"y": (conv(net, data(net)) + net.input("z", (2, 3, 2))) * channels(net, "s")}


def shifted_residual(net: Builder) -> Outputs:
    x = data(net)
    return {"y": (mg.tanh(x) + conv(net, mg.pad(x, ((0, 0), (0, 0), (1, 0))), outputs=2)) + channels(net, "t", 2)}


def shifted_activations(net: Builder) -> Outputs:
    return {"y": (mg.tanh(data(net)) + data(net, "z")) + channels(net, "t", 2)}


def scaled_conv(net: Builder) -> Outputs:
    return {"y": conv(net, data(net)) * channels(net, "s")}


def scaled_along_places(net: Builder) -> Outputs:
    """Three channels and three places: the sizes agree by accident."""
    return {"y": conv(net, net.input("x", (2, 2, 4))) * number(net, "s", 3)}


def conv_read_twice(net: Builder) -> Outputs:
    y = conv(net, data(net))
    return {"y": y * channels(net, "s"), "z": y}


def through_relu(net: Builder) -> Outputs:
    return {"y": mg.relu(conv(net, data(net))) * channels(net, "s")}


def through_sum(net: Builder) -> Outputs:
    """A scale along the axis that was reduced."""
    w = number(net, "w", 3, 3)
    return {"y": mg.sum(mg.matmul(net.input("x", (3, 3)), w), 1, keepdims=True) * number(net, "s", 3, 1)}


def cumulated(net: Builder) -> Outputs:
    """A scale along the axis of the sums."""
    w = number(net, "w", 3, 3)
    return {"y": mg.cumsum(mg.matmul(net.input("x", (2, 3)), w), 1) * number(net, "s", 3)}


def pooled(net: Builder) -> Outputs:
    """Through an average and a transposition."""
    y = conv(net, net.input("x", (2, 2, 5)))
    return {"y": mg.transpose(mg.avg_pool(y, 2), (0, 2, 1)) * number(net, "s", 3)}


def relu_of_an_input(net: Builder) -> Outputs:
    return {"y": mg.relu(data(net)) * channels(net, "s", 2)}


def max_pooled(net: Builder) -> Outputs:
    y = conv(net, net.input("x", (2, 2, 5)))
    return {"y": mg.max_pool(y, 2) + channels(net, "t")}


def shifted_relu(net: Builder) -> Outputs:
    return {"y": mg.relu(conv(net, data(net))) + channels(net, "t")}


def max_pooled_twice(net: Builder) -> Outputs:
    y = mg.max_pool(conv(net, net.input("x", (2, 2, 5))), 2)
    return {"y": y + channels(net, "t"), "z": y}


def joined(net: Builder) -> Outputs:
    x = data(net)
    return {"y": mg.concat([conv(net, x, outputs=1), conv(net, x, "v", 2)], axis=1) * channels(net, "s")}


def joined_along_places(net: Builder) -> Outputs:
    x = data(net)
    return {"y": mg.concat([conv(net, x), conv(net, x, "v")], axis=2) + channels(net, "t")}


def joined_with_an_input(net: Builder) -> Outputs:
    x = data(net)
    return {"y": mg.concat([x, conv(net, mg.pad(x, ((0, 0), (0, 0), (1, 0))), outputs=1)], axis=1) * channels(net, "s")}


def joined_with_an_input_and_shifted(net: Builder) -> Outputs:
    x = data(net)
    return {"y": mg.concat([x, conv(net, mg.pad(x, ((0, 0), (0, 0), (1, 0))), outputs=1)], axis=1) + channels(net, "t")}


CASES = {
    "scale-both-branches": Case(
        build=residual,
        golden="""
            conv: float32[2, 3, 2] = conv(x, w)
            conv2: float32[2, 3, 2] = conv(x, v)
            reshape: float32[3, 1] = reshape(s, shape=(3, 1))
            mul.mul: float32[2, 3, 2] = mul(conv, reshape)
            mul.mul2: float32[2, 3, 2] = mul(conv2, reshape)
            mul: float32[2, 3, 2] = add(mul.mul, mul.mul2)
            output y = mul
            """,
        near={"both branches take the scale up": Near(residual_of_an_input)},
    ),
    "shift-one-branch": Case(
        build=shifted_residual,
        golden="""
            tanh: float32[2, 2, 3] = tanh(x)
            pad: float32[2, 2, 4] = pad(x, widths=((0, 0), (0, 0), (1, 0)))
            conv: float32[2, 2, 3] = conv(pad, w)
            reshape: float32[2, 1] = reshape(t, shape=(2, 1))
            add2.add: float32[2, 2, 3] = add(conv, reshape)
            add2: float32[2, 2, 3] = add(add2.add, tanh)
            output y = add2
            """,
        near={"a takes the shift up": Near(shifted_activations)},
    ),
    "scale-into-weight": Case(
        build=scaled_conv,
        golden="""
            reshape: float32[3, 1] = reshape(s, shape=(3, 1))
            mul.reshape: float32[3] = reshape(reshape, shape=(3,))
            mul.reshape2: float32[3, 1, 1] = reshape(mul.reshape, shape=(3, 1, 1))
            mul.mul: float32[3, 2, 2] = mul(w, mul.reshape2)
            mul: float32[2, 3, 2] = conv(x, mul.mul)
            output y = mul
            """,
        near={
            "the scale is one number for each output channel of the weight": Near(scaled_along_places),
            "it stands right behind a frozen weight, and nothing else reads that": Near(conv_read_twice),
        },
    ),
    "scale-through": Case(
        build=pooled,
        golden="""
            conv: float32[2, 3, 4] = conv(x, w)
            mul.reshape: float32[3] = reshape(s, shape=(3,))
            mul.reshape2: float32[1, 3, 1] = reshape(mul.reshape, shape=(1, 3, 1))
            mul.reshape3: float32[3] = reshape(mul.reshape2, shape=(3,))
            mul.reshape4: float32[1, 3, 1] = reshape(mul.reshape3, shape=(1, 3, 1))
            mul.mul2: float32[2, 3, 4] = mul(conv, mul.reshape4)
            avg_pool: float32[2, 3, 2] = avg_pool(mul.mul2, window=(2,))
            mul: float32[2, 2, 3] = transpose(avg_pool, axes=(0, 2, 1))
            output y = mul
            """,
        near={
            "the op passes a scale of these channels": Near(cumulated),
            "where it passes positive scales only, all are positive": Near(through_relu, NEGATIVE),
            GETS_THERE: Near(relu_of_an_input, POSITIVE),
        },
    ),
    "shift-through": Case(
        build=max_pooled,
        golden="""
            conv: float32[2, 3, 4] = conv(x, w)
            reshape: float32[3, 1] = reshape(t, shape=(3, 1))
            add.reshape: float32[3] = reshape(reshape, shape=(3,))
            add.reshape2: float32[1, 3, 1] = reshape(add.reshape, shape=(1, 3, 1))
            add.add: float32[2, 3, 4] = add(conv, add.reshape2)
            add: float32[2, 3, 2] = max_pool(add.add, window=(2,))
            output y = add
            """,
        near={"the op passes a shift of these channels": Near(shifted_relu), MEETS: Near(max_pooled_twice)},
    ),
    "scale-each-branch": Case(
        build=joined,
        golden="""
            conv: float32[2, 1, 2] = conv(x, w)
            conv2: float32[2, 2, 2] = conv(x, v)
            reshape: float32[3, 1] = reshape(s, shape=(3, 1))
            mul.slice: float32[1, 1] = slice(reshape, start=(0, 0), stop=(1, 1))
            mul.mul: float32[2, 1, 2] = mul(conv, mul.slice)
            mul.slice2: float32[2, 1] = slice(reshape, start=(1, 0), stop=(3, 1))
            mul.mul2: float32[2, 2, 2] = mul(conv2, mul.slice2)
            mul: float32[2, 3, 2] = concat(mul.mul, mul.mul2, axis=1)
            output y = mul
            """,
        near={GETS_THERE: Near(joined_with_an_input)},
    ),
    "shift-each-branch": Case(
        build=joined_along_places,
        golden="""
            conv: float32[2, 3, 2] = conv(x, w)
            conv2: float32[2, 3, 2] = conv(x, v)
            reshape: float32[3, 1] = reshape(t, shape=(3, 1))
            add.add: float32[2, 3, 2] = add(conv, reshape)
            add.add2: float32[2, 3, 2] = add(conv2, reshape)
            add: float32[2, 3, 4] = concat(add.add, add.add2, axis=2)
            output y = add
            """,
        near={MEETS: Near(joined_with_an_input_and_shifted)},
    ),
}
