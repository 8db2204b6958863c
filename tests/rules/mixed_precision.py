"""products-in-half, and stay-in-half."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number


def wide_product(net: Builder, x: Tensor) -> Tensor:
    """A product in float16, as products-in-half leaves it: of float32, and float32 itself."""
    return mg.cast(mg.cast(x, "float16") @ mg.cast(number(net, "w", 3, 2), "float16"), "float32")


def next_product(net: Builder, y: Tensor) -> Tensor:
    return y @ number(net, "v", 2, 2)


def convolved(net: Builder) -> Mapping[str, Tensor]:
    return {"y": mg.conv(net.input("x", ("N", 2, 3)), number(net, "w", 4, 2, 3))}


def normed(net: Builder) -> Mapping[str, Tensor]:
    """Its own parameters stay float32."""
    product = wide_product(net, net.input("x", (3, 3)))
    return {"y": next_product(net, mg.layer_norm(product, number(net, "gamma", 2), number(net, "beta", 2)))}


def met_by_float32(net: Builder) -> Mapping[str, Tensor]:
    product = wide_product(net, net.input("x", (3, 3)))
    return {"y": next_product(net, product + net.input("z", (3, 2)))}


def answered(net: Builder) -> Mapping[str, Tensor]:
    return {"y": mg.relu(wide_product(net, net.input("x", (3, 3))) + number(net, "b", 2))}


CASES = {
    "products-in-half": Case(
        build=convolved,
        golden="""
            conv.cast: float16[N, 2, 3] = cast(x, dtype="float16")
            conv.cast2: float16[4, 2, 3] = cast(w, dtype="float16")
            conv.conv: float16[N, 4, 1] = conv(conv.cast, conv.cast2)
            conv: float32[N, 4, 1] = cast(conv.conv, dtype="float32")
            output y = conv
            """,
    ),
    "stay-in-half": Case(
        build=normed,
        golden="""
            cast: float16[3, 3] = cast(x, dtype="float16")
            cast2: float16[3, 2] = cast(w, dtype="float16")
            matmul: float16[3, 2] = matmul(cast, cast2)
            layer_norm.layer_norm: float16[3, 2] = layer_norm(matmul, gamma, beta)
            layer_norm: float32[3, 2] = cast(layer_norm.layer_norm, dtype="float32")
            matmul2: float32[3, 2] = matmul(layer_norm, v)
            output y = matmul2
            """,
        near={
            "what else it reads is float16, too, or a weight": Near(met_by_float32),
            "what it makes is read in float16": Near(answered),
        },
    ),
}
