"""products-in-tf32."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from rules import Case, number


def linear(net: Builder) -> Mapping[str, Tensor]:
    x, w = net.input("x", ("N", 3)), number(net, "w", 2, 3)
    return {"y": x @ mg.transpose(w, (1, 0))}


CASES = {
    "products-in-tf32": Case(
        build=linear,
        golden="""
            transpose: float32[3, 2] = transpose(w)
            matmul.tf32: float32[N, 3] = tf32(x)
            matmul.tf322: float32[3, 2] = tf32(transpose)
            matmul: float32[N, 2] = matmul(matmul.tf32, matmul.tf322)
            output y = matmul
            """,
    ),
}
