"""What a picture of a graph shows, before any language for pictures: places, and the edges and notes between them.

A place is a layer's box for one role, one node of an expanded layer, a cylinder with state, an input or an output. A
value that is read along the forward or along the backward is an edge between places. One that crosses over, above all a
saved activation that the backward reads, is a name in a note beside the place that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from minigraph.core.ir import Graph, Node, Type, Value, Variable
from minigraph.tools.labels import type_text
from minigraph.tools.outline import Layer, Outline, is_number
from minigraph.tools.repeats import Repeat

# State stands left of its layer, but right of the statistics or the updates that alone read and move it.
CYLINDERS = ("state", "running", "slots")
READS = {"forward": ("state",), "statistic": ("state", "running"), "backward": (), "update": ("slots",)}


@dataclass
class Edge:
    """kind: forward or backward, or "row" between the places of one layer. labels: types."""

    kind: str
    labels: dict[str, None] = field(default_factory=dict)


class Sketch:
    """layers: those that are drawn, of a repeat the first run. spine: those of the longest path. place: of each node.
    edges: by the places from and to. notes: for a place the names that its note holds."""

    def __init__(self, outline: Outline, expanded: Iterable[Layer] = (), repeats: Sequence[Repeat] = ()):
        self.graph: Graph = outline.graph
        self.outline, self.expanded, self.repeats = outline, frozenset(expanded), tuple(repeats)
        self.run_of: dict[Layer, tuple[int, int]] = {}  # of a layer in a repeat: which repeat, and which run of it
        self._shown: dict[Layer, Layer] = {layer: layer for layer in outline.layers}
        for which, repeat in enumerate(repeats):
            for i in range(repeat.start, repeat.stop):
                run, offset = divmod(i - repeat.start, repeat.length)
                self.run_of[outline.layers[i]] = which, run
                self._shown[outline.layers[i]] = outline.layers[repeat.start + offset]
        self.layers = [layer for layer in outline.layers if self._shown[layer] is layer]
        self.number = {layer: i for i, layer in enumerate(self.layers)}
        self.place = {
            node: self._place(node, layer, i)
            for layer in outline.layers
            for nodes in layer.nodes.values()
            for i, node in enumerate(nodes)
        }
        self.edges: dict[tuple[str, str], Edge] = {}
        self.notes: dict[str, dict[str, None]] = {}
        self._before: dict[Layer, dict[Layer, None]] = {}  # which layers a layer's forward reads
        for layer in outline.layers:
            for nodes in layer.nodes.values():
                for node in nodes:
                    for value in node.inputs:
                        self._read(node, layer, value)
        self.spine = self._spine()
        self.outputs = {name: self._output(i, name) for i, name in enumerate(self.graph.outputs)}

    def _spine(self) -> tuple[Layer, ...]:
        """The layers along the longest path of the forward, which a picture draws straight."""
        longest: dict[Layer, tuple[int, Layer | None]] = {}
        for layer in self.layers:
            length, before = max(
                ((longest[b][0], b) for b in self._before.get(layer, ()) if b in longest),
                key=lambda found: found[0],
                default=(0, None),
            )
            longest[layer] = length + 1, before
        end = max(longest, key=lambda layer: longest[layer][0], default=None)
        path = []
        while end is not None:
            path.append(end)
            end = longest[end][1]
        return tuple(reversed(path))

    def _place(self, node: Node, layer: Layer, i: int) -> str:
        shown = self._shown[layer]
        base = f"{node.origin.role}{self.number[shown]}"
        return f"{base}_{i}" if shown in self.expanded else base

    def cylinder(self, variable: Variable, layer: Layer) -> str:
        """The place of a layer's state."""
        roles = {node.origin.role for node in self.graph.readers.get(variable.value, ())}
        kind = "slots" if layer.nodes["update"] and roles <= {"update"} else "state"
        if variable.kind == "statistic" and layer.nodes["statistic"]:
            kind = "running"
        return f"{kind}{self.number[self._shown[layer]]}"

    def _read(self, node: Node, layer: Layer, value: Value) -> None:
        maker, role = self.graph.producer.get(value), node.origin.role
        if maker is not None:
            if not is_number(maker):
                self._read_node(node, layer, value, maker, self.outline.layer_of[maker])
        elif self.outline.owner.get(value) is layer:
            place = self.cylinder(self.graph.variables[value.name], layer)
            if place.startswith(READS[role]):
                self._edge(place, self.place[node], "row")
        elif value.name not in self.graph.variables and (role == "forward" or not layer.nodes["forward"]):
            self._edge(f"input{self.graph.inputs.index(value)}", self.place[node], "forward", value.type)
        else:
            self._note(node, layer, value)

    def _read_node(self, node: Node, layer: Layer, value: Value, maker: Node, other: Layer) -> None:
        here, there = self.place[node], self.place[maker]
        roles = maker.origin.role, node.origin.role
        (repeat, run), (its_repeat, its_run) = self.run_of.get(layer, (-1, 0)), self.run_of.get(other, (-1, 0))
        if repeat == its_repeat and run != its_run and roles[0] == roles[1]:
            return  # from one run of a repeat to the next
        if layer is other and (roles[0] == roles[1] or roles in (("forward", "statistic"), ("backward", "update"))):
            if here != there:
                self._edge(there, here, roles[0] if roles[0] == roles[1] else "row", value.type)
        elif roles in (("forward", "forward"), ("backward", "backward")):
            self._edge(there, here, roles[0], value.type)
            if roles[0] == "forward":
                self._before.setdefault(self._shown[layer], {})[self._shown[other]] = None
        elif roles[1] != "statistic" or all(value not in n.inputs for n in layer.nodes["forward"]):
            self._note(node, layer, value)

    def _edge(self, start: str, end: str, kind: str, type_: Type | None = None) -> None:
        edge = self.edges.setdefault((start, end), Edge(kind))
        if type_ is not None and kind != "row":
            edge.labels[type_text(type_)] = None

    def _note(self, node: Node, layer: Layer, value: Value) -> None:
        if self._shown[layer] is layer:
            self.notes.setdefault(self.place[node], {})[self._name(value, layer)] = None

    def _name(self, value: Value, seen_from: Layer) -> str:
        """What a value is called in a note: as its layer, where that hands on only this one; without the block they
        share.
        """
        maker, name = self.graph.producer.get(value), value.name
        layer = self.outline.layer_of[maker] if maker is not None else self.outline.owner.get(value)
        if layer is None:
            return name
        if maker is not None and maker.origin.role == "forward":
            main = self.outline.main.get(layer) is value
            name = layer.name if main else f"{layer.name}.{value.name.rpartition('.')[2]}"
        return name.removeprefix(f"{layer.block}.") if layer.block and layer.block == seen_from.block else name

    def _output(self, i: int, name: str) -> str | None:
        """The place that an output stands beside: of a layer whose value others read as well. None: it stands below."""
        value = self.graph.outputs[name]
        maker, place = self.graph.producer.get(value), f"output{i}"
        if maker is None:
            if value in self.graph.inputs:
                self._edge(f"input{self.graph.inputs.index(value)}", place, "forward", value.type)
            elif value in self.outline.owner:
                self._edge(self.cylinder(self.graph.variables[value.name], self.outline.owner[value]), place, "row")
            return None
        if is_number(maker):
            return None
        layer = self.outline.layer_of[maker]
        beside = (
            layer not in self.expanded
            and maker.origin.role == "forward"
            and any(start == self.place[maker] and edge.kind == "forward" for (start, _), edge in self.edges.items())
        )
        self._edge(self.place[maker], place, "row" if beside else maker.origin.role, value.type)
        return self.place[maker] if beside else None
