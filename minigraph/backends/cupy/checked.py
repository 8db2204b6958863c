"""Steps for MINIGRAPH_CHECK=1, in which a kernel that writes what it must not, or reads what nobody wrote, is named.

Whatever a program touches has a copy of its own between zones, in one piece of memory that is garbage at first: 0xFF
in every byte, which in floats is a NaN that no operation makes, though all pass it on. After each kernel, all of it
must be as it was but for what the kernel's steps write and work in; and once a step is done, no float or truth value
that it makes may be garbage. Whole numbers may: there it is -1, which says nothing. Outputs and state are given back
when all kernels are right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from minigraph.backends.cupy.device import Memory
from minigraph.backends.cupy.program import FAULT, Program, aligned
from minigraph.backends.cupy.source import Launch
from minigraph.backends.plan import Buffer
from minigraph.backends.work import bytes_of
from minigraph.core.errors import GraphError
from minigraph.core.ir import Type

GARBAGE = 0xFF
ZONE = 256  # bytes behind each


def asked_for() -> bool:
    return os.environ.get("MINIGRAPH_CHECK") == "1"


def run(program: Program) -> None:
    """One step. Raises GraphError for the first kernel that does what it must not; the state is then as it was."""
    _Run(program).run()


class _Run:
    def __init__(self, program: Program):
        self.program, self.device = program, program.device
        self.offsets, end = dict[Buffer, int](), ZONE
        for buffer in program.where:
            self.offsets[buffer] = end
            end += aligned(buffer.nbytes) + ZONE
        self.fault = end
        self.memory = self.device.memory(end + FAULT)
        self.bytes = np.full(end + FAULT, GARBAGE, np.uint8)

    def run(self) -> None:
        program = self.program
        self._fill()
        last = {number: launch for launch in program.source.launches for number in launch.steps}
        own = {buffer: self._place(buffer) for buffer in self.offsets}
        launches = program.addressed(own, self.memory.part(self.fault, FAULT))
        for launch, addressed in zip(program.source.launches, launches, strict=True):
            program.launch([addressed])
            before, self.bytes = self.bytes, np.empty_like(self.bytes)
            self.device.read(self.memory, self.bytes)
            for what in self._changed(launch, before):
                raise GraphError(self._said(launch, what))
            if self.bytes[self.fault :].any():
                break
            for what in self._left([number for number in launch.steps if last[number] is launch]):
                raise GraphError(self._said(launch, what))
        self._give_back()

    def _place(self, buffer: Buffer) -> Memory:
        return self.memory.part(self.offsets[buffer], buffer.nbytes)

    def _inner(self, buffer: Buffer, numbers: np.ndarray) -> np.ndarray:
        """Its bytes among all."""
        start = self.offsets[buffer]
        return numbers[start : start + buffer.nbytes]

    def _fill(self) -> None:
        """Garbage, and copies of what is given. Where a NaN of these looks like garbage, another takes its place."""
        for buffer in self.offsets:
            if buffer.place not in ("arena", "output"):
                inner = self._inner(buffer, self.bytes)
                self.device.read(self.program.where[buffer], inner)
                if buffer.type.is_float:
                    inner.view(buffer.type.dtype)[_garbage(inner, buffer.type)] = np.nan
        self.bytes[self.fault :] = 0
        self.device.write(self.memory, self.bytes)

    def _changed(self, launch: Launch, before: np.ndarray) -> Iterator[str]:
        """What was changed that must not be."""
        changed = self.bytes != before
        for number in launch.steps:
            for buffer in self.program.plan.steps[number].touched:
                self._inner(buffer.root, changed)[:] = False
        if launch.faults:
            changed[self.fault :] = False
        for buffer in self.offsets:
            if self._inner(buffer, changed).any():
                yield f"changes {buffer.name!r}, which it is not to write"
        if changed.any():
            at = int(np.flatnonzero(changed)[0])
            near = min(self.offsets, key=lambda b: min(abs(at - self.offsets[b]), abs(at - self.offsets[b] - b.nbytes)))
            where = "in front of" if at < self.offsets[near] else "behind"
            yield f"writes {int(changed.sum())} bytes {where} {near.name!r}"

    def _left(self, numbers: list[int]) -> Iterator[str]:
        """What these steps should have written by now."""
        for number in numbers:
            for value, buffer in self.program.plan.steps[number].writes.items():
                inner = self._inner(buffer.root, self.bytes)[: bytes_of(value.type, {})]
                if count := int(_garbage(inner, value.type).sum()):
                    size, name = np.dtype(value.type.dtype).itemsize, buffer.output or value.name
                    what = f"{count} of the {inner.size // size} numbers of {name!r}"
                    yield f"leaves {what} unwritten, or computes them from memory that nobody wrote"

    def _said(self, launch: Launch, what: str) -> str:
        plan = self.program.plan
        nodes = list(dict.fromkeys(node for number in launch.steps for node in plan.steps[number].nodes))
        names = ", ".join(f"{node.op.name} {node.name!r}" for node in nodes)
        step = f"step {', '.join(map(str, launch.steps))} of the plan"
        line = f"{plan.graph.name!r}: {step}{names and f' ({names})'} {what}, which is a bug of minigraph or of an op"
        return "\n".join([line, *dict.fromkeys(f"  at {n.origin.where()}" for n in nodes if n.origin.file)])

    def _give_back(self) -> None:
        """Outputs, state, and whether an input was found wrong, to where the program has them."""
        program = self.program
        assert program.work is not None
        fault = self.memory.part(self.fault, FAULT)
        self.device.copy(program.work.part(program.ends.fault, FAULT), fault)
        outputs = [buffer for buffer, _ in program.ends.outputs]
        for buffer in (*outputs, *([] if self.bytes[self.fault :].any() else program.moving)):
            self.device.copy(program.where[buffer], self._place(buffer))


def _garbage(inner: np.ndarray, type_: Type) -> np.ndarray:
    """Which numbers are garbage, of floats and truth values."""
    if not type_.is_float and type_.dtype != "bool":
        return np.zeros(0, bool)
    found: np.ndarray = (inner.reshape(-1, np.dtype(type_.dtype).itemsize) == GARBAGE).all(1)
    return found
