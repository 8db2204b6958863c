"""A program for sizes that are known: its kernels, and where they find what they read and write."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigraph.backends.cupy.checks import indices
from minigraph.backends.cupy.device import ALIGNMENT, Device, Memory
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.libraries.patterns import WORKSPACE_ALIGNMENT
from minigraph.backends.cupy.source import Launch, Source
from minigraph.backends.plan import Buffer, Plan
from minigraph.backends.work import bytes_of
from minigraph.core.dim import known
from minigraph.core.evaluate import apply

FAULT = 4  # bytes: a number that is not 0 once an input was found wrong
Addressed = tuple[Any, Grid | None, list[int]]  # a kernel and its grid, or a routine of a library and none
SMALL = 1 << 12  # bytes of an output: fewer are copied together with others


class Ends:
    """Where inputs and outputs lie in the memory of a program, and behind them the arena: offsets in bytes.

    Small outputs lie in front of others, from `small` to `large`.
    """

    def __init__(self, made: Plan, kept: Collection[str]):
        self.inputs, self.fault = _in_a_row([b for b in made.buffers if b.place == "input" and b.name not in kept], 0)
        self.small = self.fault + aligned(FAULT)
        outputs = sorted((b for b in made.buffers if b.place == "output"), key=lambda b: b.nbytes > SMALL)
        few, self.large = _in_a_row([b for b in outputs if b.nbytes <= SMALL], self.small)
        rest, self.arena = _in_a_row(outputs[len(few) :], self.large)
        self.outputs = few + rest
        self.nbytes = self.arena + made.arena


@dataclass(frozen=True)
class Output:
    """One of the outputs. offset: where it lies in the memory of a program; small: among the small ones, by itself."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    nbytes: int
    small: bool


def _outputs(made: Plan, ends: Ends) -> list[Output]:
    """Outputs of the same numbers lie in the same place; only the first of them can be among the small ones."""
    homes, found, seen = {b.value: offset for b, offset in ends.outputs}, list[Output](), set[int]()
    for name, value in made.graph.outputs.items():
        offset, shape = homes[made.partition.base(value)], tuple(known(n, name) for n in value.type.shape)
        small = offset < ends.large and offset not in seen
        seen.add(offset)
        found.append(Output(name, shape, np.dtype(value.type.dtype), offset, bytes_of(value.type, {}), small))
    return found


class Program:
    """A plan for sizes that are known, and its kernels."""

    def __init__(self, made: Plan, source: Source, device: Device, kept: Collection[str]):
        self.plan, self.source, self.device = made, source, device
        self.ends = Ends(made, kept)
        self.work: Memory | None = None  # in which it runs
        self.indices, self.outputs = indices(made.graph), _outputs(made, self.ends)
        self._kernels = device.load(source)
        self._warm = False
        self._literals: dict[Buffer, Memory] = {}
        self.where: dict[Buffer, Memory] = {}  # by buffers that have memory of their own
        self.launches: list[Addressed] = []
        self._graph: Any = None

    @property
    def moving(self) -> list[Buffer]:
        """The state that it writes."""
        written = (buffer for step in self.plan.steps for buffer in step.writes.values())
        return list(dict.fromkeys(buffer for buffer in written if buffer.place == "state"))

    @property
    def nbytes(self) -> int:
        """Of its inputs, its outputs and its arena."""
        return self.ends.nbytes

    def forget(self) -> None:
        """Where things lay."""
        self.work, self._graph, self.launches, self.where = None, None, [], {}

    def bind(self, work: Memory, given: Mapping[str, Memory]) -> None:
        """Note where things lie: its own in `work`, and those that are given by name."""
        self.forget()
        self._make_literals()
        where = dict(self._literals)
        for buffer, offset in (*self.ends.inputs, *self.ends.outputs):
            where[buffer] = work.part(offset, buffer.nbytes)
        for buffer in self.plan.buffers:
            if buffer.place in ("input", "state") and buffer not in where:
                where[buffer] = given[buffer.name]
        arena = work.part(self.ends.arena, self.plan.arena)
        touched = (buffer.root for launch in self.source.launches for buffer in launch.arguments)
        for root in dict.fromkeys(touched):
            if root.place == "arena":
                where[root] = arena.part(root.offset, root.nbytes)
        self.where, self.launches = where, self.addressed(where, work.part(self.ends.fault, FAULT))
        self.work = work

    def _make_literals(self) -> None:
        for buffer in self.plan.buffers:
            if buffer.place == "literal" and buffer not in self._literals:
                (array,) = apply(self.plan.graph.producer[buffer.value], [])
                memory = self.device.memory(buffer.nbytes)
                self.device.write(memory, np.ascontiguousarray(array))
                self._literals[buffer] = memory

    def addressed(self, where: Mapping[Buffer, Memory], fault: Memory) -> list[Addressed]:
        """The launches, with the addresses of what lies there."""
        return [self._addressed(launch, where, fault) for launch in self.source.launches]

    def _addressed(self, launch: Launch, where: Mapping[Buffer, Memory], fault: Memory) -> Addressed:
        addresses = [where[buffer.root].address for buffer in launch.arguments]
        if launch.routine is None:
            return self._kernels[launch.kernel], launch.grid, addresses + [fault.address] * launch.faults
        addresses = [address + offset for address, offset in zip(addresses, launch.offsets, strict=True)]
        if launch.routine.workspace:
            addresses[-1] = -(-addresses[-1] // WORKSPACE_ALIGNMENT) * WORKSPACE_ALIGNMENT
        return launch.routine, None, addresses

    # steps

    def run(self) -> None:
        """One step, kernel by kernel."""
        self.launch(self.launches)

    def replay(self) -> None:
        """One step, as a graph, which is captured at first."""
        if self._graph is None:
            self._warm_up()
            self._graph = self.device.capture(self.run)
        self.device.replay(self._graph)

    def launch(self, launches: Sequence[Addressed]) -> None:
        for kernel, grid, addresses in launches:
            if grid is None:
                self.device.call(kernel, addresses)
            else:
                self.device.launch(kernel, grid, addresses)

    def _warm_up(self) -> None:
        """Launch each kernel, which loads it, with a copy in place of the state that it moves."""
        if self._warm:
            return
        assert self.work is not None
        copies, fault = self.copies(), self.work.part(self.ends.fault, FAULT)
        self.launch(self.addressed({**self.where, **copies}, fault))
        self.device.read(fault, np.empty(FAULT, np.uint8))  # when all are done, the copies may go
        self.device.write(fault, np.zeros(FAULT, np.uint8))
        self._warm = True

    def copies(self) -> dict[Buffer, Memory]:
        """Of the state that it moves, as it is now."""
        found = {buffer: self.device.memory(buffer.nbytes) for buffer in self.moving}
        for buffer, memory in found.items():
            self.device.copy(memory, self.where[buffer])
        return found


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _in_a_row(buffers: Sequence[Buffer], offset: int) -> tuple[list[tuple[Buffer, int]], int]:
    placed = []
    for buffer in buffers:
        placed.append((buffer, offset))
        offset += aligned(buffer.nbytes)
    return placed, offset
