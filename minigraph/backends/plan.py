"""The plan of a program: what is computed in which order, and where every value lies.

Values that live across the step lie in the caller's memory (inputs, state), outputs in arrays that the caller gets. All
others share one *arena*: each has an offset, and two values overlap only if all threads wait for each other between the
last step that needs the one and the first that writes the other, or if the other is written number by number over the
one that it is computed from.

Where threads wait follows from what is computed from what alone. So the steps are the same for every size of the batch,
and only the offsets differ. Choices that sizes bear on, such as which loop the threads share, are made for a batch that
is typical of its size (`typical`): they are the same from 32 to 1,023.

State is written in place, once all regions that read its old value, and all that may find an input wrong, are done: a
step that fails leaves the state as it was. Where some region needs the old value later than the new one is computed,
the new one waits in the arena and is copied at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np

from minigraph.backends.access import place
from minigraph.backends.calls import Call, Claim, Operand, Pack
from minigraph.backends.frames import framed
from minigraph.backends.masks import with_masks_of_results
from minigraph.backends.regions import Partition, Region
from minigraph.backends.work import Work, bytes_of, computed, number_of, work_of
from minigraph.core import dim
from minigraph.core.builder import Builder, Tensor
from minigraph.core.collector import paused
from minigraph.core.dim import Dim, Size, product
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Type, Value
from minigraph.core.op import OPS
from minigraph.core.rewrite import known_as
from minigraph.core.table import aligned, begun, quantity, shortened

CHUNKS = 16  # into which the numbers of few totals are divided, whatever the number of threads
CHUNKED = 1 << 15  # numbers, and more, that are worth it
ALIGNMENT = 64  # bytes: a line of a CPU's cache, and the widest vector

Chunks = Callable[[Region, Mapping[str, int]], int]


@dataclass(eq=False)
class Buffer:
    """Memory of one value.

    place: input, state, output, literal, arena, or packed: what is written once, before the first step. nbytes: for the
    largest sizes. offset: in the arena. first, last: the steps that write it first and read it last. inside: the buffer
    whose memory it takes over.
    """

    value: Value
    place: str
    nbytes: int = 0
    offset: int = 0
    first: int = 0
    last: int = 0
    inside: Buffer | None = None
    output: str = ""  # the name by which it is given out

    @property
    def name(self) -> str:
        return self.output or self.value.name

    @property
    def type(self) -> Type:
        return self.value.type

    @property
    def root(self) -> Buffer:
        """The buffer whose memory it lies in, itself if that is its own."""
        buffer = self
        while buffer.inside is not None:
            buffer = buffer.inside
        return buffer


@dataclass(frozen=True, eq=False)
class Step:
    """One region, or a copy of what waited in the arena into a state."""

    region: Region | None
    writes: Mapping[Value, Buffer]  # what is stored, and where
    reads: Mapping[Value, Buffer]
    nodes: tuple[Node, ...] = ()
    packs: Mapping[str, Buffer] = field(default_factory=dict)  # of a call: its packed operands
    scratch: Buffer | None = None
    barrier: bool = False  # whether all threads wait for each other before it

    @property
    def title(self) -> str:
        """What it computes, by the names of the nodes in the graph that was lowered: "bn1: batch_norm, sub; relu"."""
        names: dict[str, dict[str, None]] = {}
        for node in self.nodes:
            scope, _, name = known_as(node).rpartition(".")
            names.setdefault(scope, {})[name] = None
        parts = [f"{scope}: {', '.join(inside)}" if scope else ", ".join(inside) for scope, inside in names.items()]
        return "; ".join(parts) or ", ".join(buffer.name for buffer in self.writes.values())

    @property
    def touched(self) -> tuple[Buffer, ...]:
        """What it writes, and works in."""
        work = [*self.packs.values(), *([self.scratch] if self.scratch else [])]
        return (*self.writes.values(), *(buffer for buffer in work if buffer.place == "arena"))


@dataclass(frozen=True, eq=False)
class Prepared:
    """An operand that is packed before the first step, and when its array is another."""

    pack: Pack
    operand: Operand
    source: Buffer
    target: Buffer


@dataclass(frozen=True, eq=False)
class Plan:
    graph: Graph
    partition: Partition
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    prepared: tuple[Prepared, ...]
    arena: int  # bytes
    sizes: Mapping[str, int]  # the largest that it is planned for
    threads: int  # the most that run it

    @property
    def roots(self) -> tuple[Buffer, ...]:
        """The buffers of the arena that have memory of their own, in the order in which steps come upon them."""
        touched = (b for step in self.steps for b in (*step.reads.values(), *step.touched))
        return tuple(dict.fromkeys(b.root for b in touched if b.place == "arena"))

    @property
    def expected(self) -> Mapping[str, int]:
        """The sizes that choices are made for."""
        return typical(self.sizes)

    def work(self, step: Step, sizes: Mapping[str, int] | None = None) -> Work:
        """What a step computes and moves at these sizes, or at the largest."""
        sizes = self.sizes if sizes is None else sizes
        if step.region is None:
            moved = sum(bytes_of(value.type, sizes) for value in step.writes)
            return Work(0, moved, moved)
        return work_of(self.partition, step.region, step.writes, sizes)

    def kernel(self, step: Step) -> str:
        """What computes a step: a library, a tuned kernel, an op's own, a "loop" over numbers, one with "totals", or a
        "copy".
        """
        region = step.region
        if region is None:
            return "copy"
        if region.call is not None:
            call = self.partition.claims.get(region.call)
            return (call.by or call.headers[-1].partition(".")[0]) if call else region.call.op.name
        own = [node.op for node in step.nodes if node.op.kernel is not None and not node.op.kernel.light]
        return own[0].name if own else "totals" if region.totals else "loop"

    def __str__(self) -> str:
        """A table of the steps."""
        return "\n".join(_lines(self))


def with_own_ends(graph: Graph) -> Graph:
    """The graph with a value of its own for each output and update, that a node makes: a copy where need be."""
    builder = Builder.extending(graph)
    taken: set[Value] = set()

    def own(value: Value) -> Value:
        base = value
        while base in graph.producer and graph.producer[base].op.in_order:
            base = graph.producer[base].inputs[0]
        made = base in graph.producer and (graph.producer[base].inputs or graph.producer[base].op.kernel)
        if made and base not in taken:
            taken.add(base)
            return value
        return OPS["broadcast_to"](Tensor(builder, value), shape=value.type.shape).value

    ends = {name: own(value) for name, value in graph.outputs.items()}
    moved = {old: own(new) for old, new in graph.updates.items()}
    return replace(graph, nodes=tuple(builder.nodes), outputs=ends, updates=moved)


def fits(graph: Graph, sizes: Mapping[str, int]) -> bool:
    """Whether what the graph says for any sizes of its symbols is so for these.

    x[-3:] is taken for three rows, from N - 3 on. Where there are two they begin at 0, and all that follows is smaller.
    """
    return all(as_said(node, sizes) for node in graph.nodes if takes_places(node))


def takes_places(node: Node) -> bool:
    """Whether it reads some places of its input, or is given sizes: for few numbers it may be another."""
    return node.op.view is not None or any(map(dim.symbolic, node.attrs.values()))


def as_said(node: Node, sizes: Mapping[str, int]) -> bool:
    """Whether the op takes these sizes, and gives what the graph says."""
    places = {name: dim.places(attribute, sizes) for name, attribute in node.attrs.items()}
    if any(places[name] != dim.bind(attribute, sizes) for name, attribute in node.attrs.items()):
        return False
    try:
        _, types = node.op.infer(tuple(value.type.bind(sizes) for value in node.inputs), places)
    except GraphError:
        return False
    return types == tuple(value.type.bind(sizes) for value in node.outputs)


def batch_symbol(graph: Graph) -> str:
    """The symbol that is the first size of inputs and no other; "" if there is none."""
    first = {
        str(v.type.shape[0]) for v in graph.inputs if v.type.shape and v.type.shape[0] in map(dim.size, graph.symbols)
    }
    others = {s for v in graph.inputs for s in dim.symbols_of(v.type.shape[1:])}
    return next(iter(sorted(first - others)), "")


def split_sizes(graph: Graph, symbols: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The size of the batch, if it may be smaller where the plan is followed, and all sizes that may not.

    It may where the plan for this batch has room for every smaller one. A batch of one has a plan of its own.
    """
    fixed = dict(symbols)
    batch = batch_symbol(graph)
    most = fixed.pop(batch, 1)
    if most != 1 and fits(graph, symbols) and _grows(graph, batch, fixed):
        return {batch: most}, fixed
    return {}, dict(symbols)


def _grows(graph: Graph, batch: str, others: Mapping[str, int]) -> bool:
    """Whether no value is larger for a smaller batch, as p[N:] is."""
    made = (value for node in graph.nodes for value in node.outputs)
    values = (*graph.inputs, *(variable.value for variable in graph.state), *made)
    sizes = {n for value in values for n in value.type.shape if isinstance(n, Dim)}
    symbols: dict[str, Any] = {**others, batch: Dim.symbol(batch)}
    bound = dim.bind(tuple(sizes), symbols)
    return all(factor > 0 for n in bound if isinstance(n, Dim) for monomial, factor in n.terms if monomial)


def with_numbers(graph: Graph, batch: Collection[str], fixed: Mapping[str, int]) -> Graph:
    """The graph with numbers for all symbols but the batch."""
    still: dict[str, Any] = {symbol: Dim.symbol(symbol) for symbol in batch}
    return graph.bind(**fixed, **still) if fixed else graph


@paused()
def in_chunks(region: Region, sizes: Mapping[str, int]) -> int:
    """Into how many chunks the numbers of totals are divided: 1 where there are totals enough for the threads to share.

    sizes: those that choices are made for.
    """
    kept = number_of(product(size for _, size in region.kept), sizes)
    columns = bool(region.kept) and bool(region.reduced) and region.kept[-1][0] == len(region.domain) - 1
    few = kept <= 8 * 64 if columns else kept <= 8
    return CHUNKS if region.reduced and few and number_of(product(region.domain), sizes) >= CHUNKED else 1


def plan(
    graph: Graph,
    claim: Claim,
    sizes: Mapping[str, int],
    threads: int = 1,
    chunks: Chunks = in_chunks,
    alignment: int = ALIGNMENT,
) -> Plan:
    """Plan a lowered graph for symbols of at most these sizes, and for at most so many threads.

    claim: which nodes are computed by tuned kernels. chunks: how those of totals are divided. alignment: bytes; offsets
    in the arena are multiples of it.
    """
    graph = with_masks_of_results(with_own_ends(graph))
    claims = {node: call for node in graph.nodes if (call := claim(graph, node)) is not None}
    return _Planner(graph, Partition(graph, claims, framed(graph, claims)), sizes, threads, chunks).plan(alignment)


class _Planner:
    def __init__(self, graph: Graph, partition: Partition, sizes: Mapping[str, int], threads: int, chunks: Chunks):
        self.graph, self.partition, self.sizes, self.threads, self.chunks = graph, partition, sizes, threads, chunks
        self.homes: dict[Value, Buffer] = {}
        self.late: list[tuple[Value, Buffer]] = []  # what is copied into a state at the end
        self.work: list[Buffer] = []  # of the arena: what calls work in
        self.prepared: dict[tuple[Value, str], Prepared] = {}
        self.doubtful = [region for region in partition.regions if may_fail(region, partition)]
        self.readers: dict[Value, list[Region]] = {}
        for region in partition.regions:
            for value in dict.fromkeys(leaf.value for leaf in region.reads):
                self.readers.setdefault(value, []).append(region)

    def plan(self, alignment: int) -> Plan:
        self._give_homes()
        steps = self._steps()
        self._measure(steps)
        self._share(steps)
        steps = list(with_barriers(steps))
        phases = list(accumulate(int(step.barrier) for step in steps))
        buffers, prepared = tuple(dict.fromkeys(self.homes.values())), tuple(self.prepared.values())
        arena = place_in_arena([b for b in (*buffers, *self.work) if b.place == "arena"], phases, alignment)
        return Plan(self.graph, self.partition, tuple(steps), buffers, prepared, arena, self.sizes, self.threads)

    def bytes_of(self, type_: Type) -> int:
        return bytes_of(type_, self.sizes)

    # homes

    def _give_homes(self) -> None:
        graph, partition = self.graph, self.partition
        for value in graph.inputs:
            self._home(value, "input")
        for variable in graph.state:
            self._home(variable.value, "state")
        for node in graph.nodes:
            if not node.inputs and node.op.kernel is None:
                self._home(node.outputs[0], "literal")
        for name, value in graph.outputs.items():
            self._home(partition.base(value), "output")
            self.homes[partition.base(value)].output = name
        for old, new in graph.updates.items():
            base = partition.base(new)
            if self._may_overwrite(old, base):
                self.homes[base] = self.homes[old]
            else:
                self._home(base, "arena")
                self.late.append((base, self.homes[old]))
        for node in graph.nodes:
            for value in node.outputs:
                if value in partition.stored and value not in self.homes:
                    self._home(value, "arena")
        for node in partition.claims:
            region = partition.region_of[node.outputs[0]]
            if region.call is node and not targets(partition, node, self.homes):
                self._home(node.outputs[0], "arena")  # the kernel needs a place for what others are computed from

    def _home(self, value: Value, where: str) -> None:
        frame = self.partition.memory.frames.get(value)
        if frame is None:
            self.homes[value] = Buffer(value, where, self.bytes_of(value.type))
        else:
            (padded,) = frame.outputs
            self._home(padded, where)
            self.homes[value] = self.homes[padded]

    def _may_overwrite(self, old: Value, new: Value) -> bool:
        """Whether the region of the new value may write it over the old one; then it waits for all that it must."""
        writer = self.partition.region_of[new]
        if not _number_by_number(writer, old, new):
            return False
        others = [region for region in (*self.readers.get(old, ()), *self.doubtful) if region is not writer]
        return writer not in self.doubtful and self.partition.after(writer, others)

    # steps

    def _steps(self) -> list[Step]:
        steps = []
        for region in self.partition.ordered():
            members = region.members
            writes = {v: self.homes[v] for v in members if v in self.homes}
            reads = {leaf.value: self.homes[leaf.value] for leaf in region.reads}
            nodes = tuple(dict.fromkeys(self.graph.producer[v] for v in members))
            packs, scratch = self._working_memory(region)
            steps.append(Step(region, writes, reads, nodes, packs, scratch))
        for value, state in self.late:
            steps.append(Step(None, {value: state}, {value: self.homes[value]}))
        return steps

    def _working_memory(self, region: Region) -> tuple[dict[str, Buffer], Buffer | None]:
        """Of a call: the buffers of its packed operands, and what it works in."""
        call = self.partition.claims.get(region.call) if region.call is not None else None
        if call is None:
            chunks = self.chunks(region, typical(self.sizes)) if region.totals else 1
            if chunks == 1:
                return {}, None
            floats = product((2 * chunks * len(region.totals), *(size for _, size in region.kept)))
            return {}, self._work(f"{region.totals[0].name}.chunks", floats)
        packs = {name: self._packed(call, name, pack) for name, pack in call.packs.items()}
        floats = call.scratch + call.each * self.threads
        return packs, self._work(f"{call.node.name}.scratch", floats) if floats else None

    def _packed(self, call: Call, name: str, pack: Pack) -> Buffer:
        operand = call.operands[pack.operand]
        if operand.moves:
            return self._work(f"{call.node.name}.{name}", pack.floats)
        key = operand.value, f"{pack.kernel} {pack.shape} {operand.access}"
        if key not in self.prepared:
            type_ = Type((pack.floats,), "float32")
            target = Buffer(Value(type_, f"{operand.value.name}.{name}"), "packed", self.bytes_of(type_))
            self.prepared[key] = Prepared(pack, operand, self.homes[operand.value], target)
        return self.prepared[key].target

    def _work(self, name: str, floats: Size) -> Buffer:
        type_ = Type((floats,), "float32")
        self.work.append(Buffer(Value(type_, name), "arena", self.bytes_of(type_)))
        return self.work[-1]

    def _measure(self, steps: list[Step]) -> None:
        """When each buffer of the arena is first written and last read."""
        seen: set[Buffer] = set()
        for number, step in enumerate(steps):
            for buffer in (*step.touched, *step.reads.values()):
                if buffer not in seen:
                    seen.add(buffer)
                    buffer.first = number
                buffer.last = number

    def _share(self, steps: list[Step]) -> None:
        """Let values take over the memory of what is read for the last time, number by number, where they are made."""
        for number, step in enumerate(steps):
            if step.region is None or step.region.call is not None:
                continue
            for value, buffer in step.writes.items():
                if buffer.place == "arena" and value is buffer.value and value in step.region.body:
                    buffer.inside = self._dying(step, number, value)

    def _dying(self, step: Step, number: int, value: Value) -> Buffer | None:
        """A buffer that is read for the last time, each number where this value's is made."""
        assert step.region is not None
        size = self.homes[value].nbytes
        taken = {buffer.inside for buffer in step.writes.values()}
        for source, old in step.reads.items():
            free = old.place == "arena" and old.last == number and old.nbytes == size and old not in taken
            if free and _number_by_number(step.region, source, value):
                return old
        return None


def typical(sizes: Mapping[str, int]) -> Mapping[str, int]:
    """One size for all from 32 to 1,023, which is 128, for all from there to 32,767, and so on; below powers of two."""

    def of(n: int) -> int:
        power = n.bit_length() - 1  # the largest power of two that is not above n
        return max(0, n) if n < 2 else 1 << power if n < 32 else 4 * 32 ** (power // 5)

    return {name: of(n) for name, n in sizes.items()}


def _reads(region: Region, value: Value) -> bool:
    return any(leaf.value is value for leaf in region.reads)


def _number_by_number(region: Region, old: Value, new: Value) -> bool:
    """Whether the region may write each number of `new` over that number of `old`: it reads no other there or later."""
    if not _reads(region, old):
        return True
    if old.type.size != new.type.size or old.type.dtype != new.type.dtype:
        return False
    if region.call is not None and new not in region.body:
        return False  # a kernel writes in an order of its own; what follows it does not
    if new in region.body and region.tail and region.axes == region.kept:
        return False  # the body is stored before the tail reads, and here both read in the same places
    index = place(old.type.shape, region.axes if new in region.body else region.kept)
    return index is not None and all(leaf.index == index for leaf in region.reads if leaf.value is old)


def may_fail(region: Region, partition: Partition) -> bool:
    """Whether it may find that an input is wrong."""
    return any(node.op.kernel is not None and node.op.kernel.checks for node in computed(region, partition))


def first_write_to_state(plan: Plan) -> int | None:
    """The step before which all that may find an input wrong is done, where anything may and a state is written."""
    doubtful = any(step.region is not None and may_fail(step.region, plan.partition) for step in plan.steps)
    moving = (n for n, step in enumerate(plan.steps) if any(b.place == "state" for b in step.writes.values()))
    return next(moving, None) if doubtful else None


def targets(partition: Partition, node: Node, homes: Mapping[Value, Buffer]) -> list[Value]:
    """The values in whose memory the kernel of a claimed node may put its result.

    Not where what follows writes over what it reads itself: that must still be there.
    """
    (result,) = node.outputs
    region, call = partition.region_of[result], partition.claims[node]
    spaced = -1 in call.apart
    read = set() if call.hands_on else {homes.get(leaf.value) for leaf in region.reads}
    fits = [v for v in (result, *region.body) if v.type == result.type and (spaced or v not in partition.memory.frames)]
    return [v for v in fits if v in homes and homes[v] not in read]


# the arena


def place_in_arena(buffers: list[Buffer], phases: list[int], alignment: int) -> int:
    """Give each buffer its offset, the largest first, each at the lowest place that is free in its time.

    phases: for each step how many barriers are before it. Steps of one phase may run at the same time. alignment: of
    offsets, in bytes. Returns the bytes of all.
    """
    roots: dict[Buffer, list[Buffer]] = {}
    for buffer in buffers:
        roots.setdefault(buffer.root, []).append(buffer)
    starts, ends, begins, finishes = placed = np.zeros((4, len(roots)), np.int64)  # places, and first and last phases
    largest_first = sorted(roots.items(), key=lambda item: (-item[0].nbytes, item[0].first))
    for number, (root, group) in enumerate(largest_first):
        first, last = phases[min(b.first for b in group)], phases[max(b.last for b in group)]
        size = -(-root.nbytes // alignment) * alignment
        taken = np.flatnonzero((begins[:number] <= last) & (first <= finishes[:number]))
        taken = taken[np.argsort(starts[taken])]
        free = np.concatenate(([0], np.maximum.accumulate(ends[taken])))  # from where on, up to the next that is taken
        gaps = np.flatnonzero(free[:-1] + size <= starts[taken])
        offset = int(free[gaps[0] if gaps.size else -1])
        placed[:, number] = offset, offset + size, first, last
        for buffer in group:
            buffer.offset = offset
    return int(ends.max(initial=0))


def with_barriers(steps: list[Step]) -> Iterator[Step]:
    """The steps, with a barrier before each that reads what was written since the last, or writes what was touched."""
    written: set[Buffer] = set()
    read: set[Buffer] = set()
    for step in steps:
        reads, writes = ({buffer.root for buffer in some} for some in (step.reads.values(), step.touched))
        clash = not (written.isdisjoint(reads | writes) and read.isdisjoint(writes))
        if clash:
            written, read = set(), set()
        written |= writes
        read |= reads
        yield replace(step, barrier=clash)


# printing

NAMES = 40  # characters of a column of names


def _lines(plan: Plan) -> Iterator[str]:
    """What is planned in all, and a table: a row for each step, and below it one for each further value it writes."""
    sizes = "".join(f", {name} <= {n}" for name, n in plan.sizes.items())
    total = sum(map(plan.work, plan.steps), Work())
    yield f"plan of {plan.graph.name!r}: {len(plan.steps)} steps{sizes}"
    yield (
        f"{quantity(total.flops, 'FLOP')}, {quantity(total.read, 'B')} read, {quantity(total.written, 'B')} written, "
        f"{quantity(plan.arena, 'B')} for values between the steps"
    )
    yield "|: all threads wait for each other before it.  in: the first byte among these values, or the memory."
    yield "until: the last step that reads it."
    yield ""
    head = ["step", "", "kernel", "computes", "FLOP", "reads", "value", "type", "bytes", "in", "until"]
    rows = [row for number, step in enumerate(plan.steps) for row in _rows(plan, number, step)]
    yield from aligned([head, *rows], left=(1, 2, 3, 6, 7, 9))


def _rows(plan: Plan, number: int, step: Step) -> Iterator[list[str]]:
    work = plan.work(step)
    start = [str(number), "|" if step.barrier else "", plan.kernel(step), begun(step.title, NAMES)]
    start += [quantity(work.flops), quantity(work.read, "B")]
    for value, buffer in step.writes.items():
        where = str(buffer.offset) if buffer.place == "arena" else buffer.place
        if buffer.name != value.name:
            where += f" {buffer.name}"
        until = str(buffer.last) if buffer.place == "arena" else ""
        yield [
            *start,
            shortened(value.name, NAMES - 10),
            str(value.type),
            quantity(bytes_of(value.type, plan.sizes), "B"),
            shortened(where, NAMES - 10),
            until,
        ]
        start = [""] * len(start)
