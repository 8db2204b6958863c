"""Launches that share a grid: what is computed number by number in one phase of a plan, the updates of all parameters.

A launch takes a few microseconds, which is more than most of these take. In a shared grid each kernel has blocks of its
own, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.kernel import Kernel
from minigraph.backends.loops import block
from minigraph.backends.plan import Buffer

MOST_POINTERS = 500  # of one kernel: all have room for 4,096 bytes of parameters


@dataclass(frozen=True)
class Piece:
    """One kernel of a step, and the buffers that it is called with."""

    kernel: Kernel
    buffers: tuple[Buffer, ...]
    step: int
    phase: int


def together(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces in order, those that may share a grid in one list."""
    for (_, light), some in groupby(pieces, lambda piece: (piece.phase, piece.kernel.light)):
        group: list[Piece] = []
        for piece in some:
            pointers = sum(len(other.buffers) for other in (*group, piece))
            if group and (
                not light or pointers > MOST_POINTERS or piece.kernel.grid.threads != group[0].kernel.grid.threads
            ):
                yield group
                group = []
            group.append(piece)
        yield group


def shared(pieces: Sequence[Piece], names: Sequence[str]) -> tuple[str, Grid]:
    """The kernel of several pieces: each calls the function of that name for the blocks that are its own."""
    parameters, lines, start = list[str](), list[str](), 0
    for piece, name in zip(pieces, names, strict=True):
        end = start + piece.kernel.grid.blocks
        own = [f"p{len(parameters) + i}" for i in range(len(piece.buffers))]
        parameters += [f"{kind} *{p}" for kind, p in zip(piece.kernel.kinds, own)]
        first = f"((idx)blockIdx.x - {start}) * blockDim.x + threadIdx.x"
        arguments = [first, f"(idx){end - start} * blockDim.x", *own, *(["fault"] if piece.kernel.faults else [])]
        lines.append(f"if (blockIdx.x < {end}) return {name}({', '.join(arguments)});")
        start = end
    if any(piece.kernel.faults for piece in pieces):
        parameters.append("int *fault")
    return "\n".join(block(f"KERNEL NAME({', '.join(parameters)})", lines)), Grid(start, pieces[0].kernel.grid.threads)
