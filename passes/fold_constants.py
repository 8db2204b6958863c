"""Constants are computed once, when the graph is rewritten.

A node all of whose inputs are constants becomes one: a `fill` where all its numbers are the same, else a literal. The
numbers are those that the op's reference gives in the dtypes of the graph, so that a run gives the same bits as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Shape, symbolic
from minigraph.core.errors import GraphError
from minigraph.core.ir import Node, Type
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Match, Rule, Walk
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.constant import constant, count, fill
from minigraph.ops.shape import concat, reshape, slice_, transpose

LARGEST = 4096  # numbers in a literal that is computed: a larger one would cost more memory than it saves time
CONSTANTS = (fill, constant)
MOVES = (reshape, transpose, broadcast_to, slice_, concat)  # what they give is made of the numbers they are given


def literal(walk: Walk, shape: Shape, dtype: str, numbers: np.ndarray) -> Tensor:
    """A constant of that type: a fill, if the numbers are all the same to the last bit."""
    first = numbers.reshape(-1)[:1]
    if numbers.size and numbers.tobytes() == first.tobytes() * numbers.size:
        attrs = {"value": first[0].item(), "shape": shape, "dtype": dtype}
        return walk.builder.emit(fill, (), attrs)[0]
    return walk.builder.emit(constant, (), {"value": numbers})[0]


# what can be computed


def constants(walk: Walk, node: Node) -> Sequence[Node] | None:
    """The nodes that make what this one reads, if all of them are constants."""
    makers = []
    for value in node.inputs:
        maker = walk.producer.get(value)
        if maker is None or maker.op not in CONSTANTS:
            return None
        makers.append(maker)
    return makers


def computed(walk: Walk, node: Node) -> Bound | None:
    """The one result of a node of constants, as an array with as many axes as it has.

    All of it where it is small. Of a larger result, and of one whose sizes are known only at run time, a single number,
    where it is known to consist of that.
    """
    makers = constants(walk, node)
    if makers is None or node.op in CONSTANTS or "stream" in node.attrs or len(node.outputs) > 1:
        return None
    types = [value.type for value in (*node.inputs, *node.outputs)]
    if all(small(t) for t in types):
        return run(node, [m.op.run((), m.attrs)[0] for m in makers])
    if makers and all(m.op is fill for m in makers) and (node.op.expression is not None or one_number(node, makers)):
        return run_on_one_number(node, makers)
    return None


def small(t: Type) -> bool:
    return not symbolic(t.shape) and math.prod(t.shape) <= LARGEST


def one_number(node: Node, makers: Sequence[Node]) -> bool:
    """Whether the node moves about copies of one number."""
    return node.op in MOVES and len({repr(m.attrs["value"]) for m in makers}) == 1


def run(node: Node, arrays: Sequence[np.ndarray]) -> Bound | None:
    try:
        with np.errstate(all="ignore"):
            return {"numbers": node.op.run(arrays, node.attrs)[0]}
    except GraphError:  # an index outside of its axis is an error of the run, not of the rewrite
        return None


def run_on_one_number(node: Node, makers: Sequence[Node]) -> Bound | None:
    """What comes of one number of each fill: all of the result, since each of its numbers is made of such."""
    singles = [np.full((1,) * len(m.attrs["shape"]), m.attrs["value"], m.attrs["dtype"]) for m in makers]
    if node.op in MOVES:
        return {"numbers": singles[0]}
    return run(node, singles)


def one_literal(walk: Walk, node: Node) -> Bound | None:
    """A literal that holds one number everywhere."""
    array = node.attrs["value"].array
    same = array.size and array.tobytes() == array.reshape(-1)[:1].tobytes() * array.size
    return {"numbers": array} if same else None


def known_count(walk: Walk, node: Node) -> Bound | None:
    """A count of axes whose sizes are known."""
    sizes = tuple(node.inputs[0].type.shape[axis] for axis in node.attrs["axes"])
    if symbolic(sizes):
        return None
    return {"numbers": np.asarray(math.prod(sizes)).astype(node.attrs["dtype"])}


def as_constant(match: Match, **_: Any) -> Tensor:
    result = match.node.outputs[0].type
    return literal(match.walk, result.shape, result.dtype, match["numbers"])


RULES = (
    Rule("fold-constants", "f(constants) is a constant", computed, as_constant),
    Rule(
        "fill-literal",
        "a literal that holds one number everywhere is a fill",
        one_literal,
        as_constant,
        ops=(constant,),
    ),
    Rule(
        "known-count",
        "how many numbers there are along axes of known sizes is a constant",
        known_count,
        as_constant,
        ops=(count,),
    ),
)

PASS = Pass("fold-constants", "What depends on constants alone is computed.", RULES)
