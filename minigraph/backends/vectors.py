"""Statements about float32 numbers of a row, for LANES of them at a time: see vector.h."""

from __future__ import annotations

import re
from collections.abc import Sequence

from minigraph.backends.loops import Loop, Statement

LOAD = re.compile(r"const float (\w+) = (\w+)\[@\];")
COMPUTE = re.compile(r"const float (\w+) = (.*);")
STORE = re.compile(r"(\w+)\[@\] = \(float\)(\w+);")
FUNCTIONS = {"max_float": "MAX_VEC", "min_float": "MIN_VEC"}
ELSE = re.compile(r"\((?:\w+_t|float|double|bool)\)|[<>=!?&|]")  # casts and choices, which have no form here


def in_vectors(statements: Sequence[Statement], loops: Sequence[Loop], first: str = "") -> list[Statement] | None:
    """The same statements for vectors along the last loop; None where one of them has no such form.

    What is the same for all numbers of a row stays a number. first: how many of LANES numbers are there, if not all.
    """
    along, found = loops[-1].axes[-1], []
    vectors: set[str] = set()
    for statement in statements:
        text = _in_vectors(statement, along, vectors, first)
        if text is None:
            return None
        found.append(Statement(text, statement.axes, statement.access))
    return found


def _in_vectors(statement: Statement, along: int, vectors: set[str], first: str) -> str | None:
    """vectors: the variables that are vectors; this one's is added."""
    text, access = statement.text, statement.access
    if access is not None and access.stride(along) != 1:
        return text if access.stride(along) == 0 and LOAD.fullmatch(text) else None
    if load := LOAD.fullmatch(text):
        name, source = load.groups()
        vectors.add(name)
        there = f"vec_load_first(&{source}[@], {first})" if first else f"vec_load(&{source}[@])"
        return f"const vec {name} = {there};"
    if store := STORE.fullmatch(text):
        target, name = store.groups()
        stored = f"vec_store_first(&{target}[@], {name}, {first});" if first else f"vec_store(&{target}[@], {name});"
        return stored if name in vectors else None
    computed = COMPUTE.fullmatch(text)
    if computed is None or access is not None:
        return None
    if vectors.isdisjoint(re.findall(r"\w+", computed[2])):
        return text
    called = re.findall(r"(\w+)\(", computed[2])
    if ELSE.search(computed[2]) or not FUNCTIONS.keys() >= set(called):
        return None
    vectors.add(computed[1])
    expression = re.sub(r"(\w+)\(", lambda call: f"{FUNCTIONS[call[1]]}(", computed[2])
    return f"const vec {computed[1]} = {expression};"
