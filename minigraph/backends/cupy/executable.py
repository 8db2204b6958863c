"""Programs on a GPU: planned kernels in memory that stays where it is, captured once as one graph and replayed.

All sizes of a program share one memory, in which lie the inputs, whether they were found wrong, the outputs and the
arena; the state lies in that of its Resident. What addresses do not change is launched again as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.c.executable import WrongInput
from minigraph.backends.cupy import checked
from minigraph.backends.cupy.device import Device, Lent, Memory, OutOfMemory, fetched
from minigraph.backends.cupy.program import FAULT, Ends, Program, aligned
from minigraph.backends.cupy.resident import Resident
from minigraph.backends.cupy.source import print_program
from minigraph.backends.cupy.totals import shares
from minigraph.backends.cupy.tuned import claim
from minigraph.backends.plan import Plan, batch_symbol, plan
from minigraph.backends.work import bytes_of
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.state import State
from minigraph.core.table import quantity

PROGRAMS = 8  # how many bindings of symbols are kept

Given = np.ndarray | Lent


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
        self._staging = np.empty(0, np.uint8)
        self._under_way = False  # whether a step was begun, and nobody has waited for it
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

    def step(
        self,
        symbols: Mapping[str, int],
        inputs: Mapping[str, Given],
        kept: Callable[[], Mapping[str, np.ndarray]],
        version: object,
    ) -> dict[str, np.ndarray]:
        """Run one step. The outputs are new arrays; the state that moves is written over in its place.

        kept: gives the arrays that stay. It is called only if `version` is not that of the last step.
        Raises WrongInput before anything is written to the state, OutOfMemory before anything is computed.
        """
        return self.step_by(self._run, symbols, inputs, kept, version)

    def step_by(
        self,
        run: Callable[[Program], None],
        symbols: Mapping[str, int],
        inputs: Mapping[str, Given],
        kept: Callable[[], Mapping[str, np.ndarray]],
        version: object,
    ) -> dict[str, np.ndarray]:
        """The same, where `run` launches the kernels of the program, whose inputs are in their places."""
        turn = self.device.turn
        with turn.lock:
            expect(not turn.busy, "a step is not over, and another one cannot begin inside of it on the same GPU")
            try:
                turn.busy = True
                return self._step(run, symbols, inputs, kept, version)
            finally:
                turn.busy = False

    def _step(
        self,
        run: Callable[[Program], None],
        symbols: Mapping[str, int],
        inputs: Mapping[str, Given],
        kept: Callable[[], Mapping[str, np.ndarray]],
        version: object,
    ) -> dict[str, np.ndarray]:
        self._end_last_step()
        program = self.program(symbols)
        self.plan = program.plan
        if version is not self._version:
            self._keep(kept())
            self._version = version
        work = self._memory_for(program, symbols)
        if program.work is not work:
            program.bind(work, self._addresses())
        self._under_way = True
        self._give(program, inputs, work)
        run(program)
        return self._taken(program, work)

    def _end_last_step(self) -> None:
        """Wait for a step that an interrupt came into, before its inputs are written over."""
        if self._under_way:
            self.device.read(Memory(0, 0, None), np.empty(0, np.uint8))
            self._under_way = False

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
        self.settle(state, self._resident or Resident(self.device))
        try:
            outputs = self.step(symbols, arrays, lambda: arrays, object())
        except WrongInput:
            reference.Executable(self.graph).run(symbols, arrays)
            raise
        return outputs, {name: state[name] for name in self._moves}

    def fetched(self, inputs: Mapping[str, Given]) -> dict[str, np.ndarray]:
        """The inputs, all in NumPy's memory."""
        return {name: fetched(self.device, x) if isinstance(x, Lent) else x for name, x in inputs.items()}

    def program(self, symbols: Mapping[str, int]) -> Program:
        """The program for these sizes."""
        key = tuple(sorted(symbols.items()))
        if key not in self._programs:
            made = self._planned(symbols)
            self._programs[key] = Program(made, print_program(made), self.device, self._kept)
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def _planned(self, symbols: Mapping[str, int]) -> Plan:
        bound = self.graph.bind(**symbols) if self.graph.symbols else self.graph
        return plan(bound, claim, {}, chunks=lambda region, sizes: shares(region).chunks)

    # memory

    def _forget(self) -> None:
        """Let no program go on with the addresses that it knows."""
        for program in self._programs.values():
            program.forget()

    def _memory_for(self, program: Program, symbols: Mapping[str, int]) -> Memory:
        """That in which all programs work; more of it where this one needs more than all before."""
        if self._work is None or self._work.nbytes < program.nbytes:
            self._work = None
            self._forget()  # so that the memory before is free
            try:
                self._work = self.device.memory(program.nbytes)
            except OutOfMemory as error:
                raise GraphError(self._too_large(symbols, error)) from None
        if self._staging.size < program.staged:
            self._staging = self.device.staging(program.staged)
        return self._work

    def _too_large(self, symbols: Mapping[str, int], error: OutOfMemory) -> str:
        """What is asked for, what there is, and the largest batch that fits."""
        sizes = "".join(f" for {name} = {n}" for name, n in sorted(symbols.items()))
        asked, free = quantity(error.asked, "B"), quantity(error.free, "B")
        said = f"{self.graph.name!r} needs {asked} of the GPU's memory{sizes}, and {free} are free"
        batch = batch_symbol(self.graph)
        if batch not in symbols:
            return said
        fits, fails = 0, symbols[batch]
        while fails - fits > max(1, fits // 8):  # as near as an eighth
            middle = (fits + fails) // 2
            needed = Ends(self._planned({**symbols, batch: middle}), self._kept).nbytes
            fits, fails = (middle, fails) if needed <= error.free else (fits, middle)
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

    # inputs and outputs

    def _give(self, program: Program, inputs: Mapping[str, Given], work: Memory) -> None:
        """Put the inputs where the kernels find them, and note that none was found wrong."""
        for buffer, offset in program.ends.inputs:
            given = inputs[buffer.name]
            if isinstance(given, Lent):
                continue
            np.copyto(_array(self._staging, offset, buffer.type.shape, buffer.type.dtype), given, casting="same_kind")
        fault = program.ends.fault
        self._staging[fault : fault + FAULT] = 0
        self.device.write(work, self._staging[: fault + FAULT])
        for buffer, offset in program.ends.inputs:
            given = inputs[buffer.name]
            if isinstance(given, Lent):
                self.device.copy(work.part(offset, given.memory.nbytes), given.memory)

    def _taken(self, program: Program, work: Memory) -> dict[str, np.ndarray]:
        """The outputs, as new arrays, when the step is over."""
        fault = program.ends.fault
        found = self._staging[fault : program.staged]
        self.device.read(work.part(fault, found.nbytes), found)
        self._under_way = False
        if found[:FAULT].any():
            raise WrongInput(f"{self.graph.name!r}: a number of an input is out of range")
        base, homes = program.plan.partition.base, {b.value: offset for b, offset in program.ends.outputs}
        return {
            name: _array(self._staging, homes[base(v)], v.type.shape, v.type.dtype).copy()
            for name, v in program.plan.graph.outputs.items()
        }


def _array(memory: np.ndarray, offset: int, shape: Any, dtype: str) -> np.ndarray:
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return memory[offset : offset + nbytes].view(dtype).reshape(shape)
