"""Repetition in an outline: runs of layers that follow each other again and again, such as the blocks of a ResNet.

Two runs are the same if their layers have the same nodes in every role (ops, attributes, types) and each reads from
equally far back. A run begins and ends where scopes do, and nothing behind a repeat reads any but its last run: what is
drawn once then stands for all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from minigraph.core.ir import Node, Value
from minigraph.tools.outline import Layer, Outline


@dataclass(frozen=True)
class Repeat:
    """layers[start : start + length] stand there `times` times, one after the other."""

    start: int
    length: int
    times: int

    @property
    def saved(self) -> int:
        return self.length * (self.times - 1)

    @property
    def stop(self) -> int:
        return self.start + self.length * self.times


def repeats(outline: Outline, alone: Set[Layer] = frozenset(), marks: Mapping[Node, str] | None = None) -> list[Repeat]:
    """The repeats in a graph's layers, in order: the one that saves most layers, then likewise before and behind it.

    alone: layers that are never part of one. marks: signs of nodes; layers whose nodes have others are not the same.
    """
    layers = outline.layers
    position = {layer: i for i, layer in enumerate(layers)}
    begins = [not layer.block or i == 0 or layer.block != layers[i - 1].block for i, layer in enumerate(layers)]
    whole = [*begins, True]  # where a run may begin or end: between blocks
    numbers: dict[Hashable, int] = {}
    signatures = [
        numbers.setdefault(
            (i,) if layer in alone else (_signature(outline, layer, position, marks or {}), begins[i]), len(numbers)
        )
        for i, layer in enumerate(layers)
    ]
    last_reader = _last_readers(outline, position)

    def between(low: int, high: int) -> list[Repeat]:
        fit = [
            r
            for r in _candidates(signatures, low, high)
            if r.saved > 1
            and whole[r.start]
            and whole[r.stop]
            and all(last < r.stop for last in last_reader[r.start : r.stop - r.length])
        ]
        if not fit:
            return []
        best = max(fit, key=lambda r: (r.saved, -r.length, bool(layers[r.start].state), -r.start))
        return [*between(low, best.start), best, *between(best.stop, high)]

    return between(0, len(layers))


def _candidates(signatures: Sequence[int], low: int, high: int) -> Iterator[Repeat]:
    """Every longest repeat of every length, from each place where it can begin."""
    for length in range(1, (high - low) // 2 + 1):
        start = low
        while start + 2 * length <= high:
            same = start
            while same + length < high and signatures[same] == signatures[same + length]:
                same += 1
            times = 1 + (same - start) // length
            if times > 1:
                for shift in range((same - start) % length + 1):
                    yield Repeat(start + shift, length, times)
            start = same + 1


def _signature(outline: Outline, layer: Layer, position: Mapping[Layer, int], marks: Mapping[Node, str]) -> Hashable:
    """All that a layer is but names: equal for layers that look the same in a picture."""
    graph, here = outline.graph, position[layer]
    outputs = set(graph.outputs.values())

    def source(value: Value) -> Hashable:
        node = graph.producer.get(value)
        if node is None:
            return "state" if value.name in graph.variables else value.name
        return here - position[outline.layer_of[node]] if node in outline.layer_of else tuple(node.attrs.items())

    nodes = tuple(
        (
            role,
            node.op.name,
            tuple(node.attrs.items()),
            tuple(v.type for v in node.outputs),
            tuple((v.type, source(v) if role in ("forward", "frozen") else None) for v in node.inputs),
            not outputs.isdisjoint(node.outputs),
            marks.get(node),
        )
        for role, group in (*layer.nodes.items(), ("frozen", layer.frozen))
        for node in group
    )
    return nodes, tuple((variable.kind, variable.value.type) for variable in layer.state)


def _last_readers(outline: Outline, position: Mapping[Layer, int]) -> list[int]:
    """For each layer the position of the last one whose forward reads it."""
    last = list(range(len(position)))
    for layer, here in position.items():
        for node in layer.nodes["forward"]:
            makers = [outline.graph.producer[value] for value in node.inputs if value in outline.graph.producer]
            for before in (position[outline.layer_of[maker]] for maker in makers if maker in outline.layer_of):
                last[before] = max(last[before], here)
    return last
