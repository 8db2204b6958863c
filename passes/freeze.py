"""Freeze: from the graph that is trained to the graph that answers.

Batch norm takes its running statistics instead of the batch's, dropout lets everything through, and what only the
updates needed goes with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from minigraph.core.builder import Tensor
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Value, describe, needed
from minigraph.core.pattern import values
from minigraph.core.rewrite import Condition, Match, Rule, rewrite
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, running_average
from minigraph.ops.pointwise import add
from minigraph.ops.random import dropout


def running_statistics(graph: Graph) -> Mapping[Node, tuple[Value, Value]]:
    """For each training batch norm that is tracked: the state of its running mean and of its running variance.

    They are found through the graph, by following what the batch's statistics are averaged into.
    """
    found = {}
    for node in graph.nodes:
        if node.op is batch_norm:
            states = [_state_of(graph, averaged_mean(graph, node)[0]), _state_of(graph, node.outputs[2])]
            if states[0] is not None and states[1] is not None:
                found[node] = (states[0], states[1])
    return found


def _state_of(graph: Graph, statistic: Value) -> Value | None:
    for average in averages_of(graph, statistic):
        running = average.inputs[0]
        while running in graph.producer:  # a batch norm used twice: its second average goes on from its first
            before = graph.producer[running]
            if before.op is not running_average:
                break
            running = before.inputs[0]
        variable = graph.variables.get(running.name)
        if variable is not None and variable.value is running:
            return running
    return None


def averages_of(graph: Graph, value: Value) -> list[Node]:
    """The running averages that take the value up."""
    return [r for r in graph.readers.get(value, ()) if r.op is running_average and r.inputs[1] is value]


def averaged_mean(graph: Graph, node: Node) -> tuple[Value, tuple[Value, ...]]:
    """What is averaged as the mean of a batch norm, and the shifts in it: biases that were dropped before the norm."""
    value, shifts = node.outputs[1], []
    for total in _sums(graph, node):
        shifts.append(total.inputs[1] if total.inputs[0] is value else total.inputs[0])
        value = total.outputs[0]
    return value, tuple(shifts)


def _sums(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The sums that are averaged in place of a batch norm's mean, as ((mean + shift) + another shift)."""
    found: list[Node] = []
    inputs, value = set(graph.inputs), node.outputs[1]
    while not averages_of(graph, value):
        readers = [reader for reader in graph.readers.get(value, ()) if reader.op is add]
        if len(readers) != 1:
            return ()
        shifts = [v for v in readers[0].inputs if v is not value]
        if any(v in inputs for v in made_from(graph, shifts)):  # no shift, but another number for each batch
            return ()
        found.append(readers[0])
        value = readers[0].outputs[0]
    return tuple(found)


def made_from(graph: Graph, values: Iterable[Value]) -> Iterator[Value]:
    """These values and all that they are computed from, each once."""
    waiting, seen = list(values), set()
    while waiting:
        value = waiting.pop()
        if value not in seen:
            seen.add(value)
            yield value
            if value in graph.producer:
                waiting += graph.producer[value].inputs


def without_dropout(graph: Graph) -> Graph:
    """The graph in which dropout lets everything through, with its outputs and updates."""
    return rewrite(graph, (LEAVE_OUT_DROPOUT,))


def freeze(graph: Graph) -> Graph:
    """The graph without updates, with running statistics and without dropout.

    A batch norm that is not tracked stays. Batch statistics that are outputs become the running ones. Raises GraphError
    where a node computes with them, as gradients that are part of the model do: differentiate the frozen graph instead.
    """
    statistics = running_statistics(graph)
    readers = graph.prune(updates=False).readers
    for node in statistics:
        sums = _sums(graph, node)
        for statistic in (*node.outputs[1:], *(total.outputs[0] for total in sums)):
            found = (r for r in readers.get(statistic, ()) if r.op is not running_average and r not in sums)
            other = next(found, None)
            if other is not None:
                raise GraphError(
                    describe(
                        other, f"computes with the batch statistics of {node.name}, which a frozen graph does not have"
                    )
                )

    return rewrite(_shifts_first(graph, statistics), RULES).prune(updates=False)


def _shifts_first(graph: Graph, norms: Iterable[Node]) -> Graph:
    """The graph with the shifts in the norms' means before the norms, which are going to read them."""
    shifts = [shift for node in norms for shift in averaged_mean(graph, node)[1]]
    first, _ = needed(graph.nodes, shifts)
    moved = set(first)
    return replace(graph, nodes=(*first, *(node for node in graph.nodes if node not in moved))) if moved else graph


def _running(match: Match) -> tuple[Value, Value, tuple[Value, ...]] | None:
    """The states of the running statistics of the match's batch norm, and the shifts in its mean."""
    graph = match.walk.source
    if "running" not in match.walk.memo:
        found = running_statistics(graph)
        match.walk.memo["running"] = {
            node.outputs[0]: (*states, averaged_mean(graph, node)[1]) for node, states in found.items()
        }
    found = match.walk.memo["running"]
    return next((found[y] for y in match.walk.originals(match.node.outputs[0]) if y in found), None)


def _with_running(match: Match, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *states, shifts = _running(match)  # type: ignore[misc]
    mean, var = map(match.tensor, states)
    for shift in shifts:
        mean = mean - match.tensor(match.walk.now(shift))
    return batch_norm_inference(x, gamma, beta, mean, var, **match.node.attrs), mean, var


x, gamma, beta, seed, step = values("x gamma beta seed step")

LEAVE_OUT_DROPOUT = Rule(
    "leave-out-dropout",
    "in evaluation, dropout(x) = x",
    dropout(x, seed, step),
    lambda match, x, seed, step: x,
)

RULES = (
    Rule(
        "take-running-statistics",
        "in evaluation, batch_norm(x) is batch_norm_inference(x, running mean, running variance)",
        batch_norm(x, gamma, beta),
        _with_running,
        sound=(
            Condition(
                "it keeps running statistics",
                lambda match: "" if _running(match) else f"{match.node.name} keeps no running statistics",
            ),
        ),
    ),
    LEAVE_OUT_DROPOUT,
)
