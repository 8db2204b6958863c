"""What a region computes, as statements of C, whatever loops they will stand in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from minigraph.backends.access import Access, access, place
from minigraph.backends.body import Body
from minigraph.backends.kernels import Kernels
from minigraph.backends.loops import Loop, Statement, index_text, merged
from minigraph.backends.plan import Plan, Step
from minigraph.backends.total import Total
from minigraph.backends.work import number_of
from minigraph.core.dim import Size
from minigraph.core.ir import Value
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

    def body(self, prefix: str = "v") -> Body:
        return Body(self.plan.partition, self.region, self.pointers, self.kernels, prefix)

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
        operands = []
        for total in region.totals:
            operand = self.plan.graph.producer[total].inputs[0]
            index = place(operand.type.shape, region.axes)
            assert index is not None
            operands.append(body.value(operand, index)[0])
        statements = body.statements + self.stores(body, region.body, region.axes)
        tail, names = self._tail()
        totals = [
            Total(number, self.plan.graph.producer[value], operand, name)
            for number, (value, operand, name) in enumerate(zip(region.totals, operands, names))
        ]
        return OfTotals(statements, totals, tail)

    def _tail(self) -> tuple[list[Statement], list[str]]:
        """What is computed from totals, and the variables in which the totals are."""
        region, body = self.region, self.body("w")
        names = []
        every = frozenset(axis for axis, _ in region.kept)
        for number, value in enumerate(region.totals):
            index = place(value.type.shape, region.kept)
            assert index is not None
            names.append(f"total{number}")
            body.known[value, index] = names[-1], every
        for value in region.tail:
            body.member(value, region.kept)
        inside = [Statement(s.text, s.axes | every, s.access) for s in body.statements]
        return inside + self.stores(body, [*region.totals, *region.tail], region.kept), names


def accesses(statements: Iterable[Statement]) -> list[Access]:
    """The places in memory that they read and write."""
    return [s.access for s in statements if s.access is not None]
