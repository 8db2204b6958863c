"""Memory for MINIGRAPH_CHECK=1, in which a kernel that writes beside its result, or reads what nobody wrote, is named.

Whatever a program touches lies between two zones, in which nothing may be written: each value of the arena has a place
of its own, inputs, state, literals and outputs have copies, and so have packed operands. The zones, and all that the
program is to write, are garbage before it runs: 0xFF in every byte, which in floats is a NaN that no operation makes,
though all pass it on.

The steps of the plan run one at a time. After each of them the zones must be garbage still, what it reads must be as it
was, and no float or truth value that it makes may be garbage. Whole numbers may: there it is -1, which says nothing.
The caller's state and outputs are written once all steps are right.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigraph.backends.places import given
from minigraph.backends.plan import ALIGNMENT, Buffer, Plan, Step
from minigraph.core.dim import bind
from minigraph.core.errors import GraphError
from minigraph.core.ir import Node, Type

GARBAGE = 0xFF
# One call, which no signal divides.
GIVE_BACK = """
void give_back(idx count, void *const *to, void *const *from, const idx *bytes) {
  for (idx i = 0; i < count; i++) memcpy(to[i], from[i], bytes[i]);
}
"""
ZONE = 4 * ALIGNMENT  # bytes on each side


def asked_for() -> bool:
    return os.environ.get("MINIGRAPH_CHECK") == "1"


# places


def apart(plan: Plan) -> Plan:
    """The plan with each buffer of the arena in a place of its own between zones, but for those that take one over."""
    offset = 0
    for buffer in _roots(plan):
        buffer.offset = offset + ZONE
        offset += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT + 2 * ZONE
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


@dataclass(frozen=True)
class Walled:
    """The bytes of one value, between two zones."""

    name: str
    bytes: np.ndarray  # with the zones

    @property
    def inner(self) -> np.ndarray:
        return self.bytes[ZONE:-ZONE]

    @property
    def address(self) -> int:
        found: int = self.inner.ctypes.data
        return found

    def damage(self) -> str:
        """What was written into the zones, in words; empty if nothing."""
        for zone, where in ((self.bytes[:ZONE], "in front of"), (self.bytes[-ZONE:], "behind")):
            count = int((zone != GARBAGE).sum())
            if count:
                return f"writes {count} bytes {where} {self.name!r}"
        return ""


def walled(name: str, nbytes: int) -> Walled:
    """New memory, all of it garbage, that begins at a multiple of the cache's lines."""
    memory = np.full(nbytes + 2 * ZONE + ALIGNMENT, GARBAGE, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return Walled(name, memory[start : start + nbytes + 2 * ZONE])


# runs


class Guards:
    """Looks after the memory of one program."""

    def __init__(self, plan: Plan, packed: Sequence[Walled], give_back: Callable[..., object]):
        """give_back: the function of GIVE_BACK."""
        self.plan, self.packed, self._give_back = plan, packed, give_back
        self.given = given(plan)
        self.moving = {buffer for step in plan.steps for buffer in step.writes.values() if buffer.place == "state"}
        self.arena = walled("the arena", plan.arena).inner
        self.places = (ctypes.c_void_p * max(1, len(self.given)))()  # of the copies
        self.walls: dict[Buffer, Walled] = {}
        self.symbols: Mapping[str, int] = {}

    def run(
        self,
        symbols: Mapping[str, int],
        places: ctypes.Array[ctypes.c_void_p],
        pack: Callable[[], None],
        call: Callable[[int], bool],
    ) -> None:
        """Run the program step by step, on copies of what lies at `places`, and look at the memory after each.

        pack: packs what is read packed. call: runs the step of a number, and answers whether inputs are right so far.
        Raises GraphError for the first step that does what it must not; the caller's arrays are then as they were.
        """
        self._lay_out(symbols, places)
        pack()
        for prepared, wall in zip(self.plan.prepared, self.packed):
            if damage := wall.damage():
                raise GraphError(_said(self.plan, f"packing {prepared.source.name!r}", (), damage))
        right = self._all_steps(call)
        moved = [
            (place, self.walls[buffer].address, self.walls[buffer].inner.size)
            for place, buffer in zip(places, self.given)
            if buffer.place == "output" or (right and buffer in self.moving)
        ]
        if moved:
            to, own, sizes = zip(*moved)
            pointers, numbers = ctypes.c_void_p * len(moved), ctypes.c_int64 * len(moved)
            self._give_back(ctypes.c_int64(len(moved)), pointers(*to), pointers(*own), numbers(*sizes))

    def _lay_out(self, symbols: Mapping[str, int], places: ctypes.Array[ctypes.c_void_p]) -> None:
        """Garbage, and copies of what is given."""
        self.symbols, self.walls = symbols, {}
        self.arena[:] = GARBAGE
        for root in _roots(self.plan):
            end = root.offset + self._bytes_of(root.type)
            self.walls[root] = Walled(root.name, self.arena[root.offset - ZONE : end + ZONE])
        for number, buffer in enumerate(self.given):
            self.walls[buffer] = wall = walled(buffer.name, self._bytes_of(buffer.type))
            if buffer.place != "output":
                ctypes.memmove(wall.address, places[number] or 0, wall.inner.size)
                _without_garbage(wall.inner, buffer.type)
            self.places[number] = wall.address

    def _bytes_of(self, type_: Type) -> int:
        return int(np.prod(bind(type_.shape, self.symbols), dtype=np.int64)) * np.dtype(type_.dtype).itemsize

    def _all_steps(self, call: Callable[[int], bool]) -> bool:
        """Whether all inputs were right."""
        for number, step in enumerate(self.plan.steps):
            touched = {_root(buffer) for buffer in step.touched}
            kept = {b: self.walls[_root(b)].inner.copy() for b in step.reads.values() if _root(b) not in touched}
            if not call(number):
                return False
            for fault in self._faults(step, kept):
                raise GraphError(_said(self.plan, f"step {number} of the plan", step.nodes, fault))
        return True

    def _faults(self, step: Step, kept: Mapping[Buffer, np.ndarray]) -> Iterator[str]:
        """What the step did that it must not, in words."""
        yield from filter(None, (wall.damage() for wall in (*self.walls.values(), *self.packed)))
        for buffer, before in kept.items():
            if not np.array_equal(self.walls[_root(buffer)].inner, before):
                yield f"changes {buffer.name!r}, which it is to read only"
        for value, buffer in step.writes.items():
            size = self._bytes_of(value.type)
            count = int(_garbage(self.walls[_root(buffer)].inner[:size], value.type).sum())
            if count:
                numbers, name = size // np.dtype(value.type.dtype).itemsize, buffer.output or value.name
                yield (
                    f"leaves {count} of the {numbers} numbers of {name!r} unwritten, or computes them from memory that "
                    "nobody wrote"
                )


def _garbage(inner: np.ndarray, type_: Type) -> np.ndarray:
    """Which numbers are garbage, of floats and truth values."""
    if not type_.is_float and type_.dtype != "bool":
        return np.zeros(0, bool)
    size = np.dtype(type_.dtype).itemsize
    found: np.ndarray = (inner.reshape(-1, size) == GARBAGE).all(1)
    return found


def _without_garbage(inner: np.ndarray, type_: Type) -> None:
    """Where a caller's NaN looks like garbage, another takes its place."""
    if type_.is_float:
        inner.view(type_.dtype)[_garbage(inner, type_)] = np.nan


def _said(plan: Plan, step: str, nodes: Iterable[Node], fault: str) -> str:
    names = ", ".join(dict.fromkeys(f"{node.op.name} {node.name!r}" for node in nodes))
    lines = [f"{plan.graph.name!r}: {step}{names and f' ({names})'} {fault}, which is a bug of minigraph or of an op"]
    return "\n".join([*lines, *dict.fromkeys(f"  at {node.origin.where()}" for node in nodes if node.origin.file)])
