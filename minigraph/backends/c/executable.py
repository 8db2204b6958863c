"""Programs in C: a planned graph compiled to one function, called with the addresses of what it reads and writes."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from minigraph.backends import numpy as reference
from minigraph.backends.c import guarded
from minigraph.backends.c.compiler import compiled
from minigraph.backends.c.threads import pool, threads
from minigraph.backends.c.tuned import claim
from minigraph.backends.calls import Call, Pointers
from minigraph.backends.places import given
from minigraph.backends.plan import ALIGNMENT, Buffer, Plan, plan, split_sizes, with_numbers
from minigraph.backends.source import Source, print_program
from minigraph.core import dim
from minigraph.core.errors import GraphError
from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Node, Value, Variable

PROGRAMS = 8  # how many bindings of symbols, other than the batch, are kept
HERE = Path(__file__).parent
NOTHING = ctypes.c_char * 0


class Context(ctypes.Structure):
    """`struct context` of prelude.h."""

    _fields_ = (
        ("arena", ctypes.c_void_p),
        ("offsets", ctypes.POINTER(ctypes.c_int64)),
        ("given", ctypes.POINTER(ctypes.c_void_p)),
        ("packed", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("barrier", ctypes.c_void_p),
        ("fault", ctypes.c_int),
    )


class WrongInput(GraphError):
    """A kernel has found that a number of an input is out of range. The state is as it was."""


class Executable:
    """One lowered graph, ready to run at any sizes of its symbols.

    The size of the batch is known when a program runs. One that is larger than all before is planned anew, which takes
    memory for it. The library stays where the text does, which it does from 32 to 1,023 (see plan.typical). A batch of
    one has a program of its own, and so has one that the graph does not fit (x[-3:] of two), or that needs less memory
    than a smaller one (p[N:]). Other sizes are numbers in the C text, and each set of them has a program.
    """

    def __init__(self, graph: Graph, kept: Collection[str] = (), chosen: Mapping[str, str] = {}):
        """kept: the names of inputs that stay from call to call: they are state that does not move.

        chosen: the names of other kernels than the usual ones, by `key_of` the usual calls.
        """
        self.graph, self._chosen = with_state(graph, kept), chosen
        self.plan: Plan | None = None  # of the last step
        self._programs: OrderedDict[tuple[tuple[str, int], ...], Compiled] = OrderedDict()
        self._last: tuple[Mapping[str, int], Compiled] | None = None

    @property
    def peak_bytes(self) -> int:
        """The bytes that values between inputs and outputs share, in the last step."""
        return self.plan.arena if self.plan else 0

    def step(
        self,
        symbols: Mapping[str, int],
        inputs: Mapping[str, np.ndarray],
        kept: Callable[[], Mapping[str, np.ndarray]],
        version: object,
    ) -> dict[str, np.ndarray]:
        """Run one step. The outputs are new arrays; the state that moves is written over where it lies.

        kept: gives the state and the inputs that stay, contiguous. It is called only if `version` is not that of the
        last step: while it is the same, all lie where they lay, and those that do not move hold the same numbers. They
        must live until the step is over.
        Raises WrongInput before anything is written to the state.
        """
        if self._last is None or self._last[0] != symbols:
            self._last = dict(symbols), self.program(symbols)
        program = self._last[1]
        self.plan = program.plan
        return program.step(symbols, inputs, kept, version)

    def run(
        self, symbols: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state by name -> outputs, and new state: all new arrays.

        Raises GraphError for an input that is found to be wrong, in the reference's words.
        """
        moved = {old.name for old in self.graph.updates}
        state = {v.name: np.array(arrays[v.name], order="C") for v in self.graph.state}
        try:
            outputs = self.step(symbols, arrays, lambda: {**arrays, **state}, object())
        except WrongInput:
            reference.Executable(self.graph).run(symbols, arrays)
            raise
        return outputs, {name: state[name] for name in moved}

    def program(self, symbols: Mapping[str, int]) -> Compiled:
        """The program for these sizes, compiled if there is none yet that serves them."""
        batch, fixed = split_sizes(self.graph, symbols)
        key = tuple(sorted(fixed.items()))
        found = self._programs.get(key)
        if found is None or any(n > found.plan.sizes[s] for s, n in batch.items()):
            self._programs[key] = found = Compiled(self.printed(symbols), found)
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return found

    def printed(self, symbols: Mapping[str, int]) -> Printed:
        """The plan and the text of the program for these sizes, and for smaller batches."""
        batch, fixed = split_sizes(self.graph, symbols)
        made = plan(with_numbers(self.graph, batch, fixed), self._claim, batch, threads())
        return Printed(made, print_program(made))

    def _claim(self, graph: Graph, node: Node) -> Call | None:
        call = claim(graph, node)
        name = self._chosen.get(key_of(call)) if call is not None and call.others and self._chosen else None
        return call if call is None or name is None else call.others[name]()


def key_of(call: Call) -> str:
    """The same for calls that are printed alike: the kernel and its shape."""
    pointers = Pointers(["x"] * len(call.operands), "y", "", lambda kernel, _, shape, __: f"{kernel} {shape}", _nowhere)
    moving = [name for name, pack in call.packs.items() if call.operands[pack.operand].moves]
    return " ".join([*call.phases(pointers), *moving])


def _nowhere(_: int) -> None:
    """Nothing lies in the middle of something else."""


def with_state(graph: Graph, names: Collection[str]) -> Graph:
    """The graph with the inputs of these names as state."""
    still = tuple(Variable(value, Constant(0.0), "statistic") for value in graph.inputs if value.name in names)
    inputs = tuple(value for value in graph.inputs if value.name not in names)
    return replace(graph, inputs=inputs, state=(*graph.state, *still))


@dataclass(frozen=True)
class Printed:
    """A plan, and its text."""

    plan: Plan
    source: Source


class Compiled:
    """A plan, its library, and the memory that they work in."""

    def __init__(self, printed: Printed, before: Compiled | None = None):
        """before: a program whose library serves if its text is the same."""
        self._threads = printed.plan.threads
        self.plan = guarded.apart(printed.plan) if guarded.asked_for() else printed.plan
        self.source = printed.source
        single = self.source.steps if guarded.asked_for() else ()
        more = (*single, guarded.GIVE_BACK) if guarded.asked_for() else ()
        self._text = "\n".join([self.source.text, *more])
        same = before is not None and before._text == self._text
        self.library: ctypes.CDLL = before.library if before is not None and same else self._loaded()
        names = ["prepare", "step", *(f"step_{number}" for number, _ in enumerate(single))]
        self._functions = {name: ctypes.cast(self.library[name], ctypes.c_void_p).value or 0 for name in names}
        self._given = given(self.plan)
        self._places = (ctypes.c_void_p * max(1, len(self._given)))()
        self._literals = self._place_literals()
        self._inputs = [(i, b.name) for i, b in enumerate(self._given) if b.place == "input"]
        self._kept = [(i, b.name) for i, b in enumerate(self._given) if b.place == "state"]
        self._outputs = self._places_of_outputs()
        self._version: object = None  # of the kept arrays whose places are known
        self._symbols: Mapping[str, int] | None = None  # for which the shapes of outputs are known
        self._shapes: list[tuple[int, ...]] = []
        self._sizes = (ctypes.c_int64 * max(1, len(self.plan.sizes)))()
        self._offsets = (ctypes.c_int64 * max(1, len(self.plan.roots)))(*(root.offset for root in self.plan.roots))
        self._pack_memory()
        self._arena = self._guards.arena if self._guards else aligned(self.plan.arena)
        places = self._guards.places if self._guards else self._places
        self._context = Context(
            self._arena.ctypes.data, self._offsets, places, self._packs, self._sizes, pool().barrier, 0
        )

    def _loaded(self) -> ctypes.CDLL:
        return compiled(self._text, [*(HERE / name for name in self.source.own), *sorted(self.source.headers)])

    def _place_literals(self) -> list[np.ndarray]:
        arrays = []
        for number, buffer in enumerate(self._given):
            if buffer.place == "literal":
                arrays.append(graph_literal(self.plan, buffer))
                self._places[number] = address(arrays[-1])
        return arrays

    def _places_of_outputs(self) -> list[tuple[int, str, Value, np.dtype]]:
        base = self.plan.partition.base
        number = {buffer.value: i for i, buffer in enumerate(self._given) if buffer.place == "output"}
        return [(number[base(v)], name, v, np.dtype(v.type.dtype)) for name, v in self.plan.graph.outputs.items()]

    def _pack_memory(self) -> None:
        """Where packed operands lie. They are packed when they are other arrays than before."""
        prepared = self.plan.prepared
        walls = [guarded.walled(p.target.name, p.target.nbytes) for p in prepared] if guarded.asked_for() else None
        self._guards = None if walls is None else guarded.Guards(self.plan, walls, self.library.give_back)
        sizes = [p.target.nbytes for p in prepared]
        self._packed = side_by_side(sizes) if walls is None else [w.inner for w in walls]
        self._packs = (ctypes.c_void_p * max(1, len(self._packed)))(*map(address, self._packed))
        self._packed_names = [p.source.name for p in prepared]
        self._sources: list[np.ndarray] = []  # held, so that nobody writes to what was packed
        self._packed_from: list[np.ndarray] | None = None  # the sources that are packed

    def step(
        self,
        symbols: Mapping[str, int],
        inputs: Mapping[str, np.ndarray],
        kept: Callable[[], Mapping[str, np.ndarray]],
        version: object,
    ) -> dict[str, np.ndarray]:
        """See Executable.step."""
        places = self._places
        if symbols != self._symbols:
            self._bind(symbols)
        held = []
        for number, name in self._inputs:
            array = inputs[name]
            if not (array.flags.c_contiguous and array.flags.aligned):
                array = np.require(array, requirements=["C", "ALIGNED"])
                held.append(array)
            places[number] = address(array)
        outputs = {}
        for (number, name, _, dtype), shape in zip(self._outputs, self._shapes):
            outputs[name] = array = np.empty(shape, dtype)
            places[number] = address(array)
        if version != self._version:
            self._find(kept())
            self._version = version
        self._context.fault = 0
        if self._guards:
            self._guards.run(symbols, places, self._pack, self._one_step)
        else:
            self._pack()
            self._call("step")
        if self._context.fault:
            raise WrongInput(f"{self.plan.graph.name!r}: a number of an input is out of range")
        return outputs

    def _pack(self) -> None:
        if self._packed and self._packed_from is None:
            self._call("prepare")
            self._packed_from = self._sources

    def _one_step(self, number: int) -> bool:
        """Run one step of the plan; whether all numbers of inputs are right so far."""
        self._call(f"step_{number}")
        return not self._context.fault

    def _call(self, name: str) -> None:
        pool().run(self._functions[name], ctypes.addressof(self._context), self._threads)

    def call(self, function: int) -> None:
        """Call a function of another library with the context of the last step, whose arrays must still be there."""
        pool().run(function, ctypes.addressof(self._context), self._threads)

    def _bind(self, symbols: Mapping[str, int]) -> None:
        self._symbols = None
        self._shapes = [dim.bind(value.type.shape, symbols) for _, _, value, _ in self._outputs]
        for number, name in enumerate(sorted(self.plan.sizes)):
            self._sizes[number] = symbols[name]
        self._symbols = dict(symbols)

    def _find(self, kept: Mapping[str, np.ndarray]) -> None:
        """Note where the kept arrays lie, and whether those are other ones that are read packed."""
        self._version = None
        for number, name in self._kept:
            self._places[number] = address(kept[name])
        self._sources = [kept[name] for name in self._packed_names]
        packed = self._packed_from
        if packed is not None and any(new is not old for new, old in zip(self._sources, packed)):
            self._packed_from = None


def address(array: np.ndarray) -> int:
    """Where its numbers begin."""
    try:
        return ctypes.addressof(NOTHING.from_buffer(array))  # type: ignore[arg-type]  # an array is a buffer
    except (TypeError, ValueError):  # it is read-only, or not in order, or Python does not know its dtype
        found: int = array.ctypes.data  # which takes five times as long
        return found


def aligned(nbytes: int) -> np.ndarray:
    """Memory that begins at a multiple of the cache's lines."""
    memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def side_by_side(sizes: Sequence[int]) -> list[np.ndarray]:
    """Memory of these bytes each, which nobody has written to, in one piece.

    On Linux NumPy asks for large pages for what it takes in large pieces. Weights are read from one end to the other,
    and with small pages a good part of the time goes to finding where these lie.
    """
    places = [0, *accumulate(-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes)]
    memory = np.empty(places[-1] + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return [memory[start + place : start + place + nbytes] for place, nbytes in zip(places, sizes)]


def graph_literal(plan: Plan, buffer: Buffer) -> np.ndarray:
    node = plan.graph.producer[buffer.value]
    (array,) = node.op.run([], node.attrs)
    return np.ascontiguousarray(array)
