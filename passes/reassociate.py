"""Constants that follow one another become one.

    (x · a) · b = x · (a · b)          (x + a) + b = x + (a + b)

Integers wrap around, so for them this is exact. With floats each operation rounds, and three factors in another order
round otherwise; except for powers of two from 1 on, which shift the exponent up and leave the digits alone. (Those
below 1 may push digits out at the bottom, and what was pushed out does not come back.) PASS does what is exact. LOOSE
does the same with all constants; it stands in no pipeline, and whoever wants it adds it:

    mg.compile(graph, state, pipeline=(*INFERENCE, reassociate.LOOSE))
"""

from __future__ import annotations

import math

import numpy as np

from minigraph.core.dtypes import FLOATS, largest
from minigraph.core.ir import Value
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, Walk
from minigraph.passes.fold_constants import CONSTANTS
from minigraph.passes.fold_constants import RULES as FOLD


def is_constant(walk: Walk, value: Value) -> bool:
    return value in walk.producer and walk.producer[value].op in CONSTANTS


def is_no_constant(walk: Walk, value: Value) -> bool:
    return not is_constant(walk, value)


def numbers(match: Match, name: str) -> np.ndarray:
    node = match.walk.producer[match[name]]
    return np.asarray(node.attrs["value"]) if "dtype" in node.attrs else node.attrs["value"].array


def factors_round(match: Match) -> str:
    """Floats are powers of two from 1 on, and so is their product."""
    dtype = match.node.outputs[0].type.dtype
    if dtype not in FLOATS:
        return ""
    highest = 1.0
    for name in ("a", "b"):
        sizes = np.abs(numbers(match, name).astype(np.float64))
        if not (np.isfinite(sizes).all() and (sizes >= 1).all() and (np.frexp(sizes)[0] == 0.5).all()):
            return f"{match[name].name} is not a power of two, or less than 1: another order rounds otherwise"
        highest *= float(sizes.max(initial=1.0))
    fits = math.isfinite(highest) and highest <= largest(dtype)
    return "" if fits else f"{match['a'].name} times {match['b'].name} is too large for {dtype}"


def summands_round(match: Match) -> str:
    result = match.node.outputs[0]
    return f"{result.name} is of floats: another order rounds otherwise" if result.type.is_float else ""


(x,) = values("x", is_no_constant)
a, b = values("a b", is_constant)

RULES = (
    Rule(
        "join-factors",
        "(x·a)·b = x·(a·b)",
        x * a * b,
        lambda match, x, a, b: x * (a * b),
        pays=(Condition("the factors are integers, or powers of two from 1 on", factors_round),),
    ),
    Rule(
        "join-summands",
        "(x + a) + b = x + (a + b)",
        x + a + b,
        lambda match, x, a, b: x + (a + b),
        pays=(Condition("the summands are integers", summands_round),),
    ),
)

ROUNDING = (
    Rule("join-all-factors", "(x·a)·b = x·(a·b), but for rounding", x * a * b, lambda match, x, a, b: x * (a * b)),
    Rule(
        "join-all-summands",
        "(x + a) + b = x + (a + b), but for rounding",
        x + a + b,
        lambda match, x, a, b: x + (a + b),
    ),
)

PASS = Pass("reassociate", "Constants that follow one another become one, where that is exact.", (*FOLD, *RULES))

LOOSE = Pass(
    "reassociate-loosely",
    "Constants that follow one another become one; in floats that rounds otherwise.",
    (*FOLD, *ROUNDING),
)
