"""The function of one region, as C: loops over numbers, totals, or the call of a kernel and what follows it.

A statement stands in the outermost loop in which all that it reads is known. Axes of a domain that lie behind one
another in every value that is read and written are one loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minigraph.backends.access import Index, place
from minigraph.backends.calls import Pointers
from minigraph.backends.expressions import STORED
from minigraph.backends.finishing import finishing
from minigraph.backends.loops import (
    Loop,
    Nest,
    Statement,
    block,
    for_,
    merged,
    offset_text,
    shared_loop,
    size_text,
)
from minigraph.backends.places import Places
from minigraph.backends.plan import Step, targets
from minigraph.backends.statements import Statements, accesses
from minigraph.backends.totals import Sums
from minigraph.core.ir import Value
from minigraph.core.op import Along


@dataclass(frozen=True)
class Function:
    """A printed function without its name, and what it is called with beside what its step writes and works in.

    reads: values, by their addresses. symbols: sizes that are known only at run time.
    """

    text: str  # FUNCTION stands for its name
    reads: tuple[Value, ...]
    barrier: bool
    symbols: tuple[str, ...]
    fault: bool

    def arguments(self, step: Step, reads: Sequence[Value], places: Places, barrier: str) -> list[str]:
        """Those of a call for a step that reads these values."""
        given = [(value, step.reads[value]) for value in reads]
        given += step.writes.items()
        given += [(b.value, b) for b in (*step.packs.values(), *([step.scratch] if step.scratch else []))]
        addresses = [f"({STORED[value.type.dtype]} *){places.of(buffer)}" for value, buffer in given]
        return [
            *addresses,
            *([barrier] if self.barrier else []),
            *(f"n_{name}" for name in self.symbols),
            *(["&c->fault"] if self.fault else []),
        ]


class Printer(Statements):
    """Prints the function of one region."""

    def function(self) -> Function:
        region = self.region
        before: list[str] = []
        if region.call in self.plan.partition.claims:
            before, lines = self._tuned()
        elif region.call is not None and region.call.op.parts is not None:
            lines = self._parts()
        elif region.call is not None:
            lines = self._lines()
        elif region.totals:
            lines = self._totals()
        else:
            lines = self._pointwise()
        lines += self._borders()
        reads = list(self.pointers)
        writes = list(self.step.writes)
        parameters = [f"const {STORED[v.type.dtype]} *{self.pointers[v]}" for v in reads]
        parameters += [f"{STORED[v.type.dtype]} *y{i}" for i, v in enumerate(writes)]
        packs = self.step.packs
        parameters += [f"{'' if b.place == 'arena' else 'const '}float *{name}" for name, b in packs.items()]
        parameters += ["float *scratch"] if self.step.scratch else []
        barrier = any("barrier()" in line for line in lines)
        parameters += ["void (*barrier)(void)"] if barrier else []
        symbols = sorted({name for name in self.plan.sizes if any(f"n_{name}" in line for line in lines)})
        parameters += [f"idx n_{name}" for name in symbols]
        fault = any("fault" in line for line in lines)
        parameters += ["int *fault"] if fault else []
        head = f"NOINLINE void FUNCTION({', '.join(['int thread', 'int threads', *parameters])})"
        unused = ["(void)thread, (void)threads;"]
        text = "\n".join([*before, *block(head, unused + lines)])
        return Function(text, tuple(reads), barrier, tuple(symbols), fault)

    # calls

    def _tuned(self) -> tuple[list[str], list[str]]:
        """The function that finishes, if anything follows, and the phases of the call."""
        node = self.region.call
        assert node is not None
        call = self.plan.partition.claims[node]
        memory, names = self.plan.partition.memory, self.names()
        result, *_ = targets(self.plan.partition, node, {**self.step.reads, **self.step.writes})
        operands = []
        for operand in call.operands:
            pointer = self.pointers.setdefault(operand.value, f"x{len(self.pointers)}")
            operands.append(pointer + offset_text(memory.access_as(operand.value, operand.shape, operand.index)))
        before, lines = self._finish(result, names) if self.region.body else ([], [])
        rows = lambda number: memory.rows(result if number < 0 else call.operands[number].value)
        finish = ", FUNCTION_finish, with" if before else ", 0, 0"
        target = names[result] + offset_text(memory.access(result, _every_axis(result)))
        phases = call.phases(Pointers(operands, target, finish, self.kernels.shared, rows))
        moving = [(name, pack) for name, pack in call.packs.items() if call.operands[pack.operand].moves]
        if moving:
            phases = ["\n".join(self.kernels.packed(p, operands[p.operand], name) for name, p in moving), *phases]
        for number, phase in enumerate(phases):
            lines += ["barrier();"] if number else []
            lines += phase.split("\n")
        return before, lines

    def _finish(self, result: Value, names: dict[Value, str]) -> tuple[list[str], list[str]]:
        """The function of what follows number by number, and the addresses that it needs."""
        axes = self.region.axes
        lying = place(result.type.shape, axes)
        assert lying is not None
        whole = self.plan.partition.memory.access(result, lying)
        first = Statement(f"const float number = {names[result]}[@];", frozenset(axis for axis, _ in axes), whole)
        statements = [first, *self.following(result)]
        loops = merged(axes, [s.access for s in statements if s.access is not None], "i")
        same, each = ([s for s in statements if bool(s.axes) == differs] for differs in (False, True))
        pointers = {name: f"const {STORED[v.type.dtype]} *" for v, name in self.pointers.items()}
        pointers.update({name: f"{STORED[v.type.dtype]} *" for v, name in names.items()})
        used = [name for name in pointers if any(re.search(rf"\b{name}\b", s.text) for s in statements)]
        taken = [f"{pointers[name]}const {name} = ((void *const *)with)[{i}];" for i, name in enumerate(used)]
        function = finishing(loops, whole, [*taken, *map(Nest(loops).line, same)], each)
        given_ = f"const void *const with[] = {{{', '.join(used)}}};"
        return function, [given_]

    def _borders(self) -> list[str]:
        """The zeros around what lies in the middle of something padded."""
        partition, names = self.plan.partition, self.names()
        nodes = [partition.graph.producer[value] for value in self.region.padded]
        calls = [partition.claims[node].border for node in nodes]
        return [border(names[node.outputs[0]]) for node, border in zip(nodes, calls) if border is not None]

    def _parts(self) -> list[str]:
        """Each input of the node goes to its place in the result."""
        lines = []
        for loops, copy in self.parts():
            if loops:
                lines += block("", self._nested(Nest(loops), [copy], 0, self._split(loops), False))
            else:
                lines.append(copy.text)
        return lines

    def _lines(self) -> list[str]:
        node = self.region.call
        assert node is not None
        assert node.op.kernel is not None
        assert node.op.kernel.lines is not None
        partition = self.plan.partition
        for value in node.inputs:
            base = partition.base(value)
            self.pointers.setdefault(base, f"x{len(self.pointers)}")
        names = self.names()
        pointers = [self.pointers[partition.base(v)] for v in node.inputs] + [names[v] for v in node.outputs]
        count = node.op.kernel.lines([v.type for v in node.inputs], [v.type for v in node.outputs], **node.attrs)
        limits = [f"const idx lines = {size_text(count)};"]
        head = "for (idx line = share(lines, thread, threads); line < share(lines, thread + 1, threads); line++)"
        return [*limits, *block(head, [self.kernels.call(node, ["line", *pointers]) + ";"])]

    # number by number

    def _pointwise(self) -> list[str]:
        statements, heavy = self.each_point()
        loops = merged(self.region.axes, accesses(statements), "i")
        nest = Nest(loops)
        if not loops:
            return nest.at(statements, 0)
        return self._nested(nest, statements, 0, self._split(loops), heavy)

    def _split(self, loops: Sequence[Loop]) -> int:
        """Which loop the threads share."""
        return shared_loop([self.number(loop.size) for loop in loops])

    def _nested(self, nest: Nest, statements: list[Statement], level: int, split: int, heavy: bool) -> list[str]:
        """The statements of this level, and the loops further in."""
        lines = nest.at(statements, level)
        if level == len(nest.loops):
            return lines
        loop, last = nest.loops[level], level + 1 == len(nest.loops)
        inner = self._nested(nest, statements, level + 1, split, heavy)
        start, end = "0", loop.limit
        if level == split:
            share = "share_lines" if last else "share"
            start, end = f"{share}({loop.limit}, thread, threads)", f"{loop.variable}_end"
            lines.append(f"const idx {end} = {share}({loop.limit}, thread + 1, threads);")
        if last and not heavy:
            lines.append("SIMD")
        return [*lines, *block(for_(loop.variable, start, end), inner)]

    # totals

    def _totals(self) -> list[str]:
        region, sums = self.region, self.sums()
        places = accesses([*sums.statements, *sums.tail])
        kept = merged(region.kept, places, "i")
        reduced = merged([a for a in region.axes if a[0] in (region.reduced or ())], places, "r")
        chunked = self.step.scratch is not None
        return Sums(kept, reduced, sums.statements, sums.tail, sums.totals, self.number, chunked).lines()


def _every_axis(value: Value) -> Index:
    return tuple(Along(axis) for axis in range(value.type.rank))
