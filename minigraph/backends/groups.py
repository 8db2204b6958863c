"""Convolutions in groups, in the groups that kernels are good at.

Depthwise convolutions (each channel by itself) have a kernel; one that makes several results of each channel is made
such a one of the repeated channels. In other groups a kernel multiplies vectors of results, and groups of few channels
would leave most of a vector empty: some neighbours become one group, whose weight is zero wherever two of them meet.

With infinity or NaN among its channels a group spoils those that it is merged with.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from minigraph.backends.layout import Rewriting
from minigraph.core.builder import Tensor
from minigraph.core.dim import known
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.op import OPS
from minigraph.ops.broadcast import broadcast_to, sum
from minigraph.ops.conv import conv, conv_input_gradient, conv_weight_gradient
from minigraph.ops.shape import reshape


def weight_of(node: Node) -> Value:
    """The weight (O, C/groups, *window) of a convolution, or of one of its gradients."""
    return node.outputs[0] if node.op is conv_weight_gradient else node.inputs[1]


def regrouped(graph: Graph, serves: Callable[[Node], bool], least: int) -> Graph:
    """The graph with groups of at least `least` channels and results, or one; and depthwise ones with one of each.

    serves: which nodes a backend's kernels compute then.
    """
    rewriting = Rewriting(graph)
    for node in graph.nodes:
        if node.op not in REPEATED or node.attrs["groups"] == 1 or not serves(node):
            rewriting.keep(node)
            continue
        with rewriting.builder.origin(node.origin):
            result = _regrouped(rewriting, node, least)
        if result is None:
            rewriting.keep(node)
        else:
            rewriting.now[node.outputs[0]] = result.value
    return rewriting.result()


def _regrouped(rewriting: Rewriting, node: Node, least: int) -> Tensor | None:
    rows, columns = _of_each(node)
    if columns == 1:
        return REPEATED[node.op](rewriting, node, rows) if rows > 1 else None
    count = _neighbours(node.attrs["groups"], min(rows, columns), least)
    return MERGED[node.op](rewriting, node, count) if count > 1 else None


def _of_each(node: Node) -> tuple[int, int]:
    """The results and the channels of each group."""
    rows, columns = weight_of(node).type.shape[:2]
    return known(rows, "the number of outputs") // node.attrs["groups"], known(columns, "the number of channels")


def _neighbours(groups: int, size: int, least: int) -> int:
    """How many groups become one: as few as are large enough, of those that divide the groups."""
    return next((n for n in range(1, groups) if groups % n == 0 and n * size >= least), groups)


# several results of each channel


def _repeated(x: Tensor, times: int) -> Tensor:
    """x, channels last, with each channel so often."""
    apart = reshape(x, (*x.shape, 1))
    return reshape(broadcast_to(apart, (*x.shape, times)), (*x.shape[:-1], x.shape[-1] * times))


def _repeated_conv(rewriting: Rewriting, node: Node, times: int) -> Tensor:
    x, w = map(rewriting.tensor, node.inputs)
    return conv(_repeated(x, times), w, **{**node.attrs, "groups": w.shape[0]})


def _repeated_input_gradient(rewriting: Rewriting, node: Node, times: int) -> Tensor:
    g, w = map(rewriting.tensor, node.inputs)
    of_each = conv_input_gradient(g, w, **{**node.attrs, "groups": w.shape[0]})
    return reduce(operator.add, (_every(of_each, first, times) for first in range(times)))


def _every(x: Tensor, first: int, step: int) -> Tensor:
    """Every step-th channel, from the first on."""
    last = x.rank - 1
    start, steps = (*(0,) * last, first), (*(1,) * last, step)
    return OPS["slice"](x, start=start, stop=x.shape, step=steps)


def _repeated_weight_gradient(rewriting: Rewriting, node: Node, times: int) -> Tensor:
    x, g = map(rewriting.tensor, node.inputs)
    return conv_weight_gradient(_repeated(x, times), g, **{**node.attrs, "groups": g.shape[-1]})


REPEATED = {
    conv: _repeated_conv,
    conv_input_gradient: _repeated_input_gradient,
    conv_weight_gradient: _repeated_weight_gradient,
}


# several groups as one


def _where_they_meet(rewriting: Rewriting, blocks: Tensor, count: int) -> Tensor:
    """blocks (groups, count, rows, count, columns, ...), and zero where the two counts differ."""
    one = np.eye(count, dtype=bool).reshape(1, count, 1, count, *(1,) * (blocks.rank - 4))
    return OPS["where"](rewriting.builder.constant(one, "bool"), blocks, 0.0)


def _merged_weight(rewriting: Rewriting, node: Node, count: int) -> Tensor:
    """The weight of the larger groups: those of the small ones stand along its diagonal."""
    w, (rows, columns) = rewriting.tensor(node.inputs[1]), _of_each(node)
    window, groups = w.shape[2:], node.attrs["groups"] // count
    apart = reshape(w, (groups, count, rows, 1, columns, *window))
    blocks = broadcast_to(apart, (groups, count, rows, count, columns, *window))
    return reshape(_where_they_meet(rewriting, blocks, count), (w.shape[0], count * columns, *window))


def _merged(rewriting: Rewriting, node: Node, count: int) -> Tensor:
    first, weight = rewriting.tensor(node.inputs[0]), _merged_weight(rewriting, node, count)
    return node.op(first, weight, **_of_larger(node, count))


def _merged_weight_gradient(rewriting: Rewriting, node: Node, count: int) -> Tensor:
    rows, columns = _of_each(node)
    large = conv_weight_gradient(*map(rewriting.tensor, node.inputs), **_of_larger(node, count))
    window, groups = large.shape[2:], node.attrs["groups"] // count
    blocks = reshape(large, (groups, count, rows, count, columns, *window))
    return reshape(sum(_where_they_meet(rewriting, blocks, count), 3), (large.shape[0], columns, *window))


def _of_larger(node: Node, count: int) -> dict[str, Any]:
    return {**node.attrs, "groups": node.attrs["groups"] // count}


MERGED = {conv: _merged, conv_input_gradient: _merged, conv_weight_gradient: _merged_weight_gradient}
