"""What a picture of a graph shows, before any language for pictures: places, and the edges and notes between them.

A place is a layer's box for one role, one node of an expanded layer, a cylinder with state and with what is computed
from parameters alone, an input or an output. A value that is read along the forward or along the backward is an edge
between places. One that crosses over, above all a saved activation that the backward reads, is a name in a note beside
the place that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Type, Value, Variable
from minigraph.core.rewrite import Refused
from minigraph.driver.profile import Profile
from minigraph.tools.heat import Heat
from minigraph.tools.labels import formula, moves_only, type_text
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
    edges: by the places from and to. notes: for a place the names that its note holds.
    frozen: for a layer the nodes that its cylinder stands for; formulas: what these compute.
    marks: how nodes differ from another graph's ("went", "came", "changed"); None where no graphs are compared.
    footnotes: for a place the numbers of `sentences`, from 1. heat: the times of places, of a profile.
    """

    def __init__(
        self,
        outline: Outline,
        expanded: Iterable[Layer] = (),
        repeats: Sequence[Repeat] = (),
        marks: Mapping[Node, str] | None = None,
        reasons: Iterable[Refused] = (),
        profile: Profile | None = None,
    ):
        self.graph: Graph = outline.graph
        self.outline, self.expanded, self.repeats = outline, frozenset(expanded), tuple(repeats)
        self.marks = marks
        self.run_of: dict[Layer, tuple[int, int]] = {}  # of a layer in a repeat: which repeat, and which run of it
        self._shown: dict[Layer, Layer] = {layer: layer for layer in outline.layers}
        for which, repeat in enumerate(repeats):
            for i in range(repeat.start, repeat.stop):
                run, offset = divmod(i - repeat.start, repeat.length)
                self.run_of[outline.layers[i]] = which, run
                self._shown[outline.layers[i]] = outline.layers[repeat.start + offset]
        self.layers = [layer for layer in outline.layers if self._shown[layer] is layer]
        self.number = {layer: i for i, layer in enumerate(self.layers)}
        self._of_parameters = {node for layer in outline.layers for node in layer.frozen}
        self.frozen: dict[Layer, tuple[Node, ...]] = {}
        self.formulas: dict[Layer, tuple[str, ...]] = {}
        for layer in outline.layers:
            self._gather(layer)
        self.place = {
            node: self._place(node, layer, i) for layer in outline.layers for i, node in enumerate(layer.everything)
        }
        self.edges: dict[tuple[str, str], Edge] = {}
        self.notes: dict[str, dict[str, None]] = {}
        self._before: dict[Layer, dict[Layer, None]] = {}  # which layers a layer's forward reads
        for layer in outline.layers:
            for node in layer.everything:
                for value in node.inputs:
                    self._read(node, layer, value)
        for layer in self.layers:
            if layer in self.formulas:
                self._edge(f"state{self.number[layer]}", f"forward{self.number[layer]}", "row")
        self.spine = self._spine()
        self.outputs = {name: self._output(i, name) for i, name in enumerate(self.graph.outputs)}
        self.footnotes: dict[str, list[int]] = {}
        self.sentences: list[str] = []
        self._explain(reasons)
        self.heat = None if profile is None else self._heat(profile)

    def mark(self, nodes: Iterable[Node]) -> str | None:
        """How a box of these nodes differs: as all of them do, or "changed" where they are not alike."""
        found = {self.marks.get(node) if self.marks else None for node in nodes if not is_number(node)}
        return found.pop() if len(found) == 1 else "changed" if found else None

    def _gather(self, layer: Layer) -> None:
        """Find what a layer's forward reads that is computed from parameters; what only lays them out anew is none."""
        if layer in self.expanded:
            return
        read = {v: None for node in layer.nodes["forward"] for v in node.inputs}
        texts, cones = [], set()
        for value in read:
            cone = self._cone(value)
            if any(not moves_only(node) for node in cone if not is_number(node)):
                texts.append(formula(self.graph, value, self._short_names(cone, layer)))
                cones |= cone
        if texts:
            self.frozen[layer] = tuple(node for node in self.graph.nodes if node in cones)
            self.formulas[layer] = tuple(dict.fromkeys(texts))

    def _cone(self, value: Value) -> set[Node]:
        """All frozen nodes that a value depends on."""
        found: set[Node] = set()
        pending = [value]
        while pending:
            maker = self.graph.producer.get(pending.pop())
            if maker in self._of_parameters and maker not in found:
                found.add(maker)
                pending += maker.inputs
        return found

    def _short_names(self, nodes: Iterable[Node], layer: Layer) -> dict[Value, str]:
        """The state that these nodes read, each called as within the layer."""
        return {
            value: self._name(value, layer).removeprefix(f"{layer.title}.")
            for node in nodes
            for value in node.inputs
            if value.name in self.graph.variables
        }

    def _explain(self, reasons: Iterable[Refused]) -> None:
        """Number the reasons: those for which one rule was refused at one place have one number, and one sentence."""
        by_name = {node.name: node for node in self.graph.nodes}
        found: dict[tuple[str, str], list[Refused]] = {}
        for reason in reasons:
            expect(reason.at in by_name, "{} was refused at {!r}, which is no node", reason.rule, reason.at)
            found.setdefault((self.place.get(by_name[reason.at], reason.at), reason.rule), []).append(reason)
        for number, ((place, rule), alike) in enumerate(found.items(), 1):
            others = "" if len(alike) == 1 else f" (and at {len(alike) - 1} more like it)"
            self.footnotes.setdefault(place, []).append(number)
            self.sentences.append(f"{alike[0].at}, not {rule}: {alike[0].why}{others}")

    def _heat(self, profile: Profile) -> Heat:
        """The times of all nodes of a place; of those in a repeat, of all its runs."""
        costs = profile.nodes
        found = [(self.place[n], costs[n.name]) for n in self.graph.nodes if n in self.place and n.name in costs]
        expect(found, "the profile is of {!r}, of whose nodes {!r} has none", profile.graph.name, self.graph.name)
        return Heat(found, profile.total.seconds)

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
        if layer in self.formulas and node in self._of_parameters:
            return f"state{self.number[shown]}"
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
            if place.startswith(READS[role]) and place != self.place[node]:
                self._edge(place, self.place[node], "row")
        elif value.name not in self.graph.variables and (role == "forward" or not layer.nodes["forward"]):
            self._edge(f"input{self.graph.inputs.index(value)}", self.place[node], "forward", value.type)
        elif layer not in self.formulas or node not in self._of_parameters:  # else the formula says it
            self._note(node, layer, value)

    def _read_node(self, node: Node, layer: Layer, value: Value, maker: Node, other: Layer) -> None:
        here, there = self.place[node], self.place[maker]
        roles = maker.origin.role, node.origin.role
        (repeat, run), (its_repeat, its_run) = self.run_of.get(layer, (-1, 0)), self.run_of.get(other, (-1, 0))
        if repeat == its_repeat and run != its_run and roles[0] == roles[1]:
            return  # from one run of a repeat to the next
        if maker in self._of_parameters and layer is not other:
            if layer not in self.formulas:
                self._note(node, layer, value)
        elif layer is other and (roles[0] == roles[1] or roles in (("forward", "statistic"), ("backward", "update"))):
            if here != there and not there.startswith("state"):
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
        if maker is not None and moves_only(maker) and maker.inputs[0] in self.outline.owner:
            return self._name(maker.inputs[0], seen_from)  # a weight's transpose is the weight
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
