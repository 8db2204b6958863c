"""Equal nodes become one: what is computed twice is computed once.

Nodes are equal if they apply one op, with attributes that are the same to the last bit, to the same values. Nodes that
draw random numbers stay apart, also where they would draw the same.
"""

from __future__ import annotations

from typing import Any

from minigraph.core.builder import Tensor
from minigraph.core.ir import Node
from minigraph.core.numbering import exactly
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Match, Rule, Walk


def earlier(walk: Walk, node: Node) -> Bound | None:
    """The node before this one that computes the same."""
    if "stream" in node.attrs:
        return None
    inputs = tuple(map(id, node.inputs))
    if node.op.commutative:
        inputs = tuple(sorted(inputs))
    first = walk.memo.setdefault(("merge-equal", node.op, exactly(tuple(node.attrs.items())), inputs), node)
    return None if first is node else {"first": first}


def results(match: Match, **_: Any) -> tuple[Tensor, ...]:
    return tuple(map(match.tensor, match["first"].outputs))


RULES = (Rule("merge-equal", "f(x) and f(x) are one", earlier, results),)

PASS = Pass("merge-equal", "What is computed twice is computed once.", RULES)
