"""Programs in C: a planned graph compiled to one function, called with the addresses of what it reads and writes."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.c.compiler import compiled
from minigraph.backends.c.threads import pool, threads
from minigraph.backends.c.tuned import claim
from minigraph.backends.plan import ALIGNMENT, Buffer, Plan, plan
from minigraph.backends.source import Source, given, print_program
from minigraph.core import dim
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph

PROGRAMS = 8  # how many bindings of symbols, other than the batch, are kept
HERE = Path(__file__).parent


class Context(ctypes.Structure):
    """`struct context` of prelude.h."""

    _fields_ = (
        ("arena", ctypes.c_void_p),
        ("given", ctypes.POINTER(ctypes.c_void_p)),
        ("packed", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("barrier", ctypes.c_void_p),
        ("fault", ctypes.c_int),
    )


class Executable:
    """One lowered graph, ready to run at any sizes of its symbols.

    The size of the batch is known when a program runs, up to the largest one that it was planned for; a batch of one has
    a program of its own. Other sizes are numbers in the C text, and each set of them has a program.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.batch = batch_symbol(graph)
        self.peak_bytes = 0
        self._programs: OrderedDict[tuple[tuple[str, int], ...], Compiled] = OrderedDict()

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, and new state. Outputs are new arrays.

        New state lies in the arrays given, where nobody else holds them, and is written over the old one; else in new
        ones. Raises GraphError for an input that is found to be wrong; the state is then as it was.
        """
        program = self._program(symbols)
        outputs, new = program.run(symbols, arrays)
        self.peak_bytes = program.plan.arena
        return outputs, new

    def _program(self, symbols: Mapping[str, int]) -> Compiled:
        batch = {s: n for s, n in symbols.items() if s == self.batch and n != 1}
        fixed = {s: n for s, n in symbols.items() if s not in batch}
        key = tuple(sorted(fixed.items()))
        found = self._programs.get(key)
        if found is None or any(n > found.plan.sizes[s] for s, n in batch.items()):
            still: dict[str, Any] = {s: dim.Dim.symbol(s) for s in batch}
            graph = self.graph.bind(**fixed, **still) if fixed else self.graph
            self._programs[key] = found = Compiled(graph, batch)
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return found


def batch_symbol(graph: Graph) -> str:
    """The symbol that is the first size of inputs and no other; "" if there is none."""
    first = {
        str(v.type.shape[0]) for v in graph.inputs if v.type.shape and v.type.shape[0] in map(dim.size, graph.symbols)
    }
    others = {s for v in graph.inputs for s in dim.symbols_of(v.type.shape[1:])}
    return next(iter(sorted(first - others)), "")


class Compiled:
    """A plan, its library, and the memory that they work in."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]):
        self.plan: Plan = plan(graph, claim, sizes)
        self.source: Source = print_program(self.plan)
        headers = [*(HERE / name for name in self.source.own), *sorted(self.source.headers)]
        self.library = compiled(self.source.text, headers)
        self._step = ctypes.cast(self.library.step, ctypes.c_void_p).value or 0
        self._prepare = ctypes.cast(self.library.prepare, ctypes.c_void_p).value or 0
        self._arena = aligned(self.plan.arena)
        self._given = given(self.plan)
        self._literals = {b: np.asarray(graph_literal(self.plan, b)) for b in self._given if b.place == "literal"}
        self._places = (ctypes.c_void_p * max(1, len(self._given)))()
        self._sizes = (ctypes.c_int64 * max(1, len(sizes)))()
        self._packed = [aligned(prepared.target.nbytes) for prepared in self.plan.prepared]
        self._packs = (ctypes.c_void_p * max(1, len(self._packed)))(*(array.ctypes.data for array in self._packed))
        self._packed_from: list[np.ndarray] = []  # the arrays that were packed last

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        graph = self.plan.graph
        updated = {old.name for old in graph.updates}
        held: list[np.ndarray] = []
        outputs: dict[Buffer, np.ndarray] = {}
        new: dict[str, np.ndarray] = {}
        for number, buffer in enumerate(self._given):
            if buffer.place == "output":
                array = np.empty(dim.bind(buffer.type.shape, symbols), buffer.type.dtype)
                outputs[buffer] = array
            elif buffer.place == "literal":
                array = self._literals[buffer]
            elif buffer.place == "state" and buffer.name in updated:
                array = np.array(arrays[buffer.name], order="C")
                new[buffer.name] = array
            else:
                array = np.ascontiguousarray(arrays[buffer.name])
            held.append(array)
            self._places[number] = array.ctypes.data
        for number, name in enumerate(sorted(self.plan.sizes)):
            self._sizes[number] = symbols[name]
        context = Context(self._arena.ctypes.data, self._places, self._packs, self._sizes, pool().barrier, 0)
        sources = [held[self._given.index(prepared.source)] for prepared in self.plan.prepared]
        if any(new is not old for new, old in zip_longest(sources, self._packed_from)):
            pool().run(self._prepare, ctypes.addressof(context), threads())
            self._packed_from = sources
        pool().run(self._step, ctypes.addressof(context), threads())
        if context.fault:
            raise self._fault(symbols, arrays)
        base = self.plan.partition.base
        homes = {buffer.value: array for buffer, array in outputs.items()}
        shaped = {name: homes[base(v)].reshape(dim.bind(v.type.shape, symbols)) for name, v in graph.outputs.items()}
        return shaped, new

    def _fault(self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> GraphError:
        """What the reference says of these inputs."""
        try:
            reference.Executable(self.plan.graph).run(symbols, arrays)
        except GraphError as error:
            return error
        return GraphError(f"{self.plan.graph.name!r}: an index is out of range")


def aligned(nbytes: int) -> np.ndarray:
    """Memory that begins at a multiple of the cache's lines."""
    memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def graph_literal(plan: Plan, buffer: Buffer) -> np.ndarray:
    node = plan.graph.producer[buffer.value]
    (array,) = node.op.run([], node.attrs)
    return np.ascontiguousarray(array)
