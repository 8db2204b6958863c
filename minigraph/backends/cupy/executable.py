"""Programs on a GPU: a plan whose memory lies there, and whose kernels are launched one after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.cupy.grid import Grid
from minigraph.backends.cupy.source import Source, print_program
from minigraph.backends.cupy.totals import shares
from minigraph.backends.plan import Buffer, Plan, plan
from minigraph.core.errors import GraphError
from minigraph.core.evaluate import apply
from minigraph.core.ir import Graph

PROGRAMS = 8  # how many bindings of symbols are kept
ALIGNMENT = 256  # bytes: what libraries and the widest loads ask for


class Device(Protocol):
    """Where kernels run. Its memory has an `address`, of a byte that is aligned to ALIGNMENT."""

    def memory(self, nbytes: int) -> Any:
        """So many bytes, whose numbers may be anything."""

    def write(self, memory: Any, array: np.ndarray) -> None:
        """The bytes of a contiguous array, to the beginning of the memory."""

    def read(self, memory: Any, array: np.ndarray) -> None:
        """Bytes from the beginning of the memory into a contiguous array, when all that was launched is done."""

    def load(self, source: Source) -> Mapping[str, Any]:
        """Its kernels, compiled, by name."""

    def launch(self, kernel: Any, grid: Grid, addresses: list[int]) -> None:
        """Begin a kernel when those launched before it are done."""


class WrongInput(GraphError):
    """A kernel has found that a number of an input is out of range. The state is as it was."""


class Executable:
    """One lowered graph, ready to run at any sizes of its symbols: a program for each."""

    def __init__(self, graph: Graph, device: Device):
        self.graph, self.device = graph, device
        self._programs: OrderedDict[tuple[tuple[str, int], ...], Program] = OrderedDict()

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, and new state: all new arrays.

        Raises GraphError for an input that is found to be wrong, in the reference's words.
        """
        program = self.program(symbols)
        program.write(arrays)
        if not program.step():
            reference.Executable(self.graph).run(symbols, arrays)
            raise WrongInput("an input holds a number that is out of range")
        return program.outputs(), program.state({old.name for old in self.graph.updates})

    def program(self, symbols: Mapping[str, int]) -> Program:
        """The program for these sizes."""
        key = tuple(sorted(symbols.items()))
        if key not in self._programs:
            bound = self.graph.bind(**symbols) if self.graph.symbols else self.graph
            made = plan(bound, lambda graph, node: None, {}, chunks=lambda region, sizes: shares(region).chunks)
            self._programs[key] = Program(made, print_program(made), self.device)
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]


class Program:
    """A plan, its kernels, and the memory that they work in."""

    def __init__(self, made: Plan, source: Source, device: Device):
        self.plan, self.source, self.device = made, source, device
        self._arena = device.memory(made.arena)
        self._own = {b: device.memory(b.nbytes) for b in made.buffers if b.place != "arena"}
        self._fault = device.memory(4)
        for buffer in self._of("literal"):
            (array,) = apply(made.graph.producer[buffer.value], [])
            device.write(self._own[buffer], np.ascontiguousarray(array))
        loaded = device.load(source)
        self._launches = [
            (loaded[launch.kernel], launch.grid, self._addresses(launch.arguments, launch.faults))
            for launch in source.launches
        ]

    def _of(self, place: str) -> list[Buffer]:
        return [buffer for buffer in self.plan.buffers if buffer.place == place]

    def _addresses(self, buffers: tuple[Buffer, ...], faults: bool) -> list[int]:
        found = []
        for buffer in buffers:
            root = buffer.root
            found.append(self._arena.address + root.offset if root.place == "arena" else self._own[root].address)
        return [*found, *([self._fault.address] if faults else [])]

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put inputs and state where the kernels find them."""
        for buffer in (*self._of("input"), *self._of("state")):
            array = np.ascontiguousarray(arrays[buffer.name], buffer.type.dtype)
            self.device.write(self._own[buffer], array)

    def step(self) -> bool:
        """Run one step. False where it found an input wrong, and left the state as it was."""
        self.device.write(self._fault, np.zeros(1, np.int32))
        for kernel, grid, addresses in self._launches:
            self.device.launch(kernel, grid, addresses)
        fault = np.empty(1, np.int32)
        self.device.read(self._fault, fault)
        return not fault[0]

    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs by name, as new arrays."""
        homes, base = {b.value: b for b in self._of("output")}, self.plan.partition.base
        return {
            name: self._array(homes[base(v)], v.type.shape, v.type.dtype) for name, v in self.plan.graph.outputs.items()
        }

    def state(self, names: set[str]) -> dict[str, np.ndarray]:
        """State of these names, as new arrays."""
        found = [buffer for buffer in self._of("state") if buffer.name in names]
        return {b.name: self._array(b, b.type.shape, b.type.dtype) for b in found}

    def _array(self, buffer: Buffer, shape: Any, dtype: str) -> np.ndarray:
        array = np.empty(shape, dtype)
        self.device.read(self._own[buffer], array)
        return array
