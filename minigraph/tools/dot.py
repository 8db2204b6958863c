"""A graph as DOT text, the language of Graphviz.

The page has a column for each role. The forward runs down; the backward stands beside it and runs up, so that a layer, its
statistics, its gradient and its update form a row. A value that would cross the page, above all a saved activation that the
backward reads, is a small note with its name. State is a cylinder. Numbers such as 0.9 are written into the node that
reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

import graphviz

from minigraph.core.ir import ROLES, Graph, Node, Type, Value, Variable
from minigraph.tools.labels import call_text, ops_lines, type_text, wrapped
from minigraph.tools.outline import Layer, Outline, is_number, outline
from minigraph.tools.repeats import Repeat, repeats


@dataclass(frozen=True)
class Look:
    fill: str
    line: str
    word: str  # behind a layer's name: colours are not the only sign


# Blue, orange, green and purple of Okabe and Ito, which the colour-blind tell apart; the fills are light enough for print.
LOOKS = {"forward": Look("#DCEBF7", "#0072B2", ""), "backward": Look("#FCE4D4", "#C24E00", "gradient"),
         "statistic": Look("#F5E6F0", "#A8588A", "statistics"), "update": Look("#D9F0E6", "#00795A", "update")}
COLUMNS = ("forward", "statistic", "backward", "update")
STATE, INPUT, NOTE, BLOCK = "#F3F1E7", "#FFFFFF", "#FFFBE0", "#8A8A8A"
FONT = "Helvetica,Arial,sans-serif"
SLOTS = ("slot", "counter", "stream")


def dot(graph: Graph, collapse: bool = True, expand: Sequence[str] = ()) -> str:
    """The picture's DOT text; collapse and expand are as for `draw`."""
    whole = outline(graph)
    expanded = frozenset(layer for layer in whole.layers if any(fnmatchcase(layer.name, pattern) for pattern in expand))
    return _Page(whole, expanded, repeats(whole, expanded) if collapse else []).source()


class _Page:
    """One picture in the making: what is drawn where, and the edges between, which are collected before they are written."""

    def __init__(self, whole: Outline, expanded: frozenset[Layer], repeated: Sequence[Repeat]):
        self.graph, self.outline, self.expanded, self.repeated = whole.graph, whole, expanded, repeated
        self.shown_as: dict[Layer, Layer] = {}  # each layer of a repeat: the one of its first run
        self.run_of: dict[Layer, tuple[int, int]] = {}  # the repeat it is in, and the run
        for number, repeat in enumerate(repeated):
            for i in range(repeat.start, repeat.stop):
                run, offset = divmod(i - repeat.start, repeat.length)
                self.shown_as[whole.layers[i]] = whole.layers[repeat.start + offset]
                self.run_of[whole.layers[i]] = number, run
        self.layers = [layer for layer in whole.layers if self.shown_as.get(layer, layer) is layer]
        self.number = {layer: i for i, layer in enumerate(self.layers)}
        self.place = {node: self._place(node, layer) for node, layer in whole.layer_of.items()}
        self.edges: dict[tuple[str, str], dict[str, None]] = {}  # (from, to): the labels
        self.kinds: dict[tuple[str, str], str] = {}  # (from, to): role, or "row" for an edge inside of a row
        self.notes: dict[str, dict[str, None]] = {}  # place: the names of what it reads from far away
        for node, layer in whole.layer_of.items():
            for value in node.inputs:
                self._read(node, layer, value)

    def _place(self, node: Node, layer: Layer) -> str:
        """The name in DOT of what stands for a node: a layer's box, or the node's own."""
        shown = self.shown_as.get(layer, layer)
        base = f"{node.origin.role}{self.number[shown]}"
        return f"{base}_{layer.nodes[node.origin.role].index(node)}" if shown in self.expanded else base

    # edges and notes

    def _read(self, node: Node, layer: Layer, value: Value) -> None:
        """Draw that a node reads a value: as an edge, as a name in the note of its box, or not at all."""
        here, role, shown = self.place[node], node.origin.role, self.shown_as.get(layer, layer)
        first_run = shown is layer
        maker = self.graph.producer.get(value)
        if maker is not None:
            if is_number(maker):
                return
            other = self.outline.layer_of[maker]
            self._read_node(node, layer, value, maker, other)
        elif value.name in self.graph.variables:
            if self.outline.owner.get(value) is not layer:
                if first_run:
                    self._note(here, layer, value)
            elif self.graph.variables[value.name].kind in SLOTS or role in ("forward", "statistic"):
                self._edge(self._state_place(self.graph.variables[value.name], shown), here, None, "row")
        elif role == "forward" or (role == "update" and not layer.nodes["forward"]):
            self._edge(f"input{self.graph.inputs.index(value)}", here, value.type, "forward")
        elif first_run:
            self._note(here, layer, value)

    def _read_node(self, node: Node, layer: Layer, value: Value, maker: Node, other: Layer) -> None:
        here, there = self.place[node], self.place[maker]
        role, its = node.origin.role, maker.origin.role
        mine, theirs = self.run_of.get(layer), self.run_of.get(other)
        if mine and theirs and mine[0] == theirs[0] and mine[1] != theirs[1] and role == its:
            return  # from one run of a repeat to the next
        if layer is other and (role == its or (its, role) in (("forward", "statistic"), ("backward", "update"))):
            if here != there:
                self._edge(there, here, value.type if role == its else None, role if role == its else "row")
        elif layer is not other and role == its and role in ("forward", "backward"):
            self._edge(there, here, value.type, role)
        elif role == "statistic" and any(value in n.inputs for n in layer.nodes["forward"]):
            return  # the layer reads it anyway
        elif self.shown_as.get(layer, layer) is layer:
            self._note(here, layer, value)

    def _edge(self, start: str, end: str, type_: Type | None, kind: str) -> None:
        self.kinds[start, end] = kind
        labels = self.edges.setdefault((start, end), {})
        if type_ is not None:
            labels[type_text(type_)] = None

    def _note(self, here: str, layer: Layer, value: Value) -> None:
        self.notes.setdefault(here, {})[self._name(value, layer)] = None

    def _name(self, value: Value, seen_from: Layer) -> str:
        """What a value is called in a note: its layer, where that hands on only this one; without the block they share."""
        maker = self.graph.producer.get(value)
        layer = self.outline.layer_of.get(maker) if maker is not None else self.outline.owner.get(value)
        name = value.name
        if layer is not None and maker is not None and maker.origin.role == "forward":
            name = layer.name if self.outline.main.get(layer) is value else f"{layer.name}.{value.name.rpartition('.')[2]}"
        if layer is not None and seen_from.block and layer.block == seen_from.block:
            name = name.removeprefix(f"{layer.block}.")
        return name

    def _state_place(self, variable: Variable, layer: Layer) -> str:
        if variable.kind == "statistic" and layer.nodes["statistic"]:
            return f"running{self.number[layer]}"
        return f"{'slots' if variable.kind in SLOTS and layer.nodes['update'] else 'state'}{self.number[layer]}"

    # writing

    def source(self) -> str:
        page = graphviz.Digraph("minigraph", graph_attr={
            "rankdir": "TB", "nodesep": "0.22", "ranksep": "0.28", "fontname": FONT, "fontsize": "11", "label": self._title(),
            "labelloc": "t", "labeljust": "l", "margin": "0.15", "bgcolor": "white", "class": "minigraph", "newrank": "true",
        }, node_attr={"fontname": FONT, "fontsize": "10", "shape": "box", "style": "rounded,filled", "height": "0.3", "margin": "0.11,0.05"},
            edge_attr={"fontname": FONT, "fontsize": "8", "fontcolor": "#444444", "arrowsize": "0.55", "color": "#555555"})
        self._headings(page)
        for i, value in enumerate(self.graph.inputs):
            if any(start == f"input{i}" for start, _ in self.edges):
                page.node(f"input{i}", _label(value.name), fillcolor=INPUT, color="#222222", shape="box", group="forward",
                          tooltip=_label(f"input {value}"), **{"class": "minigraph-port"})
        for _, group in groupby(self.layers, key=self._frame):
            self._block(page, list(group))
        self._outputs(page)
        self._edges(page)
        return page.source

    def _title(self) -> str:
        nodes = sum(not is_number(node) for node in self.graph.nodes)
        return _label(f"{self.graph.name}: {nodes} nodes, {len(self.graph.state)} states") + "\\l"

    def _headings(self, page: graphviz.Digraph) -> None:
        """The roles that occur, as coloured words over their columns."""
        roles = [role for role in COLUMNS if any(layer.nodes[role] for layer in self.layers)]
        if len(roles) < 2:
            return
        with page.subgraph(graph_attr={"rank": "min"}) as row:
            for role in roles:
                row.node(f"heading_{role}", role if role != "statistic" else "statistics", fillcolor=LOOKS[role].line,
                         color=LOOKS[role].line, fontcolor="white", style="filled", group=role, height="0.22")
            for left, right in zip(roles, roles[1:]):
                row.edge(f"heading_{left}", f"heading_{right}", style="invis")
        for role in roles:
            first = next(layer for layer in self.layers if layer.nodes[role])
            page.edge(f"heading_{role}", self.place[first.nodes[role][0]], style="invis", weight="30")

    def _frame(self, layer: Layer) -> tuple[object, ...]:
        """What layers have in common that stand in one frame: a repeat, or a block."""
        return ("repeat", self.run_of[layer][0]) if layer in self.run_of else ("block", layer.block)

    def _block(self, page: graphviz.Digraph, layers: Sequence[Layer]) -> None:
        first = layers[0]
        if first in self.run_of:
            title = self._repeat_title(self.repeated[self.run_of[first][0]])
        elif first.block:
            title = first.block
        else:
            for layer in layers:
                self._row(page, layer)
            return
        with page.subgraph(name=f"cluster_{self.number[first]}", graph_attr={
                "label": _label(title), "style": "rounded,dashed" if first in self.run_of else "rounded", "color": BLOCK, "labeljust": "l",
                "fontsize": "10", "penwidth": "1.6" if first in self.run_of else "0.8", "margin": "9", "class": "minigraph-block"}) as frame:
            for layer in layers:
                self._row(frame, layer)

    def _repeat_title(self, repeat: Repeat) -> str:
        runs = [self.outline.layers[repeat.start + i * repeat.length : repeat.start + (i + 1) * repeat.length] for i in range(repeat.times)]
        blocks = ["+".join(dict.fromkeys(layer.block for layer in run)) for run in runs]
        names = blocks if all(blocks) else [run[0].name if len(run) == 1 else f"{run[0].name} to {run[-1].name}" for run in runs]
        return f"{repeat.times} ×   {names[0]}, … , {names[-1]}" if repeat.times > 2 else f"2 ×   {names[0]}, {names[1]}"

    def _row(self, page: graphviz.Digraph, layer: Layer) -> None:
        """A layer's boxes with their state and notes, side by side; or, expanded, a frame for each role."""
        order: list[str] = []
        with page.subgraph(graph_attr={} if layer in self.expanded else {"rank": "same"}) as row:
            self._state(row, layer, f"state{self.number[layer]}", order)
            for role in COLUMNS:
                nodes = layer.nodes[role]
                if not nodes:
                    continue
                if layer in self.expanded:
                    self._nodes(row, layer, role, nodes)
                else:
                    self._draw_note(row, self.place[nodes[0]], order)
                    self._layer_box(row, layer, role, nodes)
                    order.append(self.place[nodes[0]])
                if role == "statistic":
                    self._state(row, layer, f"running{self.number[layer]}", order)
            self._state(row, layer, f"slots{self.number[layer]}", order)
            for left, right in zip(order, order[1:]):
                if (left, right) not in self.edges and (right, left) not in self.edges:
                    row.edge(left, right, style="invis")

    def _layer_box(self, page: graphviz.Digraph, layer: Layer, role: str, nodes: Sequence[Node]) -> None:
        look, title = LOOKS[role], layer.title
        lines = ops_lines(self.graph, nodes)
        if role == "forward" and len(nodes) == 1 and title.rstrip("0123456789") == nodes[0].op.name:
            lines = [line.removeprefix(nodes[0].op.name).strip() for line in lines]  # relu2 needs no "relu" below
        if role not in layer.nodes or (look.word and title != role and not (role == "update" and not layer.nodes["forward"])):
            title = f"{title} {look.word}"
        written = [name.removeprefix(f"{layer.name}.") for name in self._written(nodes)]
        if written and role != "statistic":
            lines += wrapped(written, ", ", 3)
            lines[-len(wrapped(written, ", ", 3))] = "→ " + lines[-len(wrapped(written, ", ", 3))]
        page.node(self.place[nodes[0]], _label(title, *filter(None, lines)), fillcolor=look.fill, color=look.line, group=role,
                  tooltip=_label(*_details(nodes)), **{"class": "minigraph-layer"})

    def _written(self, nodes: Iterable[Node]) -> list[str]:
        made = {value for node in nodes for value in node.outputs}
        return [old.name for old, new in self.graph.updates.items() if new in made and self.graph.variables[old.name].kind not in SLOTS]

    def _nodes(self, page: graphviz.Digraph, layer: Layer, role: str, nodes: Sequence[Node]) -> None:
        look = LOOKS[role]
        frame = {"label": _label(f"{layer.title} {look.word}"), "color": look.line, "style": "rounded", "fontsize": "9", "margin": "6",
                 "fontcolor": look.line, "labeljust": "l"}
        with page.subgraph(name=f"cluster_{role}{self.number[layer]}" if len(nodes) > 1 else None, graph_attr=frame if len(nodes) > 1 else {}) as inside:
            for node in nodes:
                place = self.place[node]
                self._draw_note(inside, place, [])
                written = [f"→ {name}" for name in self._written([node])]
                inside.node(place, _label(call_text(self.graph, node), *written), fillcolor=look.fill, color=look.line,
                            tooltip=_label(*_details([node])))

    def _draw_note(self, page: graphviz.Digraph, place: str, order: list[str]) -> None:
        if place in self.notes:
            names = list(self.notes[place])
            lines = [*names[:4], f"and {len(names) - 4} more"] if len(names) > 5 else names
            page.node(f"note_{place}", _label(*lines), shape="note", style="filled", fillcolor=NOTE, color="#B0A060", fontsize="8",
                      height="0.2", margin="0.06,0.03", tooltip=_label("reads", *names))
            self._edge(f"note_{place}", place, None, "note")
            order.append(f"note_{place}")

    def _state(self, page: graphviz.Digraph, layer: Layer, place: str, order: list[str]) -> None:
        variables = [v for v in layer.state if self._state_place(v, layer) == place]
        if not variables or not any(start == place for start, _ in self.edges):
            return
        short = [v.name.removeprefix("optimizer.").removeprefix(f"{layer.name}.") for v in variables]
        if place.startswith("slots"):
            lines = wrapped(short, ", ")
        else:
            lines = [f"{name}  {type_text(v.value.type)}" for name, v in zip(short, variables)]
        page.node(place, _label(*lines), shape="cylinder", style="filled", fillcolor=STATE, color="#77735F", fontsize="8", height="0.3",
                  margin="0.08,0.08", tooltip=_label(*(f"{v.kind} {v.value}" for v in variables)))
        order.append(place)

    def _outputs(self, page: graphviz.Digraph) -> None:
        for i, (name, value) in enumerate(self.graph.outputs.items()):
            page.node(f"output{i}", _label(name), fillcolor="#222222", color="#222222", fontcolor="white",
                      tooltip=_label(f"output {name} = {value}"), **{"class": "minigraph-port"})
            maker = self.graph.producer.get(value)
            if maker in self.place:
                self._edge(self.place[maker], f"output{i}", value.type, maker.origin.role if maker.origin.role == "backward" else "forward")  # type: ignore[index, union-attr]

    def _edges(self, page: graphviz.Digraph) -> None:
        for (start, end), labels in self.edges.items():
            kind = self.kinds[start, end]
            label = "".join(f"\u00a0{_label(line)}\\l" for line in labels)
            if kind == "backward":  # up the page: Graphviz ranks the edge the other way round
                page.edge(end, start, label, dir="back", color=LOOKS["backward"].line, weight="2")
            elif kind == "note":
                page.edge(start, end, style="dotted", arrowsize="0.4", color="#8A7A30", weight="20")
            elif start.startswith(("slots", "running")):  # these stand to the right
                page.edge(end, start, dir="back", color="#77735F", arrowsize="0.4")
            elif kind == "row":
                color = LOOKS["update"].line if end.startswith("update") else "#77735F"
                page.edge(start, end, color=color, arrowsize="0.4")
            else:
                page.edge(start, end, label, color=LOOKS[kind].line if kind in ROLES else "#555555", weight="4")


def _details(nodes: Iterable[Node]) -> list[str]:
    """What is said when the pointer rests on a box."""
    return [f"{', '.join(map(repr, node.outputs))} = {node.op.name}({', '.join(v.name for v in node.inputs)})"
            + (f"   {node.origin.where()}" if node.origin.file else "") for node in nodes]


def _label(*lines: str) -> str:
    """Lines as a label in which nothing has a meaning of its own: no escapes, no entities, no HTML."""
    return graphviz.nohtml("\\n".join(_plain(line) for line in lines if line) or " ")


def _plain(line: str) -> str:
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return printable.replace("\\", "\\\\").replace("&", "&amp;")
