"""Scales and shifts that meet become one of each, the scale first.

    (x · c) · s = x · (c · s)        (x + c) · s = x · s + c · s        (x + c) + t = x + (c + t)

with c, s and t frozen, so that the arithmetic on them is done once.
"""

from __future__ import annotations

from minigraph.core.pattern import values
from minigraph.core.rewrite import Condition, Match, Rule
from minigraph.passes.per_channel import frozen, moving


def inner_is_read(match: Match) -> str:
    """Who else reads the value that the outer operation is applied to."""
    inner = next(v for v in match.node.inputs if not match.walk.is_frozen(v))
    return match.walk.also_read(inner)


(x,) = values("x", moving)
c, s, t = values("c s t", frozen)

READ_ONCE = Condition("nothing else reads the value in between", inner_is_read)

RULES = (
    Rule("merge-scales", "(x·c)·s = x·(c·s)", x * c * s, lambda match, x, c, s: x * (c * s), pays=(READ_ONCE,)),
    Rule("merge-shifts", "(x + c) + t = x + (c + t)", x + c + t, lambda match, x, c, t: x + (c + t), pays=(READ_ONCE,)),
    Rule(
        "scale-before-shift",
        "(x + c)·s = x·s + c·s",
        (x + c) * s,
        lambda match, x, c, s: x * s + c * s,
        pays=(READ_ONCE,),
    ),
)
