"""The work of a region: floating-point operations, and bytes that it reads and writes.

Bytes are those that must move: each number that is read counts once, however often it is read, and each that is
written. What a kernel packs or works in lies in the caches for the most part, and does not count. Where a value is read
through a view (a slice, a row of a matrix), or by its indices, only the numbers that are seen count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from minigraph.backends.regions import Leaf, Partition, Region
from minigraph.core.dim import Size, product
from minigraph.core.ir import Node, Type, Value
from minigraph.core.op import Op, no_flops

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Work:
    """flops: floating-point operations, a multiply-add being two. read, written: bytes."""

    flops: int = 0
    read: int = 0
    written: int = 0

    @property
    def bytes(self) -> int:
        return self.read + self.written

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.read + other.read, self.written + other.written)


def work_of(partition: Partition, region: Region, written: Iterable[Value], sizes: Sizes) -> Work:
    """What a region computes, reads and writes at these sizes. written: the values that it stores."""
    flops = sum(flops_of(node, sizes) for node in computed(region, partition))
    read = sum(bytes_read(partition, region, sizes).values())
    own = sum(_numbers_written(partition, value, sizes) * np.dtype(value.type.dtype).itemsize for value in written)
    return Work(flops, read, own)


def bytes_read(partition: Partition, region: Region, sizes: Sizes) -> dict[Value, int]:
    """How much a region reads of each value."""
    found: dict[Value, int] = {}
    for leaf in region.reads:
        numbers = _numbers_read(partition, region, leaf, sizes)
        found[leaf.value] = found.get(leaf.value, 0) + numbers * np.dtype(leaf.value.type.dtype).itemsize
    return {value: min(count, bytes_of(value.type, sizes)) for value, count in found.items()}


def flops_of(node: Node, sizes: Sizes) -> int:
    return number_of(node.op.count([v.type for v in node.inputs], [v.type for v in node.outputs], node.attrs), sizes)


def shares(region: Region, partition: Partition, sizes: Sizes) -> dict[Node, float]:
    """How the time of a region is divided among its nodes: they add up to 1.

    By FLOPs, of which a node counts one at least for each number of its results. What is computed where it is read
    counts with its FLOPs alone, so that a view, which is no more than other addresses, has no time.
    """
    found = weights(region, partition, sizes)
    total = sum(found.values())
    if not total:  # of empty batches
        members = {partition.graph.producer[value] for value in region.members}
        return {node: 1 / len(members) if node in members else 0.0 for node in found}
    return {node: weight / total for node, weight in found.items()}


def weights(region: Region, partition: Partition, sizes: Sizes) -> dict[Node, int]:
    """What counts for each node: see `shares`."""
    members, found = {partition.graph.producer[value] for value in region.members}, {}
    for node in computed(region, partition):
        numbers = sum(_numbers_written(partition, v, sizes) for v in node.outputs) if node in members else 0
        found[node] = max(flops_of(node, sizes), numbers)
    return found


def computed(region: Region, partition: Partition) -> Iterator[Node]:
    """The nodes that a region computes, virtual ones included."""
    graph, seen = partition.graph, set()
    waiting = [graph.producer[v] for v in region.members]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        for value in node.inputs:
            if value in partition.virtual and value not in partition.region_of:
                waiting.append(graph.producer[value])


def number_of(size: Size, sizes: Sizes) -> int:
    return size if isinstance(size, int) else size.bind(sizes)


def bytes_of(type_: Type, sizes: Sizes) -> int:
    return number_of(type_.size, sizes) * np.dtype(type_.dtype).itemsize


def _numbers_written(partition: Partition, value: Value, sizes: Sizes) -> int:
    """How many numbers of a value are computed: of what is padded in place, only the border."""
    numbers = number_of(value.type.size, sizes)
    node = partition.graph.producer[value]
    if node in partition.memory.framing:
        numbers -= number_of(node.inputs[0].type.size, sizes)
    return numbers


def _numbers_read(partition: Partition, region: Region, leaf: Leaf, sizes: Sizes) -> int:
    """How many numbers of its value a leaf reads."""
    if leaf.index is not None:
        axes = {along.axis for along in leaf.index if along.axis is not None}
        return number_of(product(region.domain[axis] for axis in axes), sizes)
    call = partition.claims.get(region.call) if region.call is not None else None
    if call is not None:
        inputs = zip(call.node.inputs, call.operands)
        return sum(number_of(v.type.size, sizes) for v, operand in inputs if operand.value is leaf.value)
    readers = [n for n in computed(region, partition) if leaf.value in map(partition.base, n.inputs)]
    readers = [node for node in readers if node.op.kernel is not None]
    if all(_reads_one_for_one(node.op) for node in readers):
        return sum(number_of(node.outputs[0].type.size, sizes) for node in readers)
    return number_of(leaf.value.type.size, sizes)


def _reads_one_for_one(op: Op) -> bool:
    """Whether a kernel reads no more numbers than it gives: one that only moves them, or asks for a size."""
    return op.flops is no_flops or (op.kernel is not None and op.kernel.light)
