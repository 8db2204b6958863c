"""Freeze: from the graph that is trained to the graph that answers.

Batch norm takes its running statistics instead of the batch's, dropout lets everything through, and what only the
updates needed goes with them.
"""

from __future__ import annotations

from collections.abc import Mapping

from minigraph.core.builder import Tensor
from minigraph.core.errors import GraphError
from minigraph.core.ir import Graph, Node, Value, describe
from minigraph.core.pattern import values
from minigraph.core.rewrite import Condition, Match, Rule, rewrite
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, running_average
from minigraph.ops.random import dropout


def running_statistics(graph: Graph) -> Mapping[Node, tuple[Value, Value]]:
    """For each training batch norm that is tracked: the state of its running mean and of its running variance.

    They are found through the graph, by following what the batch's statistics are averaged into.
    """
    found = {}
    for node in graph.nodes:
        if node.op is batch_norm:
            states = [_state_of(graph, statistic) for statistic in node.outputs[1:]]
            if states[0] is not None and states[1] is not None:
                found[node] = (states[0], states[1])
    return found


def _state_of(graph: Graph, statistic: Value) -> Value | None:
    for reader in graph.readers.get(statistic, ()):
        if reader.op is running_average and reader.inputs[1] is statistic:
            running = reader.inputs[0]
            while running in graph.producer:  # a batch norm used twice: its second average goes on from its first
                before = graph.producer[running]
                if before.op is not running_average:
                    break
                running = before.inputs[0]
            if any(variable.value is running for variable in graph.state):
                return running
    return None


def freeze(graph: Graph) -> Graph:
    """The graph without updates, with running statistics and without dropout.

    A batch norm that is not tracked stays. Batch statistics that are outputs become the running ones. Raises GraphError
    where a node computes with them, as gradients that are part of the model do: differentiate the frozen graph instead.
    """
    statistics = running_statistics(graph)
    readers = graph.prune(updates=False).readers
    for node in statistics:
        for statistic in node.outputs[1:]:
            other = next((reader for reader in readers.get(statistic, ()) if reader.op is not running_average), None)
            if other is not None:
                raise GraphError(
                    describe(
                        other, f"computes with the batch statistics of {node.name}, which a frozen graph does not have"
                    )
                )

    return rewrite(graph, RULES).prune(updates=False)


def _running(match: Match) -> tuple[Value, Value] | None:
    """The states of the running statistics of the match's batch norm."""
    if "running" not in match.walk.memo:
        found = running_statistics(match.walk.source)
        match.walk.memo["running"] = {node.outputs[0]: states for node, states in found.items()}
    found = match.walk.memo["running"]
    return next((found[y] for y in match.walk.originals(match.node.outputs[0]) if y in found), None)


def _with_running(match: Match, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, var = map(match.tensor, _running(match))  # type: ignore[arg-type]
    return batch_norm_inference(x, gamma, beta, mean, var, **match.node.attrs), mean, var


x, gamma, beta, seed, step = values("x gamma beta seed step")

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
    Rule(
        "leave-out-dropout",
        "in evaluation, dropout(x) = x",
        dropout(x, seed, step),
        lambda match, x, seed, step: x,
    ),
)
