"""A plan as CUDA C++: a kernel for each distinct piece of work, and the launches in order.

Kernels whose texts agree are one kernel; small ones of one phase share a launch. What follows the first step that
writes a state does nothing once an input was found wrong: the state stays as it was.

Names are made of what they name, and kernels are divided into modules by what they are. So programs that have some work
in common, as the steps of two optimizers, have modules in common, and each is compiled once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minigraph.backends.cupy.claims.called import Called
from minigraph.backends.cupy.grid import Grid, grid_of
from minigraph.backends.cupy.groups import Piece, shared, together
from minigraph.backends.cupy.kernel import Kernel, Printer
from minigraph.backends.cupy.libraries.patterns import Routine
from minigraph.backends.kernels import Kernels
from minigraph.backends.likeness import likeness
from minigraph.backends.plan import Buffer, Plan, Step, first_write_to_state
from minigraph.core.collector import paused
from minigraph.core.ir import Value

OWN = ("prelude.cuh", "scalar.h")  # what all kernels include
RUN, LONGEST = 8, 16  # kernels of a module in the mean, and at most: each takes a compiler hundredths of a second


@dataclass(frozen=True)
class Launch:
    """One kernel, or one call of a library. arguments: buffers, by their addresses; faults: behind them comes that of
    the fault. steps: those of the plan whose work it does.

    routine: of a library, which has no grid and knows no fault. offsets: bytes from the beginning of each buffer on.
    """

    kernel: str
    grid: Grid | None
    arguments: tuple[Buffer, ...]
    faults: bool
    steps: tuple[int, ...]
    routine: Routine | None = None
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Module:
    """Kernels that are compiled together.

    own: the backend's headers that it includes. ops: those of ops, by the lines that include them. functions: what the
    kernels call, by name. kernels: by name; their texts are empty where they stand in a header.
    """

    own: tuple[str, ...]
    ops: Mapping[str, Path]
    functions: Mapping[str, str]
    kernels: Mapping[str, str]

    @property
    def text(self) -> str:
        includes = [f'#include "{name}"' for name in self.own]
        parts = [*includes, "", *self.ops, "", *self.functions.values(), "", *self.kernels.values(), ""]
        return "\n".join(parts)


def joined(modules: Iterable[Module]) -> Module:
    """All of them in one."""
    own, ops, functions, kernels = dict[str, None](), dict[str, Path](), dict[str, str](), dict[str, str]()
    for module in modules:
        own.update(dict.fromkeys(module.own))
        ops.update(module.ops)
        functions.update(module.functions)
        kernels.update(module.kernels)
    return Module(tuple(own), ops, functions, kernels)


@dataclass(frozen=True)
class Source:
    """CUDA C++ of a whole plan. No kernel is in two modules."""

    modules: tuple[Module, ...]
    launches: tuple[Launch, ...]

    @cached_property
    def text(self) -> str:
        """Of all modules in one."""
        return joined(self.modules).text

    @property
    def headers(self) -> frozenset[Path]:
        """Those of ops."""
        return frozenset(header for module in self.modules for header in module.ops.values())

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the kernels."""
        return tuple(name for module in self.modules for name in module.kernels)


def of_header(header: str, *kernels: str) -> Source:
    """The kernels of one of the backend's headers that stand for themselves."""
    return Source((Module(("prelude.cuh", header), {}, {}, dict.fromkeys(kernels, "")),), ())


class _Kernels:
    """The kernels of a plan: those of a step are printed for the first of the steps that are alike."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._first: dict[Hashable, tuple[list[Kernel], tuple[Value, ...]]] = {}

    def pieces(self, number: int, step: Step, phase: int, guarded: bool) -> Iterator[Piece]:
        if step.region is None:
            copy = self._copy(number, step, phase, guarded)
            if copy.kernel.grid.blocks:  # there is no grid of none, which a state of no numbers would have
                yield copy
            return
        like, values = likeness(self.plan, step)
        if (like, guarded) not in self._first:
            self._first[like, guarded] = Printer(self.plan, step, Kernels()).printed(guarded), values
        kernels, first = self._first[like, guarded]
        own = dict(zip(first, values))
        for kernel in kernels:
            given = [*(step.reads[own[value]] for value in kernel.reads), *step.writes.values()]
            yield Piece(kernel, (*given, *([step.scratch] if step.scratch else [])), number, phase)

    def _copy(self, number: int, step: Step, phase: int, guarded: bool) -> Piece:
        """What waited in the arena becomes the state."""
        (target,), (source,) = step.writes.values(), step.reads.values()
        guard = "if (*fault) return; " if guarded else ""
        loop = f"for (idx i = first_point(); i < {target.nbytes}; i += all_threads()) y[i] = x[i];"
        parameters = ("const char *x", "char *y", *(["int *fault"] if guarded else []))
        body = f" {{ {guard}{loop} }}"
        kernel = Kernel(parameters, body, grid_of(target.nbytes), ("const char", "char"), (), guarded, True)
        return Piece(kernel, (source, target), number, phase)


@paused()
def print_program(plan: Plan) -> Source:
    """For a plan whose sizes are all numbers."""
    kernels, launches, printed = _Kernels(plan), list[Launch](), dict[str, tuple[int | None, Module]]()
    for group in _groups(plan, kernels):
        if isinstance(group, Launch):
            launches.append(group)
            continue
        module, grid = _alone(group)
        (name,) = module.kernels
        printed.setdefault(name, (group[0].step if group[0].kernel.tuned else None, module))
        arguments = tuple(buffer for piece in group for buffer in piece.buffers)
        faults, steps = any(piece.kernel.faults for piece in group), tuple(dict.fromkeys(p.step for p in group))
        launches.append(Launch(name, grid, arguments, faults, steps))
    return Source(tuple(_divided(printed.values())), tuple(launches))


def _alone(group: Sequence[Piece]) -> tuple[Module, Grid]:
    """The kernel that does the work of these pieces, as a module of its own."""
    functions = dict[str, str]()
    if len(group) == 1:
        text, grid = group[0].kernel.text, group[0].kernel.grid
    else:
        names = []
        for piece in group:
            function = piece.kernel.function
            names.append(_name("f", function))
            functions[names[-1]] = function.replace("NAME", names[-1], 1)
        text, grid = shared(group, names)
    name = _name("k", text)
    own = dict.fromkeys([*OWN, *(header for piece in group for header in piece.kernel.tuned)])
    ops = {lines: header for piece in group for lines, header in piece.kernel.ops.items()}
    return Module(tuple(own), ops, functions, {name: text.replace("NAME", name, 1)}), grid


def _name(letter: str, text: str) -> str:
    """Two texts have one name only if they agree."""
    return letter + hashlib.sha256(text.encode()).hexdigest()[:16]


def _divided(printed: Iterable[tuple[int | None, Module]]) -> Iterator[Module]:
    """Modules of several kernels, from those of one, each with the step whose tuned call it is.

    The kernels of a tuned call are a module, since they take long to compile. The others are divided into runs. Each
    kernel says by itself whether a run ends with it: so what two programs have in common is divided alike.
    """
    calls, run = dict[int, list[Module]](), list[Module]()
    for call, module in printed:
        if call is not None:
            calls.setdefault(call, []).append(module)
            continue
        run.append(module)
        (name,) = module.kernels
        if int(name[1:], 16) % RUN == 0 or len(run) == LONGEST:
            yield joined(run)
            run = []
    yield from map(joined, [*calls.values(), *([run] if run else [])])


def _groups(plan: Plan, kernels: _Kernels) -> Iterator[list[Piece] | Launch]:
    """All that is launched, in order: kernels that may share a launch, or a call of a library.

    What finds inputs wrong is done before what must not begin then. Libraries begin even so; they write no state.
    """
    first, phase, waiting = first_write_to_state(plan), 0, list[Piece]()
    for number, step in enumerate(plan.steps):
        phase += step.barrier or number == first
        call = plan.partition.claims.get(step.region.call) if step.region and step.region.call else None
        if isinstance(call, Called):
            yield from together(waiting)
            waiting = []
            yield _of_library(number, step, call)
        else:
            waiting += kernels.pieces(number, step, phase, first is not None and number >= first)
    yield from together(waiting)


def _of_library(number: int, step: Step, call: Called) -> Launch:
    ((result, target),) = step.writes.items()  # what it was asked for has no other reader
    answer = call.answers[result]
    routine, read = answer.routine, tuple(step.reads[operand.value] for operand in answer.operands)
    work = (step.scratch,) if routine.workspace and step.scratch else ()
    offsets = (*answer.offsets(), 0, *(0 for _ in work))
    return Launch(routine.name, None, (*read, target, *work), False, (number,), routine, offsets)
