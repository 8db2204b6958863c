"""fold-constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import minigraph as mg
from minigraph.core.builder import Builder, Tensor
from minigraph.core.op import OPS
from rules import Case

Built = Mapping[str, Tensor]


def constants(net: Builder) -> Built:
    """Of known sizes, and of one number in a place for each image."""
    n = net.input("x", ("N", 3)).shape[0]
    two, array = net.constant(2.0), net.constant(np.arange(3.0, dtype=np.float32))
    wide = mg.broadcast_to(two, (n, 3))
    return {
        "uniform": mg.sum(array) * two,
        "array": (array + two)[::-1],
        "wide": mg.relu(-wide) * 0.25,
        "less": array < two,
        "moved": mg.concat([mg.transpose(wide), mg.transpose(wide)], axis=1),
    }


def literals(net: Builder) -> Built:
    x = net.input("x", ("N", 3))
    return {"y": x * net.constant(np.full(3, 0.5, np.float32)) + net.constant(np.array([0.0, 0.0, 1.0], np.float32))}


def counts(net: Builder) -> Built:
    x = net.input("x", ("N", 3, 5))
    return {"known": OPS["count"](x, axes=(1, 2)), "unknown": OPS["count"](x, axes=(0, 1))}


CASES = {
    "fold-constants": Case(
        build=constants,
        golden="""
            mul: float32[] = fill(value=6.0)
            slice: float32[3] = constant(value=literal('float32', (3,), [4.0, 3.0, 2.0]))
            mul2: float32[N, 3] = fill(value=0.0, shape=(N, 3))
            less: bool[3] = constant(value=literal('bool', (3,), [True, True, False]))
            concat: float32[3, 2*N] = fill(value=2.0, shape=(3, 2*N))
            output uniform = mul
            output array = slice
            output wide = mul2
            output less = less
            output moved = concat
            """,
    ),
    "fill-literal": Case(
        build=literals,
        golden="""
            constant: float32[3] = fill(value=0.5, shape=(3,))
            mul: float32[N, 3] = mul(x, constant)
            constant2: float32[3] = constant(value=literal('float32', (3,), [0.0, 0.0, 1.0]))
            add: float32[N, 3] = add(mul, constant2)
            output y = add
            """,
    ),
    "known-count": Case(
        build=counts,
        golden="""
            count: float32[] = fill(value=15.0)
            count2: float32[] = count(x, axes=(0, 1))
            output known = count
            output unknown = count2
            """,
    ),
}
