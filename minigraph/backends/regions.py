"""Regions: which nodes of a lowered graph are computed together, in one loop nest or in one call of a kernel.

A value is one of these:

- *given*: an input, a state, or a literal array: it lies in memory;
- *virtual*: a view, or cheap to compute from one value of its size: computed anew wherever it is read;
- a *member* of one region, in one of three parts: in the `body`, once for each point of the region's domain; a *total*
  of the body over the domain's reduced axes; or in the `tail`, computed from totals.

A member is *stored* if another region reads it, or a kernel by its address, or the graph gives it out.

Nodes are taken in order. Each joins the latest region that it may: one that computes what it reads, at the very point
at which it reads it, or that reads a value that it reads as well; and that does not wait for what waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from minigraph.backends.access import Index, broadcast, place, reshaped, through_view
from minigraph.backends.calls import Call
from minigraph.backends.frames import OWN, Memory
from minigraph.core.dim import Shape, Size
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Along
from minigraph.core.scalar import Scalar, var

CHEAP = 6  # operations that are done again rather than kept in memory
COSTLY = 100  # of a function that is a series: never done again
SIMPLE = {"add", "sub", "mul", "neg", "abs", "sign", "max", "min", "less", "less_equal", "equal", "and", "or", "xor"}
SIMPLE |= {"not", "where", "cast", "tf32"}


@dataclass(frozen=True)
class Leaf:
    """A value that is read: at an index, or by its address (None)."""

    value: Value
    index: Index | None


@dataclass(eq=False)
class Region:
    """Nodes that are computed together.

    domain: the axes that the loops run over, without those of size 1. reduced: which of these the totals add up.
    call: the one node whose kernel computes whole lines or the whole value; the body then is what it is followed by.
    """

    domain: tuple[Size, ...]
    call: Node | None = None
    reduced: frozenset[int] | None = None
    body: list[Value] = field(default_factory=list)
    totals: list[Value] = field(default_factory=list)
    tail: list[Value] = field(default_factory=list)
    padded: list[Value] = field(default_factory=list)  # of which members lie in the middle: their borders
    reads: list[Leaf] = field(default_factory=list)  # of what is not its own
    before: int = 0  # bits: the regions that must be done before it

    @property
    def members(self) -> list[Value]:
        return [*(self.call.outputs if self.call else ()), *self.body, *self.totals, *self.tail, *self.padded]

    @property
    def axes(self) -> list[tuple[int, Size]]:
        return list(enumerate(self.domain))

    @property
    def kept(self) -> list[tuple[int, Size]]:
        """The axes of the totals."""
        return [(axis, size) for axis, size in enumerate(self.domain) if axis not in (self.reduced or ())]


def _in_rows(region: Region, leaves: list[Leaf]) -> bool:
    """Whether all is read in the order of the result, or by its last axis alone: so it is when a kernel finishes."""
    assert region.call is not None
    last = len(region.domain) - 1
    if last < 0 or region.call.outputs[0].type.shape[-1] == 1:
        return False
    for leaf in leaves:
        if leaf.index is None:
            return False
        in_order = leaf.index == place(leaf.value.type.shape, region.axes)
        if not in_order and any(along.axis not in (None, last) or along.step != 1 for along in leaf.index):
            return False
    return True


def _own(value: Value) -> Index:
    """The index of a value in a domain of its own."""
    index = place(value.type.shape, list(enumerate(extent(value.type.shape))))
    assert index is not None
    return index


def first_of(index: Index, reduced: frozenset[int]) -> Index:
    """The index of the first of the numbers that one total is of."""
    return tuple(Along(None, along.start) if along.axis in reduced else along for along in index)


def extent(shape: Shape) -> tuple[Size, ...]:
    """A shape without its axes of size 1."""
    return tuple(size for size in shape if size != 1)


class Partition:
    """The regions of a lowered graph, in an order in which they may be computed.

    claims: the nodes that tuned kernels compute. memory: which values lie in the middle of others.
    """

    def __init__(self, graph: Graph, claims: Mapping[Node, Call], memory: Memory = OWN):
        self.graph, self.claims, self.memory = graph, claims, memory
        self.regions: list[Region] = []
        self.region_of: dict[Value, Region] = {}
        self.virtual: set[Value] = set()
        self._cost: dict[Value, int] = {}
        self._numbers: dict[Region, int] = {}
        self._awaited = 0  # bits: the regions that others wait for
        self._readers: dict[Value, list[Region]] = {}
        self.needed = self._needed()
        for node in graph.nodes:
            self._take(node)
        self.stored = {v for v in self.needed if v in self.region_of}
        for region in self.regions:
            self.stored.update(leaf.value for leaf in region.reads if leaf.value in self.region_of)
            if region.call is not None and region.call not in self.claims:
                self.stored.update(region.call.outputs)  # it writes them whether or not somebody reads them

    # what is where

    def base(self, value: Value) -> Value:
        """The value in whose memory this one lies: what is only reshaped stays where it is."""
        while value in self.graph.producer and self.graph.producer[value].op.in_order:
            value = self.graph.producer[value].inputs[0]
        return value

    def is_call(self, node: Node) -> bool:
        """Whether it has a function of its own: tuned, of whole lines, or one that puts its inputs side by side."""
        kernel = node.op.kernel
        return node in self.claims or node.op.parts is not None or (kernel is not None and kernel.lines is not None)

    def whole(self, node: Node) -> list[Value]:
        """What a call or a kernel reads by its address."""
        if node in self.claims:
            return [operand.value for operand in self.claims[node].operands]
        return [self.base(value) for value in node.inputs]

    def _needed(self) -> set[Value]:
        """What must be in memory whoever computes it, as far as nodes make it."""
        found = {self.base(v) for v in (*self.graph.outputs.values(), *self.graph.updates.values())}
        found.update(self.memory.frames)
        for node in self.graph.nodes:
            if node.op.kernel is not None or self.is_call(node):
                found.update(self.whole(node))
            elif node.op.in_order and extent(node.inputs[0].type.shape) != extent(node.outputs[0].type.shape):
                found.add(self.base(node.inputs[0]))
        return {v for v in found if v in self.graph.producer}

    def leaves(self, value: Value, index: Index | None) -> Iterator[Leaf]:
        """What must be there to compute the value at an index: members of regions, and what is given."""
        if index is None or value in self.region_of or value not in self.virtual:
            yield Leaf(self.base(value), index)
            return
        node = self.graph.producer[value]
        for operand, inner in self.operands(node, index):
            yield from self.leaves(operand, inner)

    def operands(self, node: Node, index: Index) -> Iterator[tuple[Value, Index | None]]:
        """What a node reads to compute its result at an index, and where; None: by its address."""
        op, result = node.op, node.outputs[0]
        for operand in node.inputs:
            if op.kernel is not None:
                yield operand, None
            elif op.view is not None:
                yield operand, through_view(node, index)
            elif op.in_order:
                yield operand, reshaped(operand, result, index)
            else:
                yield operand, broadcast(operand, result, index)

    # taking nodes

    def _take(self, node: Node) -> None:
        op, value = node.op, node.outputs[0]
        if node in self.memory.framing:
            self._add_border(node)
        elif self.is_call(node):
            self._add_call(node)
        elif op.reduction:
            self._add_total(node)
        elif not node.inputs and op.kernel is None:
            return  # a literal array: it is given
        elif op.in_order or op.view is not None or (op.kernel is not None and op.kernel.light) or self._is_cheap(node):
            self.virtual.add(value)
            if value in self.needed and not op.in_order:
                self._add_to_body(node)
        else:
            self._add_to_body(node)

    def _is_cheap(self, node: Node) -> bool:
        """Whether reading the result would not save much over computing it from what it is computed from."""
        value = node.outputs[0]
        if node.op.expression is None or value in self.needed:
            return False
        cost = _operations(node) + sum(self._cost.get(v, 0) for v in node.inputs if v in self.virtual)
        self._cost[value] = cost
        if cost > CHEAP:
            return False
        size = value.type.size
        return size == 1 or sum(source.type.size == size for source in self._sources(node)) <= 1

    def _add_call(self, node: Node) -> None:
        region = self._new(Region(extent(node.outputs[0].type.shape), node))
        self._enter(region, list(node.outputs), [Leaf(value, None) for value in self.whole(node)])

    def _add_border(self, node: Node) -> None:
        """To the region of what lies in the middle: no number of the one is one of the other."""
        region = self.region_of[node.inputs[0]]
        region.padded.append(node.outputs[0])
        self._enter(region, [node.outputs[0]], [])

    def _add_to_body(self, node: Node) -> None:
        """To the body, or to the tail, of the latest region that may take it; else to a region of its own."""
        value = node.outputs[0]
        heavy = node.op.kernel is not None and not node.op.kernel.light
        for region in [] if heavy else self._candidates(value):
            for part, axes in ((region.body, region.axes), (region.tail, region.kept)):
                if part is region.tail and not region.totals:
                    continue
                index = place(value.type.shape, axes)
                found = None if index is None else self._reads_of(node, index)
                if found is not None and self._may_follow(region, value) and self._may_join(region, part, axes, found):
                    part.append(value)
                    return self._enter(region, [value], found)
        region = self._new(Region(extent(value.type.shape)))
        region.body.append(value)
        return self._enter(region, [value], self._reads_of(node, _own(value)))

    def _add_total(self, node: Node) -> None:
        operand, sizes = node.inputs[0], node.inputs[0].type.shape
        real = [axis for axis, size in enumerate(sizes) if size != 1]
        reduced = frozenset(i for i, axis in enumerate(real) if axis in node.attrs["axes"])
        region, found = None, []
        for candidate in self._candidates(operand):
            index = place(sizes, candidate.axes)
            if index is not None and candidate.call is None and candidate.reduced in (None, reduced):
                found = list(self._added(node, index, reduced))
                here = any(self.region_of.get(leaf.value) is candidate for leaf in found)
                if here and node.op.reduction == "moments":
                    continue  # the first number is read from memory, which must be written by then
                if self._may_join(candidate, candidate.body, candidate.axes, found):
                    region = candidate
                    break
        if region is None:
            region = self._new(Region(extent(sizes)))
            found = list(self._added(node, _own(operand), reduced))
        region.reduced = reduced
        region.totals.extend(node.outputs)
        self._enter(region, list(node.outputs), found)

    def _added(self, node: Node, index: Index, reduced: frozenset[int]) -> Iterator[Leaf]:
        """What a total reads at a point: what it adds up, and with moments what that is at the first point."""
        yield from self.leaves(node.inputs[0], index)
        if node.op.reduction == "moments":
            yield from self.leaves(node.inputs[0], first_of(index, reduced))

    def _reads_of(self, node: Node, index: Index) -> list[Leaf]:
        return [leaf for operand, inner in self.operands(node, index) for leaf in self.leaves(operand, inner)]

    def _sources(self, node: Node) -> set[Value]:
        """What is read from memory, or from members of regions, to compute a node."""
        found: set[Value] = set()
        for value in node.inputs:
            if value in self.virtual and value not in self.region_of:
                found |= self._sources(self.graph.producer[value])
            else:
                found.add(self.base(value))
        return found

    def _candidates(self, value: Value) -> list[Region]:
        """Regions that compute or read what the value is computed from, the latest first."""
        found: set[Region] = set()
        node = self.graph.producer.get(value)
        size = value.type.size
        for source in (value,) if node is None or value in self.region_of else self._sources(node):
            if source in self.region_of:
                found.add(self.region_of[source])
            if source.type.size == size:
                found.update(self._readers.get(source, ()))
        return sorted(found, key=lambda region: -self._numbers[region])

    def _may_follow(self, region: Region, value: Value) -> bool:
        """Whether the call of a region, if it is one, knows the value among those that it may compute."""
        call = self.claims.get(region.call) if region.call is not None else None
        return call is None or call.follows is None or value in call.follows

    def _may_join(self, region: Region, part: list[Value], axes: list[tuple[int, Size]], leaves: list[Leaf]) -> bool:
        """Whether all that is read is there when this part of the region is computed."""
        here = set(region.tail) | set(region.totals) if part is region.tail else set(region.body)
        if region.call is not None:
            call = self.claims.get(region.call)
            if call is None or not call.finishes or not _in_rows(region, leaves):
                return False
            here.update(region.call.outputs)
        waits = 0
        for leaf in leaves:
            maker = self.region_of.get(leaf.value)
            if maker is region:
                if leaf.value not in here or leaf.index is None or leaf.index != place(leaf.value.type.shape, axes):
                    return False
            elif maker is not None:
                waits |= maker.before | self._bit(maker)
        return not waits & self._bit(region)

    def _new(self, region: Region) -> Region:
        self._numbers[region] = len(self.regions)
        self.regions.append(region)
        return region

    def _enter(self, region: Region, values: list[Value], leaves: list[Leaf]) -> None:
        """Note what the region now computes, what it reads, and what it and all that wait for it must wait for."""
        for value in values:
            self.region_of[value] = region
        waits = 0
        for leaf in leaves:
            maker = self.region_of.get(leaf.value)
            if maker is region:
                continue
            region.reads.append(leaf)
            if region not in self._readers.setdefault(leaf.value, []):
                self._readers[leaf.value].append(region)
            if maker is not None:
                waits |= maker.before | self._bit(maker)
        self._wait(region, waits)

    def after(self, region: Region, others: Iterable[Region]) -> bool:
        """Let the region wait for others, if none of them waits for it; else False, and nothing has changed."""
        waits = 0
        for other in others:
            waits |= other.before | self._bit(other)
        if waits & self._bit(region):
            return False
        self._wait(region, waits)
        return True

    def _wait(self, region: Region, waits: int) -> None:
        if not waits & ~region.before:
            return
        region.before |= waits
        self._awaited |= waits
        bit = self._bit(region)
        for other in self.regions if self._awaited & bit else ():
            if other.before & bit:
                other.before |= waits

    def _bit(self, region: Region) -> int:
        return 1 << self._numbers[region]

    def ordered(self) -> list[Region]:
        """The regions, those first that wait for fewer: what a region waits for waits for fewer than it."""
        return sorted(self.regions, key=lambda region: (region.before.bit_count(), self._numbers[region]))


def _operations(node: Node) -> int:
    """How much one evaluation costs; functions that are more than an instruction or two cost much."""
    assert node.op.expression is not None
    expression = node.op.expression(*(var(str(i)) for i in range(len(node.inputs))), **node.attrs)
    return _cost(expression)


def _cost(expression: object) -> int:
    if not isinstance(expression, Scalar) or expression.op in ("var", "const"):
        return 0
    return (1 if expression.op in SIMPLE else COSTLY) + sum(map(_cost, expression.args))
