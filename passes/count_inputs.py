"""A size that is known only at run time is read off an input, where an input has it.

    count(f(x), axes)  =  count(x, axes')          along axes of the same sizes
    count(cast(x), axes)  =  count(x, axes)

What lies between then need not be computed only to be counted: a cast of what mixed precision leaves in float16, say.
"""

from __future__ import annotations

from itertools import combinations

from minigraph.core.builder import Tensor
from minigraph.core.dim import product, symbolic
from minigraph.core.ir import Node
from minigraph.core.op import OPS
from minigraph.core.pattern import Bound, values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Match, Rule, Walk
from minigraph.ops.constant import count


def on_input(walk: Walk, node: Node) -> Bound | None:
    """For patterns: a count of what is no input, and the input and its axes that hold as many."""
    if node.inputs[0] in walk.source.inputs:
        return None
    wanted = product(node.inputs[0].type.shape[axis] for axis in node.attrs["axes"])
    for given in walk.source.inputs if symbolic(wanted) else ():
        sizes = given.type.shape
        for few in range(1, len(sizes) + 1):
            for axes in combinations(range(len(sizes)), few):
                if product(sizes[axis] for axis in axes) == wanted:
                    return {"given": given, "axes": axes}
    return None


def count_of_input(match: Match, given: Tensor) -> Tensor:
    result: Tensor = count(given, match["axes"], match.node.attrs["dtype"])
    return result


(x,) = values("x")

RULES = (
    Rule(
        "count-before-cast",
        "count(cast(x), axes) = count(x, axes)",
        count(OPS["cast"](x)),
        lambda match, x: count(x, **match.node.attrs),
    ),
    Rule(
        "count-input",
        "count(f(x), axes) = count(x, axes'), along axes of the same sizes",
        on_input,
        count_of_input,
        ops=(count,),
    ),
)

PASS = Pass("count-inputs", "Sizes are read off the inputs.", RULES)
