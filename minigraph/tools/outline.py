"""The outline of a graph: its nodes gathered into layers, as the person who wrote the network thinks of it.

A layer is a scope that owns state (conv1 with conv1.weight) or has one node (dropout1), or one node of its own where
there is no such scope (a relu). To it belong, by role, the forward nodes, the statistics, the backward nodes of its
forward nodes, and the updates of its state. Pictures and tables show layers; nobody computes with them.

What is computed from parameters and constants alone, such as a batch norm's scale times a weight, belongs to the layer
that reads it, apart from the nodes that see the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from minigraph.core.frozen import frozen, leaves
from minigraph.core.ir import ROLES, Graph, Node, Value, Variable
from minigraph.ops.constant import fill


@dataclass(eq=False)
class Layer:
    """name: unique in the outline. block: the scope around the layer, "" for none. nodes: by role, in the graph's
    order. frozen: what its forward reads that is computed from parameters and constants alone.
    """

    name: str
    block: str = ""
    nodes: dict[str, list[Node]] = field(default_factory=lambda: {role: [] for role in ROLES})
    frozen: list[Node] = field(default_factory=list)
    state: list[Variable] = field(default_factory=list)

    @property
    def everything(self) -> list[Node]:
        """All its nodes: the frozen ones, then those of each role."""
        return [*self.frozen, *(node for nodes in self.nodes.values() for node in nodes)]

    @property
    def title(self) -> str:
        """The name without that of the block."""
        return self.name[len(self.block) + 1 :] if self.block else self.name


@dataclass(frozen=True, eq=False)
class Outline:
    """All layers of a graph, in the order of their first nodes; numbers such as 0.5 are no nodes here."""

    graph: Graph
    layers: tuple[Layer, ...]

    @cached_property
    def layer_of(self) -> Mapping[Node, Layer]:
        return {node: layer for layer in self.layers for node in layer.everything}

    @cached_property
    def owner(self) -> Mapping[Value, Layer]:
        """The layer that a state belongs to; a state that nobody reads or updates has none."""
        return {variable.value: layer for layer in self.layers for variable in layer.state}

    @cached_property
    def main(self) -> Mapping[Layer, Value]:
        """What a layer hands on: the first of its forward values that is read outside of it or is an output of the
        graph.
        """
        outputs = set(self.graph.outputs.values())
        found = {}
        for layer in self.layers:
            for value in (v for node in reversed(layer.nodes["forward"]) for v in node.outputs):
                readers = [n for n in self.graph.readers.get(value, ()) if n.origin.role == "forward"]
                if value in outputs or any(self.layer_of.get(n) is not layer for n in readers):
                    found[layer] = value
                    break
        return found


def is_number(node: Node) -> bool:
    """Whether a node is no more than one written number."""
    return node.op is fill and not node.outputs[0].type.shape


def count(graph: Graph) -> tuple[int, int]:
    """How many nodes see the data, and how many compute from parameters alone; numbers count as neither."""
    early = frozen_nodes(graph)
    return (
        sum(not is_number(node) and node not in early for node in graph.nodes),
        sum(not is_number(node) for node in early),
    )


def frozen_nodes(graph: Graph) -> set[Node]:
    """The frozen nodes of the forward that state is a part of, and that a node which sees the data reads in the end."""
    still, of_state = frozen(graph), leaves(graph)
    for node in graph.nodes:
        if node.outputs[0] in still and not of_state.isdisjoint(node.inputs):
            of_state.update(node.outputs)
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in found:
            found.update(maker for maker in _makers(graph, node) if not is_number(maker))
        elif node.outputs[0] not in still and node.origin.role == "forward":
            makers = [graph.producer[v] for v in node.inputs if v in of_state and v in graph.producer]
            found.update(maker for maker in makers if maker.outputs[0] in still and maker.origin.role == "forward")
    return found


def outline(graph: Graph) -> Outline:
    """The layers of a graph.

    Forward nodes of one scope that is a layer make one as far as they are connected, so that shared weights which are
    used twice are two layers. A backward node goes to the layer of the node that it differentiates, a statistic to the
    layer in whose scope it is. An update goes to the layer whose state it serves; one that serves several (a schedule,
    the norm of all gradients) makes a layer with its like.
    """
    early = frozen_nodes(graph)
    layer_of = _forward(graph, early)
    for node in reversed(graph.nodes):
        if node in early:
            layers_of_readers = [layer_of[n] for value in node.outputs for n in graph.readers[value] if n in layer_of]
            layers_of_readers.sort(key=lambda layer: layer.name != node.origin.scope)
            layer_of[node] = layers_of_readers[0]
    by_name = {node.name: node for node in layer_of}
    shared: dict[tuple[str, str], Layer] = {}
    for node in graph.nodes:
        origin = node.origin
        if node in layer_of or is_number(node) or origin.role == "update":
            continue
        if origin.role == "statistic":
            layer = _measured(graph, node, layer_of)
        else:
            layer = layer_of.get(by_name[origin.forward]) if origin.forward in by_name else None
        layer_of[node] = layer or shared.setdefault(
            (origin.role, origin.scope or origin.forward), Layer(origin.scope or node.name)
        )
    layer_of.update(_updates(graph, layer_of, _owners(graph, layer_of), shared))
    layers: dict[Layer, None] = {}
    for node in graph.nodes:
        if node in early:
            layer_of[node].frozen.append(node)
        elif node in layer_of:
            layer_of[node].nodes[node.origin.role].append(node)
            layers.setdefault(layer_of[node])
    for value, layer in _owners(graph, layer_of).items():
        layer.state.append(graph.variables[value.name])
    _name_apart(layers)
    return Outline(graph, tuple(layers))


def _forward(graph: Graph, early: Set[Node]) -> dict[Node, Layer]:
    """Forward nodes but for frozen ones: those of a scope that is a layer, joined where one reads the other; the others
    each for itself. What a layer computes for its statistics alone belongs to it as well.
    """
    forward = [n for n in graph.nodes if n.origin.role == "forward" and n not in early and not is_number(n)]
    count = Counter(node.origin.scope for node in forward)
    owning = {variable.name.rpartition(".")[0] for variable in graph.state} | {s for s in count if count[s] == 1}
    owning -= {"", *(s.rpartition(".")[0] for s in count)}
    root = {node: node for node in forward}

    def find(node: Node) -> Node:
        while root[node] is not node:
            root[node] = node = root[root[node]]
        return node

    for node in forward:
        for value in node.inputs:
            before = graph.producer.get(value)
            if before in root and node.origin.scope in owning and before.origin.scope == node.origin.scope:
                root[find(node)] = find(before)
    outputs, goes_on = set(graph.outputs.values()), set()
    for node in forward:
        readers = [reader for value in node.outputs for reader in graph.readers.get(value, ())]
        others = any(reader in root and find(reader) is not find(node) for reader in readers)
        if others or not outputs.isdisjoint(node.outputs):
            goes_on.add(find(node))
    main: dict[str, Node] = {}
    for node in forward:
        if find(node) in goes_on:
            main.setdefault(node.origin.scope, find(node))
    for node in forward:
        scope = node.origin.scope
        if find(node) not in goes_on and scope in owning and scope in main:
            root[find(node)] = main[scope]
    layers: dict[Node, Layer] = {}
    for node in forward:
        scope, first = node.origin.scope, find(node)
        if first not in layers:
            owns = scope in owning
            layers[first] = Layer(scope if owns else node.name, scope.rpartition(".")[0] if owns else _block(node))
    return {node: layers[find(node)] for node in forward}


def _block(node: Node) -> str:
    return node.origin.scope if node.name.startswith(f"{node.origin.scope}.") else ""


def _measured(graph: Graph, node: Node, layer_of: Mapping[Node, Layer]) -> Layer | None:
    """The layer a statistic is of: that in its scope which it reads, or which one of its readers reads."""
    inside = [n for n in layer_of if n.origin.scope == node.origin.scope]
    averages = [n for n in graph.readers.get(node.outputs[0], ()) if n.origin.role == "statistic"]
    reads = [maker for n in (node, *averages) for maker in _makers(graph, n)]
    close = [n for n in reads if n in layer_of and n.origin.scope == node.origin.scope]
    close.sort(key=lambda n: n.origin.role != "forward")  # the batch that is averaged, not the average before
    return next((layer_of[n] for n in (*close, *inside)), None)


def _makers(graph: Graph, node: Node) -> list[Node]:
    """The nodes that a node reads."""
    return [graph.producer[value] for value in node.inputs if value in graph.producer]


def _owners(graph: Graph, layer_of: Mapping[Node, Layer]) -> dict[Value, Layer]:
    """For each state the layer of its name if that reads it, else the one that reads it first; for one that only
    updates read (a slot), the layer of these.
    """
    found: dict[Value, Layer] = {}
    for variable in graph.state:
        readers = [n for n in graph.readers.get(variable.value, ()) if n in layer_of]
        readers.sort(key=lambda n: ROLES.index(n.origin.role))
        own = [
            n for n in readers if n.origin.role == "forward" and layer_of[n].name == variable.name.rpartition(".")[0]
        ]
        maker = graph.producer.get(graph.updates.get(variable.value, variable.value))
        if readers or maker in layer_of:
            found[variable.value] = layer_of[(own or readers)[0] if readers else maker]  # type: ignore[index]
    return found


def _updates(
    graph: Graph, layer_of: Mapping[Node, Layer], owner: Mapping[Value, Layer], shared: dict[tuple[str, str], Layer]
) -> dict[Node, Layer]:
    """Update nodes: by the state that they lead to, and where that is only a slot, by what they read."""
    nodes = [n for n in graph.nodes if n.origin.role == "update" and not is_number(n)]
    serves: dict[Value, set[Layer]] = {}
    for state, new in graph.updates.items():
        if state in owner:
            serves.setdefault(new, set()).add(owner[state])
    for node in reversed(nodes):
        for value in node.inputs:
            serves.setdefault(value, set()).update(*(serves.get(v, ()) for v in node.outputs))
    found: dict[Node, Layer] = {}
    for node in nodes:
        layers = set().union(*(serves.get(v, set()) for v in node.outputs))
        if not layers:  # it leads to a slot only
            layers = {found[n] for n in _makers(graph, node) if n in found} - set(shared.values())
            layers = layers or {layer_of[n] for n in _makers(graph, node) if n in layer_of}
        key = ("update", node.origin.scope)
        found[node] = (
            layers.pop() if len(layers) == 1 else shared.setdefault(key, Layer(node.origin.scope or node.name))
        )
    return found


def _name_apart(layers: Iterable[Layer]) -> None:
    taken: Counter[str] = Counter()
    for layer in layers:
        taken[layer.name] += 1
        if taken[layer.name] > 1:
            layer.name = f"{layer.name} (use {taken[layer.name]})"
