"""Totals as C text: reductions whose sums do not depend on the machine, nor on the number of threads.

Numbers are added up in LANES parts beside each other, floats for a few ROUNDS before they go to doubles. Where the last
axis is reduced the parts are of one total, and are added two and two in the end; where it is kept they are of
neighbouring totals. Few totals of many numbers are made in chunks, which the threads share, and then of the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigraph.backends.expressions import COMPUTED
from minigraph.backends.loops import Loop, Nest, Statement, block, for_, shared_loop, size_text
from minigraph.backends.plan import CHUNKS
from minigraph.backends.total import Total
from minigraph.core.dim import Size, product

LANES = 64
ROUNDS = 64  # additions to a part in float before it goes to a double


@dataclass(frozen=True)
class Sums:
    """Prints the loops of totals.

    kept, reduced: loops over the axes of the totals, and over the others. statements: what stands in all of them.
    tail: what is computed from totals. number: a size as the plan expects it. chunked: whether the threads share chunks
    of the first reduced loop, instead of one of the kept loops.
    """

    kept: Sequence[Loop]
    reduced: Sequence[Loop]
    statements: Sequence[Statement]
    tail: Sequence[Statement]
    totals: Sequence[Total]
    number: Callable[[Size], int]
    chunked: bool

    def lines(self) -> list[str]:
        columns = self.kept and self.reduced and self.kept[-1].axes[-1] > self.reduced[-1].axes[-1]
        lines = self._columns() if columns else self._rows()
        return self._in_chunks(lines) if self.chunked else lines

    # the last axis is reduced

    def _rows(self) -> list[str]:
        """For each kept point, its numbers are added up in LANES parts."""
        nest, within = Nest([*self.kept, *self.reduced]), len(self.kept)
        inner = nest.at(self.statements, len(nest.loops)) + [_step(t, "[lane]") for t in self.totals]
        lanes = _lanes(self.reduced[-1]) if self.reduced else 1
        if self.reduced:
            lines = self._lanes_of_a_row(self.reduced[-1], lanes, inner)
            for level in range(len(nest.loops) - 1, within, -1):
                loop = nest.loops[level - 1]
                lines = self._over(loop, [*nest.at(self.statements, level), *lines])
            lines = [*nest.at(self.statements, within), *self._begin(lanes), *lines]
        else:
            lines = self._begin(1) + [line.replace("[lane]", "[0]") for line in inner]
        lines += [_flushed(t, lanes) for t in self.totals] + [_added_up(t, lanes) for t in self.totals]
        lines += self._finished("[0]")
        split = -1 if self.chunked or not self.kept else shared_loop([self.number(loop.size) for loop in self.kept])
        for level in range(within, 0, -1):
            loop = self.kept[level - 1]
            lines = self._kept_loop(loop.variable, loop.limit, level - 1 == split, lines)
            lines = [*nest.at(self.statements, level - 1), *lines]
        return lines

    def _lanes_of_a_row(self, last: Loop, lanes: int, inner: list[str]) -> list[str]:
        first, end = self._bounds(last)
        name, rest = last.variable, f"{end} - {last.variable}_0"
        lines = [f"const idx count = {rest} < {lanes} ? {rest} : {lanes};", "SIMD"]
        lines += block(for_("lane", "0", "count"), [f"const idx {name} = {name}_0 + lane;", *inner])
        if any(t.narrow for t in self.totals):
            flush = " ".join(_flushed(t, lanes) for t in self.totals)
            lines.append(f"if (++rounds == {ROUNDS}) {{ rounds = 0; {flush} }}")
        return block(f"for (idx {name}_0 = {first}; {name}_0 < {end}; {name}_0 += {lanes})", lines)

    # the last axis is kept

    def _columns(self) -> list[str]:
        """LANES neighbours along the last axis are added up beside each other."""
        last, outer = self.kept[-1], self.kept[:-1]
        nest, lanes, name = Nest([*outer, *self.reduced, last]), _lanes(last), last.variable
        at = f"const idx {name} = {name}_0 + lane;"
        inner = [at, *nest.at(self.statements, len(nest.loops)), *(_step(t, "[lane]") for t in self.totals)]
        lines = ["SIMD", *block(for_("lane", "0", "count"), inner)]
        for position in range(len(self.reduced) - 1, -1, -1):
            level = len(outer) + position + 1
            lines = [*nest.at(self.statements, level), *lines]
            innermost = position == len(self.reduced) - 1 and any(t.narrow for t in self.totals)
            lines = (self._in_rounds if innermost else self._over)(self.reduced[position], lines)
        lines += [_flushed(t, lanes) for t in self.totals]
        lines += block(for_("lane", "0", "count"), [at, *self._finished("[lane]")])
        rest = f"{last.limit} - {name}_0"
        count = f"const idx count = {rest} < {lanes} ? {rest} : {lanes};"
        lines = [f"const idx {name}_0 = part * {lanes};", count, *self._begin(lanes), *lines]
        parts = f"(({last.limit}) + {lanes - 1}) / {lanes}"
        sizes = [*(self.number(loop.size) for loop in outer), -(-self.number(last.size) // lanes)]
        split = -1 if self.chunked else shared_loop(sizes)
        lines = self._kept_loop("part", parts, split == len(outer), lines)
        for level in range(len(outer), 0, -1):
            loop, inside = outer[level - 1], [*nest.at(self.statements, level), *lines]
            lines = self._kept_loop(loop.variable, loop.limit, level - 1 == split, inside)
        return [*nest.at(self.statements, 0), *lines]

    def _in_rounds(self, loop: Loop, lines: list[str]) -> list[str]:
        """A loop in pieces of ROUNDS, after each of which the parts are added to wider numbers."""
        lanes, name, (first, end) = _lanes(self.kept[-1]), loop.variable, self._bounds(loop)
        piece = f"for (idx {name} = {name}_0; {name} < {name}_0 + {ROUNDS} && {name} < {end}; {name}++)"
        flush = [_flushed(t, lanes) for t in self.totals]
        return block(
            f"for (idx {name}_0 = {first}; {name}_0 < {end}; {name}_0 += {ROUNDS})", [*block(piece, lines), *flush]
        )

    # both

    def _bounds(self, loop: Loop) -> tuple[str, str]:
        return ("chunk_begin", "chunk_end") if self.chunked and loop is self.reduced[0] else ("0", loop.limit)

    def _over(self, loop: Loop, lines: list[str]) -> list[str]:
        return block(for_(loop.variable, *self._bounds(loop)), lines)

    def _kept_loop(self, variable: str, limit: str, shared: bool, lines: list[str]) -> list[str]:
        return block(for_(variable, *_share(limit)) if shared else for_(variable, "0", limit), lines)

    def _begin(self, lanes: int) -> list[str]:
        begin = [line for t in self.totals for line in _begun(t, lanes)]
        return [*begin, "int rounds = 0;", "(void)rounds;"] if any(t.narrow for t in self.totals) else begin

    def _finished(self, part: str) -> list[str]:
        """What is done with the sums of one point."""
        if self.chunked:
            return [f"{t.chunk(CHUNKS, self._size, 'chunk', self._point)} = sum{t.number}{part};" for t in self.totals]
        return [t.declared(f"sum{t.number}{part}") for t in self.totals] + [Nest(self.kept).line(s) for s in self.tail]

    # chunks

    @property
    def _size(self) -> str:
        """How many totals of each kind there are."""
        return size_text(product(loop.size for loop in self.kept))

    @property
    def _point(self) -> str:
        """The number of a kept point."""
        text = "0"
        for loop in self.kept:
            text = loop.variable if text == "0" else f"({text}) * {loop.limit} + {loop.variable}"
        return text

    def _in_chunks(self, lines: list[str]) -> list[str]:
        """The loops over each chunk; then, when all are done, the sums over chunks."""
        limit = self.reduced[0].limit
        bounds = f"const idx chunk_begin = share({limit}, (int)chunk, {CHUNKS}), "
        bounds += f"chunk_end = share({limit}, (int)chunk + 1, {CHUNKS});"
        chunks = block(for_("chunk", *_share(str(CHUNKS))), [bounds, *lines])
        ends: list[str] = []
        for t in self.totals:
            ends.append(f"{t.wide} sum{t.number} = {t.start()};")
            add = t.combined(f"sum{t.number}", t.chunk(CHUNKS, self._size, "chunk", self._point), t.wide)
            ends.append(f"for (idx chunk = 0; chunk < {CHUNKS}; chunk++) sum{t.number} = ({t.wide})({add});")
            ends.append(t.declared(f"sum{t.number}"))
        ends += [Nest(self.kept).line(s) for s in self.tail]
        split = shared_loop([self.number(loop.size) for loop in self.kept]) if self.kept else -1
        for number in range(len(self.kept) - 1, -1, -1):
            loop = self.kept[number]
            ends = self._kept_loop(loop.variable, loop.limit, number == split, ends)
        if not self.kept:
            ends = block("if (thread == 0)", ends)
        return [*chunks, "barrier();", *ends]


# lanes of one total


def _begun(total: Total, lanes: int) -> list[str]:
    kind, start = COMPUTED[total.dtype], total.start()
    lines = [f"{kind} part{total.number}[{lanes}]; FILL(part{total.number}, {lanes}, {start});"]
    return [*lines, f"{total.wide} sum{total.number}[{lanes}]; FILL(sum{total.number}, {lanes}, {start});"]


def _step(total: Total, lane: str) -> str:
    kind, part = COMPUTED[total.dtype], f"part{total.number}{lane}"
    return f"{part} = ({kind})({total.combined(part, total.operand, kind)});"


def _flushed(total: Total, lanes: int) -> str:
    both = total.combined(f"sum{total.number}[k]", f"part{total.number}[k]", total.wide)
    one = f"sum{total.number}[k] = ({total.wide})({both});"
    return f"for (int k = 0; k < {lanes}; k++) {{ {one} part{total.number}[k] = {total.start()}; }}"


def _added_up(total: Total, lanes: int) -> str:
    """Adds the parts up, two and two, so that their order is the same on every machine."""
    kind, parts = total.wide, f"sum{total.number}"
    add = f"{parts}[k] = ({kind})({total.combined(f'{parts}[k]', f'{parts}[k + h]', kind)});"
    return f"for (int n = {lanes}, h; n > 1; n = h) {{ h = (n + 1) / 2; for (int k = 0; k + h < n; k++) {add} }}"


def _lanes(loop: Loop) -> int:
    return loop.size if isinstance(loop.size, int) and 0 < loop.size < LANES else LANES


def _share(limit: str) -> tuple[str, str]:
    """The bounds of a thread's share of a loop."""
    return f"share({limit}, thread, threads)", f"share({limit}, thread + 1, threads)"
