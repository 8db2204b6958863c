"""Precise statistics: the running mean and variance of batch norms, computed anew over a pass of the data.

A running average follows the weights while they move: it is of the last few batches, and of weights that are gone. The
statistics that inference should have are those of all the data under the weights as they are (Wu and Johnson, 2021,
"Rethinking 'Batch' in BatchNorm"). One graph computes them: each run of it adds a batch to what was seen before, by the
formula of Chan, Golub and LeVeque (1979). For n numbers of mean m and variance v, after N of mean M and variance V:

    M' = M + n/(N+n) * (m - M)
    V' = V + n/(N+n) * (v + N/(N+n) * (m - M)^2 - V)

These are the mean and the biased variance of all N+n numbers, whatever the sizes of the batches; no large numbers
cancel, as they do in E[x^2] - E[x]^2. N, M and V are held in float64, so that late batches count as much as early ones.

Every batch norm normalizes by its batch here, as in training: what a layer sees then depends on no running statistics,
so one pass is enough for all layers. Dropout is off, as it is in inference: it adds to the variance of what comes
behind it (Li et al., 2019, "Understanding the disharmony between dropout and batch normalization by variance shift"),
and the statistics have to fit what inference will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minigraph.core.builder import Builder, Tensor
from minigraph.core.errors import expect
from minigraph.core.initial import Constant
from minigraph.core.ir import Graph, Node, Value
from minigraph.ops.batch_norm import other_axes, running_average
from minigraph.ops.constant import count_along
from minigraph.ops.pointwise import cast, equal, where
from minigraph.passes.freeze import averaged_mean, averages_of, running_statistics, without_dropout

PREFIX = "precise"


def precise_statistics(model: Graph) -> Graph:
    """The graph that makes the running statistics those of all data that it was run on.

    It has the model's inputs, no outputs, and updates nothing but the running mean and variance of each tracked batch
    norm, and what it has seen so far: precise.bn1.count, .mean and .var, float64 counters, which compile creates. A
    batch norm that is applied twice pools both. The variance is unbiased where the layer's running average is. A batch
    of no samples changes nothing; one that gives a channel a single number is an error, as in training.

    As long as the state has the counters, every run adds to them. `precise_bn` begins anew with each call.
    """
    plain = without_dropout(model)
    applications: dict[tuple[Value, Value], list[Node]] = {}
    for node, states in running_statistics(plain).items():
        applications.setdefault(states, []).append(node)
    expect(applications, "{!r} has no batch norm with running statistics that training updates", model.name)
    builder = Builder.extending(replace(plain, outputs={}, updates={}))
    for (mean, var), nodes in applications.items():
        scope = mean.name.removesuffix(".running_mean")
        origin = builder.origin(nodes[0].origin, role="statistic")
        with builder.root(), builder.scope(PREFIX), builder.scope(scope), origin:
            batches = [_statistics(builder, plain, node) for node in nodes]
            _pool(builder, Tensor(builder, mean), Tensor(builder, var), batches, _is_unbiased(plain, nodes[0]))
    return replace(builder.build({}).prune(), inputs=model.inputs)


def _is_unbiased(graph: Graph, node: Node) -> bool:
    """Whether the running variance of a batch norm averages the unbiased one."""
    return bool(averages_of(graph, node.outputs[2])[0].attrs["unbiased"])


def _statistics(builder: Builder, graph: Graph, node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance of what comes into a batch norm, in float64. A bias that was dropped in front counts."""
    values = node.inputs[0], averaged_mean(graph, node)[0], node.outputs[2]
    x, mean, var = (Tensor(builder, value) for value in values)
    count = count_along(x, other_axes(x.rank, node.attrs["axis"]), "float64")
    return count, cast(mean, "float64"), cast(var, "float64")


def _pool(
    builder: Builder,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    unbiased: bool,
) -> None:
    """Updates that join these statistics to all before, and put them into the state."""
    count = builder.variable("count", (), Constant(0.0), "float64", "counter")
    mean = builder.variable("mean", running_mean.shape, Constant(0.0), "float64", "counter")
    var = builder.variable("var", running_mean.shape, Constant(0.0), "float64", "counter")
    total, pooled_mean, pooled_var = count, mean, var
    for new, batch_mean, batch_var in batches:
        before, total = total, total + new
        between = (batch_mean - pooled_mean) ** 2 * (before / total)
        weight = new / total  # 0 / 0 while there are no numbers at all; a running average of no new ones stays
        pooled_var = running_average(pooled_var, batch_var + between, new, weight)
        pooled_mean = running_average(pooled_mean, batch_mean, new, weight)
    for state, latest in ((count, total), (mean, pooled_mean), (var, pooled_var)):
        builder.update(state, latest)
    estimate = pooled_var * (total / (total - 1.0)) if unbiased else pooled_var
    for state, latest in ((running_mean, pooled_mean), (running_var, estimate)):
        builder.update(state, where(equal(total, 0.0), state, cast(latest, state.dtype)))
