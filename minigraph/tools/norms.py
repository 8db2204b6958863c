"""What comes into each batch norm of a graph, measured on one batch.

It is measured by a graph of its own, without updates and without dropout, since running statistics have to fit what
inference sees. Batch norms that train normalize by the batch, others by their running statistics, as in that graph.

Standard errors come from the spread between samples: the numbers of one image are too alike to count as so many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigraph.backends.cupy.arrays import at_home
from minigraph.core.builder import Builder, Tensor
from minigraph.core.dtypes import epsilon
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, Node, Value
from minigraph.core.state import State
from minigraph.driver.program import compile
from minigraph.ops.activation import relu6
from minigraph.ops.batch_norm import batch_norm, batch_norm_inference, other_axes
from minigraph.ops.constant import count_along
from minigraph.ops.pointwise import cast, relu
from minigraph.ops.reduce import mean
from minigraph.passes.freeze import averaged_mean, running_statistics, without_dropout


@dataclass(frozen=True, eq=False)
class Measured:
    """A batch norm on one batch. Arrays are float64, one number for each channel.

    mode: "tracked" and "untracked" ones normalize by the batch, "frozen" ones by their running statistics.
    values: how many numbers a channel has in the batch; samples: in how many samples they are.
    mean, var: of what comes in; var is unbiased. mean_error, var_error: their standard errors, NaN of one sample.
    running_mean, running_var: NaN of an untracked one. Where a bias was dropped in front, the mean is without it, too.
    updated: whether the running statistics are others than those they begin with, 0 and 1.
    rounding: to which part of themselves the numbers that come in are rounded.
    cut: a relu is all that reads what goes out.
    """

    name: str
    mode: str
    values: int
    samples: int
    eps: float
    rounding: float
    cut: bool
    updated: bool
    mean: np.ndarray
    var: np.ndarray
    mean_error: np.ndarray
    var_error: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def broken(self) -> np.ndarray:
        """Channels with a statistic or parameter that is NaN or infinite, or a negative running variance."""
        sound = np.ones(self.channels, bool)
        for array in self.named.values():
            sound &= np.isfinite(array)
        return ~sound | (self.running_var < 0)

    @property
    def named(self) -> Mapping[str, np.ndarray]:
        """All statistics and parameters that there are, by their names in words."""
        running = {"running mean": self.running_mean, "running variance": self.running_var}
        own = {"mean": self.mean, "variance": self.var, "gamma": self.gamma, "beta": self.beta}
        return own if self.mode == "untracked" else {**own, **running}

    @property
    def constant(self) -> np.ndarray:
        """Channels whose numbers are all the same, but for their rounding."""
        return np.asarray(np.sqrt(self.var) <= 2 * self.rounding * np.abs(self.mean))

    @property
    def offset(self) -> np.ndarray:
        """|mean| / deviation; NaN for constant channels."""
        with np.errstate(all="ignore"):
            return np.where(self.constant, np.nan, np.abs(self.mean) / np.sqrt(self.var))

    @property
    def over_eps(self) -> np.ndarray:
        """The variance that is divided by / eps."""
        with np.errstate(all="ignore"):
            return (self.running_var if self.mode == "frozen" else self.var) / self.eps

    @property
    def shift(self) -> np.ndarray:
        """(mean - running mean) / running deviation."""
        with np.errstate(all="ignore"):
            return (self.mean - self.running_mean) / np.sqrt(self.running_var + self.eps)

    @property
    def spread(self) -> np.ndarray:
        """log((variance + eps) / (running variance + eps))."""
        with np.errstate(all="ignore"):
            return np.log((self.var + self.eps) / (self.running_var + self.eps))

    @property
    def shift_score(self) -> np.ndarray:
        """How unlikely the shift would be by chance, as a deviation of a normal distribution: see `score`."""
        with np.errstate(all="ignore"):
            deviation = np.sqrt(np.fmax(self.var, self.running_var))  # both are right, if it is chance
            error = typical_at_least(self.mean_error / np.sqrt(self.var)) * deviation
        return score(self.mean - self.running_mean, error, self.samples)

    @property
    def spread_score(self) -> np.ndarray:
        """How unlikely the spread would be by chance. It is the cube root of a variance that is nearly normal (Wilson
        and Hilferty, 1931)."""
        with np.errstate(all="ignore"):
            difference = 3 * (np.exp(self.spread / 3) - 1)
            error = typical_at_least(self.var_error / self.var) * self.var / (self.var + self.eps)
        return score(difference, error, self.samples)


def measure(graph: Graph, state: State, batch: Mapping[str, Any]) -> tuple[Measured, ...]:
    """The batch norms of a model or a training step on one batch, in order. The state stays as it is.

    batch: inputs by name, as a Program takes them; those that no batch norm depends on may be left out. Raises
        GraphError if there is no batch norm, as in a graph whose batch norms were folded, and if it has no samples.
    """
    plain = without_dropout(graph)
    nodes = [node for node in plain.nodes if node.op in (batch_norm, batch_norm_inference)]
    expect(
        nodes,
        "{!r} has no batch norm; those that were folded into the layers in front are gone: give the model or its "
        "training step",
        graph.name,
    )
    running = _running(plain, nodes)
    measuring = _measuring(plain, nodes, running)
    unread = {value.name for value in graph.inputs} - {value.name for value in measuring.inputs}
    program = compile(measuring, state.copy())
    arrays = at_home(program(**{name: array for name, array in batch.items() if name not in unread}))
    found = []
    for i, node in enumerate(nodes):
        prefix = _prefix(i)
        parts = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        found.append(_measured(plain, node, parts))
    return tuple(found)


def _running(graph: Graph, nodes: Sequence[Node]) -> dict[Node, dict[str, Value]]:
    """Running mean and variance of the batch norms that have them, and the biases that were dropped in front."""
    found = {}
    for node in nodes:
        if node.op is batch_norm_inference:
            found[node] = dict(zip(("running_mean", "running_var"), node.inputs[3:5]))
    for node, states in running_statistics(graph).items():
        dropped = {f"dropped.{i}": bias for i, bias in enumerate(averaged_mean(graph, node)[1])}
        found[node] = {**dict(zip(("running_mean", "running_var"), states)), **dropped}
    return found


def _prefix(number: int) -> str:
    return f"norms.{number}."


def _measuring(graph: Graph, nodes: Sequence[Node], running: Mapping[Node, Mapping[str, Value]]) -> Graph:
    """A graph whose outputs are what is to be known of each batch norm, and which updates nothing."""
    builder = Builder.extending(replace(graph, outputs={}, updates={}))
    outputs: dict[str, Tensor] = {}
    for i, node in enumerate(nodes):
        with builder.root(), builder.scope("norms"), builder.origin(node.origin, role="statistic"):
            parts = _sample_moments(Tensor(builder, node.inputs[0]), node.attrs["axis"])
        values = dict(zip(("gamma", "beta"), node.inputs[1:3]))
        values.update(running.get(node, {}))
        parts.update((name, Tensor(builder, value)) for name, value in values.items())
        outputs.update((_prefix(i) + name, tensor) for name, tensor in parts.items())
    return builder.build(outputs).prune()


def _sample_moments(x: Tensor, axis: int) -> dict[str, Tensor]:
    """Of each sample and channel, in float64: the mean, and the mean square of x less the channel's mean."""
    axes = other_axes(x.rank, axis)
    inner = axes[1:]  # the first is that of the samples
    wide = cast(x, "float64")
    deviation = wide - mean(wide, axes, keepdims=True)
    square = deviation * deviation
    return {
        "count": count_along(x, axes, "float64"),
        "means": mean(wide, inner) if inner else wide,
        "squares": mean(square, inner) if inner else square,
    }


def _measured(graph: Graph, node: Node, parts: Mapping[str, np.ndarray]) -> Measured:
    axis, values = node.attrs["axis"], int(parts["count"])
    expect(values > 0, "{!r} got no values: the batch is empty", node.name)
    means, squares = (parts[name].T if axis == 0 else parts[name] for name in ("means", "squares"))  # (samples, C)
    with np.errstate(all="ignore"):
        unbiased = values / (values - 1) if values > 1 else 1.0
        absent = np.full(means.shape[1:], np.nan)
        gamma, beta, running_mean, running_var = (
            np.asarray(parts.get(name, absent), np.float64) for name in ("gamma", "beta", "running_mean", "running_var")
        )
        return Measured(
            name=re.sub(r"\.batch_norm(_inference)?(\.y)?$", "", node.name),
            mode="frozen" if node.op is batch_norm_inference else "tracked" if "running_mean" in parts else "untracked",
            values=values,
            samples=len(means),
            eps=node.attrs["eps"],
            rounding=epsilon(node.inputs[0].type.dtype) / 2,
            cut=_is_cut(graph, node.outputs[0]),
            updated=bool(running_mean.any() or (running_var != 1).any()),
            mean=means.mean(0),
            var=squares.mean(0) * unbiased,
            mean_error=_standard_error(means),
            var_error=_standard_error(squares) * unbiased,
            gamma=gamma,
            beta=beta,
            running_mean=running_mean - sum(array for name, array in parts.items() if name.startswith("dropped.")),
            running_var=running_var,
        )


def _standard_error(samples: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis, if its rows are independent."""
    n = len(samples)
    return samples.std(0, ddof=1) / math.sqrt(n) if n > 1 else np.full(samples.shape[1:], np.nan)


def _is_cut(graph: Graph, y: Value) -> bool:
    """Whether all that reads y in the forward is a relu."""
    readers = [node for node in graph.readers.get(y, ()) if node.origin.role == "forward"]
    return bool(readers) and all(node.op in (relu, relu6) for node in readers) and y not in graph.outputs.values()


def typical_at_least(errors: np.ndarray) -> np.ndarray:
    """The errors of channels, those that are below the median raised to it.

    A few samples without the rare large numbers that a channel has look more certain than they are: the small error
    then comes together with a small variance. The channels of a layer are alike, so the others know better.
    """
    finite = errors[np.isfinite(errors)]
    return np.maximum(errors, np.median(finite)) if finite.size else errors


def score(difference: np.ndarray, error: np.ndarray, samples: int) -> np.ndarray:
    """How far from 0 a difference is, in deviations of a normal distribution that would be as unlikely.

    Student's t of few samples is often large by chance; Wallace's approximation (1959) takes that off. 0 of one sample.
    """
    freedom = samples - 1
    if freedom < 1:
        return np.zeros_like(difference)
    with np.errstate(all="ignore"):
        t = difference / error
        return np.sqrt(freedom * np.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
