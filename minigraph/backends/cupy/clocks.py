"""The time of each kernel of a program on a GPU, by events between the launches.

A host hands kernels over more slowly than a GPU runs small ones, and the time between two events would be the host's.
So the GPU is held first, until the kernels and the events are there. The runs are on copies of the state that moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np

from minigraph.backends.cupy import checked
from minigraph.backends.cupy.arrays import fetched
from minigraph.backends.cupy.device import Device, Memory
from minigraph.backends.cupy.executable import Call, Executable
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.program import FAULT, Program
from minigraph.backends.cupy.source import Launch, of_header
from minigraph.backends.plan import Buffer, Plan
from minigraph.core.errors import expect

TOGETHER = 200  # kernels that are handed over while a GPU is held: it takes a thousand kernels and events at a time
LONGEST = 0.1  # seconds for which it is held


@dataclass(frozen=True)
class Times:
    """Seconds, each the least of all runs.

    kernels: of each of the launches. clocked: of a whole run with the events. plain: of one without, as a graph.
    called: of a step as it is called, with the inputs that go to the GPU and the outputs that come back.
    """

    plan: Plan
    launches: tuple[Launch, ...]
    kernels: tuple[float, ...]
    clocked: float
    plain: float
    called: float


class Clocks:
    """Measure pieces of work that is launched on a device."""

    def __init__(self, device: Device, work: Sequence[Callable[[], None]]):
        self.device = device
        self._chunks = [work[start : start + TOGETHER] for start in range(0, len(work), TOGETHER)]
        self._handing = [0.0] * len(self._chunks)  # seconds that it took the last time
        self._hold, self._nanoseconds = device.load(of_header("clocks.cuh", "hold"))["hold"], device.memory(8)

    def run(self) -> list[float]:
        """Do all of it; the seconds of each piece. The first run finds out how long the device is to be held."""
        return [seconds for number in range(len(self._chunks)) for seconds in self._held(number)]

    def _held(self, number: int) -> list[float]:
        device, waits = self.device, min(2 * self._handing[number], LONGEST)
        device.write(self._nanoseconds, np.array([waits * 1e9], np.int64))
        device.launch(self._hold, Grid(1, 1), [self._nanoseconds.address])
        begin = perf_counter()
        moments = [device.mark()]
        for work in self._chunks[number]:
            work()
            moments.append(device.mark())
        self._handing[number] = perf_counter() - begin
        return [device.seconds(first, last) for first, last in pairwise(moments)]


def measure(executable: Executable, call: Call, repeats: int) -> Times:
    """Run a program so many times with events, as often without, and as often as it is called, in turns.

    The state is in its place, and stays as it is. WrongInput as from Executable.step.
    """
    expect(
        not checked.asked_for(), "a profile is of programs as they run: unset MINIGRAPH_CHECK, whose guards take time"
    )
    runs = _Runs()

    def step(run: Callable[[Program], None]) -> float:
        start = perf_counter()
        fetched(list(executable.step(call, run).values()))
        executable.device.finish()
        return perf_counter() - start

    step(runs.begin)
    called = np.inf
    for _ in range(repeats + 1):
        step(runs.clocked)
        step(runs.plain)
        called = min(called, step(runs.replayed))
    return runs.times(called)


class _Runs:
    """Of one program, on copies of its state."""

    def begin(self, program: Program) -> None:
        """Launch each kernel, which loads it, and get ready."""
        assert program.work is not None
        self.program, self.device = program, program.device
        self._copies: dict[Buffer, Memory] = program.copies()
        where = {**program.where, **self._copies}
        launches = program.addressed(where, program.work.part(program.ends.fault, FAULT))
        program.launch(launches)
        self._graph = self.device.capture(lambda: program.launch(launches))
        self._by_kernel = Clocks(self.device, [partial(program.launch, [one]) for one in launches])
        self._whole = Clocks(self.device, [partial(self.device.replay, self._graph)])
        self._found: list[list[float]] = []
        self._plain: list[float] = []

    def clocked(self, program: Program) -> None:
        self._found.append(self._by_kernel.run())

    def plain(self, program: Program) -> None:
        self._plain += self._whole.run()

    def replayed(self, program: Program) -> None:
        self.device.replay(self._graph)

    def times(self, called: float) -> Times:
        """The first run of each kind is left out."""
        kernels = np.array(self._found[1:])
        program = self.program
        least = tuple(kernels.min(0).tolist())
        clocked, plain = float(kernels.sum(1).min()), min(self._plain[1:])
        return Times(program.plan, program.source.launches, least, clocked, plain, called)
