"""Unfreeze: from the graph that answers to the graph that is trained, the opposite of freeze.

A batch norm that normalizes by its running statistics takes those of the batch instead, and the batch's go into the
running ones, which are updates from here on:

    y = batch_norm_inference(x, gamma, beta, m, v)      becomes      y, mean, var = batch_norm(x, gamma, beta)
                                                                     m' = m + momentum * (mean - m)
                                                                     v' = v + momentum * (var - v)

So freeze(unfreeze(g)) is g. A network that comes from elsewhere, such as a loaded ONNX file, is trained on this way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from minigraph.core.builder import Builder, Tensor
from minigraph.core.chosen import Patterns, chosen
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph, Node, Value, describe
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, other_axes, running_average
from minigraph.ops.constant import count_along
from minigraph.ops.pointwise import finite


def unfreeze(graph: Graph, norms: Patterns = "*", *, momentum: float = 0.1, unbiased: bool = True) -> Graph:
    """The graph in which these batch norms normalize by the batch, and average its statistics into their running ones.

    norms: patterns over the names of batch norms, or of layers that they are in ("*", "bn1", "layer4"); one that begins
        with "!" takes out again. The others stay frozen: they normalize by statistics that stand still.
    momentum, unbiased: as in layers.batch_norm, the weight of a new batch, and whether the running variance averages
        the unbiased one.

    Names, inputs, outputs and state stay what they were. Running statistics are statistics from now on, also where they
    were parameters. Raises GraphError for a pattern that no batch norm fits, and for a batch norm whose statistics
    cannot move: they are no state, are updated already, or something else reads them.
    """
    expect(isinstance(graph, Graph), "unfreeze needs a Graph, not a {}", type(graph).__name__)
    expect(0 <= finite("momentum", momentum) <= 1, "momentum, the weight of a new batch, is 0 to 1, not {}", momentum)
    frozen = [node for node in graph.nodes if node.op is batch_norm_inference]
    thawing = dict.fromkeys(chosen("frozen batch norm", frozen, norms, _names))
    expect(thawing, "no batch norm is left to unfreeze by {!r}", norms)
    _check_statistics(graph, thawing)
    trained, thawed = _by_batch(graph, thawing)
    builder = Builder.extending(trained)
    for old, node in thawed.items():
        _average(builder, old, node, float(momentum), unbiased)
    return builder.build({name: Tensor(builder, value) for name, value in trained.outputs.items()})


def _names(node: Node) -> list[str]:
    """By which a batch norm is known: layer1.bn2.batch_norm, layer1.bn2, layer1."""
    parts = node.name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _check_statistics(graph: Graph, thawing: Collection[Node]) -> None:
    """Raise GraphError, with a sentence for each, for batch norms whose running statistics cannot move."""
    stuck = {node: why for node in thawing if (why := _why_stuck(graph, node, thawing))}
    if stuck:
        first = next(iter(stuck))
        reasons = "; ".join(f"{node.name}: {why}" for node, why in stuck.items())
        left_out = ", ".join(f'"!{node.name}"' for node in stuck)
        raise GraphError(
            describe(first, f"cannot be unfrozen. {reasons}. Leave out what stays frozen with norms=[{left_out}]")
        )


def _why_stuck(graph: Graph, node: Node, thawing: Collection[Node]) -> str:
    mean, var = node.inputs[3:]
    if mean is var:
        return f"its running mean and variance are one value, {mean.name}"
    states = {variable.value for variable in graph.state}
    for place, value in ((3, mean), (4, var)):
        if value not in states:
            return f"its running statistic {value.name} is computed, and only state can be updated"
        if value in graph.updates:
            return f"its running statistic {value.name} is updated already"
        for reader in graph.readers[value]:
            places = [i for i, read in enumerate(reader.inputs) if read is value]
            if reader not in thawing or places != [place]:
                also = "also as another input of it" if reader is node else f"also by {reader.name}"
                return f"its running statistic {value.name} is read {also}, which would change as it moves"
    return ""


def _by_batch(graph: Graph, thawing: Collection[Node]) -> tuple[Graph, Mapping[Node, Node]]:
    """The graph with the statistics of the batch in these nodes, and what became of each. Names stay."""
    now: dict[Value, Value] = {}
    nodes: list[Node] = []
    thawed: dict[Node, Node] = {}
    for node in graph.nodes:
        inputs = tuple([now.get(value, value) for value in node.inputs])
        if node in thawing:
            nodes.append(_thawed(node, inputs))
            thawed[node] = nodes[-1]
        elif inputs != node.inputs:
            nodes.append(node.reading(inputs, tuple([Value(v.type, v.name) for v in node.outputs])))
        else:
            nodes.append(node)
            continue
        now.update(zip(node.outputs, nodes[-1].outputs))
    statistics = {value for node in thawing for value in node.inputs[3:]}
    state = tuple(replace(v, kind="statistic") if v.value in statistics else v for v in graph.state)
    outputs = {name: now.get(value, value) for name, value in graph.outputs.items()}
    updates = {old: now.get(value, value) for old, value in graph.updates.items()}
    return replace(graph, nodes=tuple(nodes), state=state, outputs=outputs, updates=updates), thawed


def _thawed(node: Node, inputs: Sequence[Value]) -> Node:
    x, gamma, beta = inputs[:3]
    try:
        attrs, types = batch_norm.infer((x.type, gamma.type, beta.type), node.attrs)
    except GraphError as error:
        raise GraphError(describe(node, f"cannot normalize by the batch: {error}")) from None
    names = _output_names(node)
    return Node(batch_norm, (x, gamma, beta), tuple(map(Value, types, names)), attrs, node.name, node.origin)


def _output_names(node: Node) -> Iterable[str]:
    """y is called as it was."""
    return (node.outputs[0].name, *(f"{node.name}.{name}" for name in batch_norm.outputs[1:]))


def _average(builder: Builder, old: Node, node: Node, momentum: float, unbiased: bool) -> None:
    """Updates of the running statistics; a norm that is applied twice moves them twice."""
    x = Tensor(builder, node.inputs[0])
    scope = old.inputs[3].name.rpartition(".")[0] or old.name
    with builder.root(), builder.scope(scope), builder.origin(node.origin, role="statistic"):
        states = [Tensor(builder, value) for value in old.inputs[3:]]
        batch = [Tensor(builder, value) for value in node.outputs[1:]]
        count = count_along(x, other_axes(x.rank, node.attrs["axis"]), states[0].dtype)
        weight = builder.constant(momentum, states[0].dtype)
        for state, statistic, correct in zip(states, batch, (False, unbiased)):
            latest = builder.latest(state)
            builder.update(state, running_average(latest, statistic, count, weight, unbiased=correct))
