"""A graph as DOT text, the language of Graphviz.

The page has a column for each role. The forward runs down; the backward stands beside it and runs up, so that a layer,
its statistics, its gradient and its update form a row. Blocks and repeats have a frame in the forward column and one
beside it. (Frames across all columns would be one, but inside of them Graphviz gives up the order of a row.)

Where two graphs are compared, each is such a page, and what only one of them has is marked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby, pairwise

import graphviz  # type: ignore[import-untyped]

from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node
from minigraph.core.rewrite import Refused
from minigraph.driver.profile import Profile
from minigraph.tools.labels import call_lines, moves_only, ops_lines, size_text, type_text, wrapped
from minigraph.tools.outline import Layer, is_number, outline
from minigraph.tools.repeats import Repeat, repeats
from minigraph.tools.sketch import CYLINDERS, Sketch
from minigraph.tools.style import (
    EDGE,
    FOOTNOTES,
    FRAME,
    GRAPH,
    INPUT,
    INVISIBLE,
    LOOKS,
    MARKS,
    NODE,
    NOTE,
    OUTPUT,
    REPEAT,
    STATE,
)

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
SIDES = (("forward", "statistic"), ("backward", "update"))  # the columns left and right of the middle


def dot(
    graph: Graph,
    collapse: bool = True,
    expand: Sequence[str] = (),
    *,
    title: str | None = None,
    marks: Mapping[Node, str] | None = None,
    reasons: Iterable[Refused] = (),
    profile: Profile | None = None,
) -> str:
    """The picture's DOT text; collapse, expand, reasons and profile are as for `draw`.

    title: instead of the graph's name. marks: how nodes differ from another graph's: "went", "came" or "changed".
    """
    whole = outline(graph)
    expanded = frozenset(layer for layer in whole.layers if any(fnmatchcase(layer.name, p) for p in expand))
    runs = repeats(whole, expanded, marks) if collapse else ()
    sketch = Sketch(whole, expanded, runs, marks, reasons, profile)
    page = _page(f"{title or graph.name}: {size_text(graph)}, {len(graph.state)} states", sketch)
    _headings(page, sketch)
    for i, value in enumerate(graph.inputs):
        page.node(f"input{i}", label(value.name), group="forward", tooltip=label(f"input {value}"), **INPUT)
    for _, group in groupby(sketch.layers, key=lambda layer: sketch.run_of.get(layer, (layer.block, 0))[0]):
        _boxes(page, sketch, list(group))
    _outputs(page, sketch, None)
    for layer in sketch.layers:
        _row(page, sketch, layer)
    _edges(page, sketch)
    _footnotes(page, sketch)
    return page.source


def check_expand(expand: Sequence[str], *graphs: Graph) -> None:
    """Raise GraphError for a pattern that names no layer of any of the graphs."""
    names = list(dict.fromkeys(layer.name for graph in graphs for layer in outline(graph).layers))
    for pattern in expand:
        known = ", ".join(names) or "none"
        fits = any(fnmatchcase(name, pattern) for name in names)
        expect(fits, "no layer is called like {!r}; there are {}", pattern, known)


def _page(title: str, sketch: Sketch) -> graphviz.Digraph:
    """A page with its title and what marks and colours mean, where graphs are compared or times are shown.

    In words: the wheel's Graphviz has no labels with boxes in them.
    """
    found = set(sketch.marks.values()) if sketch.marks else set()
    legend = ",   ".join(f"{mark.sign} {mark.word}" for word, mark in MARKS.items() if word in found)
    times = sketch.heat.legend if sketch.heat else ""
    times += "; a dashed frame has the time of all its repeats" if times and sketch.repeats else ""
    caption = "".join(f"{label(line)}\\l" for line in (title, legend, times) if line)
    return graphviz.Digraph("minigraph", graph_attr={**GRAPH, "label": caption}, node_attr=NODE, edge_attr=EDGE)


def _footnotes(page: graphviz.Digraph, sketch: Sketch) -> None:
    """The sentences with the numbers that stand at places, below the outputs."""
    lines = [f"{number} {line}" for number, line in enumerate(sketch.sentences, 1)]
    if lines:
        lines = [part for line in lines for part in wrapped(line.split(" "), " ", 4, 100)]
        page.node("footnotes", "".join(f"{label(line)}\\l" for line in lines), **FOOTNOTES)
        for i in range(len(sketch.outputs)):
            page.edge(f"output{i}", "footnotes", weight="0", **INVISIBLE)


def _headings(page: graphviz.Digraph, sketch: Sketch) -> None:
    """The roles that occur, as coloured words over their columns."""
    first = {role: next((layer.nodes[role][0] for layer in sketch.layers if layer.nodes[role]), None) for role in LOOKS}
    found = {role: node for role, node in first.items() if node is not None}
    if len(found) < 2:
        return
    with page.subgraph(graph_attr={"rank": "source"}) as row:
        for role in found:
            row.node(
                f"heading_{role}",
                "statistics" if role == "statistic" else role,
                fillcolor=LOOKS[role].line,
                color=LOOKS[role].line,
                fontcolor="white",
                style="filled",
                group=role,
                height="0.22",
            )
        for left, right in pairwise(found):
            row.edge(f"heading_{left}", f"heading_{right}", **INVISIBLE)
    for role, node in found.items():
        # With an edge to the statistics as well, Graphviz gives up the order of the first row.
        if role == "statistic" or sketch.outline.layer_of[node] in sketch.expanded:
            continue
        above = [start for start, end in sketch.edges if end == sketch.place[node] and start.startswith("input")]
        page.edge(f"heading_{role}", above[0] if above else sketch.place[node], **INVISIBLE)


def _boxes(page: graphviz.Digraph, sketch: Sketch, layers: Sequence[Layer]) -> None:
    """The boxes of layers that share a frame, or have none."""
    run, first = sketch.run_of.get(layers[0]), layers[0]
    for side, roles in enumerate(SIDES):
        if not (run or first.block) or not any(layer.nodes[role] for layer in layers for role in roles):
            for layer in layers:
                _side(page, sketch, layer, roles)
            continue
        title = _repeat_title(sketch, sketch.repeats[run[0]]) if run else first.block
        with page.subgraph(
            name=f"cluster_{side}_{sketch.number[first]}",
            graph_attr={**(REPEAT if run else FRAME), "label": label(title)},
        ) as frame:
            for layer in layers:
                _side(frame, sketch, layer, roles)


def _repeat_title(sketch: Sketch, repeat: Repeat) -> str:
    names = []
    for run in range(repeat.times):
        layers = sketch.outline.layers[repeat.start + run * repeat.length : repeat.start + (run + 1) * repeat.length]
        blocks = list(dict.fromkeys(layer.block for layer in layers))
        ends = blocks if all(blocks) else [layer.name for layer in layers]
        names.append(ends[0] if len(ends) == 1 else f"({ends[0]} to {ends[-1]})")
    return (
        f"{repeat.times} ×  {', '.join(names)}"
        if repeat.times < 4
        else f"{repeat.times} ×  {names[0]}, {names[1]}, … , {names[-1]}"
    )


def _side(page: graphviz.Digraph, sketch: Sketch, layer: Layer, roles: Iterable[str]) -> None:
    """A layer's boxes for these roles, with their notes and cylinders."""
    number = sketch.number[layer]
    for role in roles:
        nodes = layer.nodes[role]
        if layer in sketch.expanded:
            _nodes(page, sketch, layer, role)
        elif nodes:
            _box(page, sketch, layer, role)
            _outputs(page, sketch, sketch.place[nodes[0]])
        kinds = {"forward": "state", "statistic": "running", "update": "slots"}
        if role in kinds:
            _cylinder(page, sketch, layer, f"{kinds[role]}{number}")


def _outputs(page: graphviz.Digraph, sketch: Sketch, beside: str | None) -> None:
    """The outputs that stand beside a place; for None those that stand for themselves, and what no layer makes."""
    for i, (name, value) in enumerate(sketch.graph.outputs.items()):
        if sketch.outputs[name] == beside:
            maker, lines = sketch.graph.producer.get(value), [name]
            if maker is not None and is_number(maker):
                lines.append(f"= {maker.attrs['value']:g}")
            elif value.name in sketch.graph.variables and value not in sketch.outline.owner:
                lines.append(f"= {value.name}")
            page.node(f"output{i}", label(*lines), tooltip=label(f"output {name} = {value}"), **OUTPUT)


def _box(page: graphviz.Digraph, sketch: Sketch, layer: Layer, role: str) -> None:
    """A layer as one box: its name, its ops, the state that it moves."""
    look, nodes, title = LOOKS[role], layer.nodes[role], layer.title
    place = sketch.place[nodes[0]]
    mark = sketch.mark(nodes)
    signs = {n: f"{MARKS[sketch.marks[n]].sign} " for n in nodes if sketch.marks and n in sketch.marks}
    lines = ops_lines(sketch.graph, nodes, signs=signs if mark == "changed" and len(nodes) > 1 else {})
    if len(nodes) == 1 and title.rstrip("0123456789") == nodes[0].op.name:
        lines = [line.removeprefix(nodes[0].op.name).strip() for line in lines]  # relu2 needs no "relu" below
    if look.word and layer.nodes["forward"]:
        title += f" {look.word}"
    if role == "update":
        lines += [f"reads {line}" for line in wrapped(sketch.notes.get(place, ()), ", ", 1)]
        written = [name.removeprefix(f"{layer.name}.") for name in _written(sketch.graph, nodes)]
        lines += [f"→ {line}" for line in wrapped(written, ", ", 1)]
    else:
        _note(page, sketch, place)
    page.node(
        place,
        label(_titled(sketch, place, title, mark), _time(sketch, place), *lines),
        tooltip=label(*_details(nodes)),
        **_look(sketch, role, mark, place),
        **{
            "class": "minigraph-layer minigraph-marked" if mark else "minigraph-layer",
            **({"group": role} if layer in sketch.spine else {}),
        },
    )


def _look(sketch: Sketch, role: str, mark: str | None, place: str) -> dict[str, str]:
    """The colours of a box: where graphs are compared, those of its mark, and pale where nothing changed.

    Where times are shown, the fill is that of its time.
    """
    if mark:
        return MARKS[mark].attributes
    if sketch.heat:
        return {**sketch.heat.look(place), "color": LOOKS[role].line}
    return {"fillcolor": LOOKS[role].fill if sketch.marks is None else "white", "color": LOOKS[role].line}


def _time(sketch: Sketch, place: str) -> str:
    return sketch.heat.line(place) if sketch.heat else ""


def _titled(sketch: Sketch, place: str, title: str, mark: str | None) -> str:
    """A title with the sign of its mark before it and the numbers of its footnotes behind it."""
    notes = " ".join(str(number).translate(SUPERSCRIPT) for number in sketch.footnotes.get(place, ()))
    return " ".join(filter(None, [MARKS[mark].sign if mark else "", title, notes]))


def _nodes(page: graphviz.Digraph, sketch: Sketch, layer: Layer, role: str) -> None:
    """An expanded layer: each of its nodes, with a frame around them where there are several."""
    look, nodes = LOOKS[role], [*(layer.frozen if role == "forward" else ()), *layer.nodes[role]]
    frame = {
        "label": label(f"{layer.title} {look.word}"),
        "color": look.line,
        "fontcolor": look.line,
        "style": "rounded",
        "fontsize": "9",
        "margin": "6",
        "labeljust": "l",
    }
    several = len(nodes) > 1
    with page.subgraph(
        name=f"cluster_{role}{sketch.number[layer]}" if several else None, graph_attr=frame if several else {}
    ) as inside:
        for node in nodes:
            _note(inside, sketch, sketch.place[node])
            written = [f"→ {name}" for name in _written(sketch.graph, [node])]
            title = [] if several or layer.title.rstrip("0123456789") == node.op.name else [layer.title]
            lines, mark = [*title, *call_lines(sketch.graph, node), *written], sketch.mark([node])
            place = sketch.place[node]
            lines[0] = _titled(sketch, place, lines[0], mark)
            inside.node(
                place,
                label(lines[0], _time(sketch, place), *lines[1:]),
                tooltip=label(*_details([node])),
                **_look(sketch, role, mark, place),
            )


def _written(graph: Graph, nodes: Iterable[Node]) -> list[str]:
    """The parameters and statistics that these nodes move."""
    made = {value for node in nodes for value in node.outputs}
    return [
        old.name
        for old, new in graph.updates.items()
        if new in made and graph.variables[old.name].kind in ("parameter", "statistic")
    ]


def _note(page: graphviz.Digraph, sketch: Sketch, place: str) -> None:
    if place in sketch.notes:
        names = list(sketch.notes[place])
        lines = [*names[:4], f"and {len(names) - 4} more"] if len(names) > 5 else names
        page.node(f"note_{place}", label(*lines), tooltip=label("reads", *names), **NOTE)
        page.edge(f"note_{place}", place, style="dotted", arrowsize="0.4", color="#8A7A30", weight="20")


def _cylinder(page: graphviz.Digraph, sketch: Sketch, layer: Layer, place: str) -> None:
    """State of a layer; where numbers are computed from it alone, how they are."""
    variables = [v for v in layer.state if sketch.cylinder(v, layer) == place]
    names = [v.name.removeprefix("optimizer.").removeprefix(f"{layer.name}.") for v in variables]
    typed = [f"{name}  {type_text(v.value.type)}" for name, v in zip(names, variables)]
    lines, details = wrapped(names, ", ") if place.startswith("slots") else typed, []
    mark = None
    if place.startswith("state") and layer in sketch.formulas:
        nodes = [node for node in sketch.frozen[layer] if not is_number(node)]
        mark, details = sketch.mark([node for node in nodes if not moves_only(node)]), _details(nodes)
        formulas = [part for line in sketch.formulas[layer] for part in wrapped(line.split(" "), " ")]
        formulas[0] = _titled(sketch, place, formulas[0], mark)
        count = f"({len(nodes)} ops on parameters)" if len(nodes) > 1 else "(1 op on parameters)"
        unread = [line for v, line in zip(variables, typed) if all(v.value not in n.inputs for n in nodes)]
        lines = [*formulas, count, *unread]
    if lines:
        tooltip = label(*details, *(f"{v.kind} {v.value}" for v in variables))
        look = {**MARKS[mark].attributes, "class": "minigraph-marked"} if mark else {}
        page.node(place, label(*lines, _time(sketch, place)), tooltip=tooltip, **{**STATE, **look, "peripheries": "1"})


def _row(page: graphviz.Digraph, sketch: Sketch, layer: Layer) -> None:
    """Bring what belongs to a layer side by side, in order."""
    number, order = sketch.number[layer], []
    if layer in sketch.expanded:
        return
    state = {kind for kind in CYLINDERS if any(sketch.cylinder(v, layer) == f"{kind}{number}" for v in layer.state)}
    if "state" in state or layer in sketch.formulas:
        order.append(f"state{number}")
    for role, kind in (("forward", ""), ("statistic", "running"), ("backward", ""), ("update", "slots")):
        place = f"{role}{number}"
        if place in sketch.notes and role != "update":
            order.append(f"note_{place}")
        if layer.nodes[role]:
            order.append(place)
            order += [f"output{i}" for i, beside in enumerate(sketch.outputs.values()) if beside == place]
        if kind in state:
            order.append(f"{kind}{number}")
    with page.subgraph(graph_attr={"rank": "same"}) as row:
        for left, right in pairwise(order):
            if (left, right) not in sketch.edges and (right, left) not in sketch.edges and left != f"note_{right}":
                row.edge(left, right, **INVISIBLE)
        for place in order:
            row.node(place)
    before = [
        f"update{sketch.number[other]}"
        for other in sketch.layers
        if other.nodes["update"] and other not in sketch.expanded
    ]
    if not layer.nodes["forward"] and len(before) > 1 and before[-1] == f"update{number}":
        page.edge(before[-2], before[-1], **INVISIBLE)  # what serves all layers stands below them


def _edges(page: graphviz.Digraph, sketch: Sketch) -> None:
    step = {
        sketch.place[node]: i
        for i, layer in enumerate(sketch.spine)
        for nodes in layer.nodes.values()
        for node in nodes
    }
    for (start, end), edge in sketch.edges.items():
        types = "".join(f"\u00a0{label(line)}\\l" for line in edge.labels)
        weight = "8" if start in step and end in step and abs(step[start] - step[end]) == 1 else "2"
        if edge.kind == "backward":  # up the page: Graphviz ranks the edge the other way round
            page.edge(end, start, types, dir="back", color=LOOKS["backward"].line, weight=weight)
        elif start.startswith(("running", "slots")):  # these stand to the right of what reads them
            page.edge(end, start, dir="back", arrowsize="0.4")
        elif edge.kind == "row":
            line = "update" if end.startswith("update") else "forward" if end.startswith("output") else None
            page.edge(start, end, arrowsize="0.4", **({"color": LOOKS[line].line} if line else {}))
        else:
            page.edge(start, end, types, color=LOOKS[edge.kind].line, weight=weight)


def _details(nodes: Iterable[Node]) -> list[str]:
    """What is said when the pointer rests on a box: each node, and the line that made it."""
    return [
        f"{', '.join(map(repr, node.outputs))} = {node.op.name}({', '.join(v.name for v in node.inputs)})"
        + (f"   {os.path.basename(node.origin.file)}:{node.origin.line}" if node.origin.file else "")
        for node in nodes
    ]


def label(*lines: str) -> str:
    """Lines as a label in which nothing has a meaning of its own: no escapes, no entities, no HTML."""
    return graphviz.nohtml("\\n".join(_plain(line) for line in lines if line) or " ")


def _plain(line: str) -> str:
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return printable.replace("\\", "\\\\").replace("&", "&amp;")
