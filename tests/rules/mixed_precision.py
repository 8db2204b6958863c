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


def linear(net: Builder) -> Mapping[str, Tensor]:
    """Its weight lies transposed; what an input is a view of is not copied whole."""
    x, w = net.input("x", ("N", 4)), number(net, "w", 2, 3)
    return {"y": x[:, :3] @ mg.transpose(w, (1, 0))}


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
        build=linear,
        golden="""
            slice: float32[N, 3] = slice(x, start=(0, 0), stop=(N, 3))
            matmul.cast: float16[N, 3] = cast(slice, dtype="float16")
            matmul.cast2: float16[2, 3] = cast(w, dtype="float16")
            transpose: float16[3, 2] = transpose(matmul.cast2)
            matmul.matmul: float16[N, 2] = matmul(matmul.cast, transpose)
            matmul: float32[N, 2] = cast(matmul.matmul, dtype="float32")
            output y = matmul
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
