"""Calls on a GPU: kernels that are launched one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minigraph.backends.calls import Call, Operand
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.loops import number_text
from minigraph.core.dim import known, product

MOST = 1 << 31  # numbers are counted in 32 bits


@dataclass(frozen=True, eq=False)
class Launched(Call):
    """A call whose phases are kernels, each with its grid.

    The kernel that gives the results passes them on: finish(row, column, number), in rows of so many `columns`. These
    are the last axis of the result where the call finishes.
    """

    hands_on: bool = True
    grids: tuple[Grid, ...] = ()
    columns: int = 1

    @property
    def is_countable(self) -> bool:
        """Whether what it reads and gives has few enough numbers."""
        values = (*self.node.inputs, *self.node.outputs, *(operand.value for operand in self.operands))
        return all(known(value.type.size, "a size") < MOST for value in values)


def struct(kind: str, values: Mapping[str, Any]) -> str:
    """A struct of numbers as C++."""
    return f"SHAPE({kind}, {', '.join(f'.{name} = {number_text(value)}' for name, value in values.items())})"


def strides(found: Operand, rank: int) -> list[int]:
    """How far apart neighbours along each axis of an operand lie in memory."""
    return [known(found.access.stride(axis), "a distance") for axis in range(rank)]


def numbers(sizes: Iterable[Any]) -> int:
    return known(product(sizes), "a number of numbers")


def in_fours(found: Operand, line: int, steps: Iterable[int]) -> bool:
    """Whether lines of so many numbers side by side may be read four at a time, that lie so far apart."""
    return all(n % 4 == 0 for n in (known(found.access.offset, "an offset"), line, *steps))


def reading(deep: bool, fours: bool) -> str:
    """How a product reads an operand: see tile.cuh."""
    return f"reading<{str(deep).lower()}, {4 if fours else 1}>"
