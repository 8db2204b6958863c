"""A plan as CUDA C++: a kernel for each distinct piece of work, and the launches in order.

Kernels whose texts agree are one kernel; small ones of one phase share a launch. What follows the first step that
writes a state does nothing once an input was found wrong: the state stays as it was.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minigraph.backends.cupy.grid import Grid, grid_of
from minigraph.backends.cupy.groups import Piece, shared, together
from minigraph.backends.cupy.kernel import Kernel, Printer
from minigraph.backends.kernels import Kernels
from minigraph.backends.likeness import likeness
from minigraph.backends.plan import Buffer, Plan, Step, first_write_to_state
from minigraph.core.collector import paused
from minigraph.core.ir import Value


@dataclass(frozen=True)
class Launch:
    """One kernel. arguments: buffers, by their addresses; faults: behind them comes that of the fault.

    steps: those of the plan whose work it does.
    """

    kernel: str
    grid: Grid
    arguments: tuple[Buffer, ...]
    faults: bool
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """CUDA C++ of a whole plan.

    own: the backend's headers that it includes. headers: those of ops.
    """

    text: str
    own: tuple[str, ...]
    headers: frozenset[Path]
    launches: tuple[Launch, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the kernels."""
        return tuple(dict.fromkeys(launch.kernel for launch in self.launches))


class _Kernels:
    """The kernels of a plan: those of a step are printed for the first of the steps that are alike."""

    def __init__(self, plan: Plan):
        self.plan, self.of_ops = plan, Kernels()
        self._first: dict[Hashable, tuple[list[Kernel], tuple[Value, ...]]] = {}

    def pieces(self, number: int, step: Step, phase: int, guarded: bool) -> Iterator[Piece]:
        if step.region is None:
            copy = self._copy(number, step, phase, guarded)
            if copy.kernel.grid.blocks:  # there is no grid of none, which a state of no numbers would have
                yield copy
            return
        like, values = likeness(self.plan, step)
        if (like, guarded) not in self._first:
            self._first[like, guarded] = Printer(self.plan, step, self.of_ops).printed(guarded), values
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
        parameters = "const char *x, char *y" + (", int *fault" if guarded else "")
        text = f"KERNEL NAME({parameters}) {{ {guard}{loop} }}"
        kernel = Kernel(text, grid_of(target.nbytes), ("const char", "char"), (), guarded, True)
        return Piece(kernel, (source, target), number, phase)


class _Names:
    """Texts by their names: those that agree are one."""

    def __init__(self, letter: str):
        self.letter, self._names = letter, dict[str, str]()

    def of(self, text: str) -> str:
        return self._names.setdefault(text, f"{self.letter}{len(self._names)}")

    def texts(self) -> list[str]:
        return [text.replace("NAME", name, 1) for text, name in self._names.items()]


@paused()
def print_program(plan: Plan) -> Source:
    """For a plan whose sizes are all numbers."""
    kernels, functions, names, launches = _Kernels(plan), _Names("f"), _Names("k"), list[Launch]()
    for group in together(list(_pieces(plan, kernels))):
        if len(group) == 1:
            text, grid = group[0].kernel.text, group[0].kernel.grid
        else:
            text, grid = shared(group, [functions.of(piece.kernel.function) for piece in group])
        arguments = tuple(buffer for piece in group for buffer in piece.buffers)
        faults, steps = any(piece.kernel.faults for piece in group), tuple(dict.fromkeys(p.step for p in group))
        launches.append(Launch(names.of(text), grid, arguments, faults, steps))
    tuned = dict.fromkeys(name for call in plan.partition.claims.values() for name in call.headers)
    own = ("prelude.cuh", "scalar.h", *tuned)
    includes = [f'#include "{name}"' for name in own]
    parts = [*includes, "", *kernels.of_ops.includes(), "", *functions.texts(), "", *names.texts(), ""]
    headers = frozenset(header for header, _, _ in kernels.of_ops.included)
    return Source("\n".join(parts), own, headers, tuple(launches))


def _pieces(plan: Plan, kernels: _Kernels) -> Iterator[Piece]:
    """All that is launched, in order. What finds inputs wrong is done before what must not begin then."""
    first, phase = first_write_to_state(plan), 0
    for number, step in enumerate(plan.steps):
        phase += step.barrier or number == first
        yield from kernels.pieces(number, step, phase, first is not None and number >= first)
