"""products-in-float16 and stay-in-float16, and the same in bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number


def wide_product(net: Builder, x: Tensor, half: str) -> Tensor:
    """A product in half, as the first of the rules leaves it: of float32, and float32 itself."""
    return mg.cast(mg.cast(x, half) @ mg.cast(number(net, "w", 3, 2), half), "float32")


def next_product(net: Builder, y: Tensor) -> Tensor:
    return y @ number(net, "v", 2, 2)


def linear(net: Builder) -> Mapping[str, Tensor]:
    """Its weight lies transposed; what an input is a view of is not copied whole."""
    x, w = net.input("x", ("N", 4)), number(net, "w", 2, 3)
    return {"y": x[:, :3] @ mg.transpose(w, (1, 0))}


def normed(net: Builder, half: str) -> Mapping[str, Tensor]:
    """Its own parameters stay float32."""
    product = wide_product(net, net.input("x", (3, 3)), half)
    return {"y": next_product(net, mg.layer_norm(product, number(net, "gamma", 2), number(net, "beta", 2)))}


def met_by_float32(net: Builder, half: str) -> Mapping[str, Tensor]:
    product = wide_product(net, net.input("x", (3, 3)), half)
    return {"y": next_product(net, product + net.input("z", (3, 2)))}


def answered(net: Builder, half: str) -> Mapping[str, Tensor]:
    return {"y": mg.relu(wide_product(net, net.input("x", (3, 3)), half) + number(net, "b", 2))}


def cases(half: str) -> dict[str, Case]:
    return {
        f"products-in-{half}": Case(
            build=linear,
            golden=f"""
                slice: float32[N, 3] = slice(x, start=(0, 0), stop=(N, 3))
                matmul.cast: {half}[N, 3] = cast(slice, dtype="{half}")
                matmul.cast2: {half}[2, 3] = cast(w, dtype="{half}")
                transpose: {half}[3, 2] = transpose(matmul.cast2)
                matmul.matmul: {half}[N, 2] = matmul(matmul.cast, transpose)
                matmul: float32[N, 2] = cast(matmul.matmul, dtype="float32")
                output y = matmul
                """,
        ),
        f"stay-in-{half}": Case(
            build=partial(normed, half=half),
            golden=f"""
                cast: {half}[3, 3] = cast(x, dtype="{half}")
                cast2: {half}[3, 2] = cast(w, dtype="{half}")
                matmul: {half}[3, 2] = matmul(cast, cast2)
                layer_norm.layer_norm: {half}[3, 2] = layer_norm(matmul, gamma, beta)
                layer_norm: float32[3, 2] = cast(layer_norm.layer_norm, dtype="float32")
                matmul2: float32[3, 2] = matmul(layer_norm, v)
                output y = matmul2
                """,
            near={
                f"what else it reads is {half}, too, or a weight": Near(partial(met_by_float32, half=half)),
                f"what it makes is read in {half}": Near(partial(answered, half=half)),
            },
        ),
    }


CASES = cases("float16") | cases("bfloat16")
