"""Frames: values that are padded lie in the middle of the padded one from the start, so that padding copies nothing.

    y = relu(...)           y is written where the rows of p are to have it;
    p = pad(y)              what is left to do for p is its border of zeros
    z = conv(p, w)

A value has one frame at most. It may have it if whoever writes or reads the value can do so where rows lie apart: loops
over single numbers can, and calls that say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from minigraph.backends.access import Access, Index, access
from minigraph.backends.calls import Call, Operand
from minigraph.core.dim import Shape, Size
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import Along


class Memory:
    """Where the numbers of a graph's values lie.

    frames: by value, the padding in whose result it lies. framing: these nodes, which write nothing but borders.
    """

    def __init__(self, frames: Mapping[Value, Node]):
        self.frames = frames
        self.framing = frozenset(frames.values())

    def access(self, value: Value, index: Index) -> Access:
        return self.access_as(value, value.type.shape, index)

    def access_as(self, value: Value, shape: Shape, index: Index) -> Access:
        """Of a value that is indexed as one of this shape."""
        if value not in self.frames:
            return access(index, shape)
        frame = self.frames[value]
        before = [first for first, _ in frame.attrs["widths"]]
        shifted = tuple(replace(along, start=along.start + n) for along, n in zip(index, before, strict=True))
        return access(shifted, frame.outputs[0].type.shape)

    def rows(self, value: Value) -> tuple[Size, Size] | None:
        """How far the images, and the rows, of what has a frame lie apart."""
        if value not in self.frames:
            return None
        places = self.access(value, tuple(Along(axis) for axis in range(value.type.rank)))
        return places.stride(0), places.stride(value.type.rank - 3)


OWN = Memory({})  # each value in memory of its own


def framed(graph: Graph, claims: Mapping[Node, Call]) -> Memory:
    """The frames of a graph of which these nodes are computed by calls."""
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for value in dict.fromkeys(node.inputs):
            readers.setdefault(value, []).append(node)
    fixed = {operand.value for call in claims.values() for operand in _side_by_side(call)}
    ends = {_base(graph, value) for value in (*graph.outputs.values(), *graph.updates.values())}
    frames: dict[Value, Node] = {}
    for node in graph.nodes:
        if node not in claims or claims[node].border is None:
            continue
        value, result = node.inputs[0], node.outputs[0]
        if value in frames or value in fixed or value in ends or result in ends:
            continue
        if _may_write(graph, claims, value) and all(reader in claims or _may_read(reader) for reader in readers[value]):
            frames[value] = node
    return Memory(frames)


def _base(graph: Graph, value: Value) -> Value:
    while value in graph.producer and graph.producer[value].op.in_order:
        value = graph.producer[value].inputs[0]
    return value


def _may_write(graph: Graph, claims: Mapping[Node, Call], value: Value) -> bool:
    maker = graph.producer.get(value)
    if maker is None:
        return False
    return -1 in claims[maker].apart if maker in claims else maker.op.expression is not None


def _may_read(reader: Node) -> bool:
    """Whether it reads number by number, wherever they lie."""
    op = reader.op
    return op.expression is not None or op.view is not None or bool(op.reduction)


def _side_by_side(call: Call) -> Iterator[Operand]:
    """The operands whose rows may not lie apart: what the kernel cannot read so, and what it sees through a view."""
    for number, operand in enumerate(call.operands):
        seen = tuple(Along(axis) for axis in range(operand.value.type.rank))
        if number not in call.apart or operand.index != seen or operand.shape != operand.value.type.shape:
            yield operand
