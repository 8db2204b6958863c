"""A plan as CUDA C++: a kernel for each distinct piece of work, and the launches in order.

Kernels whose texts agree are one kernel. What follows the first step that writes a state does nothing once an input was
found wrong: the state stays as it was.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from minigraph.backends.cupy.grid import Grid, grid_of
from minigraph.backends.cupy.kernel import Kernel, Printer
from minigraph.backends.kernels import Kernels
from minigraph.backends.likeness import likeness
from minigraph.backends.plan import Buffer, Plan, Step, first_write_to_state
from minigraph.core.collector import paused
from minigraph.core.ir import Value


@dataclass(frozen=True)
class Launch:
    """One kernel of a step. arguments: buffers, by their addresses; faults: behind them comes that of the fault."""

    kernel: str
    grid: Grid
    arguments: tuple[Buffer, ...]
    faults: bool
    step: int


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
        self.names: dict[str, str] = {}  # by text
        self._first: dict[Hashable, tuple[list[Kernel], tuple[Value, ...]]] = {}

    def launches(self, number: int, step: Step, guarded: bool) -> list[Launch]:
        if step.region is None:
            return [self._copy(number, step, guarded)]
        like, values = likeness(self.plan, step)
        if (like, guarded) not in self._first:
            self._first[like, guarded] = Printer(self.plan, step, self.of_ops).printed(guarded), values
        kernels, first = self._first[like, guarded]
        own = dict(zip(first, values))
        return [self._launch(number, step, kernel, [own[value] for value in kernel.reads]) for kernel in kernels]

    def _launch(self, number: int, step: Step, kernel: Kernel, reads: list[Value]) -> Launch:
        given = [*(step.reads[value] for value in reads), *step.writes.values()]
        given += [step.scratch] if step.scratch else []
        return Launch(self._name(kernel.text), kernel.grid, tuple(given), kernel.faults, number)

    def _copy(self, number: int, step: Step, guarded: bool) -> Launch:
        """What waited in the arena becomes the state."""
        (target,), (source,) = step.writes.values(), step.reads.values()
        guard = "if (*fault) return; " if guarded else ""
        loop = f"for (idx i = first_point(); i < {target.nbytes}; i += all_threads()) y[i] = x[i];"
        parameters = "const char *x, char *y" + (", int *fault" if guarded else "")
        text = f"KERNEL NAME({parameters}) {{ {guard}{loop} }}"
        return Launch(self._name(text), grid_of(target.nbytes), (source, target), guarded, number)

    def _name(self, text: str) -> str:
        return self.names.setdefault(text, f"f{len(self.names)}")


@paused()
def print_program(plan: Plan) -> Source:
    """For a plan whose sizes are all numbers."""
    kernels, launches = _Kernels(plan), list[Launch]()
    first = first_write_to_state(plan)
    for number, step in enumerate(plan.steps):
        launches += kernels.launches(number, step, first is not None and number >= first)
    own = ("prelude.cuh", "scalar.h")
    texts = [text.replace("NAME", name, 1) for text, name in kernels.names.items()]
    includes = [f'#include "{name}"' for name in own]
    parts = [*includes, "", *kernels.of_ops.includes(), "", *texts, ""]
    headers = frozenset(header for header, _, _ in kernels.of_ops.included)
    return Source("\n".join(parts), own, headers, tuple(launches))
