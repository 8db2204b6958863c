"""take-running-statistics, leave-out-dropout."""

from __future__ import annotations

from collections.abc import Mapping

import minigraph as mg
from minigraph import layers
from minigraph.core.builder import Builder, Tensor
from rules import Case, Near, number


def tracked(net: Builder) -> Mapping[str, Tensor]:
    return {"y": mg.relu(layers.batch_norm(net.input("x", (2, 3, 2)), eps=0.5, name="bn"))}


def evaluated(net: Builder) -> Mapping[str, Tensor]:
    x = net.input("x", (2, 3, 2))
    names = ("bn.gamma", "bn.beta", "bn.running_mean", "bn.running_var")
    gamma, beta, mean, var = (mg.reshape(number(net, name, 3), (3, 1)) for name in names)
    return {"y": mg.relu((x - mean) / mg.sqrt(var + 0.5) * gamma + beta)}


def untracked(net: Builder) -> Mapping[str, Tensor]:
    return {"y": layers.batch_norm(net.input("x", (2, 3)), track=False)}


def dropped(net: Builder) -> Mapping[str, Tensor]:
    return {"y": mg.tanh(layers.dropout(net.input("x", (2, 3)), 0.25))}


CASES = {
    "take-running-statistics": Case(
        build=tracked,
        golden="""
            bn.batch_norm.y: float32[2, 3, 2] = batch_norm_inference(x, bn.gamma, bn.beta, bn.running_mean, bn.running_var, eps=0.5)
            bn.fill: float32[] = fill(value=4.0)
            bn.fill2: float32[] = fill(value=0.1)
            bn.running_average: float32[3] = running_average(bn.running_mean, bn.running_mean, bn.fill, bn.fill2)
            bn.running_average2: float32[3] = running_average(bn.running_var, bn.running_var, bn.fill, bn.fill2, unbiased=True)
            relu: float32[2, 3, 2] = relu(bn.batch_norm.y)
            output y = relu
            update bn.running_mean <- bn.running_average
            update bn.running_var <- bn.running_average2
            """,  # noqa: E501
        near={"it keeps running statistics": Near(untracked, fails=TypeError)},  # there is nothing to take
        meant=evaluated,
    ),
    "leave-out-dropout": Case(
        build=dropped,
        golden="""
            random.fill: int64[] = fill(value=1, dtype="int64")
            random.add: int64[] = add(random.step, random.fill)
            tanh: float32[2, 3] = tanh(x)
            output y = tanh
            update random.step <- random.add
            """,
        meant=lambda net: {"y": mg.tanh(net.input("x", (2, 3)))},
    ),
}
