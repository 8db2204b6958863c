"""The rules for scales and shifts that meet."""

from __future__ import annotations

from collections.abc import Mapping

from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number

Outputs = Mapping[str, Tensor]

READ_ONCE = "nothing else reads the value in between"


def merged(net: Builder, times: int = 1, shift: bool = False) -> Outputs:
    x = net.input("x", (2, 3))
    inner = x + number(net, "c", 3) if shift else x * number(net, "c", 3)
    t = number(net, "t", 3)
    y = inner + t if shift else inner * t
    return {"y": y, **({"inner": inner} if times > 1 else {})}


def scaled_shift(net: Builder, times: int = 1) -> Outputs:
    inner = net.input("x", (2, 3)) + number(net, "c", 3)
    return {"y": number(net, "s", 3) * inner, **({"inner": inner} if times > 1 else {})}


CASES = {
    "merge-scales": Case(
        build=merged,
        golden="""
            mul2.mul: float32[3] = mul(c, t)
            mul2: float32[2, 3] = mul(x, mul2.mul)
            output y = mul2
            """,
        near={READ_ONCE: Near(lambda net: merged(net, 2))},
    ),
    "merge-shifts": Case(
        build=lambda net: merged(net, shift=True),
        golden="""
            add2.add: float32[3] = add(c, t)
            add2: float32[2, 3] = add(x, add2.add)
            output y = add2
            """,
        near={READ_ONCE: Near(lambda net: merged(net, 2, shift=True))},
    ),
    "scale-before-shift": Case(
        build=scaled_shift,
        golden="""
            mul.mul: float32[2, 3] = mul(x, s)
            mul.mul2: float32[3] = mul(c, s)
            mul: float32[2, 3] = add(mul.mul, mul.mul2)
            output y = mul
            """,
        near={READ_ONCE: Near(lambda net: scaled_shift(net, 2))},
    ),
}
