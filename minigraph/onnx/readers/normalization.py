"""Normalization: batch norm in both of its modes, and those within one image or token."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigraph.core.builder import Tensor
from minigraph.core.dim import Shape
from minigraph.core.dtypes import least_normal
from minigraph.core.errors import expect
from minigraph.onnx.call import Call, reads
from minigraph.ops import broadcast
from minigraph.ops.batch_norm import (
    batch_norm,
    batch_norm_inference,
    other_axes,
    running_average,
    statistics_dtype,
)
from minigraph.ops.broadcast import broadcast_to
from minigraph.ops.constant import count_along
from minigraph.ops.norm import group_norm, layer_norm, local_response_norm, rms_norm
from minigraph.ops.pointwise import absolute, cast, div, maximum, sqrt
from minigraph.ops.reduce import mean, var
from minigraph.ops.tile import repeat


def wide(x: Tensor, parameter: Tensor) -> Tensor:
    """A parameter of a norm of x in the dtype of statistics."""
    return cast(parameter, statistics_dtype(x.value.type))


@reads("BatchNormalization")
def read_batch_norm(call: Call) -> Any:
    """Opsets 7 to 13 are in training mode where they give statistics, later ones where they say so.

    ONNX's momentum is the weight of the old average, and the variance that it averages is the biased one. The running
    statistics are outputs, and where they are state it becomes them.
    """
    x = call.tensor(0)
    parameters = [wide(x, call.weight(i, "parameter" if i < 3 else "statistic")) for i in range(1, 5)]
    eps = call.real("epsilon", 1e-5)
    training = call.flag("training_mode") if call.opset >= 14 else call.wants(1)
    if call.opset < 9 and not call.flag("spatial", True):
        expect(not training, "with spatial=0 there is no training mode")
        return _each_place(x, parameters, eps)
    expect(x.rank >= 2, "needs (N, C, ...), got {}", x.value)
    if not training:
        return batch_norm_inference(x, *parameters, eps=eps)
    gamma, beta, *running = parameters
    y, *batch = batch_norm(x, gamma, beta, eps=eps)
    momentum = x.builder.constant(1 - call.real("momentum", 0.9), gamma.dtype)
    count = count_along(x, other_axes(x.rank, 1), gamma.dtype)
    new = [running_average(old, now, count, momentum) for old, now in zip(running, batch)]
    for old, after in zip(running, new):
        if call.net.is_state(old):
            x.builder.update(old, after)
    outputs = [cast(t, call.tensor(3 + i).dtype) for i, t in enumerate(new)]
    return (y, *outputs, *batch)[: len(call.outputs)]


def _each_place(x: Tensor, parameters: list[Tensor], eps: float) -> Tensor:
    """Batch norm with statistics for each place of an image, spatial=0."""
    gamma, beta, average, variance = parameters
    return (x - average) / sqrt(variance + eps) * gamma + beta


@reads("InstanceNormalization")
def instance_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    gamma, beta = wide(x, call.weight(1)), wide(x, call.weight(2))
    return group_norm(x, gamma, beta, groups=x.shape[1], eps=call.real("epsilon", 1e-5))


@reads("GroupNormalization")
def read_group_norm(call: Call) -> Tensor:
    """Up to opset 20 there is a scale for each group, later one for each channel."""
    x, groups = call.tensor(0), call.integer("num_groups")
    gamma, beta = wide(x, call.weight(1)), wide(x, call.weight(2))
    if call.opset < 21:
        expect(isinstance(x.shape[1], int) and groups > 0, "{} has no {} groups", x.value, groups)
        gamma, beta = (repeat(p, x.shape[1] // groups, 0) for p in (gamma, beta))
    return group_norm(x, gamma, beta, groups=groups, eps=call.real("epsilon", 1e-5))


def _like(x: Tensor, parameter: Tensor, shape: Shape) -> Tensor:
    parameter = wide(x, parameter)
    return parameter if parameter.shape == shape else broadcast_to(parameter, shape)


@reads("LayerNormalization")
def read_layer_norm(call: Call) -> Any:
    """Over `axis` and all behind it. Further outputs are the mean, and 1 / deviation."""
    x, eps = call.tensor(0), call.real("epsilon", 1e-5)
    axis = _axis(call, x)
    shape = x.shape[axis:]
    gamma = _like(x, call.weight(1), shape)
    beta = call.weight(2) if call.has(2) else x.builder.constant(np.zeros((), gamma.dtype))
    y = layer_norm(x, gamma, _like(x, beta, shape), axis=axis, eps=eps)
    if not call.wants(1) and not call.wants(2):
        return y
    axes, numbers = tuple(range(axis, x.rank)), cast(x, gamma.dtype)
    deviation = sqrt(var(numbers, axes, keepdims=True) + eps)
    return y, mean(numbers, axes, keepdims=True), div(1.0, deviation)


def _axis(call: Call, x: Tensor) -> int:
    axis = call.integer("axis", -1)
    expect(-x.rank <= axis < x.rank, "axis {} is outside of {}", axis, x.value)
    return axis % x.rank


@reads("RMSNormalization")
def read_rms_norm(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = _axis(call, x)
    return rms_norm(x, _like(x, call.weight(1), x.shape[axis:]), axis=axis, eps=call.real("epsilon", 1e-5))


@reads("LRN")
def read_lrn(call: Call) -> Tensor:
    numbers = {"alpha": call.real("alpha", 1e-4), "beta": call.real("beta", 0.75), "bias": call.real("bias", 1.0)}
    x, size = call.tensor(0), call.integer("size")
    expect(1 <= size <= 1000, "size is from 1 to 1000, not {}", size)
    return local_response_norm(x, size, **numbers)


@reads("LpNormalization")
def lp_norm(call: Call) -> Tensor:
    """x divided by its p-norm along an axis; 0 where that is 0."""
    x, p = call.tensor(0), call.integer("p", 2)
    axis = _axis(call, x)
    expect(p in (1, 2), "p is 1 or 2, not {}", p)
    total = broadcast.sum(absolute(x) if p == 1 else x * x, axis, keepdims=True)
    size = total if p == 1 else sqrt(total)
    return x / maximum(size, least_normal(x.dtype))


@reads("MeanVarianceNormalization")
def mean_variance(call: Call) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over the axes, by default all but the channels'."""
    x = call.tensor(0)
    axes = tuple(axis % x.rank for axis in call.ints("axes", (0, 2, 3)))
    deviation = sqrt(var(x, axes, keepdims=True))
    return (x - mean(x, axes, keepdims=True)) / (deviation + 1e-9)
