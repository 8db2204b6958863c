"""The kernels of one region, as CUDA C++: loops over points become grids of threads.

A thread computes whole points of the domain, one after the other: all that stands in a nest of loops on a CPU, with its
place along each axis read off its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigraph.backends.calls import Pointers
from minigraph.backends.cupy import totals
from minigraph.backends.cupy.claims.launched import Launched
from minigraph.backends.cupy.grid import NARROW, Grid, count, each, grid_of, placed
from minigraph.backends.expressions import STORED, rounded
from minigraph.backends.loops import Loop, Nest, Statement, block, merged, offset_text
from minigraph.backends.plan import may_fail
from minigraph.backends.statements import Statements, accesses
from minigraph.core.dim import known, product
from minigraph.core.dtypes import wide_dtype
from minigraph.core.ir import Value


@dataclass(frozen=True)
class Kernel:
    """A printed kernel without its name, and what it is called with beside what its step writes and works in.

    kinds: of the pointers that it takes. reads: values, by their addresses. faults: whether it may find an input wrong,
    or does nothing where one was. light: whether it goes over points of a loop, each of which takes little. tuned: the
    headers of the tuned call that it is a phase of. ops: the headers of ops that it calls, by the lines that include
    them.
    """

    parameters: tuple[str, ...]
    body: str
    grid: Grid
    kinds: tuple[str, ...]
    reads: tuple[Value, ...]
    faults: bool
    light: bool
    tuned: tuple[str, ...] = ()
    ops: Mapping[str, Path] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """NAME stands for its name."""
        return f"KERNEL NAME({', '.join(self.parameters)}){self.body}"

    @property
    def function(self) -> str:
        """The same as a function that is told which points a thread takes, and how far they lie apart."""
        body = self.body.replace("first_point()", "first").replace("all_threads()", "all")
        return f"INLINE void NAME({', '.join(['idx first', 'idx all', *self.parameters])}){body}"


class Printer(Statements):
    """Prints the kernels of one region of a plan whose sizes are all numbers."""

    def printed(self, guarded: bool) -> list[Kernel]:
        """In the order in which they are launched. guarded: whether they do nothing once an input was found wrong."""
        region = self.region
        call = self.plan.partition.claims.get(region.call) if region.call is not None else None
        if call is not None:
            assert isinstance(call, Launched)
            found = self._tuned(call)
        elif region.call is not None and region.call.op.parts is not None:
            found = self._parts()
        elif region.call is not None:
            found = [self._lines()]
        elif region.totals:
            found = self._totals()
        else:
            found = [self._pointwise()]
        tuned = call.headers if call is not None else ()
        return [self._kernel(lines, grid, tuned, guarded) for grid, lines in found if grid.blocks]

    def _kernel(self, lines: list[str], grid: Grid, tuned: tuple[str, ...], guarded: bool) -> Kernel:
        reads = tuple(self.pointers)
        given = {self.pointers[v]: f"const {STORED[v.type.dtype]}" for v in reads}
        given.update((name, STORED[v.type.dtype]) for v, name in self.names().items())
        given.update({"scratch": "float"} if self.step.scratch else {})
        faults = guarded or may_fail(self.region, self.plan.partition)
        parameters = (*(f"{kind} *{name}" for name, kind in given.items()), *(["int *fault"] if faults else []))
        guard = ["if (*fault) return;"] if guarded else []
        guard.append(f"typedef {'int' if self._is_narrow() else 'idx'} place;")
        body = "\n".join(block("", [*guard, *lines]))
        ops = dict(self.kernels.included)
        return Kernel(parameters, body, grid, tuple(given.values()), reads, faults, self._is_light(), tuned, ops)

    def _is_narrow(self) -> bool:
        """Whether 32 bits count all points, and all places in what is read and written."""
        sizes = [product(self.region.domain), *(v.type.size for v in (*self.pointers, *self.step.writes))]
        return all(known(size, "a size") < NARROW for size in sizes)

    def _is_light(self) -> bool:
        """Whether it is number by number, without loops of an op's own."""
        own = [node.op.kernel for node in self.step.nodes if node.op.kernel is not None]
        parts = self.region.call is not None and self.region.call.op.parts is not None
        return (self.region.call is None or parts) and not self.region.totals and all(k.light for k in own)

    # number by number

    def _pointwise(self) -> tuple[Grid, list[str]]:
        statements, _ = self.each_point()
        return self._points(merged(self.region.axes, accesses(statements), "i"), statements)

    def _points(self, loops: Sequence[Loop], statements: Sequence[Statement]) -> tuple[Grid, list[str]]:
        nest, points = Nest(loops), count(loops)
        inner = [line for level in range(len(loops) + 1) for line in nest.at(statements, level)]
        return grid_of(points), each("point", str(points), [*placed("point", loops), *inner])

    # calls

    def _tuned(self, call: Launched) -> list[tuple[Grid, list[str]]]:
        memory, operands = self.plan.partition.memory, []
        for operand in call.operands:
            pointer = self.pointers.setdefault(operand.value, f"x{len(self.pointers)}")
            operands.append(pointer + offset_text(memory.access_as(operand.value, operand.shape, operand.index)))
        phases = call.phases(Pointers(operands, "", "finish", self.kernels.shared, lambda number: None))
        found = [(grid, [phase]) for grid, phase in zip(call.grids, phases, strict=True)]
        grid, last = found[-1]
        return [*found[:-1], (grid, [*self._finish(call.columns), *last])]

    def _finish(self, columns: int) -> list[str]:
        """What follows number by number, as a function: of the number, and its place in rows of so many columns."""
        statements = self.following()
        loops = merged(self.region.axes, accesses(statements), "i")
        if len(loops) > 1 and loops[-1].size == columns:
            variables = [*placed("row", loops[:-1]), f"const place {loops[-1].variable} = column;"]
        else:
            variables = placed(f"(row * {columns} + column)", loops)
        nest = Nest(loops)
        head = "const auto finish = [=](place row, place column, float number)"
        assert self.region.call is not None
        dtype = self.region.call.outputs[0].type.dtype
        narrow = [f"number = {rounded('number', dtype)};"] if wide_dtype(dtype) != dtype else []
        lines = block(head, [*narrow, *variables, *(nest.line(statement) for statement in statements)])
        return [*lines[:-1], "};"]

    def _parts(self) -> list[tuple[Grid, list[str]]]:
        """Each input of the node goes to its place in the result."""
        return [self._points(loops, [copy]) for loops, copy in self.parts()]

    def _lines(self) -> tuple[Grid, list[str]]:
        """A thread for each line."""
        node, partition, names = self.region.call, self.plan.partition, self.names()
        assert node is not None
        assert node.op.kernel is not None
        assert node.op.kernel.lines is not None
        for value in node.inputs:
            self.pointers.setdefault(partition.base(value), f"x{len(self.pointers)}")
        pointers = [self.pointers[partition.base(v)] for v in node.inputs] + [names[v] for v in node.outputs]
        lines = node.op.kernel.lines([v.type for v in node.inputs], [v.type for v in node.outputs], **node.attrs)
        lines = known(lines, "the number of lines")
        return grid_of(lines), each("line", str(lines), [self.kernels.call(node, ["line", *pointers]) + ";"])

    # totals

    def _totals(self) -> list[tuple[Grid, list[str]]]:
        sums = self.sums()
        places = accesses([*sums.statements, *sums.tail])
        kept = merged(self.region.kept, places, "i")
        reduced = merged([a for a in self.region.axes if a[0] in (self.region.reduced or ())], places, "r")
        return totals.printed(totals.shares(self.region), kept, reduced, sums)
