"""reassociate."""

from __future__ import annotations

from collections.abc import Mapping

from minigraph.core.builder import Builder, Tensor
from rules import Case, Near

Built = Mapping[str, Tensor]


def factors(net: Builder) -> Built:
    x, n = net.input("x", ("N", 3)), net.input("n", ("N",), "int8")
    return {"float": 4.0 * (x * -2.0), "integer": n * 100 * 3}


def summands(net: Builder) -> Built:
    n = net.input("n", ("N",), "uint8")
    return {"integer": 200 + (n + 100)}


def odd_factor(net: Builder) -> Built:
    return {"y": net.input("x", ("N", 3)) * 4.0 * 3.0}


def floats(net: Builder) -> Built:
    return {"y": net.input("x", ("N", 3)) + 4.0 + 2.0}


CASES = {
    "join-factors": Case(
        build=factors,
        golden="""
            fill: float32[] = fill(value=-2.0)
            fill2: float32[] = fill(value=4.0)
            mul2.mul: float32[] = mul(fill, fill2)
            mul2: float32[N, 3] = mul(x, mul2.mul)
            fill3: int8[] = fill(value=100, dtype="int8")
            fill4: int8[] = fill(value=3, dtype="int8")
            mul4.mul: int8[] = mul(fill3, fill4)
            mul4: int8[N] = mul(n, mul4.mul)
            output float = mul2
            output integer = mul4
            """,
        near={"the factors are integers, or powers of two from 1 on": Near(odd_factor)},
    ),
    "join-summands": Case(
        build=summands,
        golden="""
            fill: uint8[] = fill(value=100, dtype="uint8")
            fill2: uint8[] = fill(value=200, dtype="uint8")
            add2.add: uint8[] = add(fill, fill2)
            add2: uint8[N] = add(n, add2.add)
            output integer = add2
            """,
        near={"the summands are integers": Near(floats)},
    ),
    "join-all-factors": Case(
        build=odd_factor,
        golden="""
            fill: float32[] = fill(value=4.0)
            fill2: float32[] = fill(value=3.0)
            mul2.mul: float32[] = mul(fill, fill2)
            mul2: float32[N, 3] = mul(x, mul2.mul)
            output y = mul2
            """,
    ),
    "join-all-summands": Case(
        build=floats,
        golden="""
            fill: float32[] = fill(value=4.0)
            fill2: float32[] = fill(value=2.0)
            add2.add: float32[] = add(fill, fill2)
            add2: float32[N, 3] = add(x, add2.add)
            output y = add2
            """,
    ),
}
