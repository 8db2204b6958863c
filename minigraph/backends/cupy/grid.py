"""Grids of threads, and which points of a nest of loops each thread takes.

Numbers of points and of places in memory are a `place`: 32 bits where they are enough, since a GPU divides those much
faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigraph.backends.loops import Loop, block
from minigraph.core.dim import known, product

THREADS = 256  # of a block
NARROW = 1 << 30  # numbers, and fewer, are counted in 32 bits
MOST_BLOCKS = 1 << 16  # of a grid: the threads of more take several points each


@dataclass(frozen=True)
class Grid:
    """So many blocks of so many threads."""

    blocks: int
    threads: int = THREADS


def grid_of(points: int) -> Grid:
    """One thread for each point, as far as grids go."""
    return Grid(min(-(-points // THREADS), MOST_BLOCKS))


def count(loops: Sequence[Loop]) -> int:
    """The points of a nest of loops."""
    return known(product(loop.size for loop in loops), "the number of points")


def each(variable: str, limit: str, lines: Sequence[str]) -> list[str]:
    """For each of so many points those that a thread takes."""
    return block(f"for (place {variable} = first_point(); {variable} < {limit}; {variable} += all_threads())", lines)


def placed(point: str, loops: Sequence[Loop]) -> list[str]:
    """The variables of loops, from the number of a point among all."""
    lines, rest = [], point
    for loop in reversed(loops[1:]):
        lines.append(
            f"const place {loop.variable} = {rest} % {loop.limit}, {loop.variable}_rest = {rest} / {loop.limit};"
        )
        rest = f"{loop.variable}_rest"
    return [*lines, *(f"const place {loop.variable} = {rest};" for loop in loops[:1])]
