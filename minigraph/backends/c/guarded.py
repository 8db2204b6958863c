"""Memory for MINIGRAPH_CHECK=1, in which a kernel that writes behind what it makes, or reads what nobody wrote, shows.

Each buffer of the arena has a place of its own and a guard zone behind it, outputs have one on each side. All of it is
garbage before a step (NaN in every float, -1 in whole numbers), and the zones have to be garbage after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from minigraph.backends.plan import ALIGNMENT, Buffer, Plan
from minigraph.core.errors import expect

GARBAGE = 0xFF


def asked_for() -> bool:
    return os.environ.get("MINIGRAPH_CHECK") == "1"


def apart(plan: Plan) -> Plan:
    """The plan with each buffer of the arena in a place of its own, but for those that take one over."""
    offset = ALIGNMENT
    for buffer in _roots(plan):
        buffer.offset = offset
        offset += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    for buffer in _in_arena(plan):
        buffer.offset = _root(buffer).offset
    return replace(plan, arena=offset)


def _in_arena(plan: Plan) -> Iterator[Buffer]:
    touched = (b for step in plan.steps for b in (*step.reads.values(), *step.touched))
    yield from dict.fromkeys(b for b in touched if b.place == "arena")


def _root(buffer: Buffer) -> Buffer:
    while buffer.inside is not None:
        buffer = buffer.inside
    return buffer


def _roots(plan: Plan) -> Iterator[Buffer]:
    yield from dict.fromkeys(map(_root, _in_arena(plan)))


class Guards:
    """The garbage of one program: what is laid out before a step, and looked at after it."""

    def __init__(self, plan: Plan, arena: np.ndarray):
        self.name, self.arena = plan.graph.name, arena
        ends = [(buffer.name, buffer.offset + buffer.nbytes) for buffer in _roots(plan)]
        starts = [*(buffer.offset for buffer in _roots(plan)), plan.arena]
        self.zones = [("the arena", 0, starts[0])]
        self.zones += [(name, end, start) for (name, end), start in zip(ends, starts[1:])]
        self.outputs: list[tuple[str, np.ndarray]] = []

    def begin(self) -> None:
        self.arena[:] = GARBAGE
        self.outputs.clear()

    def output(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of garbage between two zones."""
        size = int(np.prod(shape)) * dtype.itemsize
        memory = np.full(size + 2 * ALIGNMENT, GARBAGE, np.uint8)
        self.outputs += [(name, memory[:ALIGNMENT]), (name, memory[ALIGNMENT + size :])]
        return memory[ALIGNMENT : ALIGNMENT + size].view(dtype).reshape(shape)

    def check(self) -> None:
        """Raise GraphError for a zone that was written to."""
        zones = [(name, self.arena[start:end]) for name, start, end in self.zones]
        for name, zone in (*zones, *self.outputs):
            whole = bool((zone == GARBAGE).all())
            expect(whole, "{!r}: a kernel wrote beyond {!r}, which is a bug of minigraph or of an op", self.name, name)
