"""simplify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import GraphError
from minigraph.core.op import OPS
from rules import Case, Near

Built = Mapping[str, Tensor]


def filled(net: Builder, value: Any, *shape: int, dtype: str = "float32") -> Tensor:
    return net.emit(OPS["fill"], (), {"value": value, "shape": shape, "dtype": dtype})[0]


def on_x(op: Callable[[Tensor, Builder], Tensor], *shape: Any, dtype: str = "float32") -> Callable[[Builder], Built]:
    """y = op(x), x of that shape."""
    return lambda net: {"y": op(net.input("x", shape, dtype), net)}


def neutral(op: Callable[[Tensor, Tensor], Tensor], value: float, golden: str) -> Case:
    """Of the type of x, as a scalar and as an array; the near miss makes x grow."""
    return Case(
        build=on_x(lambda x, net: op(op(x, filled(net, value)), filled(net, value, 3)), "N", 3),
        golden=golden,
        near={"the result is of x's type": grown(lambda x, net: op(x, filled(net, value, 2, 3)))},
    )


def grown(op: Callable[[Tensor, Builder], Tensor]) -> Near:
    return Near(on_x(op, 3), fails=GraphError)


def choice(pick: Callable[[Tensor, Tensor, Tensor], Tensor], value: bool, golden: str) -> Case:
    return Case(
        build=lambda net: {"y": pick(filled(net, value, 3, dtype="bool"), net.input("x", ("N", 3)), net.constant(2.0))},
        golden=golden,
        near={
            "the result is of x's type": grown(
                lambda x, net: pick(filled(net, value, dtype="bool"), x, filled(net, 2.0, 2, 3))
            )
        },
    )


def condition(net: Builder) -> Tensor:
    return net.input("condition", (2, 3), "bool")


def nothing_changed(net: Builder) -> Built:
    x = net.input("x", ("N", 1, 3))
    return {
        "reshape": mg.reshape(x, x.shape),
        "broadcast": mg.broadcast_to(x, x.shape),
        "cast": OPS["cast"](x, "float32"),
        "concat": mg.concat([x], axis=1),
        "transpose": mg.transpose(x, (0, 1, 2)),
        "slice": mg.slice(x, (None, 0, 0), (None, 1, 3)),
        "unslice": OPS["unslice"](x, shape=x.shape, start=(0, 0, 0), step=(1, 1, 1)),
        "pad": mg.pad(x, [(0, 0)] * 3, value=1.0),
        "power": OPS["power"](x, exponent=1),
        "sum": mg.sum(x, ()),
        "mean": mg.mean(x, 1, keepdims=True),
        "max": mg.max(x, 1, keepdims=True),
        "min": mg.min(x, ()),
        "prod": mg.prod(x, ()),
    }


def done_already(net: Builder) -> Built:
    x = net.input("x", ("N", 3))
    ops = (mg.relu, mg.abs, mg.sign, mg.floor, mg.ceil, mg.trunc, mg.round, mg.stop_gradient)
    return {f"y{i}": op(op(x)) for i, op in enumerate(ops)}


def same_twice(net: Builder) -> Built:
    x, b = net.input("x", ("N", 3)), net.input("b", ("N",), "bool")
    return {"largest": mg.maximum(x, x), "smallest": mg.minimum(x, x), "and": b & b, "or": b | b}


def casts(net: Builder) -> Built:
    """Through a wider float, and from integers that it can hold."""
    x, n = net.input("x", (3,)), net.input("n", (3,), "int32")
    return {"float": mg.cast(mg.cast(x, "float64"), "float16"), "integer": mg.cast(mg.cast(n, "float64"), "float32")}


def implied(net: Builder) -> Built:
    """An input that is broadcast to what it is broadcast to in any case, on either side, and in a choice."""
    x, s = net.input("x", ("N", 3)), net.input("s", (3,))
    wide = mg.broadcast_to(s, x.shape)
    return {"y": x - wide, "z": mg.where(wide < x, wide, 0.0), "kept": wide + wide}


def filled_anyway(net: Builder) -> Built:
    x = net.input("x", ("N", 3))
    twos = net.emit(OPS["fill"], (), {"value": 2.0, "shape": x.shape, "dtype": "float32"})[0]
    return {"y": x + twos, "z": mg.maximum(filled(net, 0.5, 1, 3), x), "kept": twos + net.input("s", ())}


CASES = {
    "add-zero": neutral(
        lambda x, c: c + x,
        0.0,
        golden="""
            output y = x
            """,
    ),
    "subtract-zero": neutral(
        lambda x, c: x - c,
        0.0,
        golden="""
            output y = x
            """,
    ),
    "multiply-by-one": neutral(
        lambda x, c: x * c,
        1.0,
        golden="""
            output y = x
            """,
    ),
    "divide-by-one": neutral(
        lambda x, c: x / c,
        1.0,
        golden="""
            output y = x
            """,
    ),
    "multiply-by-minus-one": neutral(
        lambda x, c: c * x,
        -1.0,
        golden="""
            mul: float32[N, 3] = neg(x)
            mul2: float32[N, 3] = neg(mul)
            output y = mul2
            """,
    ),
    "subtract-from-zero": Case(
        build=on_x(lambda x, net: 0 - x, "N", 3),
        golden="""
            sub: float32[N, 3] = neg(x)
            output y = sub
            """,
        near={
            "the result is of x's type": grown(lambda x, net: filled(net, 0.0, 2, 3) - x),
            "x has a sign": Near(on_x(lambda x, net: 0 - x, 3, dtype="uint8"), fails=GraphError),
        },
    ),
    "divide-by-power-of-two": Case(
        build=on_x(lambda x, net: x / 4.0 + x / filled(net, -0.5, 2, 1, 3), "N", 3),
        golden="""
            div.fill: float32[] = fill(value=0.25)
            div: float32[N, 3] = mul(x, div.fill)
            div2.fill: float32[2, 1, 3] = fill(value=-2.0, shape=(2, 1, 3))
            div2: float32[2, N, 3] = mul(x, div2.fill)
            add: float32[2, N, 3] = add(div, div2)
            output y = add
            """,
    ),
    "negate-twice": Case(
        build=on_x(lambda x, net: mg.neg(mg.neg(x)), "N", 3),
        golden="""
            output y = x
            """,
    ),
    "subtract-negative": Case(
        build=on_x(lambda x, net: x - (-net.input("z", (3,))), "N", 3),
        golden="""
            sub: float32[N, 3] = add(x, z)
            output y = sub
            """,
    ),
    "not-twice": Case(
        build=on_x(lambda x, net: ~~x, "N", dtype="bool"),
        golden="""
            output y = x
            """,
    ),
    "changes-nothing": Case(
        build=nothing_changed,
        golden="""
            output reshape = x
            output broadcast = x
            output cast = x
            output concat = x
            output transpose = x
            output slice = x
            output unslice = x
            output pad = x
            output power = x
            output sum = x
            output mean = x
            output max = x
            output min = x
            output prod = x
            """,
    ),
    "done-already": Case(
        build=done_already,
        golden="""
            relu: float32[N, 3] = relu(x)
            abs: float32[N, 3] = abs(x)
            sign: float32[N, 3] = sign(x)
            floor: float32[N, 3] = floor(x)
            ceil: float32[N, 3] = ceil(x)
            trunc: float32[N, 3] = trunc(x)
            round: float32[N, 3] = round(x)
            stop_gradient: float32[N, 3] = stop_gradient(x)
            output y0 = relu
            output y1 = abs
            output y2 = sign
            output y3 = floor
            output y4 = ceil
            output y5 = trunc
            output y6 = round
            output y7 = stop_gradient
            """,
    ),
    "same-twice": Case(
        build=same_twice,
        golden="""
            output largest = x
            output smallest = x
            output and = b
            output or = b
            """,
    ),
    "true-choice": choice(
        lambda c, x, y: mg.where(c, x, y),
        True,
        golden="""
            output y = x
            """,
    ),
    "false-choice": choice(
        lambda c, x, y: mg.where(c, y, x),
        False,
        golden="""
            output y = x
            """,
    ),
    "same-choice": Case(
        build=on_x(lambda x, net: mg.where(condition(net), x, x), 2, 3),
        golden="""
            output y = x
            """,
        near={"the result is of x's type": grown(lambda x, net: mg.where(condition(net), x, x))},
    ),
    "transpose-twice": Case(
        build=on_x(lambda x, net: mg.transpose(mg.transpose(x, (2, 0, 1)), (0, 2, 1)), "N", 3, 4),
        golden="""
            transpose2: float32[4, 3, N] = transpose(x)
            output y = transpose2
            """,
    ),
    "reshape-twice": Case(
        build=on_x(lambda x, net: mg.reshape(mg.reshape(x, (-1, 6)), (-1, 2)), "N", 3, 4),
        golden="""
            reshape2: float32[6*N, 2] = reshape(x, shape=(6*N, 2))
            output y = reshape2
            """,
    ),
    "broadcast-twice": Case(
        build=on_x(lambda x, net: mg.broadcast_to(mg.broadcast_to(x, (2, 3)), (4, 2, 3)), 3),
        golden="""
            broadcast_to2: float32[4, 2, 3] = broadcast_to(x, shape=(4, 2, 3))
            output y = broadcast_to2
            """,
    ),
    "cast-twice": Case(
        build=casts,
        golden="""
            cast2: float16[3] = cast(x, dtype="float16")
            cast4: float32[3] = cast(n, dtype="float32")
            output float = cast2
            output integer = cast4
            """,
        near={
            "the first cast loses nothing": Near(
                on_x(lambda x, net: mg.cast(mg.cast(x, "bool"), "int32"), 40, dtype="int64")
            )
        },
    ),
    "broadcast-anyway": Case(
        build=implied,
        golden="""
            broadcast_to: float32[N, 3] = broadcast_to(s, shape=(N, 3))
            sub: float32[N, 3] = sub(x, s)
            less: bool[N, 3] = less(s, x)
            fill: float32[] = fill(value=0.0)
            where: float32[N, 3] = where(less, s, fill)
            add: float32[N, 3] = add(s, broadcast_to)
            output y = sub
            output z = where
            output kept = add
            """,
    ),
    "fill-anyway": Case(
        build=filled_anyway,
        golden="""
            fill: float32[N, 3] = fill(value=2.0, shape=(N, 3))
            add.fill: float32[] = fill(value=2.0)
            add: float32[N, 3] = add(x, add.fill)
            maximum.fill: float32[] = fill(value=0.5)
            maximum: float32[N, 3] = maximum(maximum.fill, x)
            add2: float32[N, 3] = add(fill, s)
            output y = add
            output z = maximum
            output kept = add2
            """,
    ),
    "pass-gradient-stop": Case(
        build=on_x(lambda x, net: mg.stop_gradient(x) * x, "N", 3),
        golden="""
            mul: float32[N, 3] = mul(x, x)
            output y = mul
            """,
        meant=on_x(lambda x, net: x * x, "N", 3),
    ),
}
