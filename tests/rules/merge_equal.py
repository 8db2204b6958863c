"""merge-equal."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.op import OPS
from rules import Case


def equal_nodes(net: Builder) -> Mapping[str, Tensor]:
    """Sums either way around, what comes after them, and a node of two results; not a quotient either way around."""
    x, y = net.input("x", ("N", 3)), net.input("y", ("N", 3))
    tops = [net.emit(OPS["topk"], [x], {"k": 1}) for _ in range(2)]
    return {
        "sums": mg.tanh(x + y) * mg.tanh(y + x),
        "differences": (x - y) * (y - x),
        "largest": tops[0][0] * tops[1][0],
        "indices": tops[0][1] * tops[1][1],
    }


CASES = {
    "merge-equal": Case(
        build=equal_nodes,
        golden="""
            topk.values: float32[N, 1], topk.indices: int64[N, 1] = topk(x, k=1)
            add: float32[N, 3] = add(x, y)
            tanh: float32[N, 3] = tanh(add)
            mul: float32[N, 3] = mul(tanh, tanh)
            sub: float32[N, 3] = sub(x, y)
            sub2: float32[N, 3] = sub(y, x)
            mul2: float32[N, 3] = mul(sub, sub2)
            mul3: float32[N, 1] = mul(topk.values, topk.values)
            mul4: int64[N, 1] = mul(topk.indices, topk.indices)
            output sums = mul
            output differences = mul2
            output largest = mul3
            output indices = mul4
            """,
    )
}
