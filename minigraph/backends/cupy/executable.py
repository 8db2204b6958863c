"""Programs on a GPU: planned kernels in memory that stays where it is, captured once as one graph and replayed.

All sizes of a program share one memory, in which lie the inputs, whether they were found wrong, the outputs and the
arena; the state lies in that of its Resident. What addresses do not change is launched again as it was. A call does not
wait for the step that it begins: what is launched later, for whatever reason, comes behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.c.executable import WrongInput
from minigraph.backends.cupy import checked, feed, returned
from minigraph.backends.cupy.arrays import GpuArray
from minigraph.backends.cupy.checks import Limits
from minigraph.backends.cupy.device import ALIGNMENT, Device, Lent, Memory, OutOfMemory, fetched
from minigraph.backends.cupy.feed import Feed, Given
from minigraph.backends.cupy.program import FAULT, Ends, Program, aligned
from minigraph.backends.cupy.resident import Resident
from minigraph.backends.cupy.returned import Places, Returned
from minigraph.backends.cupy.source import print_program
from minigraph.backends.cupy.totals import shares
from minigraph.backends.cupy.tuned import claims
from minigraph.backends.plan import Plan, batch_symbol, plan
from minigraph.backends.work import bytes_of
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.core.table import quantity

PROGRAMS = 8  # how many bindings of symbols are kept


@dataclass(frozen=True)
class Call:
    """What a step is given.

    kept: gives the arrays that stay. It is called only if `version` is not that of the last step.

    Kernels find out whether an index lies outside of what it picks from, a label of the classes, say; what follows then
    writes nothing to the state. A step whose indices are all inputs that are known to fit need not be waited for: those
    that NumPy has are looked at, and those that were brought to the GPU by `moved` were. After any other the verdict
    is waited for, so that the error is raised by the call that is wrong, and no step comes after it.
    """

    symbols: Mapping[str, int]
    inputs: Mapping[str, Given]
    kept: Callable[[], Mapping[str, np.ndarray]]
    version: object

    def fits(self, indices: Mapping[str, Limits] | None) -> bool:
        """Whether no kernel can find an input wrong, of which these must lie within limits."""
        return indices is not None and all(self._known_within(name, low, high) for name, (low, high) in indices.items())

    def _known_within(self, name: str, low: int, high: int) -> bool:
        given = self.inputs.get(name)  # not among them where it stays
        if isinstance(given, np.ndarray):
            return not given.size or bool(given.min() >= low and given.max() <= high)
        limits = given.limits if given is not None else None
        return limits is not None and low <= limits[0] and limits[1] <= high


class Executable:
    """One lowered graph, ready to run at any sizes of its symbols: a program for each."""

    def __init__(self, graph: Graph, device: Device, kept: Collection[str] = (), capture: bool = True):
        """kept: the names of inputs and state whose arrays stay from call to call. capture: whether a step is a graph,
        captured before the first and replayed; without it, which helps to find faults, kernels are launched one by one,
        and an interrupt may come between two of them.
        """
        self.graph, self.device, self.capture = graph, device, capture
        self.plan: Plan | None = None  # of the last step
        values = (*graph.inputs, *(variable.value for variable in graph.state))
        self._kept = {value.name: value for value in values if value.name in kept}
        self._state = [variable.value for variable in graph.state if variable.name not in kept]
        self._moves = [old.name for old in graph.updates]
        self._programs: OrderedDict[tuple[tuple[str, int], ...], Program] = OrderedDict()
        self._work: Memory | None = None
        self._feed, self._returned = Feed(device), Returned(device)
        self._still: dict[str, Memory] = {}
        self._version: object = None  # of the kept arrays that are there
        self._resident: Resident | None = None
        self._settled: object = None  # the version of the state that is there

    @property
    def peak_bytes(self) -> int:
        """The bytes that values between inputs and outputs share, in the last step."""
        return self.plan.arena if self.plan else 0

    def settle(self, state: State, resident: Resident) -> None:
        """Bring the state to its place on the device, where the next steps find it."""
        if resident is self._resident and state.version is self._settled:
            return
        resident.settle(state, self._state)
        if resident is not self._resident:
            self._forget()
        self._resident, self._settled = resident, state.version

    def step(self, call: Call, run: Callable[[Program], None] | None = None) -> dict[str, GpuArray]:
        """Begin one step, and return at once: the outputs are new arrays, the state is written over in its place, and
        whoever reads one of these waits for it. Where an index may lie outside, the step is waited for; see `Call`.

        run: launches the kernels of the program, whose inputs are in their places, as they are to be launched.
        Raises WrongInput before anything is written to the state, OutOfMemory before anything is computed.
        """
        turn = self.device.turn
        with turn.lock:
            expect(not turn.busy, "a step is not over, and another one cannot begin inside of it on the same GPU")
            try:
                turn.busy = True
                return self._step(call, run or self._run)
            finally:
                turn.busy = False

    def _step(self, call: Call, run: Callable[[Program], None]) -> dict[str, GpuArray]:
        program = self.program(call.symbols)
        self.plan = program.plan
        if call.version is not self._version:
            self._keep(call.kept())
            self._version = call.version
        self.device.follow()
        work, outputs = self._reserve(program, call.symbols)
        if program.work is not work:
            program.bind(work, self._addresses())
        self._feed.give(program, call.inputs, work)
        run(program)
        if not call.fits(program.indices) and self._found_wrong(program, work):
            raise WrongInput(f"{self.graph.name!r}: a number of an input is out of range")
        return self._returned.take(program, work, outputs)

    def _found_wrong(self, program: Program, work: Memory) -> bool:
        """Whether a kernel found a number of an input wrong, when the step is over."""
        found = np.empty(FAULT, np.uint8)
        self.device.read(work.part(program.ends.fault, FAULT), found)
        return bool(found.any())

    def _run(self, program: Program) -> None:
        if checked.asked_for():
            checked.run(program)
        elif self.capture:
            program.replay()
        else:
            program.run()

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, and new state: all new arrays.

        Raises GraphError for an input that is found to be wrong, in the reference's words.
        """
        state = State({v.name: np.asarray(arrays[v.name], v.value.type.dtype) for v in self.graph.state})
        inputs = {v.name: np.asarray(arrays[v.name], v.type.dtype) for v in self.graph.inputs}
        self.settle(state, self._resident or Resident(self.device))
        try:
            outputs = self.step(Call(symbols, inputs, lambda: arrays, object()))
        except WrongInput:
            reference.Executable(self.graph).run(symbols, arrays)
            raise
        return {name: array.get() for name, array in outputs.items()}, {name: state[name] for name in self._moves}

    def fetched(self, inputs: Mapping[str, Given]) -> dict[str, np.ndarray]:
        """The inputs, all in NumPy's memory."""
        return {name: fetched(self.device, x) if isinstance(x, Lent) else np.asarray(x) for name, x in inputs.items()}

    def program(self, symbols: Mapping[str, int]) -> Program:
        """The program for these sizes."""
        key = tuple(sorted(symbols.items()))
        if key not in self._programs:
            made = self._planned(symbols)
            self._programs[key] = Program(made, print_program(made), self.device, self._kept)
            if len(self._programs) > PROGRAMS:
                self.device.finish()  # with what goes
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _planned(self, symbols: Mapping[str, int]) -> Plan:
        bound = self.graph.bind(**symbols) if self.graph.symbols else self.graph
        chunks = lambda region, sizes: shares(region).chunks
        return plan(bound, claims(self.device.routine), {}, chunks=chunks, alignment=ALIGNMENT)

    # memory

    def _forget(self) -> None:
        """Let no program go on with the addresses that it knows."""
        for program in self._programs.values():
            program.forget()

    def _reserve(self, program: Program, symbols: Mapping[str, int]) -> tuple[Memory, Places]:
        """That in which all programs work, and that of the outputs. Raises GraphError where there is too little."""
        try:
            if self._work is None or self._work.nbytes < program.nbytes:
                self._work = None
                self._forget()  # so that the memory before is free
                self._work = self.device.memory(program.nbytes)
            self._feed.reserve(program.ends)
            return self._work, self._returned.reserve(program)
        except OutOfMemory:
            self._work, self._feed, self._returned = None, Feed(self.device), Returned(self.device)
            self._forget()
            raise GraphError(self._too_large(symbols, _needed(program.ends), self.device.free())) from None

    def _too_large(self, symbols: Mapping[str, int], needed: int, free: int) -> str:
        """What is needed, what there is, and the largest batch that fits."""
        sizes = "".join(f" for {name} = {n}" for name, n in sorted(symbols.items()))
        said = f"{self.graph.name!r} needs {quantity(needed, 'B')} of the GPU's memory{sizes}"
        said += f", and {quantity(free, 'B')} are free"
        batch = batch_symbol(self.graph)
        if batch not in symbols:
            return said
        fits, fails = 0, symbols[batch]
        while fails - fits > max(1, fits // 8):  # as near as an eighth
            middle = (fits + fails) // 2
            enough = _needed(Ends(self._planned({**symbols, batch: middle}), self._kept)) <= free
            fits, fails = (middle, fails) if enough else (fits, middle)
        return f"{said}; {f'{batch} = {fits} fits' if fits else f'not even {batch} = 1 fits'}"

    def _keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy what stays to memory of its own."""
        if len(self._still) < len(self._kept):
            nbytes = {name: bytes_of(value.type, {}) for name, value in self._kept.items()}
            memory, offset = self.device.memory(sum(map(aligned, nbytes.values()))), 0
            for name, n in nbytes.items():
                self._still[name] = memory.part(offset, n)
                offset += aligned(n)
        for name, value in self._kept.items():
            self.device.write(self._still[name], np.ascontiguousarray(arrays[name], value.type.dtype))

    def _addresses(self) -> dict[str, Memory]:
        """Where state, and what stays, lies."""
        assert self._resident is not None or not self._state
        resident = self._resident
        return {**{v.name: resident.memory(v) for v in self._state if resident is not None}, **self._still}


def _needed(ends: Ends) -> int:
    """Bytes of the device, for one step."""
    return ends.nbytes + feed.nbytes(ends) + returned.nbytes(ends)
