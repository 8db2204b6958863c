"""Loop nests as C text: types, sizes, loops, and statements in the outermost loop where they may stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minigraph.backends.access import Access
from minigraph.core.dim import Size, product

# numbers and sizes


def size_text(size: Size) -> str:
    """A size as C; its symbols are variables n_N."""
    if isinstance(size, int):
        return str(size)
    terms = []
    for names, factor in size.terms:
        factors = [] if factor == 1 and names else [str(factor)]
        terms.append("*".join([*factors, *(f"n_{name}" for name in names)]))
    return f"({'+'.join(terms)})"


def number_text(value: Any) -> str:
    """A field of a kernel's shape as C."""
    if isinstance(value, (tuple, list)):
        return "{" + ", ".join(map(number_text, value)) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "NAN"
        return repr(value) if math.isfinite(value) else ("INFINITY" if value > 0 else "-INFINITY")
    if isinstance(value, int) and value == -(2**63):
        return "INT64_MIN"
    return f"{value}u" if isinstance(value, int) and value >= 2**63 else size_text(value)


# statements and loops


@dataclass(frozen=True)
class Statement:
    """A line of C. @ stands for a place in memory. axes: those of the domain along which it differs."""

    text: str
    axes: frozenset[int]
    access: Access | None = None


@dataclass(frozen=True)
class Loop:
    """One loop over axes of the domain that lie behind one another."""

    axes: tuple[int, ...]
    size: Size
    variable: str

    @property
    def limit(self) -> str:
        return size_text(self.size)


def merged(axes: Sequence[tuple[int, Size]], accesses: Sequence[Access], prefix: str) -> list[Loop]:
    """Loops over these axes, neighbours in one where every access allows it."""
    groups: list[list[tuple[int, Size]]] = []
    for axis, size in axes:
        last = groups[-1][-1][0] if groups else None
        if last == axis - 1 and all(a.stride(last) == a.stride(axis) * size for a in accesses):
            groups[-1].append((axis, size))
        else:
            groups.append([(axis, size)])
    return [
        Loop(tuple(axis for axis, _ in group), product(size for _, size in group), f"{prefix}{number}")
        for number, group in enumerate(groups)
    ]


def index_text(where: Access, loops: Sequence[Loop]) -> str:
    parts = []
    for loop in loops:
        stride = where.stride(loop.axes[-1])
        if stride != 0:
            parts.append(loop.variable if stride == 1 else f"{size_text(stride)} * {loop.variable}")
    if where.offset != 0 or not parts:
        parts.append(size_text(where.offset))
    return " + ".join(parts)


def offset_text(where: Access) -> str:
    """What is added to a pointer to reach the first number."""
    return "" if where.offset == 0 else f" + {size_text(where.offset)}"


class Nest:
    """Prints statements inside of loops, each in the outermost loop where it may stand."""

    def __init__(self, loops: Sequence[Loop]):
        self.loops = loops

    def level(self, statement: Statement) -> int:
        """How many loops it stands in."""
        return max((i + 1 for i, loop in enumerate(self.loops) if statement.axes & set(loop.axes)), default=0)

    def at(self, statements: Iterable[Statement], level: int) -> list[str]:
        return [self.line(s) for s in statements if self.level(s) == level]

    def line(self, statement: Statement) -> str:
        if statement.access is None:
            return statement.text
        return statement.text.replace("@", index_text(statement.access, self.loops), 1)


def indented(lines: Iterable[str]) -> list[str]:
    return ["  " + line for line in lines]


def block(head: str, lines: Sequence[str]) -> list[str]:
    return [head + " {", *indented(lines), "}"]


def for_(variable: str, start: str, end: str) -> str:
    return f"for (idx {variable} = {start}; {variable} < {end}; {variable}++)"


def shared_loop(sizes: Sequence[int]) -> int:
    """Which of nested loops the threads share: the first that is long, else the longest."""
    return next((i for i, n in enumerate(sizes) if n >= 32), sizes.index(max(sizes)))
