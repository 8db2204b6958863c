"""The rule that reads sizes off the inputs."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.ops.constant import count
from rules import Case


def counts(net: Builder) -> Mapping[str, Tensor]:
    """Three and two known axes beside the unknown one; no input has as many numbers as the last count."""
    x, z = net.input("x", ("N", 3)), net.input("z", (2, "N"))
    y = mg.matmul(z, mg.tanh(x))  # (2, 3)
    both = mg.reshape(mg.tanh(x), (-1,))
    return {
        "rows": count(mg.tanh(x), axes=(0,)),
        "all": count(both, axes=(0,), dtype="int64"),
        "columns": count(mg.exp(z), axes=(0, 1)),
        "known": count(y, axes=(0,)),
        "more": count(mg.concat(both, both), axes=(0,)),
        "most": count(mg.concat(both, both, both), axes=(0,)),
    }


def rounded(net: Builder) -> Mapping[str, Tensor]:
    """2 N numbers are along no axes of the input."""
    x = mg.reshape(net.input("x", ("N", 6)), ("N", 2, 3))
    return {"half": count(mg.cast(x, "float16"), axes=(0, 1))}


CASES = {
    "count-before-cast": Case(
        build=rounded,
        golden="""
            reshape: float32[N, 2, 3] = reshape(x, shape=(N, 2, 3))
            count: float32[] = count(reshape, axes=(0, 1))
            output half = count
            """,
    ),
    "count-input": Case(
        build=counts,
        golden="""
            tanh: float32[N, 3] = tanh(x)
            matmul: float32[2, 3] = matmul(z, tanh)
            tanh2: float32[N, 3] = tanh(x)
            reshape: float32[3*N] = reshape(tanh2, shape=(3*N,))
            count: float32[] = count(x, axes=(0,))
            count2: int64[] = count(x, axes=(0, 1), dtype="int64")
            count3: float32[] = count(z, axes=(0, 1))
            count4: float32[] = count(matmul, axes=(0,))
            concat: float32[6*N] = concat(reshape, reshape)
            count5: float32[] = count(concat, axes=(0,))
            concat2: float32[9*N] = concat(reshape, reshape, reshape)
            count6: float32[] = count(concat2, axes=(0,))
            output rows = count
            output all = count2
            output columns = count3
            output known = count4
            output more = count5
            output most = count6
            """,
    ),
}
