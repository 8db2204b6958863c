"""TF32: products of factors with 10 bits behind the point, which tensor cores make several times as fast.

    f(x, w)  ≈  f(tf32(x), tf32(w))                        f a convolution or a matrix product, of float32

Nothing else changes: what is stored, added up and computed between products is float32, with its range, so no loss
scale is needed. That factors are rounded is written in the graph (ops/tf32.py), where it means the same on every
backend; a GPU's kernels see that both factors are, and round them while they load, so that no rounded copy is stored.

A factor is right to 2^-11 of itself, and a product of two to 2^-10. Products of such factors have 22 bits: they are
exact in float32, and a sum of n of them errs by n roundings to float32 at most, as ever. In a step of training the pass
comes after the gradient, so that the factors of its products are rounded as well; in a graph for inference after all
that is folded into weights, so that these are rounded once.
"""

from __future__ import annotations

from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass, applied
from minigraph.core.rewrite import Match, Rule, Walk
from minigraph.ops.tf32 import tf32


def is_rounded(walk: Walk, value: Value) -> bool:
    made = walk.producer.get(value)
    return made is not None and made.op is tf32


def wide_factors(walk: Walk, node: Node) -> Bound | None:
    """For patterns: a product of float32, of factors that are not all rounded."""
    seeks = node.op.half is not None and node.op.half.seeks
    if not seeks or any(value.type.dtype != "float32" for value in node.inputs):
        return None
    return None if all(is_rounded(walk, value) for value in node.inputs) else {}


def of_rounded(match: Match) -> object:
    walk, tensors = match.walk, map(match.tensor, match.node.inputs)
    return match.again(match.node, *(t if is_rounded(walk, t.value) else tf32(t) for t in tensors))


RULES = (
    Rule(
        "products-in-tf32",
        "f(x, w) = f(tf32(x), tf32(w)), f made of inner products, but for rounding",
        wide_factors,
        of_rounded,
    ),
)

PASS = Pass("tensor-float", "The factors of products are rounded to TF32.", RULES)


def in_tf32(graph: Graph) -> Graph:
    """The graph with the factors of its convolutions and matrix products of float32 rounded to TF32.

    Raises GraphError where there are none.
    """
    after = applied((PASS,), graph)
    expect(
        any(node.op is tf32 for node in after.nodes),
        "{!r} has no convolution and no matrix product of float32, for whose sake TF32 would pay",
        graph.name,
    )
    return after
