"""What a region computes, as statements of C, whatever loops they will stand in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from minigraph.backends.access import Access, access, place
from minigraph.backends.body import Body
from minigraph.backends.expressions import COMPUTED
from minigraph.backends.kernels import Kernels
from minigraph.backends.loops import Loop, Statement, index_text, merged, size_text
from minigraph.backends.plan import Plan, Step
from minigraph.backends.regions import first_of
from minigraph.backends.total import Total
from minigraph.backends.work import number_of
from minigraph.core.dim import Size, product
from minigraph.core.ir import Node, Value
from minigraph.core.op import Along


@dataclass(frozen=True)
class OfTotals:
    """What is done at each point of the domain, what is added up there, and what is computed from the totals."""

    statements: Sequence[Statement]
    totals: Sequence[Total]
    tail: Sequence[Statement]


class Statements:
    """The statements of one region."""

    def __init__(self, plan: Plan, step: Step, kernels: Kernels):
        assert step.region is not None
        self.plan, self.step, self.region, self.kernels = plan, step, step.region, kernels
        self.pointers: dict[Value, str] = {}  # of what is read, as parameters of the function

    def number(self, size: Size) -> int:
        """A size, as choices take it."""
        return number_of(size, self.plan.expected)

    def names(self) -> dict[Value, str]:
        """The pointers to what is written."""
        return {value: f"y{i}" for i, value in enumerate(self.step.writes)}

    def body(self, prefix: str = "v", guard: str = "") -> Body:
        return Body(self.plan.partition, self.region, self.pointers, self.kernels, prefix, guard)

    def stores(self, body: Body, values: Sequence[Value], axes: Sequence[tuple[int, Size]]) -> list[Statement]:
        names = self.names()
        return [body.store(value, axes, names[value]) for value in values if value in names]

    def each_point(self) -> tuple[list[Statement], bool]:
        """Of a region without totals; and whether a statement is itself a loop."""
        body, axes = self.body(), self.region.axes
        for value in self.region.body:
            body.member(value, axes)
        return body.statements + self.stores(body, self.region.body, axes), body.heavy

    def following(self, result: Value | None = None) -> list[Statement]:
        """What is computed of each `number` that the region's call gives, and what of it is stored.

        result: the value in whose memory the number is already.
        """
        region, body, axes, names = self.region, self.body(), self.region.axes, self.names()
        assert region.call is not None
        output = region.call.outputs[0]
        index = place(output.type.shape, axes)
        assert index is not None
        body.known[output, index] = "number", frozenset(axis for axis, _ in axes)
        for value in region.body:
            body.member(value, axes)
        stores = self.stores(body, region.body, axes)
        if output in names and output is not result:
            stores.append(body.store(output, axes, names[output]))
        return [*body.statements, *stores]

    def parts(self) -> Iterator[tuple[list[Loop], Statement]]:
        """Of a call that puts its inputs side by side: for each of them the loops, and what is copied in them."""
        node = self.region.call
        assert node is not None
        assert node.op.parts is not None
        places = node.op.parts([v.type for v in node.inputs], [v.type for v in node.outputs], **node.attrs)
        for value, alongs in zip(node.inputs, places, strict=True):
            base, shape = self.plan.partition.base(value), value.type.shape
            pointer = self.pointers.setdefault(base, f"x{len(self.pointers)}")
            read = access(tuple(Along(axis) for axis in range(len(shape))), shape)
            write = access(tuple(alongs), node.outputs[0].type.shape)
            loops = merged(list(enumerate(shape)), [read, write], "i")
            copy = f"y0[{index_text(write, loops)}] = {pointer}[{index_text(read, loops)}];"
            yield loops, Statement(copy, frozenset(range(len(shape))))

    def sums(self) -> OfTotals:
        region, body = self.region, self.body()
        for value in region.body:
            body.member(value, region.axes)
        operands = {}
        nodes = dict.fromkeys(self.plan.graph.producer[total] for total in region.totals)
        for node in nodes:
            index = place(node.inputs[0].type.shape, region.axes)
            assert index is not None
            operands[node] = body.value(node.inputs[0], index)[0]
        statements = body.statements + self.stores(body, region.body, region.axes)
        tail, names = self._tail()
        totals = []
        for node in nodes:
            number, result = region.totals.index(node.outputs[0]), node.outputs[0]
            if node.op.reduction == "moments":
                added, two, made = self._moments(node, operands[node], number, [names[v] for v in node.outputs])
                statements, tail = [*statements, *added], [*made, *tail]
                totals += two
            else:
                totals.append(Total(number, node.op.reduction, result.type.dtype, operands[node], names[result]))
        return OfTotals(statements, totals, tail)

    def _moments(
        self, node: Node, operand: str, number: int, names: Sequence[str]
    ) -> tuple[list[Statement], list[Total], list[Statement]]:
        """Mean, rest and variance, of these names: see ops/moments.py.

        What is computed at each point, the two sums, and what is made of them.
        """
        sizes, region, kind = node.inputs[0].type.shape, self.region, COMPUTED[node.outputs[0].type.dtype]
        every, kept = (frozenset(axis for axis, _ in axes) for axes in (region.axes, region.kept))
        n = size_text(product(sizes[axis] for axis in node.attrs["axes"]))
        shift, near, squares = (f"{what}{number}" for what in ("shift", "near", "squares"))
        # first in the loops, where there is a number to read, and then behind them, where there may be none
        added = [Statement(s.text, every, s.access) for s in self._shift(node, shift, f"s{number}_")]
        added.append(Statement(f"const double apart{number} = (double){operand} - {shift};", every))
        totals = [
            Total(number, "sum", "float64", f"apart{number}", near),
            Total(number + 1, "sum", "float64", f"apart{number} * apart{number}", squares),
        ]
        mean, rest, var = names
        lines = [
            f"const double off{number} = {near} / (double){n};",
            f"const {kind} {mean} = ({kind})({shift}_ + off{number});",
            f"const {kind} {rest} = ({kind})({shift}_ - (double){mean} + off{number});",
            f"const {kind} {var} = ({kind})({squares} / (double){n} - off{number} * off{number});",
            f"(void){mean}, (void){rest}, (void){var};",  # nobody may want one of them
        ]
        made = [
            Statement(s.text, s.axes | kept, s.access)
            for s in self._shift(node, f"{shift}_", f"t{number}_", f"{n} > 0")
        ]
        return added, totals, [*made, *(Statement(line, kept) for line in lines)]

    def _shift(self, node: Node, name: str, prefix: str, guard: str = "") -> list[Statement]:
        """What is taken off the numbers of a total: the first of them, if that is finite."""
        body = self.body(prefix, guard)
        index = place(node.inputs[0].type.shape, self.region.axes)
        assert index is not None
        first, axes = body.value(node.inputs[0], first_of(index, self.region.reduced or frozenset()))
        return [
            *body.statements,
            Statement(f"const double {name} = {first} - {first} == 0 ? (double){first} : 0;", axes),
        ]

    def _tail(self) -> tuple[list[Statement], dict[Value, str]]:
        """What is computed from totals, and the variables in which the totals are."""
        region, body = self.region, self.body("w")
        names = {}
        every = frozenset(axis for axis, _ in region.kept)
        for number, value in enumerate(region.totals):
            index = place(value.type.shape, region.kept)
            assert index is not None
            names[value] = f"total{number}"
            body.known[value, index] = names[value], every
        for value in region.tail:
            body.member(value, region.kept)
        inside = [Statement(s.text, s.axes | every, s.access) for s in body.statements]
        return inside + self.stores(body, [*region.totals, *region.tail], region.kept), names


def accesses(statements: Iterable[Statement]) -> list[Access]:
    """The places in memory that they read and write."""
    return [s.access for s in statements if s.access is not None]
